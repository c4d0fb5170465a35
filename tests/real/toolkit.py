"""Driver toolkit images like those of OpenShift, made of Debian's packages: compiler, headers and sign-file."""

from __future__ import annotations

import json
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import kept
from .kmod import headers
from .python_base import _FORGET_MIRROR, _NO_DOCUMENTS, _REACH, _mirror, _run
from .requirement import need_tool
from .skopeo import access, skopeo

if TYPE_CHECKING:
    from .registry import Registry

_PACKAGES = "gcc-12,make,libelf1,libssl3,kmod,binutils"


def push_toolkit(registry: Registry, repository: str, tag: str, kernels: Sequence[str]) -> str:
    """Push the driver toolkit of the kernels and return its reference. The first kernel is the standard one."""
    archive = kept(f"toolkits/{'+'.join(kernels)}.tar", lambda scratch: _make(kernels, scratch))
    reference = f"{registry.host}/{repository}:{tag}"
    with tempfile.TemporaryDirectory() as scratch:
        trust = access(registry, registry.authfile(Path(scratch, "auth.json")), "dest-")
        done = skopeo("copy", "--quiet", *trust, f"oci-archive:{archive}", f"docker://{reference}")
    if done.returncode:
        raise RuntimeError(f"skopeo copy exited with {done.returncode}: {done.stderr}")
    return reference


def _make(kernels: Sequence[str], scratch: Path) -> Path:
    need_tool("skopeo", "apt-get install skopeo")
    root, image = scratch / "root.tar", scratch / "image.tar"
    base = kept("toolkit-base.tar", _make_base)
    subprocess.run(["cp", str(base), str(root)], check=True)
    release = {
        "KERNEL_VERSION": kernels[0],
        "RT_KERNEL_VERSION": kernels[1] if len(kernels) > 1 else "",
        "RHEL_VERSION": "12",
    }
    (scratch / "release.json").write_text(json.dumps(release))
    with tarfile.open(root, "a") as archive:
        for kernel in kernels:
            _add_headers(archive, kernel)
        archive.add(scratch / "release.json", "etc/driver-toolkit-release.json")
    done = skopeo("copy", "--quiet", f"tarball:{root}", f"oci-archive:{image}")
    if done.returncode:
        raise RuntimeError(f"skopeo copy exited with {done.returncode}: {done.stderr}")
    return image


def _make_base(scratch: Path) -> Path:
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    (scratch / "reach").write_text("".join(f"{line[0]}\n" for line in _REACH.finditer(_run("apt-config", "dump"))))
    _run(
        need_tool("mmdebstrap", "apt-get install mmdebstrap"),
        *("--quiet", "--variant=essential", f"--include={_PACKAGES}", f"--aptopt={scratch / 'reach'}"),
        *_NO_DOCUMENTS,
        *(f"--customize-hook={hook}" for hook in (_FORGET_MIRROR, 'ln -s gcc-12 "$1/usr/bin/gcc"')),
        *(codename, str(scratch / "root.tar"), _mirror(codename)),
    )
    return scratch / "root.tar"


def _add_headers(archive: tarfile.TarFile, kernel: str) -> None:
    """Add the unpacked headers, with links from the folders in which OpenShift's toolkit and makefiles look."""
    tree = headers(kernel).parents[2]
    present = set(archive.getnames())
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if name.startswith(("usr/src/", "usr/lib/")) and name not in present and f"./{name}" not in present:
            archive.add(path, name, recursive=False)
    places = {f"usr/src/kernels/{kernel}": f"../linux-headers-{kernel}",
              f"usr/lib/modules/{kernel}/build": f"/usr/src/kernels/{kernel}"}  # fmt: skip
    for name, target in places.items():
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
        archive.addfile(entry)
