"""Builds as Jobs of any Kubernetes cluster: buildah in a Pod without privilege, in the Module's namespace."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.build.builder import BuildRequest, BuildResult, Show
from kmm_preflight.build.failure import builder_failed, failure_of, timed_out
from kmm_preflight.build.job_manifest import CONTAINER, LOGINS, JobSettings, job_of
from kmm_preflight.build.job_script import STOPPED, TOLD, WORK
from kmm_preflight.build.objects import condition, delete, ended, object_name, pods_of, settle
from kmm_preflight.build.pods import Obstacle, PodLog, obstacle, past_deadline, started, taken
from kmm_preflight.build.poll import follow
from kmm_preflight.cluster.api import JOBS, SERVICE_ACCOUNTS, Api
from kmm_preflight.cluster.inventory import NODE_ACCOUNT
from kmm_preflight.errors import BoundExceeded, Malformed, Undecidable
from kmm_preflight.model import Manifest
from kmm_preflight.oci.reference import parse_digest

ARCHIVE_BYTES = 16 << 30
_FETCHES = 3
_TOLD_BYTES = 200
_KILLED = 137
_SAVED = re.compile(r"\s*(\d{1,15})\s+([0-9a-f]{64})\s*")


class JobBuilder:
    """See Builder. A result that is not pushed is read out of the Pod and stored as an OCI archive."""

    name = "job"
    keeps = False
    pushes_first = True

    def __init__(self, api: Api, settings: JobSettings) -> None:
        self._api = api
        self._settings = settings

    def start(self, request: BuildRequest) -> None:
        """See Builder."""
        settle(self._api, JOBS, job_of(request, self._settings, self._logins(request)))

    def ended(self, request: BuildRequest) -> bool:
        """See Remote. One that only waits to be fetched has ended too."""
        found = self._api.get(JOBS, object_name(request.id), request.plan.module.namespace)
        if found is None or ended(found):
            return True
        # With a push there is no probe, and a Pod that builds counts as ready.
        return not request.push and Field(found)["status"]["ready"].number() > 0

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """See Builder."""
        return follow(_RunningJob(self._api, request, self._settings.folder), request.timeout, show)

    def publish(self, request: BuildRequest, build_result: BuildResult) -> BuildResult:
        """See Builder: what is to be pushed was pushed by the Pod."""
        return build_result

    def _logins(self, request: BuildRequest) -> tuple[str, ...]:
        """The Secrets with logins for registries: the Module's own, else those of the account that the Pod has."""
        if request.plan.secret is not None:
            return (request.plan.secret,)
        accounts = self._api.list(SERVICE_ACCOUNTS, request.plan.module.namespace, name=NODE_ACCOUNT) or ()
        names = (one["name"].text() for account in accounts for one in Field(account)["imagePullSecrets"])
        return tuple(dict.fromkeys(name for name in names if name))[:LOGINS]


class _RunningJob:
    """A Job that goes on, as it was seen last."""

    def __init__(self, api: Api, request: BuildRequest, folder: Path) -> None:
        self._api = api
        self._order = request
        self._folder = folder
        self._printed = PodLog(api, request, CONTAINER)
        self._job: Manifest | None = None
        self._pod: Manifest | None = None
        self._ran = False
        self.obstacle = Obstacle()
        self.step = ""
        self.subject = f"Job {request.plan.module.namespace}/{object_name(request.id)}"

    def look(self) -> None:
        """Ask for Job, Pod and log."""
        self._job = self._api.get(JOBS, object_name(self._order.id), self._order.plan.module.namespace)
        self._pod = next(iter(pods_of(self._api, self._job)), None) if self._job else None
        if self._pod or not self.obstacle.words:  # what kept a Pod that is gone by now is still to be told
            self.obstacle = obstacle(self._pod)
        self._ran = self._ran or started(self._pod)
        self.step = self._printed.step(self._pod_name()) if started(self._pod) else self.obstacle.words

    @property
    def state(self) -> str:
        """In a word."""
        return Field(self._pod)["status"]["phase"].text() or "Pending"

    def end(self) -> BuildResult | None:
        """The end, if it has come to one."""
        if self._job is None:
            return self._broke("got it deleted by somebody else, expected its end")
        if past_deadline(self._job) or (self._pod and past_deadline(self._pod)):
            return self.given_up()
        if self._pod and Field(self._pod)["status"]["phase"].text() in ("Succeeded", "Failed"):
            return self._ended(self._pod)
        if ended(self._job):
            why = condition(self._job, "Failed") or condition(self._job, "FailureTarget")
            said = why["message"].text() if why else "no reason given"
            return self._broke(f"its Pod is gone ({said}), expected it to end by itself")
        if self._pod and condition(self._pod, "Ready") and not self._order.push:
            return self._fetched()
        return None

    def given_up(self) -> BuildResult:
        """What is told of a build that is stopped: one that never ran says nothing of its Dockerfile."""
        if self._ran:
            log = self._log()
            return BuildResult(timed_out(log, self._order.timeout), log=log)
        words = self.obstacle.words or "no reason given"
        return self._broke(f"got no running Pod ({words}), expected one within {self._order.timeout:.0f} s")

    def remove(self) -> None:
        """Delete the Job, and with it the Pod."""
        with suppress(Undecidable):  # then its TTL or a later run does it
            if self._job:
                delete(self._api, JOBS, self._job)

    def _ended(self, pod: Manifest) -> BuildResult | None:
        """By what the script has left as its last words, for a step of a Dockerfile may end with any code."""
        words = _last_words(pod)
        if why := taken(pod):
            return self._broke(f"its Pod was ended ({why}), expected it to end by itself")
        if words == STOPPED and self._job and not ended(self._job):
            return None  # whoever stopped it, the Job will say why
        match words.split():
            case ["pushed", digest] if _is_digest(digest):
                log = f"{self._log()}\npushed {self._order.image} as {digest}\n"
                return BuildResult(image=self._order.image, pushed=True, log=log)
            case ["build" | "push", code] if code == str(_KILLED):
                return self._broke("got its process killed, expected it to end by itself; is there enough memory?")
            case ["build", code]:
                return self._failed(f"got exit code {code} of buildah, expected 0")
            case ["push", code]:
                return self._failed(f"got exit code {code} of the push to {self._order.image}, expected 0")
            case _:
                said = words or "no words"
                return self._broke(f"got its Pod's end with {said!r}, expected a build; does the image have buildah?")

    def _fetched(self) -> BuildResult:
        log = self._log()
        return BuildResult(image=f"oci-archive:{self._fetch()}", log=log)

    def _fetch(self) -> Path:
        """The archive, stored; Undecidable when it does not come whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"{object_name(self._order.id)}.tar"
        problem: Exception | None = None
        for _ in range(_FETCHES):
            try:
                saved = _saved(b"".join(self._run(("cat", TOLD), _TOLD_BYTES)))
                saved.store(self._run(("cat", f"{WORK}/image.tar"), saved.size), target)
                return target
            except (Undecidable, Malformed) as exc:
                problem = exc
        raise Undecidable(f"{self.subject}: its image could not be read ({problem}); run again") from problem

    def _run(self, command: tuple[str, ...], most: int) -> Iterator[bytes]:
        return self._api.execute(self._pod_name(), self._order.plan.module.namespace, command, most, CONTAINER)

    def _log(self) -> str:
        return self._printed.whole(self._pod_name())

    def _failed(self, problem: str) -> BuildResult:
        log = self._log()
        return BuildResult(failure_of(log, f"{self.subject}: {problem}", self._order.stage), log=log)

    def _broke(self, problem: str) -> BuildResult:
        log = self._log()
        return BuildResult(builder_failed(log, f"{self.subject}: {problem}"), log=log)

    def _pod_name(self) -> str:
        return Field(self._pod)["metadata"]["name"].text()


@dataclass(frozen=True)
class _Saved:
    """An archive in a Pod, as the Pod tells of it."""

    size: int
    sha256: str

    def store(self, pieces: Iterator[bytes], target: Path) -> None:
        """Writes the pieces to a file; Undecidable when they are not these bytes, or there is no room for them."""
        digest, size, partial = hashlib.sha256(), 0, target.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    size += file.write(piece)
            if (size, digest.hexdigest()) != (self.size, self.sha256):
                raise Undecidable(f"got {size} bytes with sha256 {digest.hexdigest()}, expected {self}")
            partial.replace(target)
        except OSError as exc:
            raise Undecidable(f"{target}: {exc.strerror}") from exc
        finally:
            partial.unlink(missing_ok=True)

    def __str__(self) -> str:
        return f"{self.size} bytes with sha256 {self.sha256}"


def _saved(told: bytes) -> _Saved:
    hit = _SAVED.fullmatch(told.decode("ascii", "replace"))
    if not hit:
        raise Undecidable(f"got {told[:80]!r}, expected size and sha256 of an archive")
    if int(hit[1]) > ARCHIVE_BYTES:
        raise BoundExceeded(f"got an archive of {hit[1]} bytes, expected at most {ARCHIVE_BYTES}")
    return _Saved(int(hit[1]), hit[2])


def _last_words(pod: Manifest) -> str:
    """The termination message of the build's container."""
    for one in Field(pod)["status"]["containerStatuses"]:
        if one["name"].text() == CONTAINER:
            return one["state"]["terminated"]["message"].text().strip()
    return ""


def _is_digest(text: str) -> bool:
    try:
        return bool(parse_digest(text))
    except Malformed:
        return False
