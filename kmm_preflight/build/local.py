"""Builds on this machine by buildah or podman, each in a process of its own beside the run (build/driver.py).

What is not said on a command line is in a folder that only this user can enter: Secrets, logins, certificates.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from kmm_preflight.base.polling import polls
from kmm_preflight.build import driver, findings
from kmm_preflight.build.access import auth_json, authorities_pem, registries_conf
from kmm_preflight.build.builder import BuildRequest, BuildResult, Show
from kmm_preflight.build.failure import (
    STEP,
    builder_failed,
    error_line,
    excerpt,
    failure_of,
    shortened,
    timed_out,
)
from kmm_preflight.build.redaction import without_secrets
from kmm_preflight.build.storage import BUILDS, HELD, IN_USE, STORE, base_command, is_free
from kmm_preflight.errors import Undecidable
from kmm_preflight.model import RegistryTLS
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.reference import LayoutReference, parse_name
from kmm_preflight.oci.registries import Registries
from kmm_preflight.text import clean

LOG_BYTES = 16 << 20
_LAST_BYTES = 64 << 10
_INPUT = "input"
_RUNNING = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: (?!FROM)", re.MULTILINE)
_RESULT = "result"
_POLL_SECONDS = 0.1
_DENIED = re.compile(r"\b(unauthorized|authentication required|denied|forbidden|403)\b", re.IGNORECASE)
# What buildah is told by its caller's environment; anything else could make a build pass here and nowhere else.
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR", "BUILDAH_ISOLATION", "STORAGE_DRIVER", "STORAGE_OPTS",
         "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
         "NO_PROXY")  # fmt: skip


@dataclass(frozen=True)
class LocalSettings:
    """Where and how builds run here: folder is the run's own, in which `held` is locked while the run goes on.

    kept is where base images stay for a later run, None for a storage that is the run's own. places is how many builds
    go on at a time, environment the caller's.
    """

    program: str
    folder: Path
    kept: Path | None
    places: int
    network: Network
    registries: Registries
    environment: Mapping[str, str] = field(repr=False)


class LocalBuilder:
    """See Builder. The result is handed on as an OCI layout; a push is made from the store, after the proof."""

    name = "local"
    keeps = True
    pushes_first = False

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings

    def start(self, request: BuildRequest) -> None:
        """See Builder."""
        with _told():
            self._start(request)

    def _start(self, request: BuildRequest) -> None:
        folder = self._folder(request)
        if (folder / "lives").exists():
            return  # it goes on already, or has ended
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it had started the build
        folder.mkdir(mode=0o700, parents=True)
        (folder / "context").mkdir()
        (folder / "Dockerfile").write_text(_from_here(folder, request))
        for mounted in request.secrets:
            place = folder / "secrets" / mounted.folder
            place.mkdir(parents=True)
            for name, content in mounted.files.items():
                (place / name).write_bytes(content)
        self._write_access(folder, request, request.images, request.pull_tls)
        layout = f"oci:{folder / 'image'}:{_RESULT}"
        name = self._name(request)
        self._drive(
            folder, [self._build(request, folder, name), [*self._base(), "push", "--quiet", name, layout]], request
        )

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """See Builder."""
        folder = self._folder(request)
        self._wait(folder, lambda words: show(without_secrets(words, request)))
        result = driver.read_result(folder)
        log = without_secrets(_read_log(folder), request)
        shutil.rmtree(folder / "secrets", ignore_errors=True)
        (folder / "auth.json").unlink(missing_ok=True)
        if result is None:
            return BuildResult(builder_failed(log, "its process ended before it had a result"), log=log)
        if result.stopped and not _RUNNING.search(log):
            problem = f"got no image pulled within {request.timeout:.0f} s, expected the first step to run"
            return BuildResult(builder_failed(log, problem), log=log)
        if result.stopped:
            return BuildResult(timed_out(log, request.timeout), log=log)
        if result.code:
            problem = _problem(log, result.code)
            if result.command or result.code < 0:  # not the build itself, or it was ended from outside
                return BuildResult(builder_failed(log, problem), log=log)
            return BuildResult(failure_of(log, problem, request.stage), log=log)
        return BuildResult(image=f"oci:{folder / 'image'}:{_RESULT}", log=log)

    def publish(self, request: BuildRequest, build_result: BuildResult) -> BuildResult:
        """See Builder."""
        folder = self._folder(request).with_suffix(".push")
        with _told():
            folder.mkdir(mode=0o700)
            self._write_access(folder, request, (request.image,), request.push_tls)
            command = [*self._base(), "push", "--quiet", *self._access(folder)]
            self._drive(folder, [[*command, self._name(request), f"docker://{request.image}"]], request)
        self._wait(folder, lambda words: None)
        result = driver.read_result(folder)
        log = without_secrets(_read_log(folder), request)
        (folder / "auth.json").unlink(missing_ok=True)
        if result is None or result.code or result.stopped:
            kind = findings.PUSH_DENIED if _DENIED.search(log) else findings.PUSH_FAILED
            problem = _problem(log, result.code if result else -1)
            return BuildResult(replace(kind(image=request.image, problem=problem), lines=excerpt(log)), log=log)
        return BuildResult(image=request.image, pushed=True, log=log)

    def _folder(self, request: BuildRequest) -> Path:
        return self._settings.folder / BUILDS / request.id

    def _name(self, request: BuildRequest) -> str:
        """The result's name in the storage, which other runs may use too."""
        return f"localhost/kmm-preflight:{self._settings.folder.name}.{request.id}"

    def _base(self) -> list[str]:
        """The program with the run's own storage."""
        store = self._settings.folder / STORE
        if self._settings.kept and not store.is_symlink():
            with suppress(FileExistsError):
                store.symlink_to(self._settings.kept)
        return base_command(self._settings.program, store)

    def _build(self, request: BuildRequest, folder: Path, name: str) -> list[str]:
        isolation = [] if self._settings.environment.get("BUILDAH_ISOLATION") else ["--isolation=chroot"]
        arguments = [f"--build-arg={name}={value}" for name, value in request.arguments]
        volumes = [
            f"--volume={folder / 'secrets' / one.folder}:/run/secrets/{one.folder}:ro" for one in request.secrets
        ]
        # Pulled always: an image of another Module's build must not hide that this one's login is missing.
        shape = ["--layers=false", "--pull=always", "--format=oci", f"--platform=linux/{request.plan.kernel.arch}"]
        files = [f"--file={folder / 'Dockerfile'}", str(folder / "context")]
        verb = "build" if self._settings.program.endswith("podman") else "bud"
        options = [*isolation, *shape, *self._access(folder), *arguments, *volumes, f"--tag={name}"]
        return [*self._base(), verb, *options, *files]

    def _access(self, folder: Path) -> list[str]:
        return [f"--authfile={folder / 'auth.json'}", f"--cert-dir={folder / 'authorities'}"]

    def _write_access(self, folder: Path, request: BuildRequest, images: Sequence[str], tls: RegistryTLS) -> None:
        settings = self._settings
        (folder / "auth.json").write_bytes(auth_json(request.credentials, images, settings.registries))
        (folder / "registries.conf").write_text(registries_conf(images, tls, settings.registries))
        (folder / "authorities").mkdir()
        if pem := authorities_pem(settings.network, settings.registries):
            (folder / "authorities" / "kmm-preflight.crt").write_text(pem)

    def _drive(self, folder: Path, commands: Sequence[Sequence[str]], request: BuildRequest) -> None:
        """Starts the driver, which goes on whatever becomes of this process, and holds a lock as long as it lives."""
        settings = self._settings
        places = settings.folder / BUILDS / "places"
        places.mkdir(exist_ok=True)
        (folder / "tmp").mkdir()
        kept = {name: value for name, value in settings.environment.items() if name in _KEPT}
        proxies = settings.network.proxies
        given = {f"{scheme}_proxy": proxies[scheme] for scheme in ("http", "https", "no") if proxies.get(scheme)}
        own = {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        if "XDG_RUNTIME_DIR" not in kept:
            own["XDG_RUNTIME_DIR"] = str(folder / "tmp")  # else podman makes a place below /tmp that stays
        configuration = {"CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf")}
        specification = driver.BuildCommands(
            commands=[list(command) for command in commands],
            environment={**kept, **given, **own, **configuration},
            timeout=request.timeout,
            places=[str(places / str(number)) for number in range(settings.places)],
            run=str(settings.folder / HELD),
        )
        driver.write_specification(folder, specification)
        store = settings.folder / STORE
        store.mkdir(exist_ok=True)
        with (folder / "lives").open("w") as lock, (store / IN_USE).open("a") as in_use:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(in_use, fcntl.LOCK_SH)
            subprocess.Popen(
                [sys.executable, "-m", driver.__name__, str(folder)],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(folder / "trouble").open("w"),
                pass_fds=[lock.fileno(), in_use.fileno()],
                start_new_session=True,
            )

    def _wait(self, folder: Path, show: Show) -> None:
        """Until the driver has ended. It stops its build at the deadline itself."""
        told = ""
        with (folder / "lives").open() as lock:
            for _ in polls(first=_POLL_SECONDS, longest=_POLL_SECONDS):
                if is_free(lock.fileno()):
                    return
                words = _doing(folder)
                if words != told:
                    show(words)
                    told = words


@contextmanager
def _told() -> Iterator[None]:
    """Trouble of this machine, such as a full disk, in words."""
    try:
        yield
    except OSError as exc:
        raise Undecidable(f"{exc.filename or 'this machine'}: {exc.strerror}") from exc


def _from_here(folder: Path, request: BuildRequest) -> str:
    """Return the Dockerfile of a request. If it uses an OCI layout of this run, use a plain path for the layout."""
    taken = request.images[0] if request.images else ""
    layout = parse_name(taken) if taken.startswith("oci:") else None
    if not isinstance(layout, LayoutReference):
        return request.dockerfile
    (folder / _INPUT).symlink_to(layout.path)
    return request.dockerfile.replace(f"FROM {taken}", f"FROM oci:{_INPUT}:{layout.tag or ''}")


def _doing(folder: Path) -> str:
    if not (folder / driver.STATE).exists():
        return "waits for a place"
    steps = STEP.findall(_read_log(folder, last=_LAST_BYTES))
    return clean(steps[-1]) if steps else "builds"


def _read_log(folder: Path, last: int = LOG_BYTES) -> str:
    """The log, or so many of its last bytes."""
    with suppress(FileNotFoundError), (folder / driver.LOG).open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - last))
        return log.read(LOG_BYTES).decode("utf-8", "replace")
    return ""


def _problem(log: str, code: int) -> str:
    """The builder's own last word, which names the step, with the exit code."""
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    words = shortened(error_line(log))
    return f"got {ended}{f' ({words})' if words else ''}, expected 0"
