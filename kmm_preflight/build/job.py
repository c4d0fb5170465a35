"""Builder "job": builds as Jobs of any Kubernetes cluster, with buildah in an unprivileged Pod."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.build.archive import fetch_archive
from kmm_preflight.build.builder import BuildRequest, BuildResult, Show
from kmm_preflight.build.failure import builder_failed, failure_of, timed_out
from kmm_preflight.build.job_manifest import CONTAINER, LOGINS, JobSettings, job_of
from kmm_preflight.build.job_script import STOPPED
from kmm_preflight.build.objects import condition, create_object, delete, has_ended, object_name, pods_of
from kmm_preflight.build.pods import Obstacle, PodLog, ended_by_cluster, has_started, obstacle, past_deadline
from kmm_preflight.build.poll import follow
from kmm_preflight.cluster.api import JOBS, SERVICE_ACCOUNTS, Api
from kmm_preflight.cluster.inventory import NODE_ACCOUNT
from kmm_preflight.errors import Malformed, Undecidable
from kmm_preflight.model import Manifest
from kmm_preflight.oci.reference import parse_digest

_KILLED = 137


class JobBuilder:
    """Builder whose builds are Jobs. A result without a push is read from the Pod and stored as an OCI archive."""

    name = "job"
    keeps_results = False
    pushes_before_proof = True

    def __init__(self, api: Api, settings: JobSettings) -> None:
        self._api = api
        self._settings = settings

    def start(self, request: BuildRequest) -> None:
        """Create the Job."""
        create_object(self._api, JOBS, job_of(request, self._settings, self._logins(request)))

    def has_ended(self, request: BuildRequest) -> bool:
        """True if the Job no longer builds. It may still wait until its image is fetched."""
        job = self._api.get(JOBS, object_name(request.id), request.plan.module.namespace)
        if job is None or has_ended(job):
            return True
        # A request with a push has no readiness probe, so its Pod is ready while it builds.
        return not request.push and Field(job)["status"]["ready"].number() > 0

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """Wait for the Job, and fetch its image if it was not pushed."""
        return follow(_RunningJob(self._api, request, self._settings.folder), request.timeout, show)

    def publish(self, request: BuildRequest, result: BuildResult) -> BuildResult:
        """Return the result: the Pod has pushed it."""
        return result

    def _logins(self, request: BuildRequest) -> tuple[str, ...]:
        """Return the Secrets with logins for registries: the Module's own, else those of the Pod's account."""
        if request.plan.secret is not None:
            return (request.plan.secret,)
        accounts = self._api.list(SERVICE_ACCOUNTS, request.plan.module.namespace, name=NODE_ACCOUNT) or ()
        secrets = [secret for account in accounts for secret in Field(account)["imagePullSecrets"]]
        return tuple(dict.fromkeys(name for secret in secrets if (name := secret["name"].text())))[:LOGINS]


class _RunningJob:
    """Job of a request, as it was read last."""

    def __init__(self, api: Api, request: BuildRequest, folder: Path) -> None:
        self._api = api
        self._request = request
        self._folder = folder
        self._pod_log = PodLog(api, request, CONTAINER)
        self._job: Manifest | None = None
        self._pod: Manifest | None = None
        self._has_run = False
        self.obstacle = Obstacle()
        self.step: str | None = None
        self.subject = f"Job {request.plan.module.namespace}/{object_name(request.id)}"

    def look(self) -> None:
        """Read Job, Pod and log."""
        self._job = self._api.get(JOBS, object_name(self._request.id), self._request.plan.module.namespace)
        self._pod = next(iter(pods_of(self._api, self._job)), None) if self._job else None
        if self._pod or not self.obstacle.words:  # keep the obstacle of a Pod that is deleted by now
            self.obstacle = obstacle(self._pod)
        self._has_run = self._has_run or has_started(self._pod)
        self.step = self._pod_log.step(self._pod_name()) if has_started(self._pod) else self.obstacle.words

    @property
    def state(self) -> str:
        """Phase of the Pod."""
        return Field(self._pod)["status"]["phase"].text() or "Pending"

    def end(self) -> BuildResult | None:
        """Return the result, or None if the Job goes on."""
        if self._job is None:
            return self._builder_failed("it was deleted before its end")
        if past_deadline(self._job) or (self._pod and past_deadline(self._pod)):
            return self.stopped()
        if self._pod and Field(self._pod)["status"]["phase"].text() in ("Succeeded", "Failed"):
            return self._result_of_pod(self._pod)
        if has_ended(self._job):
            failure = condition(self._job, "Failed") or condition(self._job, "FailureTarget")
            message = failure["message"].text() if failure else "no reason given"
            return self._builder_failed(f"its Pod was deleted before its end ({message})")
        if self._pod and condition(self._pod, "Ready") and not self._request.push:
            return self._fetched()
        return None

    def stopped(self) -> BuildResult:
        """Return the result of a Job that is stopped: a timeout if it has run, else a failure of the builder."""
        if self._has_run:
            log = self._log()
            return BuildResult(timed_out(log, self._request.timeout), log=log)
        words = self.obstacle.words or "no reason given"
        return self._builder_failed(f"no Pod ran within {self._request.timeout:.0f} s ({words})")

    def remove(self) -> None:
        """Delete the Job. Kubernetes deletes its Pod."""
        with suppress(Undecidable):  # the Job's TTL or a later run deletes it
            if self._job:
                delete(self._api, JOBS, self._job)

    def _result_of_pod(self, pod: Manifest) -> BuildResult | None:
        """Return the result by the script's last message: a step of a Dockerfile may end with any exit code."""
        message = _termination_message(pod)
        if reason := ended_by_cluster(pod):
            return self._builder_failed(f"the cluster ended its Pod ({reason})")
        if message == STOPPED and self._job and not has_ended(self._job):
            return None  # the Job's status will give the reason
        match message.split():
            case ["pushed", digest] if _is_digest(digest):
                log = f"{self._log()}\npushed {self._request.image} as {digest}\n"
                return BuildResult(image=self._request.image, pushed=True, log=log)
            case ["build" | "push", code] if code == str(_KILLED):
                return self._builder_failed("its process was killed; is there enough memory?")
            case ["build", code]:
                return self._build_failed(f"buildah ended with exit code {code}")
            case ["push", code]:
                return self._build_failed(f"the push to {self._request.image} ended with exit code {code}")
            case _:
                words = repr(message) if message else "no message"
                return self._builder_failed(
                    f"its Pod ended with {words} before the build; does the image have buildah?"
                )

    def _fetched(self) -> BuildResult:
        log = self._log()
        target = self._folder / f"{object_name(self._request.id)}.tar"
        return BuildResult(image=f"oci-archive:{fetch_archive(self._run, target, self.subject)}", log=log)

    def _run(self, command: tuple[str, ...], most: int) -> Iterator[bytes]:
        return self._api.execute(self._pod_name(), self._request.plan.module.namespace, command, most, CONTAINER)

    def _log(self) -> str:
        return self._pod_log.whole(self._pod_name())

    def _build_failed(self, problem: str) -> BuildResult:
        log = self._log()
        return BuildResult(failure_of(log, f"{self.subject}: {problem}", self._request.stage), log=log)

    def _builder_failed(self, problem: str) -> BuildResult:
        log = self._log()
        return BuildResult(builder_failed(log, f"{self.subject}: {problem}"), log=log)

    def _pod_name(self) -> str:
        return Field(self._pod)["metadata"]["name"].text()


def _termination_message(pod: Manifest) -> str:
    for container in Field(pod)["status"]["containerStatuses"]:
        if container["name"].text() == CONTAINER:
            return container["state"]["terminated"]["message"].text().strip()
    return ""


def _is_digest(text: str) -> bool:
    try:
        return bool(parse_digest(text))
    except Malformed:
        return False
