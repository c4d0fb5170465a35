"""Values that one room hands to the next. All are frozen. No value knows pytest, a registry or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Manifest = Mapping[str, object]
"""A Kubernetes object as decoded from YAML or JSON: the only dict that one file hands to another."""


class Stage(Enum):
    """The stages of the documentation, in order. The value is the word of the CRD."""

    IMAGE = "Image"
    BUILD = "Build"
    SIGN = "Sign"


class Outcome(Enum):
    """The outcome of one stage for one case."""

    VERIFIED = "verified"
    FALLS_THROUGH = "falls through"
    NOT_NEEDED = "not needed"
    FAILED = "failed"
    UNDECIDED = "undecided"


class Severity(Enum):
    """The weight of a finding, heaviest first."""

    REFUTES = "refutes"
    UNDECIDED = "undecided"
    WARNING = "warning"
    NOTE = "note"


class Flavour(Enum):
    """The kernel variant that a MachineConfigPool boots. The value is the MachineConfig's kernelType."""

    STANDARD = "standard"
    RT = "rt"
    PAGES_64K = "64k"


@dataclass(frozen=True)
class Finding:
    """A cause of trouble."""

    id: str
    """The stable id; docs/findings has a page of this name."""
    severity: Severity
    """The weight of the finding."""
    sentence: str
    """The problem, in one sentence that is safe to print."""
    remedy: str
    """The action that fixes the problem."""
    lines: tuple[str, ...] = ()
    """Lines that a tool printed about the problem, safe to print."""


@dataclass(frozen=True, order=True)
class ModuleName:
    """Kind, namespace and name of an object that brings kmods: mostly a Module."""

    namespace: str
    """The namespace. An empty text for a cluster-wide object."""
    name: str
    """The name."""
    kind: str = "Module"
    """The kind of the object."""

    def __str__(self) -> str:
        """Return namespace/name for a Module. For another kind, put the kind and a colon before."""
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return name if self.kind == "Module" else f"{self.kind}:{name}"


@dataclass(frozen=True)
class NotJudged:
    """Something that a run was given and did not judge."""

    subject: str
    """The object, as kind and name, or the place of a document or file."""
    reason: str
    """The reason why there is no verdict."""


@dataclass(frozen=True)
class TargetKernel:
    """A kernel that nodes will boot after the upgrade."""

    version: str
    """The version as uname -r prints it."""
    arch: str
    """The architecture in Go's spelling, such as amd64. Empty only in the placeholder for an unknown kernel."""
    stream: str | None
    """The OS stream, such as rhel-9. None if an option named the kernel."""
    flavour: Flavour
    """The variant of the kernel."""
    driver_toolkit: str | None
    """Pull spec of the driver toolkit with this kernel's headers."""
    provenance: str
    """The place where the version was read, as part of a sentence."""
    problem: Finding | None = None
    """A finding about the kernel itself, for all Modules."""
    os_image: str | None = None
    """Pull spec of the OS image with this kernel's own files."""


@dataclass(frozen=True)
class BootArguments:
    """The arguments with which a group of nodes boots its kernel."""

    group: str
    """The nodes, in words, such as pool worker-rt."""
    arguments: tuple[str, ...] = ()
    """The kernel's arguments, one word each, in the order of the command line, without the quotes around values."""
    fips: bool = False
    """True if spec.fips of the nodes' MachineConfig is set."""


@dataclass(frozen=True)
class DriverToolkit:
    """The driver toolkit image of one OS stream and architecture."""

    reference: str
    """The pull spec in the release."""
    digest: str
    """Digest of the manifest behind the pull spec."""
    stream: str
    """The OS stream, such as rhel-9."""
    arch: str
    """The architecture in Go's spelling."""
    rhel_version: str
    """The version of RHEL, such as 9.6."""


@dataclass(frozen=True)
class Release:
    """A release image, as read."""

    reference: str
    """The name of the image, in full."""
    digest: str
    """Digest of the manifest or index behind the name."""
    version: str
    """The version of OpenShift."""
    toolkits: tuple[DriverToolkit, ...]
    """The driver toolkits that were read."""
    notes: tuple[str, ...] = ()
    """Sentences that say what is not proved about the release."""


@dataclass(frozen=True)
class RegistryTLS:
    """The registryTLS section of a Module. The two fields are independent."""

    insecure: bool = False
    """True if plain HTTP is allowed."""
    insecure_skip_tls_verify: bool = False
    """True if any certificate is accepted."""


VERIFIED_HTTPS = RegistryTLS()
"""HTTPS with a certificate that is checked: the rules of a Module without a registryTLS section."""


@dataclass(frozen=True)
class JudgedImage:
    """The image behind a verdict."""

    reference: str
    """The name of the image."""
    digest: str
    """Digest of the manifest or index behind the name."""
    manifest_digest: str
    """Digest of the manifest for the kernel's architecture."""
    read_from: str | None = None
    """The mirror that has the image. None if the image was read from its own registry."""
    stored: bool = True
    """True if a registry has the image. False if this run built the image and did not push it."""


@dataclass(frozen=True)
class StageResult:
    """The result of one stage for one case."""

    stage: Stage
    """The stage."""
    outcome: Outcome
    """The outcome."""
    reason: str
    """The reason for the outcome, in one sentence."""
    findings: tuple[Finding, ...] = ()
    """All findings. The first finding decides, unless the outcome is VERIFIED."""
    image: JudgedImage | None = None
    """The image that was judged."""
    seconds: float = 0.0
    """Duration of the stage in seconds."""
    log: str | None = None
    """File name of the builder's log, relative to the artifact folder."""
