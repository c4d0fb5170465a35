"""Images that buildah builds as KMM's users do, with a store of its own that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .requirement import need, need_tool

if TYPE_CHECKING:
    from .registry import Registry

BUSYBOX = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
"""The beginning of a containerfile whose later RUN steps have a shell; its context must hold busybox()."""

_ENABLE = "apt-get install buildah busybox-static uidmap, and be root or a user in /etc/subuid and /etc/subgid"
# Buildah run by root writes a cache of blobs to /var/lib/containers and has no option against it: it gets a mount
# namespace in which that place is a tmpfs. Whatever buildah mounts ends with the namespace too.
_APART = 'mount -t tmpfs none "$0" && exec "$@"'


def busybox() -> bytes:
    """Debian's busybox, which needs no library."""
    return Path(need_tool("busybox", "apt-get install busybox-static")).read_bytes()


def buildah_image(
    folder: Path,
    containerfile: str,
    files: Mapping[str, bytes],
    registry: Registry,
    repository: str,
    tag: str,
    *,
    docker: bool = False,
    layers: bool = True,
    options: Sequence[str] = (),
) -> str:
    """Build with these files as the context, push, and return the digest; without layers all steps make one layer."""
    need_buildah()
    way, _ = _way()
    assert way is not None
    with _store(folder, way) as store:
        trust = ["--cert-dir", str(registry.cert_dir)] if registry.cert_dir else ["--tls-verify=false"]
        access = ["--authfile", str(registry.authfile(store.folder / "auth.json")), *trust]
        name = f"{registry.host}/{repository}:{tag}"
        shape = ["--format", "docker" if docker else "oci", f"--layers={str(layers).lower()}"]
        store.build(containerfile, files, [*shape, *access, *options, "--tag", name])
        digest = store.folder / "digest"
        store.run("push", *access, "--digestfile", str(digest), name)
        return digest.read_text().strip()


def need_buildah() -> None:
    """Skip the running test where buildah cannot run a step of a build."""
    reason = buildah_works()
    need(f"a working buildah ({reason})", not reason, _ENABLE)


def buildah_works() -> str:
    """Empty where a build with a RUN step works, else the reason why not; tried once in a process."""
    return _way()[1]


@dataclass(frozen=True)
class _Way:
    """One manner of running buildah: what stands before the command, and the storage driver."""

    prefix: tuple[str, ...]
    driver: str


@dataclass(frozen=True)
class _Store:
    """A storage of buildah; a fresh one each time, because an image that lies in it is used without any login."""

    folder: Path
    way: _Way

    def build(self, containerfile: str, files: Mapping[str, bytes], options: Sequence[str]) -> None:
        """Build an image from the files; options are those of buildah bud."""
        context = self.folder / "context"
        for name, data in files.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        recipe = self.folder / "Containerfile"
        recipe.write_text(containerfile)
        context.mkdir(exist_ok=True)
        self.run("bud", "--isolation=chroot", *options, "--file", str(recipe), str(context))

    def run(self, command: str, *arguments: str) -> None:
        """Run one command of buildah with this storage."""
        where = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "runroot")]
        self._execute("buildah", *where, "--storage-driver", self.way.driver, command, *arguments)

    def remove(self) -> None:
        """Delete the storage; an ordinary user's holds files of his subordinate ids, which are his only inside."""
        if os.geteuid() != 0:
            self._execute("buildah", "unshare", "rm", "-rf", str(self.folder / "root"), str(self.folder / "runroot"))
        shutil.rmtree(self.folder)

    def _execute(self, *command: str) -> None:
        home = {name: str(self.folder) for name in ("HOME", "TMPDIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        done = subprocess.run(
            [*self.way.prefix, *command], capture_output=True, text=True, timeout=300, env={**os.environ, **home}
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended {done.returncode}:\n{done.stdout}{done.stderr}")


@contextmanager
def _store(folder: Path, way: _Way) -> Iterator[_Store]:
    folder.mkdir(parents=True, exist_ok=True)
    store = _Store(Path(tempfile.mkdtemp(dir=folder, prefix="buildah-")), way)
    try:
        yield store
    finally:
        store.remove()


@cache
def _way() -> tuple[_Way | None, str]:
    """The first way in which a small build works, or the last one's complaint."""
    for tool in ("buildah", "busybox"):
        if shutil.which(tool) is None:
            return None, f"no {tool}"
    complaint = ""
    for way in _ways():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with _store(Path(scratch), way) as store:
                    store.build(BUSYBOX, {"busybox": busybox()}, [])
            except (RuntimeError, subprocess.TimeoutExpired) as problem:
                complaint = ": ".join(str(problem).strip().splitlines()[-2:])
            else:
                return way, ""
    return None, complaint


def _ways() -> list[_Way]:
    """The fast and clean ones first."""
    prefixes: list[tuple[str, ...]] = [()]
    if os.geteuid() == 0:
        place = next(place for place in ("/var/lib/containers", "/var/lib") if Path(place).is_dir())
        prefixes.insert(0, ("unshare", "--mount", "sh", "-c", _APART, place))
    return [_Way(prefix, driver) for prefix in prefixes for driver in ("overlay", "vfs")]
