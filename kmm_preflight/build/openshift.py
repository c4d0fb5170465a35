"""Builds as OpenShift's own, made as KMM makes them there (docs/reference/kmm.md 5, 6)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.build.builder import BuildRequest, BuildResult, MountedSecret, Show
from kmm_preflight.build.failure import builder_failed, failed, timed_out
from kmm_preflight.build.objects import delete, ended, is_of, metadata_of, object_name, settle
from kmm_preflight.build.pods import Obstacle, PodLog, obstacle, past_deadline, started, taken
from kmm_preflight.build.poll import follow
from kmm_preflight.cluster.api import BUILDS, PODS, Api
from kmm_preflight.errors import Undecidable
from kmm_preflight.model import Manifest

ACCOUNT = "builder"
BUILD_TYPE = "kmm.openshift.io/build.type"
POD_NAME = "openshift.io/build.pod-name"
# Reasons of a Failed build (openshift/api, build/v1/consts.go) that are not the build's own doing.
_OF_THE_CLUSTER = (
    "BuildPodDeleted",
    "BuildPodEvicted",
    "BuildPodExists",
    "CannotCreateBuildPod",
    "CannotCreateBuildPodSpec",
    "CannotRetrieveServiceAccount",
    "ExceededRetryTimeout",
    "FailedContainer",
    "NoBuildContainerStatus",
    "OutOfMemoryKilled",
)
_VOLUME = re.compile(r"[a-z0-9]([a-z0-9-]{0,54}[a-z0-9])?")


@dataclass(frozen=True)
class OpenShiftSettings:
    """What all Builds of a run share: the PreflightValidationOCPs that are answered, by kernel."""

    owners: Mapping[str, Manifest] = field(default_factory=dict)


class OpenShiftBuilder:
    """See Builder. Mirrors, trust and the nodes' pull secret are OpenShift's business; registryTLS has no effect.

    A result that is not pushed is nowhere to be had.
    """

    name = "openshift"
    keeps = False
    pushes_first = True

    def __init__(self, api: Api, settings: OpenShiftSettings) -> None:
        self._api = api
        self._settings = settings

    def start(self, request: BuildRequest) -> None:
        """See Builder."""
        settle(self._api, BUILDS, build_of(request, self._settings.owners.get(request.plan.kernel.version)))

    def ended(self, request: BuildRequest) -> bool:
        """See Remote."""
        found = self._api.get(BUILDS, object_name(request.id), request.plan.module.namespace)
        return found is None or ended(found)

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """See Builder."""
        return follow(_RunningOpenShiftBuild(self._api, request), request.timeout, show)

    def publish(self, request: BuildRequest, build_result: BuildResult) -> BuildResult:
        """See Builder: what is to be pushed was pushed by OpenShift."""
        return build_result


class _RunningOpenShiftBuild:
    """A Build that goes on, as it was seen last."""

    def __init__(self, api: Api, request: BuildRequest) -> None:
        self._api = api
        self._order = request
        self._printed = PodLog(api, request)
        self._build: Manifest | None = None
        self._pod: Manifest | None = None
        self._ran = False
        self.obstacle = Obstacle()
        self.step = ""
        self.subject = f"Build {request.plan.module.namespace}/{object_name(request.id)}"

    def look(self) -> None:
        """Ask for Build, Pod and log."""
        namespace = self._order.plan.module.namespace
        self._build = self._api.get(BUILDS, object_name(self._order.id), namespace)
        pod = self._api.get(PODS, self._pod_name(), namespace)
        self._pod = pod if pod and self._build and is_of(pod, self._build) else None
        self.obstacle = self._obstacle()
        self._ran = self._ran or started(self._pod) or self.state == "Running"
        self.step = self._printed.step(self._pod_name()) if started(self._pod) else self.obstacle.words

    @property
    def state(self) -> str:
        """As OpenShift has it."""
        return self._status["phase"].text() or "New"

    def end(self) -> BuildResult | None:
        """The end, if it has come to one."""
        if self._build is None:
            return self._broke("got it deleted by somebody else, expected its end")
        match self.state:
            case "New" | "Pending" | "Running":
                return None
            case "Complete":
                image = self._order.image if self._order.push else ""
                return BuildResult(image=image, pushed=self._order.push, log=self._log())
            case "Failed":
                return self._failed()
            case _:  # Error, Cancelled
                return self._broke(f"got phase {self.state} ({self._words()}), expected Complete")

    def given_up(self) -> BuildResult:
        """What is told of a build that is stopped: one that never ran says nothing of its Dockerfile."""
        if self._ran:
            return self._timed_out()
        words = self.obstacle.words or "no reason given"
        problem = f"got phase {self.state} ({words}), expected it to run within {self._order.timeout:.0f} s"
        return self._broke(problem)

    def remove(self) -> None:
        """Delete the Build, and with it the Pod."""
        with suppress(Undecidable):  # then a later run does it
            if self._build:
                delete(self._api, BUILDS, self._build)

    @property
    def _status(self) -> Field:
        return Field(self._build)["status"]

    def _obstacle(self) -> Obstacle:
        """What keeps the Pod from running, in the Build's own words where it has no Pod."""
        if self._pod is None and (words := self._words()):
            return Obstacle(words)
        return obstacle(self._pod)

    def _words(self) -> str:
        said = (self._status[key].text() for key in ("reason", "message"))
        return ": ".join(one for one in said if one)

    def _failed(self) -> BuildResult:
        if past_deadline(self._pod):
            return self._timed_out()
        why = taken(self._pod) if self._pod else ""
        if why or self._status["reason"].text() in _OF_THE_CLUSTER:
            return self._broke(f"got it ended by the cluster ({why or self._words()}), expected it to end by itself")
        log, problem = self._log(), f"{self.subject}: got {self._words() or 'no reason'}, expected Complete"
        return BuildResult(failed(log, problem, self._order.stage), log=log)

    def _timed_out(self) -> BuildResult:
        log = self._log()
        return BuildResult(timed_out(log, self._order.timeout), log=log)

    def _broke(self, problem: str) -> BuildResult:
        log = self._log()
        return BuildResult(builder_failed(log, f"{self.subject}: {problem}"), log=log)

    def _log(self) -> str:
        name = self._pod_name() if self._pod else ""
        return self._printed.whole(name, self._status["logSnippet"].text())

    def _pod_name(self) -> str:
        told = Field(self._build)["metadata"]["annotations"][POD_NAME].text()
        return told or f"{object_name(self._order.id)}-build"


def build_of(request: BuildRequest, owner: Manifest | None) -> Manifest:
    """The Build of a request, with the fields that KMM gives it."""
    spec: dict[str, object] = {
        "serviceAccount": ACCOUNT,
        "source": {"type": "Dockerfile", "dockerfile": request.dockerfile},
        "strategy": {"type": "Docker", "dockerStrategy": _strategy(request)},
        "output": _output(request),
        "mountTrustedCA": True,
        "completionDeadlineSeconds": math.ceil(request.timeout),
    }
    if request.selector:
        spec["nodeSelector"] = dict(request.selector)
    metadata = metadata_of(request, spec, owner, {BUILD_TYPE: request.stage.value.lower()})
    return {"apiVersion": "build.openshift.io/v1", "kind": "Build", "metadata": metadata, "spec": spec}


def _strategy(request: BuildRequest) -> Manifest:
    strategy: dict[str, object] = {
        "buildArgs": [{"name": name, "value": value} for name, value in request.arguments],
        "volumes": [_volume(number, one) for number, one in enumerate(request.secrets)],
    }
    if request.plan.secret is not None:
        strategy["pullSecret"] = {"name": request.plan.secret}
    return strategy


def _volume(number: int, mounted: MountedSecret) -> Manifest:
    # KMM's own name for it, which is none where the Secret's has a dot or is long.
    name = f"secret-{mounted.secret}" if _VOLUME.fullmatch(mounted.secret) else f"secret-{number}"
    source = {"type": "Secret", "secret": {"secretName": mounted.secret, "optional": False}}
    return {"name": name, "source": source, "mounts": [{"destinationPath": f"/run/secrets/{mounted.folder}"}]}


def _output(request: BuildRequest) -> Manifest:
    if not request.push:
        return {}
    output: dict[str, object] = {"to": {"kind": "DockerImage", "name": request.image}}
    if request.plan.secret is not None:
        output["pushSecret"] = {"name": request.plan.secret}
    return output
