"""KMM's operator in the cluster: its version, and what it does with a preflight object that this run creates."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import DEPLOYMENTS, ReadApi
from kmm_preflight.depth import Depth, ProofOptions
from kmm_preflight.errors import PreflightError
from kmm_preflight.status.dialects import Dialect

NAMES = ("kmm-operator-controller", "kmm-operator-controller-manager")
"""Names of the operator's Deployment: since KMM 2.0, and before."""

_NEWEST = "the checks assume the newest KMM worker on the nodes"
_OWNER_LABEL = "olm.owner"  # such as kernel-module-management.v2.4.1
_VERSION = re.compile(r"(?:\.v|:v?)(\d+\.\d+)(?:\.\d+)?(?:$|[-@])")


@dataclass(frozen=True)
class Operator:
    """KMM's operator that runs in the cluster."""

    namespace: str
    """Namespace of its Deployment."""
    version: str | None = None
    """Version such as 2.4; None if neither OLM's label nor the image's tag shows it."""

    def pushes_always(self, dialect: Dialect) -> bool:
        """True if it may be KMM 2.4, which ignores pushBuiltImage and always pushes (docs/reference/kmm.md 7.2)."""
        return dialect is Dialect.ONE_KERNEL and self.version in (None, "2.4")

    def words(self, dialect: Dialect, push: bool) -> str:
        """Return what the operator does with a new object, as a sentence."""
        reads = "pulls each image" if dialect is Dialect.ONE_KERNEL else "reads each image"
        if self.pushes_always(dialect):
            unknown = "" if self.version else "its version is not known; "
            pushes = f"and pushes the results, whatever pushBuiltImage says ({unknown}KMM 2.4 does)"
        else:
            pushes = "and pushes the results" if push else "and pushes nothing"
        version = f" {self.version}" if self.version else ""
        return (
            f"KMM's operator{version} runs in namespace {self.namespace} and validates the same object: it {reads}, "
            f"runs the build and sign sections if that fails, {pushes}, and writes the same status"
        )


def find_operator(api: ReadApi) -> Operator | None:
    """Return the operator, or None if it is not installed or has no replicas. Raise as ReadApi."""
    for name in NAMES:
        for manifest in api.list(DEPLOYMENTS, name=name) or ():
            deployment = Field(manifest)
            if deployment["spec"]["replicas"].value != 0:
                return Operator(deployment["metadata"]["namespace"].text(), _version(deployment))
    return None


def with_kmm_version(api: ReadApi, proving: ProofOptions) -> tuple[ProofOptions, str | None]:
    """Return the options with the version of the cluster's KMM, and a sentence for the report if it is unknown.

    Change nothing if an option names the version, or if the proof does not depend on it.
    """
    if proving.kmm_version or not proving.depth.reaches(Depth.NODE):
        return proving, None
    try:
        operator = find_operator(api)
    except PreflightError as exc:
        return proving, f"the version of KMM could not be read ({exc.message}): {_NEWEST}"
    if operator is None or operator.version is None:
        return proving, f"no operator that shows KMM's version runs in the cluster: {_NEWEST}"
    return replace(proving, kmm_version=operator.version), None


def _version(deployment: Field) -> str | None:
    """Return the version in OLM's owner label, else in the tag of an image."""
    owner = deployment["metadata"]["labels"][_OWNER_LABEL].text()
    containers = deployment.walk("spec", "template", "spec", "containers")
    for text in (owner, *(container["image"].text() for container in containers)):
        if hit := _VERSION.search(text):
            return hit[1]
    return None
