"""The values that one step hands to the next. All are frozen; none knows pytest, a registry or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Manifest = Mapping[str, object]
"""A Kubernetes object as decoded from YAML or JSON; the only dict that crosses a file's border."""


class Stage(Enum):
    """The stages of the documentation, in its order; the value is the CRD's spelling."""

    IMAGE = "Image"
    BUILD = "Build"
    SIGN = "Sign"


class Outcome(Enum):
    """What one stage concluded about one plan."""

    VERIFIED = "verified"
    FALLS_THROUGH = "falls through"
    NOT_NEEDED = "not needed"
    FAILED = "failed"
    UNDECIDED = "undecided"


class Severity(Enum):
    """How much a finding weighs."""

    REFUTES = "refutes"
    UNDECIDED = "undecided"
    WARNING = "warning"
    NOTE = "note"


class Flavour(Enum):
    """The kernel variant that a machine config pool boots (MachineConfig kernelType)."""

    STANDARD = "standard"
    RT = "rt"
    PAGES_64K = "64k"


@dataclass(frozen=True)
class Finding:
    """One cause, with a stable id, a sentence that tells got and expected, and what to do about it.

    lines are what a tool printed of it, safe to print.
    """

    id: str
    severity: Severity
    sentence: str
    remedy: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class ModuleName:
    """Namespace and name of a Module."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class TargetKernel:
    """A kernel that nodes will boot after the upgrade, and where that was read.

    arch is Go's spelling (amd64); driver_toolkit a pull spec, "" when unknown; provenance a sentence part. problem
    speaks against the kernel itself, whatever the Module. os_image is the pull spec of the OS image that nodes boot it
    of, "" where none is known to have this kernel's files.
    """

    version: str
    arch: str
    stream: str
    flavour: Flavour
    driver_toolkit: str
    provenance: str
    problem: Finding | None = None
    os_image: str = ""


@dataclass(frozen=True)
class DriverToolkit:
    """The toolkit image of one OS stream and architecture, as judged."""

    reference: str
    digest: str
    stream: str
    arch: str
    rhel_version: str


@dataclass(frozen=True)
class Release:
    """What was read from a release image; digest is that of the manifest that was read, notes what is not proved."""

    reference: str
    digest: str
    version: str
    toolkits: tuple[DriverToolkit, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegistryTLS:
    """Module's registryTLS: insecure allows plain HTTP, insecureSkipTLSVerify any certificate; independent."""

    insecure: bool = False
    insecure_skip_tls_verify: bool = False


VERIFIED_HTTPS = RegistryTLS()


@dataclass(frozen=True)
class JudgedImage:
    """Which image a verdict rests on: the name, the digest behind it, and the platform's manifest digest.

    read_from names the mirror that has it, "" when it is at its own name. stored is False for one that was made by
    this run and is in no registry.
    """

    reference: str
    digest: str
    manifest_digest: str
    read_from: str = ""
    stored: bool = True


@dataclass(frozen=True)
class StageResult:
    """What a stage concluded; reason is one sentence; seconds the time it took.

    log names the builder's whole log among the artifacts, "" where there is none.
    """

    stage: Stage
    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...] = ()
    image: JudgedImage | None = None
    seconds: float = 0.0
    log: str = ""
