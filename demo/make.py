"""Build demo/images, the OCI layout of the demo, from Debian's packages and demo/sources: python3 -m demo.make."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.real.layout import OCI_CONFIG, OCI_MANIFEST, Blob, Image, Member, folder, layer, symlink, write_layout

KERNEL = "6.1.0-56-amd64"
OLD_KERNEL = "6.1.0-47-amd64"
KBUILD = "linux-kbuild-6.1"
RELEASE = "4.99.0"

RELEASE_NAME = f"quay.io/openshift-release-dev/ocp-release:{RELEASE}-x86_64"
PART_NAME = "quay.io/openshift-release-dev/ocp-v4.0-art-dev@"
KMOD_NAME = "registry.example/kmods/"

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
IMAGES = HERE / "images"
NO_DEBUG_INFO = "KCFLAGS=-g0"  # debug information contains the folder of the build, which differs each time
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "KCONFIG_NOTIMESTAMP": "1"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return the output of a command. If the command fails, end the build with its output."""
    result = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode:
        line = " ".join(map(str, command))
        sys.exit(f"{line}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


@dataclass(frozen=True)
class Headers:
    """Debian's kernel headers, unpacked and not installed."""

    root: Path
    """The folder of the unpacked packages."""

    def folder(self, kernel: str) -> Path:
        """Return the headers folder of a kernel, for make -C."""
        return self.root / "usr/src" / f"linux-headers-{kernel}"


def unpack_headers(work: Path, kernels: Sequence[str]) -> Headers:
    """Download the headers of the kernels with apt and unpack them. Adapt their paths to the folder."""
    names = [KBUILD]
    for kernel in kernels:
        names += [f"linux-headers-{kernel}", f"linux-headers-{kernel.rpartition('-')[0]}-common"]
    packages, headers = work / "packages", Headers(work / "headers")
    packages.mkdir()
    run("apt-get", "-o", "APT::Sandbox::User=root", "download", *names, cwd=packages)
    for package in sorted(packages.iterdir()):
        print(run("dpkg-deb", "--show", package).strip().replace("\t", " "))
        run("dpkg-deb", "--extract", package, headers.root)
    for kernel in kernels:
        makefile = headers.folder(kernel) / "Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", f"{headers.root}/usr/src/"))
    return headers


def compile_kmod(headers: Headers, kernel: str, module: str, work: Path) -> Path:
    """Compile demo/sources/<module> for the kernel. Return the path of the kmod."""
    build = work / "build" / kernel / module
    shutil.copytree(SOURCES / module, build)
    run("make", "-C", headers.folder(kernel), f"M={build}", NO_DEBUG_INFO, "modules")
    return build / f"{module}.ko"


def tree(root: Path) -> Iterator[Member]:
    """Yield the folders, links and files below root as entries of a layer, sorted by name."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            yield symlink(name, path.readlink().as_posix())
        elif path.is_dir():
            yield folder(name)
        else:
            yield Member(name, path.read_bytes(), mode=0o755 if os.access(path, os.X_OK) else 0o644)


def image(layers: Sequence[Blob], labels: Mapping[str, str] | None = None) -> Image:
    """Return an image that container engines accept: its config has the digests of the decompressed layers."""
    digests = ["sha256:" + hashlib.sha256(gzip.decompress(blob.data)).hexdigest() for blob in layers]
    body = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": dict(labels or {})},
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    config = Blob(json.dumps(body).encode(), OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [blob.descriptor() for blob in layers],
    }
    return Image(Blob(json.dumps(manifest).encode(), OCI_MANIFEST), [config, *layers])


def shell_layer(work: Path) -> Blob:
    """Return the base layer of the kmod images: a static busybox as sh, cp and mkdir. Nodes need no other programs."""
    source, root = work / "busybox", work / "shell"
    (description,) = (SOURCES / "busybox").glob("*.dsc")
    run("dpkg-source", "--extract", description, source)
    shutil.copy(SOURCES / "busybox/busybox.config", source / ".config")
    run("make", "oldconfig", cwd=source)
    run("make", f"-j{os.cpu_count()}", "CC=musl-gcc", cwd=source)
    (root / "bin").mkdir(parents=True)
    shutil.copy(source / "busybox", root / "bin/busybox")
    for name in ("cp", "mkdir", "sh"):
        (root / "bin" / name).symlink_to("busybox")
    return layer(tree(root))


def kmod_layer(kmod: Path, kernel: str, place: str, work: Path) -> Blob:
    """Return a layer with the kmod at a place in the kernel's folder, and with modprobe's index of the folder."""
    root = work / "stage" / kernel / kmod.stem
    target = root / "opt/lib/modules" / kernel / place
    target.parent.mkdir(parents=True)
    shutil.copy(kmod, target)
    if target.suffix == ".xz":
        target.write_bytes(kmod.read_bytes())
        run("xz", "--check=crc32", "--suffix=.xz", "--force", target.rename(target.with_suffix("")))
    run("depmod", "-b", root / "opt", kernel)
    print(run("modprobe", "-d", root / "opt", "-S", kernel, "--show-depends", kmod.stem).replace(f"{root}", "").strip())
    return layer(tree(root))


def toolkit_image(headers: Headers) -> Image:
    """Return a driver toolkit image with symbols, configuration and name of the new kernel."""
    source, target = headers.folder(KERNEL), f"usr/src/kernels/{KERNEL}"
    files = ["Module.symvers", ".config", "include/generated/utsrelease.h"]
    parents = ["usr", "usr/src", "usr/src/kernels", target, f"{target}/include", f"{target}/include/generated"]
    kernel = [Member(f"{target}/{name}", (source / name).read_bytes()) for name in files]
    toolkit_release = json.dumps({"KERNEL_VERSION": KERNEL, "RT_KERNEL_VERSION": "", "RHEL_VERSION": "12"}) + "\n"
    return image(
        [
            layer([*map(folder, parents), *kernel]),
            layer([folder("etc"), Member("etc/driver-toolkit-release.json", toolkit_release.encode())]),
        ],
        {"name": "driver-toolkit", "io.openshift.os.streamclass": "debian-12"},
    )


def release_image(parts: Mapping[str, str]) -> Image:
    """Return a release image. Its image-references name the parts by digest."""
    tags = [{"name": name, "from": {"kind": "DockerImage", "name": PART_NAME + parts[name]}} for name in sorted(parts)]
    references = {
        "kind": "ImageStream",
        "apiVersion": "image.openshift.io/v1",
        "metadata": {"name": RELEASE},
        "spec": {"lookupPolicy": {"local": False}, "tags": tags},
    }
    metadata = {"kind": "cincinnati-metadata-v0", "version": RELEASE, "previous": []}
    members = [
        folder("release-manifests"),
        Member("release-manifests/image-references", json.dumps(references, indent=2).encode()),
        Member("release-manifests/release-metadata", json.dumps(metadata, indent=2).encode()),
    ]
    return image([layer(members)], {"io.openshift.release": RELEASE})


def kmod_images(headers: Headers, work: Path) -> dict[str, Image]:
    """Return the module images by the names that manifests use."""
    shell = shell_layer(work)
    kmods = [
        ("hello", KERNEL, "extra/hello.ko"),
        ("hello", OLD_KERNEL, "extra/hello.ko"),
        ("ring-buffer", KERNEL, "ring-buffer.ko.xz"),
    ]
    images = {}
    for module, kernel, place in kmods:
        kmod = compile_kmod(headers, kernel, module, work)
        images[f"{KMOD_NAME}{module}:{kernel}"] = image([shell, kmod_layer(kmod, kernel, place, work)])
    return images


def main() -> None:
    """Build all images. Replace the old images only after every new image is built."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        headers = unpack_headers(work, [KERNEL, OLD_KERNEL])
        toolkit = toolkit_image(headers)
        not_shipped = "sha256:" + hashlib.sha256(b"the cli is not part of the demo").hexdigest()
        release = release_image({"cli": not_shipped, "driver-toolkit": toolkit.digest})
        images = {RELEASE_NAME: release, PART_NAME + toolkit.digest: toolkit, **kmod_images(headers, work)}
    shutil.rmtree(IMAGES, ignore_errors=True)
    write_layout(IMAGES, images)


if __name__ == "__main__":
    main()
