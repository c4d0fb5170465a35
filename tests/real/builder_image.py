"""The image of the Pods that build images: buildah of Debian's packages, with what a build in a Pod stands on."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import kept
from .python_base import _FORGET_MIRROR, _NO_DOCUMENTS, _REACH, _mirror, _run
from .requirement import need_tool
from .skopeo import access, skopeo

if TYPE_CHECKING:
    from .registry import Registry

# runc stands for all that can run containers, one of which buildah's package demands.
_PACKAGES = ("buildah", "runc", "ca-certificates")


def builder_archive() -> Path:
    """The image as an OCI archive, from the cache after the first time."""
    version = hashlib.sha256(repr((codename(), _PACKAGES)).encode()).hexdigest()[:12]
    return kept(f"builder-image-{version}.tar", _make)


def push_builder_image(registry: Registry, repository: str = "builder", tag: str = "1") -> str:
    """Push the image, and return its reference."""
    return push_archive(registry, builder_archive(), repository, tag)


def codename() -> str:
    """The Debian of this machine, such as bookworm."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def debian_root(scratch: Path, packages: Iterable[str], hooks: Iterable[str] = ()) -> Path:
    """A tar of what packages stand on, and they; hooks are lines of shell to which the folder of it all is $1."""
    (scratch / "reach").write_text("".join(f"{line[0]}\n" for line in _REACH.finditer(_run("apt-config", "dump"))))
    _run(
        need_tool("mmdebstrap", "apt-get install mmdebstrap"),
        *("--quiet", "--variant=essential", f"--include={','.join(packages)}", f"--aptopt={scratch / 'reach'}"),
        *_NO_DOCUMENTS,
        *(f"--customize-hook={hook}" for hook in (*hooks, _FORGET_MIRROR)),
        *(codename(), str(scratch / "root.tar"), _mirror(codename())),
    )
    return scratch / "root.tar"


def pack_image(root: Path, image: Path) -> Path:
    """An OCI archive of an image whose only layer is the tar."""
    _skopeo("copy", "--quiet", f"tarball:{root}", f"oci-archive:{image}")
    return image


def push_archive(registry: Registry, archive: Path, repository: str, tag: str) -> str:
    """Push the image of an OCI archive, and return its reference."""
    reference = f"{registry.host}/{repository}:{tag}"
    with tempfile.TemporaryDirectory() as scratch:
        trust = access(registry, registry.authfile(Path(scratch, "auth.json")), "dest-")
        _skopeo("copy", "--quiet", *trust, f"oci-archive:{archive}", f"docker://{reference}")
    return reference


def _make(scratch: Path) -> Path:
    # What is missing is told before minutes are spent.
    need_tool("skopeo", "apt-get install skopeo")
    return pack_image(debian_root(scratch, _PACKAGES), scratch / "image.tar")


def _skopeo(*arguments: str) -> None:
    done = skopeo(*arguments)
    if done.returncode:
        raise RuntimeError(f"skopeo {arguments[0]} ended {done.returncode}: {done.stderr}")
