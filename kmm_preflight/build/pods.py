"""Pod of a build: its log, the obstacle that keeps it from running, and its end."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.build.builder import BuildRequest
from kmm_preflight.build.objects import condition
from kmm_preflight.build.redaction import without_secrets
from kmm_preflight.cluster.api import Api
from kmm_preflight.errors import Undecidable
from kmm_preflight.model import Manifest

LOG_BYTES = 8 << 20
LAST_LINES, LAST_BYTES = 200, 64 << 10
PULL_SECONDS = 120.0
# A quota may become free.
NO_POD_SECONDS = 300.0
_STEP = re.compile(r"(?:\[\d+/\d+\] )?(?:STEP \d|COMMIT |PUSH |SAVE |Pushing image |Pulling image ).*")
# Reasons to wait that rarely end by themselves, and reasons after which the kubelet does not try again.
_TROUBLES = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable",
             "CreateContainerConfigError", "CreateContainerError", "RunContainerError")  # fmt: skip
_PATIENCE = dict.fromkeys(_TROUBLES, PULL_SECONDS) | dict.fromkeys(("InvalidImageName", "ErrImageNeverPull"), 0.0)
_CONTAINER_KILLED = ("OOMKilled", "StartError", "ContainerCannotRun")


class PodLog:
    """Log of a request's Pod. It keeps the last lines: at the build's end the Pod may be deleted."""

    def __init__(self, api: Api, request: BuildRequest, container: str = "") -> None:
        self._api = api
        self._request = request
        self._container = container
        self._last = ""

    def step(self, pod: str) -> str | None:
        """Return the current step as the log shows it, or None."""
        self._last = self._read(pod, LAST_BYTES, LAST_LINES) or self._last
        steps = [line for line in self._last.splitlines() if _STEP.match(line)]
        return steps[-1] if steps else None

    def whole(self, pod: str | None, snippet: str = "") -> str:
        """Return the log; of a very long log the beginning and the end.

        If the Pod is deleted, return the last lines that were read, or else the snippet from the build's status.
        """
        text = self._read(pod, LOG_BYTES) if pod else ""
        if len(text.encode()) < LOG_BYTES // 2:
            return text or self._last or without_secrets(snippet, self._request)
        # A log of this size may be cut off, and its end is the important part.
        end = self._read(pod or "", LAST_BYTES, LAST_LINES)
        return text if end in text else f"{text}\n[…]\n{end}"

    def _read(self, pod: str, most: int, last_lines: int = 0) -> str:
        with suppress(Undecidable):  # a node that does not answer proves nothing about the build
            log = self._api.log(pod, self._request.plan.module.namespace, most, last_lines, self._container)
            if len(log) >= most:
                log = log[: log.rfind(b"\n") + 1]  # a secret that is cut off would not be recognised
            return without_secrets(log.decode("utf-8", "replace"), self._request)
        return ""


@dataclass(frozen=True)
class Obstacle:
    """Reason why a Pod does not run yet."""

    words: str | None = None
    """Reason in the cluster's words; None if the Pod can run."""
    seconds: float | None = None
    """Seconds after which the build is stopped; None to wait until the deadline."""


def obstacle(pod: Manifest | None) -> Obstacle:
    """Return what keeps a Pod from running."""
    if pod is None:
        return Obstacle("no Pod yet, see its events", NO_POD_SECONDS)
    status = Field(pod)["status"]
    for scheduled in status["conditions"]:
        if scheduled["type"].text() == "PodScheduled" and scheduled["status"].text() == "False":
            return Obstacle(_reason(scheduled))
    for container in _containers(status):
        waiting = container["state"]["waiting"]
        if reason := waiting["reason"].text():
            return Obstacle(_reason(waiting), _PATIENCE.get(reason))
    return Obstacle()


def ended_by_cluster(pod: Manifest) -> str | None:
    """Return why the cluster ended the Pod, such as an eviction or missing memory; None if the Pod ended by itself."""
    status = Field(pod)["status"]
    if disruption := condition(pod, "DisruptionTarget"):
        return _reason(disruption)
    if status["phase"].text() == "Failed" and status["reason"].text() not in ("", "DeadlineExceeded"):
        return _reason(status)
    for container in status["containerStatuses"]:
        if container["state"]["terminated"]["reason"].text() in _CONTAINER_KILLED:
            return _reason(container["state"]["terminated"])
    return None


def past_deadline(manifest: Manifest | None) -> bool:
    """True if the cluster ended the Pod or Job at its deadline."""
    if manifest is None:
        return False
    conditions = [condition(manifest, name) for name in ("FailureTarget", "Failed")]
    reasons = [failure["reason"].text() for failure in conditions if failure]
    return "DeadlineExceeded" in (*reasons, Field(manifest)["status"]["reason"].text())


def has_started(pod: Manifest | None) -> bool:
    """True if a container of the Pod runs or has run."""
    if pod is None:
        return False
    states = [container["state"] for container in _containers(Field(pod)["status"])]
    return any(state["running"].given or state["terminated"].given for state in states)


def _containers(status: Field) -> tuple[Field, ...]:
    return (*status["initContainerStatuses"], *status["containerStatuses"])


def _reason(status: Field) -> str:
    reason, message = status["reason"].text(), status["message"].text()
    return f"{reason}: {message}" if reason and message else reason or message or "no reason given"
