"""The Pod of a build: what it prints, what it waits for, what ended it."""

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
# A quota may have room again.
NO_POD_SECONDS = 300.0
_STEP = re.compile(r"(?:\[\d+/\d+\] )?(?:STEP \d|COMMIT |PUSH |SAVE |Pushing image |Pulling image ).*")
# Of reasons to wait that go away by themselves rarely, and of those that the kubelet does not try again.
_TROUBLES = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable",
             "CreateContainerConfigError", "CreateContainerError", "RunContainerError")  # fmt: skip
_PATIENCE = dict.fromkeys(_TROUBLES, PULL_SECONDS) | dict.fromkeys(("InvalidImageName", "ErrImageNeverPull"), 0.0)


class PodLog:
    """What a request's Pod prints. The last lines are kept: the Pod may be gone by the time when its end is seen."""

    def __init__(self, api: Api, request: BuildRequest, container: str = "") -> None:
        self._api = api
        self._order = request
        self._container = container
        self._last = ""

    def step(self, pod: str) -> str:
        """The step at which it is by now, as it says itself; "" when it says none."""
        self._last = self._read(pod, LAST_BYTES, LAST_LINES) or self._last
        hits = [line for line in self._last.splitlines() if _STEP.match(line)]
        return hits[-1] if hits else ""

    def whole(self, pod: str, instead: str = "") -> str:
        """All of it, without its middle where that is too long; the last lines that were seen when it is gone.

        instead is what somebody else has of it, where nothing was seen.
        """
        text = self._read(pod, LOG_BYTES) if pod else ""
        if len(text.encode()) < LOG_BYTES // 2:
            return text or self._last or without_secrets(instead, self._order)
        # A log of that size may have been cut off, and its end is what matters.
        end = self._read(pod, LAST_BYTES, LAST_LINES)
        return text if end in text else f"{text}\n[…]\n{end}"

    def _read(self, pod: str, most: int, last_lines: int = 0) -> str:
        with suppress(Undecidable):  # a node that does not answer says nothing of the build
            printed = self._api.log(pod, self._order.plan.module.namespace, most, last_lines, self._container)
            if len(printed) >= most:
                printed = printed[: printed.rfind(b"\n") + 1]  # of a secret that is cut nobody would know it
            return without_secrets(printed.decode("utf-8", "replace"), self._order)
        return ""


@dataclass(frozen=True)
class Obstacle:
    """Why a Pod does not run yet, in the cluster's words; seconds is how long that may be, None when to the end."""

    words: str = ""
    seconds: float | None = None


def obstacle(pod: Manifest | None) -> Obstacle:
    """What keeps a Pod from running, if anything."""
    if pod is None:
        return Obstacle("no Pod yet, see its events", NO_POD_SECONDS)
    status = Field(pod)["status"]
    for one in status["conditions"]:
        if one["type"].text() == "PodScheduled" and one["status"].text() == "False":
            return Obstacle(_said(one))
    for one in (*status["initContainerStatuses"], *status["containerStatuses"]):
        waiting = one["state"]["waiting"]
        if reason := waiting["reason"].text():
            return Obstacle(_said(waiting), _PATIENCE.get(reason))
    return Obstacle()


def taken(pod: Manifest) -> str:
    """By what a Pod was ended that is none of its own doing; "" otherwise."""
    status = Field(pod)["status"]
    if disrupted := condition(pod, "DisruptionTarget"):
        return _said(disrupted)
    if status["phase"].text() == "Failed" and status["reason"].text() not in ("", "DeadlineExceeded"):
        return _said(status)
    for one in status["containerStatuses"]:
        if one["state"]["terminated"]["reason"].text() in ("OOMKilled", "StartError", "ContainerCannotRun"):
            return _said(one["state"]["terminated"])
    return ""


def past_deadline(manifest: Manifest | None) -> bool:
    """Whether the cluster itself ended the Pod or Job because its time was up."""
    if manifest is None:
        return False
    conditions = [condition(manifest, name) for name in ("FailureTarget", "Failed")]
    reasons = [one["reason"].text() for one in conditions if one]
    return "DeadlineExceeded" in (*reasons, Field(manifest)["status"]["reason"].text())


def started(pod: Manifest | None) -> bool:
    """Whether a container of the Pod runs or has run."""
    if pod is None:
        return False
    status = Field(pod)["status"]
    states = [one["state"] for one in (*status["initContainerStatuses"], *status["containerStatuses"])]
    return any(state["running"].given or state["terminated"].given for state in states)


def _said(about: Field) -> str:
    reason, message = about["reason"].text(), about["message"].text()
    return f"{reason}: {message}" if reason and message else reason or message or "no reason given"
