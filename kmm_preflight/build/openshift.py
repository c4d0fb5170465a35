"""Builder "openshift": builds as Builds of OpenShift, as KMM makes them (docs/reference/kmm.md 5, 6)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.build.builder import BuildRequest, BuildResult, MountedSecret, Show
from kmm_preflight.build.failure import build_failed, builder_failed, timed_out
from kmm_preflight.build.objects import create_object, delete, has_ended, is_of, metadata_of, object_name
from kmm_preflight.build.pods import Obstacle, PodLog, ended_by_cluster, has_started, obstacle, past_deadline
from kmm_preflight.build.poll import follow
from kmm_preflight.cluster.api import BUILDS, PODS, Api
from kmm_preflight.errors import Undecidable
from kmm_preflight.model import Manifest

ACCOUNT = "builder"
BUILD_TYPE = "kmm.openshift.io/build.type"
POD_NAME = "openshift.io/build.pod-name"
# Reasons of a failed Build that are not failures of its Dockerfile (openshift/api, build/v1/consts.go).
_CLUSTER_REASONS = (
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
    """Settings of all Builds of a run."""

    owners: Mapping[str, Manifest] = field(default_factory=dict)
    """PreflightValidationOCP objects that own the Builds, by kernel version."""


class OpenShiftBuilder:
    """Builder whose builds are Builds of OpenShift. A result without a push cannot be read.

    OpenShift handles mirrors, certificate authorities and the nodes' pull secret. registryTLS has no effect.
    """

    name = "openshift"
    keeps_results = False
    pushes_before_proof = True

    def __init__(self, api: Api, settings: OpenShiftSettings) -> None:
        self._api = api
        self._settings = settings

    def start(self, request: BuildRequest) -> None:
        """Create the Build."""
        create_object(self._api, BUILDS, build_of(request, self._settings.owners.get(request.plan.kernel.version)))

    def has_ended(self, request: BuildRequest) -> bool:
        """True if the Build no longer runs."""
        build = self._api.get(BUILDS, object_name(request.id), request.plan.module.namespace)
        return build is None or has_ended(build)

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """Wait for the Build."""
        return follow(_RunningOpenShiftBuild(self._api, request), request.timeout, show)

    def publish(self, request: BuildRequest, result: BuildResult) -> BuildResult:
        """Return the result: OpenShift has pushed it."""
        return result


class _RunningOpenShiftBuild:
    """Build of a request, as it was read last."""

    def __init__(self, api: Api, request: BuildRequest) -> None:
        self._api = api
        self._request = request
        self._pod_log = PodLog(api, request)
        self._build: Manifest | None = None
        self._pod: Manifest | None = None
        self._has_run = False
        self.obstacle = Obstacle()
        self.step: str | None = None
        self.subject = f"Build {request.plan.module.namespace}/{object_name(request.id)}"

    def look(self) -> None:
        """Read Build, Pod and log."""
        namespace = self._request.plan.module.namespace
        self._build = self._api.get(BUILDS, object_name(self._request.id), namespace)
        pod = self._api.get(PODS, self._pod_name(), namespace)
        self._pod = pod if pod and self._build and is_of(pod, self._build) else None
        self.obstacle = self._obstacle()
        self._has_run = self._has_run or has_started(self._pod) or self.state == "Running"
        self.step = self._pod_log.step(self._pod_name()) if has_started(self._pod) else self.obstacle.words

    @property
    def state(self) -> str:
        """Phase of the Build."""
        return self._status["phase"].text() or "New"

    def end(self) -> BuildResult | None:
        """Return the result, or None if the Build goes on."""
        if self._build is None:
            return self._builder_failed("it was deleted before its end")
        match self.state:
            case "New" | "Pending" | "Running":
                return None
            case "Complete":
                image = self._request.image if self._request.push else None
                return BuildResult(image=image, pushed=self._request.push, log=self._log())
            case "Failed":
                return self._failed()
            case _:  # Error, Cancelled
                return self._builder_failed(f"it ended with phase {self.state} ({self._reason()})")

    def stopped(self) -> BuildResult:
        """Return the result of a Build that is stopped: a timeout if it has run, else a failure of the builder."""
        if self._has_run:
            return self._timed_out()
        words = self.obstacle.words or "no reason given"
        seconds = f"{self._request.timeout:.0f} s"
        return self._builder_failed(f"it did not run within {seconds}: its phase is {self.state} ({words})")

    def remove(self) -> None:
        """Delete the Build. Kubernetes deletes its Pod."""
        with suppress(Undecidable):  # a later run deletes it
            if self._build:
                delete(self._api, BUILDS, self._build)

    @property
    def _status(self) -> Field:
        return Field(self._build)["status"]

    def _obstacle(self) -> Obstacle:
        """Return what keeps the Pod from running. Without a Pod, return the Build's own reason."""
        if self._pod is None and (words := self._reason()):
            return Obstacle(words)
        return obstacle(self._pod)

    def _reason(self) -> str:
        texts = (self._status[key].text() for key in ("reason", "message"))
        return ": ".join(text for text in texts if text)

    def _failed(self) -> BuildResult:
        if past_deadline(self._pod):
            return self._timed_out()
        reason = ended_by_cluster(self._pod) if self._pod else None
        if reason or self._status["reason"].text() in _CLUSTER_REASONS:
            return self._builder_failed(f"the cluster ended it ({reason or self._reason()})")
        log, problem = self._log(), f"{self.subject}: {self._reason() or 'no reason given'}"
        return BuildResult(build_failed(log, problem, self._request.stage), log=log)

    def _timed_out(self) -> BuildResult:
        log = self._log()
        return BuildResult(timed_out(log, self._request.timeout), log=log)

    def _builder_failed(self, problem: str) -> BuildResult:
        log = self._log()
        return BuildResult(builder_failed(log, f"{self.subject}: {problem}"), log=log)

    def _log(self) -> str:
        name = self._pod_name() if self._pod else None
        return self._pod_log.whole(name, self._status["logSnippet"].text())

    def _pod_name(self) -> str:
        name = Field(self._build)["metadata"]["annotations"][POD_NAME].optional_text()
        return name or f"{object_name(self._request.id)}-build"


def build_of(request: BuildRequest, owner: Manifest | None) -> Manifest:
    """Return the Build of a request, with the same fields as a Build of KMM."""
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
        "volumes": [_volume(number, mounted) for number, mounted in enumerate(request.secrets)],
    }
    if request.plan.secret is not None:
        strategy["pullSecret"] = {"name": request.plan.secret}
    return strategy


def _volume(number: int, mounted: MountedSecret) -> Manifest:
    # KMM names the volume after the Secret. That is not a valid name if the Secret's name has a dot or is long.
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
