"""KMM's worker as a node runs it: the image's shell makes a copy, then kmod's own modprobe reads the copy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from .layout import Member, tar
from .requirement import need, need_tool

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
# Python before 3.11.4 has no filters and keeps owners and modes. Since 3.14 this filter must be requested.
_AS_ROOT: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}


@dataclass(frozen=True)
class ModprobeOutput:
    """The output of modprobe for one name."""

    paths: tuple[str | None, ...]
    """Real paths of the files that modprobe would load, in order. A path without a file is None."""
    text: str
    """The output itself."""


class Root:
    """A folder that is the root of processes. It has Debian's kmod with its libraries, and busybox as a shell."""

    def __init__(self, folder: Path, like: Root | None = None) -> None:
        """Need a root user, as chroot does. like: another root, whose programs are linked instead of copied."""
        need("a root user", os.geteuid() == 0, "run the tests as root")
        self.folder = folder
        self._files: dict[str, str] = like._files if like else _programs()
        for path, source in self._files.items():
            place = folder / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if like:
                os.link(like.folder / path.lstrip("/"), place)
            else:
                shutil.copy(source, place)
        for name in ("modprobe", "depmod"):
            (folder / name).symlink_to("/bin/kmod")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command with this folder as its root."""
        return subprocess.run(
            ["chroot", str(self.folder), *command], capture_output=True, text=True, timeout=60, check=False
        )

    def write(self, folder: str, files: Mapping[str, bytes]) -> Path:
        """Write files below a folder of the root, and return that folder."""
        for name, content in files.items():
            path = self.folder / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.folder / folder

    def depmod(self, directory: str, kernel: str) -> None:
        """Make the indexes of a kernel's folder."""
        done = self.run("/depmod", "-b", directory, kernel)
        assert done.returncode == 0, done.stderr

    def show_depends(
        self, directory: str, kernel: str, names: Sequence[str], dry: bool = False
    ) -> dict[str, ModprobeOutput]:
        """Return modprobe's output for each name.

        dry: run modprobe without effects instead of --show-depends. Its output leaves out built-in modules.
        """
        how = "-n -v" if dry else "--show-depends"
        script = (
            f'for name; do echo "== $name"; /modprobe -d {directory} -S {kernel} {how} "$name" 2>&1; echo "== $?"; done'
        )
        output = self.run("/busybox", "sh", "-c", script, "sh", *names).stdout
        answers = re.findall(r"^== (.+)\n((?:(?!== ).*\n)*)== (\d+)\n", output, re.MULTILINE)
        assert [name for name, _, _ in answers] == list(names), output
        listed = {name: dict.fromkeys(re.findall(r"^insmod (\S+)", text, re.M)) for name, text, _ in answers}
        real = self._real(sorted({path for paths in listed.values() for path in paths}))
        return {
            name: ModprobeOutput(tuple(real[path] for path in listed[name]) if code == "0" else (), text)
            for name, text, code in answers
        }

    def _real(self, paths: Sequence[str]) -> dict[str, str | None]:
        """Map paths to their real paths in this root. A path without a file has None."""
        script = 'for path; do real=$(/busybox readlink -f "$path"); [ -f "$path" ] && echo "$real" || echo; done'
        done = self.run("/busybox", "sh", "-c", script, "sh", *paths)
        return {path: real or None for path, real in zip(paths, done.stdout.splitlines(), strict=True)}


def unpack_layers(layers: Sequence[Sequence[Member]], root: Path) -> None:
    """Write the file system of layers, base first, as a container runtime does."""
    for members in layers:
        for member in members:
            parent, _, name = member.name.rpartition("/")
            if name == _OPAQUE:
                for old in list((root / parent).iterdir()) if (root / parent).is_dir() else []:
                    _remove(old)
            elif name.startswith(_WHITEOUT):
                _remove(root / parent / name.removeprefix(_WHITEOUT))
        for member in members:
            if not member.name.rpartition("/")[2].startswith(_WHITEOUT):
                _make_way(root / member.name, member)
        kept = [member for member in members if not member.name.rpartition("/")[2].startswith(_WHITEOUT)]
        with tarfile.open(fileobj=BytesIO(tar(kept))) as archive:
            archive.extractall(root, **_AS_ROOT)


def run_copy(
    image: Path, directory: str, kernel: str, firmware: str | None = None, search_path: str = _PATH
) -> subprocess.CompletedProcess[str]:
    """Run the commands of KMM's init container in an image: an empty volume over /tmp, then the image's own shell."""
    need("a root user", os.geteuid() == 0, "run the tests as root")
    _remove(image / "tmp")
    (image / "tmp").mkdir(parents=True)
    target = os.path.normpath(f"/tmp/{directory}/lib/modules")
    script = f"\nmkdir -p {target};\ncp -R {os.path.normpath(f'{directory}/lib/modules/{kernel}')} {target};\n"
    if firmware:
        script += f"\nmkdir -p /tmp{firmware};\ncp -R {firmware}/* /tmp{firmware};\n"
    command = [need_tool("chroot", "apt-get install coreutils"), str(image), "/bin/sh", "-c", script]
    return subprocess.run(command, env={"PATH": search_path}, capture_output=True, text=True, timeout=60, check=False)


def _make_way(path: Path, member: Member) -> None:
    """Remove the entry at the path, unless both the entry and the member are folders."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and member.kind == tarfile.DIRTYPE)):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _programs() -> dict[str, str]:
    """Map paths in a root to paths of this machine: kmod with its libraries, and busybox."""
    kmod = need_tool("kmod", "apt-get install kmod")
    output = subprocess.run(["ldd", kmod], capture_output=True, text=True, check=True, timeout=60).stdout
    libraries = {path: path for path in re.findall(r"(/\S+) \(0x", output)}
    return {"/bin/kmod": kmod, "/busybox": need_tool("busybox", "apt-get install busybox-static"), **libraries}
