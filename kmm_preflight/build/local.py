"""Builder "local": builds on this machine with buildah or podman, each in a process of its own (build/driver.py).

Secrets, logins and certificates are in a folder that only this user can enter, and on no command line.
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
from kmm_preflight.model import Finding, RegistryTLS
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.reference import LayoutReference, parse_name
from kmm_preflight.oci.registries import Registries
from kmm_preflight.text import clean

LOG_BYTES = 16 << 20
_LAST_BYTES = 64 << 10
_INPUT = "input"
_FIRST_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: (?!FROM)", re.MULTILINE)
_RESULT = "result"
_ALIVE = "alive"  # a lock file: locked until the driver ends
_POLL_SECONDS = 0.1
_DENIED = re.compile(r"\b(unauthorized|authentication required|denied|forbidden|403)\b", re.IGNORECASE)
# Variables of the caller that builds may use. Another variable could make a build pass here and fail elsewhere.
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR", "BUILDAH_ISOLATION", "STORAGE_DRIVER", "STORAGE_OPTS",
         "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
         "NO_PROXY")  # fmt: skip


@dataclass(frozen=True)
class LocalSettings:
    """Settings of all builds on this machine."""

    program: str
    """Path of buildah or podman."""
    folder: Path
    """Private folder of the run; its file `held` is locked until the run ends."""
    store: Path | None
    """Storage that keeps base images for later runs; None for a storage that is deleted with the run."""
    slots: int
    """Maximal number of builds at a time."""
    network: Network
    """Proxies and certificate authorities."""
    registries: Registries
    """Registry settings of the nodes."""
    environment: Mapping[str, str] = field(repr=False)
    """Environment of the run."""


class LocalBuilder:
    """Builder on this machine. A result is an OCI layout. It is pushed from the storage after its check."""

    name = "local"
    keeps_results = True
    pushes_before_proof = False

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings

    def start(self, request: BuildRequest) -> None:
        """Start the driver process of the build, unless it was started before."""
        with _machine_errors():
            self._start(request)

    def _start(self, request: BuildRequest) -> None:
        folder = self._folder(request)
        if (folder / _ALIVE).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it started the build
        folder.mkdir(mode=0o700, parents=True)
        (folder / "context").mkdir()
        (folder / "Dockerfile").write_text(_dockerfile(folder, request))
        for mounted in request.secrets:
            secret = folder / "secrets" / mounted.folder
            secret.mkdir(parents=True)
            for name, content in mounted.files.items():
                (secret / name).write_bytes(content)
        self._write_access(folder, request, request.images, request.pull_tls)
        name = self._name(request)
        export = [*self._base(), "push", "--quiet", name, f"oci:{folder / 'image'}:{_RESULT}"]
        self._start_driver(folder, [self._build_command(request, folder, name), export], request)

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """Wait for the driver process, and return the result."""
        folder = self._folder(request)
        self._wait(folder, lambda words: show(without_secrets(words, request)))
        end = driver.read_result(folder)
        log = without_secrets(_read_log(folder), request)
        shutil.rmtree(folder / "secrets", ignore_errors=True)
        (folder / "auth.json").unlink(missing_ok=True)
        if finding := _failure(end, log, request):
            return BuildResult(finding, log=log)
        return BuildResult(image=f"oci:{folder / 'image'}:{_RESULT}", log=log)

    def publish(self, request: BuildRequest, result: BuildResult) -> BuildResult:
        """Push the result from the storage."""
        folder = self._folder(request).with_suffix(".push")
        with _machine_errors():
            folder.mkdir(mode=0o700)
            self._write_access(folder, request, (request.image,), request.push_tls)
            command = [*self._base(), "push", "--quiet", *self._access_options(folder)]
            self._start_driver(folder, [[*command, self._name(request), f"docker://{request.image}"]], request)
        self._wait(folder, lambda words: None)
        end = driver.read_result(folder)
        log = without_secrets(_read_log(folder), request)
        (folder / "auth.json").unlink(missing_ok=True)
        if end is None or end.code or end.stopped:
            kind = findings.PUSH_DENIED if _DENIED.search(log) else findings.PUSH_FAILED
            problem = _problem(log, end.code if end else -1)
            return BuildResult(replace(kind(image=request.image, problem=problem), lines=excerpt(log)), log=log)
        return BuildResult(image=request.image, pushed=True, log=log)

    def _folder(self, request: BuildRequest) -> Path:
        return self._settings.folder / BUILDS / request.id

    def _name(self, request: BuildRequest) -> str:
        """Return the result's name in the storage. Other runs may use the same storage."""
        return f"localhost/kmm-preflight:{self._settings.folder.name}.{request.id}"

    def _base(self) -> list[str]:
        store = self._settings.folder / STORE
        if self._settings.store and not store.is_symlink():
            with suppress(FileExistsError):
                store.symlink_to(self._settings.store)
        return base_command(self._settings.program, store)

    def _build_command(self, request: BuildRequest, folder: Path, name: str) -> list[str]:
        isolation = [] if self._settings.environment.get("BUILDAH_ISOLATION") else ["--isolation=chroot"]
        arguments = [f"--build-arg={name}={value}" for name, value in request.arguments]
        volumes = [
            f"--volume={folder / 'secrets' / mounted.folder}:/run/secrets/{mounted.folder}:ro"
            for mounted in request.secrets
        ]
        # Always pull: an image that another Module's build has pulled must not hide that this Module has no login.
        shape = ["--layers=false", "--pull=always", "--format=oci", f"--platform=linux/{request.plan.kernel.arch}"]
        # podman removes intermediate images by force, also the base image that another build uses at this time.
        verb, clean_up = ("build", ["--force-rm=false"]) if self._settings.program.endswith("podman") else ("bud", [])
        shape += [*clean_up, *request.options]
        files = [f"--file={folder / 'Dockerfile'}", str(folder / "context")]
        options = [*isolation, *shape, *self._access_options(folder), *arguments, *volumes, f"--tag={name}"]
        return [*self._base(), verb, *options, *files]

    def _access_options(self, folder: Path) -> list[str]:
        return [f"--authfile={folder / 'auth.json'}", f"--cert-dir={folder / 'authorities'}"]

    def _write_access(self, folder: Path, request: BuildRequest, images: Sequence[str], tls: RegistryTLS) -> None:
        settings = self._settings
        (folder / "auth.json").write_bytes(auth_json(request.credentials, images, settings.registries))
        (folder / "registries.conf").write_text(registries_conf(images, tls, settings.registries))
        (folder / "authorities").mkdir()
        if pem := authorities_pem(settings.network, settings.registries):
            (folder / "authorities" / "kmm-preflight.crt").write_text(pem)

    def _start_driver(self, folder: Path, commands: Sequence[Sequence[str]], request: BuildRequest) -> None:
        """Start the driver. It goes on if this process ends, and holds a lock as long as it lives."""
        settings = self._settings
        slots = settings.folder / BUILDS / "slots"
        slots.mkdir(exist_ok=True)
        specification = driver.BuildCommands(
            commands=[list(command) for command in commands],
            environment=self._command_environment(folder),
            timeout=request.timeout,
            slots=[str(slots / str(number)) for number in range(settings.slots)],
            run=str(settings.folder / HELD),
        )
        driver.write_specification(folder, specification)
        store = settings.folder / STORE
        store.mkdir(exist_ok=True)
        with (folder / _ALIVE).open("w") as lock, (store / IN_USE).open("a") as in_use:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(in_use, fcntl.LOCK_SH)
            subprocess.Popen(
                [sys.executable, "-m", driver.__name__, str(folder)],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(folder / "errors").open("w"),
                pass_fds=[lock.fileno(), in_use.fileno()],
                start_new_session=True,
            )

    def _command_environment(self, folder: Path) -> dict[str, str]:
        (folder / "tmp").mkdir()
        kept = {name: value for name, value in self._settings.environment.items() if name in _KEPT}
        proxies = self._settings.network.proxies
        given = {f"{scheme}_proxy": proxies[scheme] for scheme in ("http", "https", "no") if proxies.get(scheme)}
        own = {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        if "XDG_RUNTIME_DIR" not in kept:
            own["XDG_RUNTIME_DIR"] = str(folder / "tmp")  # else podman leaves a folder below /tmp
        return {**kept, **given, **own, "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf")}

    def _wait(self, folder: Path, show: Show) -> None:
        """Wait until the driver has ended. The driver itself stops the build at the deadline."""
        shown: str | None = None
        with (folder / _ALIVE).open() as lock:
            for _ in polls(first=_POLL_SECONDS, longest=_POLL_SECONDS):
                if is_free(lock.fileno()):
                    return
                step = _current_step(folder)
                if step != shown:
                    show(step)
                    shown = step


@contextmanager
def _machine_errors() -> Iterator[None]:
    """Raise Undecidable for an error of this machine, such as a full disk."""
    try:
        yield
    except OSError as exc:
        raise Undecidable(f"{exc.filename or 'this machine'}: {exc.strerror}") from exc


def _dockerfile(folder: Path, request: BuildRequest) -> str:
    """Return the Dockerfile of a request. If it uses an OCI layout of this run, use a plain path for the layout."""
    name = request.images[0] if request.images else ""
    layout = parse_name(name) if name.startswith("oci:") else None
    if not isinstance(layout, LayoutReference):
        return request.dockerfile
    (folder / _INPUT).symlink_to(layout.path)
    return request.dockerfile.replace(f"FROM {name}", f"FROM oci:{_INPUT}:{layout.tag or ''}")


def _failure(end: driver.CommandResult | None, log: str, request: BuildRequest) -> Finding | None:
    """Return the finding of a build that failed, or None if it succeeded."""
    if end is None:
        return builder_failed(log, "its process ended before it had a result")
    if end.stopped and not _FIRST_STEP.search(log):
        return builder_failed(log, f"the base image was not pulled within {request.timeout:.0f} s")
    if end.stopped:
        return timed_out(log, request.timeout)
    if not end.code:
        return None
    problem = _problem(log, end.code)
    if end.command or end.code < 0:  # a command after the build, or a signal
        return builder_failed(log, problem)
    return failure_of(log, problem, request.stage, on_this_machine=True)


def _current_step(folder: Path) -> str:
    if not (folder / driver.STATE).exists():
        return "waits for a free slot"
    steps = STEP.findall(_read_log(folder, last=_LAST_BYTES))
    return clean(steps[-1]) if steps else "builds"


def _read_log(folder: Path, last: int = LOG_BYTES) -> str:
    """Return the log, or its last bytes."""
    with suppress(FileNotFoundError), (folder / driver.LOG).open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - last))
        return log.read(LOG_BYTES).decode("utf-8", "replace")
    return ""


def _problem(log: str, code: int) -> str:
    """Return the exit code or the signal, with the builder's last error."""
    end = f"signal {-code}" if code < 0 else f"exit code {code}"
    error = error_line(log)
    return f"the builder ended with {end}{f' ({shortened(error)})' if error else ''}"
