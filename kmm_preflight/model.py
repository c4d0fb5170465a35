"""The values that one step hands to the next. All are frozen; none knows pytest, a registry or a clock."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
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
class Build:
    """A build section. Arguments keep their order; secrets and ConfigMap are names in the Module's namespace."""

    dockerfile_config_map: str | None = None
    build_args: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    base_image_registry_tls: RegistryTLS = VERIFIED_HTTPS


@dataclass(frozen=True)
class Sign:
    """A sign section; key_secret and cert_secret are names in the Module's namespace."""

    unsigned_image: str = ""
    key_secret: str | None = None
    cert_secret: str | None = None
    files_to_sign: tuple[str, ...] = ()
    unsigned_image_registry_tls: RegistryTLS = VERIFIED_HTTPS


@dataclass(frozen=True)
class Recorded:
    """What an earlier run verified for the same plan: the digest behind the image's name, and when (ISO 8601)."""

    digest: str
    date: str


@dataclass(frozen=True)
class Plan:
    """One Module on one target kernel: where its kmod must be, and what may make it.

    image is the mapping's containerImage after substitution. kmod is modprobe's moduleName, None with rawArgs;
    modules_loading_order begins with it, and is loaded from its end. firmware_path is "" where there is none;
    load_options and parameters are what modprobe is given beside the name.
    unresolved is set, and image "", when the Module has nothing for this kernel. secret names the credentials,
    selector the nodes by their labels; nodes are those that will boot the kernel, in words, as far as they are known.
    recorded is what need not be judged again while the image is the same; notes are told whatever the stages conclude.
    """

    module: ModuleName
    kernel: TargetKernel
    image: str = ""
    kmod: str | None = None
    directory: str = "/opt"
    tls: RegistryTLS = VERIFIED_HTTPS
    secret: str | None = None
    build: Build | None = None
    sign: Sign | None = None
    in_tree_modules_to_remove: tuple[str, ...] = ()
    modules_loading_order: tuple[str, ...] = ()
    firmware_path: str = ""
    load_options: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    unresolved: Finding | None = None
    recorded: Recorded | None = None
    notes: tuple[Finding, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The case's id in pytest: namespace/name@kernel."""
        return f"{self.module}@{self.kernel.version}"

    @property
    def folder(self) -> str:
        """Where modprobe -d <dirName> looks: the documentation's <DirName>/lib/modules/<UpgradedKernel>.

        As Go's path.Join has it: dirName may be relative to the root, or have .. and several slashes.
        """
        return posixpath.normpath(f"/{self.directory}/lib/modules/{self.kernel.version}").lstrip("/")


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


class Conclusion(Enum):
    """A Module's verdict on one kernel; the value stands in every report."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_VERIFIED = "not verified in this run"


@dataclass(frozen=True)
class Verdict:
    """Where the stages of one plan ended; stage is the deciding one, results those that ran, in order."""

    plan: Plan
    conclusion: Conclusion
    stage: Stage
    reason: str
    results: tuple[StageResult, ...] = field(default=())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of all stages, in order."""
        return tuple(finding for result in self.results for finding in result.findings)

    @property
    def open_findings(self) -> tuple[Finding, ...]:
        """Those that leave something to do: not what a later stage has mended."""
        mended = self.conclusion is Conclusion.VERIFIED
        results = [one for one in self.results if not (mended and one.outcome is Outcome.FALLS_THROUGH)]
        return tuple(finding for result in results for finding in result.findings)

    @property
    def image(self) -> JudgedImage | None:
        """The image judged last."""
        return next((result.image for result in reversed(self.results) if result.image), None)

    @property
    def carried_over(self) -> bool:
        """Whether the proof is that of an earlier run: its record covers the image stage."""
        image = next((result for result in self.results if result.stage is Stage.IMAGE), None)
        return self.conclusion is Conclusion.VERIFIED and image is not None and image.outcome is Outcome.NOT_NEEDED
