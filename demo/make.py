"""Makes demo/images, the OCI layout of the demo, from Debian's packages and demo/sources: python3 -m demo.make."""

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
NO_DEBUG_INFO = "KCFLAGS=-g0"  # it would name the folder of the build, which is another one every time
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "KCONFIG_NOTIMESTAMP": "1"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a command; one that fails ends the build with all that it said."""
    result = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode:
        line = " ".join(map(str, command))
        sys.exit(f"{line}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


@dataclass(frozen=True)
class Headers:
    """Debian's kernel headers, unpacked below root and not installed."""

    root: Path

    def folder(self, kernel: str) -> Path:
        """The folder of one kernel, the one that make -C is given."""
        return self.root / "usr/src" / f"linux-headers-{kernel}"


def unpack_headers(work: Path, kernels: Sequence[str]) -> Headers:
    """The headers of the kernels, downloaded by apt and made to find each other below work."""
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


def compiled(headers: Headers, kernel: str, module: str, work: Path) -> Path:
    """The kmod of demo/sources/<module> for the kernel."""
    build = work / "build" / kernel / module
    shutil.copytree(SOURCES / module, build)
    run("make", "-C", headers.folder(kernel), f"M={build}", NO_DEBUG_INFO, "modules")
    return build / f"{module}.ko"


def tree(root: Path) -> Iterator[Member]:
    """The folders, links and files below root in the order of their names, as entries of a layer."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            yield symlink(name, path.readlink().as_posix())
        elif path.is_dir():
            yield folder(name)
        else:
            yield Member(name, path.read_bytes(), mode=0o755 if os.access(path, os.X_OK) else 0o644)


def image(layers: Sequence[Blob], labels: Mapping[str, str] | None = None) -> Image:
    """An image that engines take too: unlike the writer's own, its config names what the layers unpack to."""
    digests = ["sha256:" + hashlib.sha256(gzip.decompress(one.data)).hexdigest() for one in layers]
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
        "layers": [one.descriptor() for one in layers],
    }
    return Image(Blob(json.dumps(manifest).encode(), OCI_MANIFEST), [config, *layers])


def shell_layer(work: Path) -> Blob:
    """The layer below every kmod: a static busybox that is sh, cp and mkdir, all that a node runs of such an image."""
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
    """A layer with the kmod at a place in the kernel's folder, and with the index by which modprobe finds it."""
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
    """A driver toolkit: the symbols, the configuration and the name of the new kernel."""
    source, target = headers.folder(KERNEL), f"usr/src/kernels/{KERNEL}"
    files = ["Module.symvers", ".config", "include/generated/utsrelease.h"]
    parents = ["usr", "usr/src", "usr/src/kernels", target, f"{target}/include", f"{target}/include/generated"]
    kernel = [Member(f"{target}/{name}", (source / name).read_bytes()) for name in files]
    said = json.dumps({"KERNEL_VERSION": KERNEL, "RT_KERNEL_VERSION": "", "RHEL_VERSION": "12"}) + "\n"
    return image(
        [
            layer([*map(folder, parents), *kernel]),
            layer([folder("etc"), Member("etc/driver-toolkit-release.json", said.encode())]),
        ],
        {"name": "driver-toolkit", "io.openshift.os.streamclass": "debian-12"},
    )


def release_image(parts: Mapping[str, str]) -> Image:
    """A release image whose image-references name the parts by digest."""
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
    """The module images, each under the name by which a manifest calls it."""
    shell = shell_layer(work)
    kmods = [
        ("hello", KERNEL, "extra/hello.ko"),
        ("hello", OLD_KERNEL, "extra/hello.ko"),
        ("ring-buffer", KERNEL, "ring-buffer.ko.xz"),
    ]
    found = {}
    for module, kernel, place in kmods:
        kmod = compiled(headers, kernel, module, work)
        found[f"{KMOD_NAME}{module}:{kernel}"] = image([shell, kmod_layer(kmod, kernel, place, work)])
    return found


def main() -> None:
    """Makes all images and, when every one is made, puts them in place of the old ones."""
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
