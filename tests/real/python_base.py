"""What an image with Python is built from where no registry is reached: a base of Debian's packages, and wheels."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import kept
from .container import Containers
from .requirement import need, need_tool

PATIENCE_S = 300
_DEBIAN = "a Debian 12 machine, as root, after apt-get update"
# How the machine reaches its mirror; nothing of it is left in the base.
_REACH = re.compile(r"^Acquire::(https?|Check-|Retries|Force).*$", re.MULTILINE)
_NO_DOCUMENTS = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
_FORGET_MIRROR = 'rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap'
_TELL_VERSION = """chroot "$1" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"{}" """


@dataclass(frozen=True)
class PythonBase:
    """An image with Python and venv, as an OCI archive, and the version of its Python, such as 3.11."""

    archive: Path
    version: str


def python_base() -> PythonBase:
    """The base with Debian's own Python, from the cache after the first time."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    folder = kept(f"python-base-{codename}", lambda scratch: _make_base(codename, scratch))
    return PythonBase(folder / "image.tar", (folder / "version").read_text().strip())


def wheels(requirements: Path, more: Sequence[str], version: str) -> Path:
    """A folder with the wheels of a requirements file for a version of Python, from the cache after the first time."""
    # Of conditions pip asks the Python that it runs on, and not the one that is meant.
    wanted = [line.partition(";")[0].strip() for line in requirements.read_text().splitlines() if line[:1] != "#"]
    wanted += more
    name = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    return kept(f"wheels-{version}/{name}", lambda scratch: _download(wanted, version, scratch))


def _make_base(codename: str, scratch: Path) -> Path:
    made = scratch / "made"
    made.mkdir()
    (scratch / "reach").write_text("".join(f"{line[0]}\n" for line in _REACH.finditer(_run("apt-config", "dump"))))
    hooks = [_TELL_VERSION.format(made / "version"), _FORGET_MIRROR]
    _run(
        need_tool("mmdebstrap", "apt-get install mmdebstrap"),
        *("--quiet", "--variant=essential", "--include=python3,python3-venv", f"--aptopt={scratch / 'reach'}"),
        *_NO_DOCUMENTS,
        *(f"--customize-hook={hook}" for hook in hooks),
        *(codename, str(scratch / "root.tar"), _mirror(codename)),
    )
    with Containers(scratch) as containers:
        containers.checked("import", str(scratch / "root.tar"), "python-base")
        containers.checked("save", "--format=oci-archive", f"--output={made / 'image.tar'}", "python-base")
    return made


def _mirror(codename: str) -> str:
    """Where this machine gets the packages of its own release from."""
    need_tool("apt-get", _DEBIAN)
    listed = _run("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Identifier: Packages")
    found = [line.split()[2] for line in listed.splitlines() if line.startswith(f"Debian {codename} ")]
    need("a mirror of this Debian", bool(found), _DEBIAN)
    return found[0]


def _download(wanted: Sequence[str], version: str, scratch: Path) -> Path:
    made = scratch / "made"
    target = ["--only-binary=:all:", f"--python-version={version}", f"--dest={made}"]
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", *target, "--no-deps", *wanted],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    need("the image's Python packages", got.returncode == 0, f"a network in which pip works ({got.stderr[-300:]})")
    return made


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
