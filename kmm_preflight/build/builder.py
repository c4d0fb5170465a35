"""Request and result of a build, and the protocol of all builders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kmm_preflight.cluster.sections import Files
from kmm_preflight.model import VERIFIED_HTTPS, Finding, RegistryTLS, Stage
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.planning.plan import Plan


@dataclass(frozen=True)
class MountedSecret:
    """Secret of the Module's namespace that is mounted at /run/secrets/<folder> during a build, and is in no layer."""

    folder: str
    """Name of the folder: the Secret's name in a build; `key` or `cert` in a signing, as in KMM."""
    secret: str
    """Name of the Secret."""
    files: Files = field(repr=False)
    """Content of the Secret by file name."""


@dataclass(frozen=True)
class BuildRequest:
    """Image to build: that of a plan's build section, or of its sign section."""

    id: str
    """Name for files and objects. A plan and a stage have one id in every run."""
    stage: Stage
    """Build or sign."""
    plan: Plan
    """Plan of the section."""
    dockerfile: str
    """Text of the Dockerfile."""
    image: str
    """Name of the result."""
    push: bool
    """True if the result is pushed to its name."""
    timeout: float
    """Deadline in seconds."""
    arguments: tuple[tuple[str, str], ...] = ()
    """Build arguments as name and value."""
    secrets: tuple[MountedSecret, ...] = ()
    """Secrets that are mounted during the build."""
    images: tuple[str, ...] = ()
    """Names of all images that the Dockerfile uses, with arguments replaced."""
    platforms: Mapping[str, str] = field(default_factory=dict)
    """Architectures of images that the Dockerfile uses for another architecture, by image name."""
    options: tuple[str, ...] = ()
    """Options of buildah that the images require."""
    pull_tls: RegistryTLS = VERIFIED_HTTPS
    """TLS rules for pulls."""
    push_tls: RegistryTLS = VERIFIED_HTTPS
    """TLS rules for the push."""
    credentials: PullCredentials = field(default_factory=PullCredentials, repr=False)
    """Credentials for pulls and the push."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels of the nodes that may build."""

    @property
    def makes_image(self) -> bool:
        """True if the result is the image of the plan. False if that image is still to be signed."""
        return self.stage is Stage.SIGN or self.plan.sign is None


@dataclass(frozen=True)
class BuildResult:
    """End of a build."""

    finding: Finding | None = None
    """Failure of the build; None if the builder reports success."""
    image: str | None = None
    """Name under which the result can be read; None if it cannot be read."""
    pushed: bool = False
    """True if the result is in its registry."""
    log: str = field(default="", repr=False)
    """Output of the builder, without secrets."""


Show = Callable[[str], None]
"""Takes the current step of a build, in a few words."""


class Builder(Protocol):
    """Runs builds next to the run. Another process than the one that starts a build may take its result.

    All methods raise the errors of errors.py if the cluster or the machine fails. The stage is then undecided.
    """

    @property
    def name(self) -> str:
        """Value of --builder."""

    @property
    def keeps_results(self) -> bool:
        """True if a result can be signed although it is not pushed."""

    @property
    def pushes_before_proof(self) -> bool:
        """True if a result is pushed before it is checked."""

    def start(self, request: BuildRequest) -> None:
        """Start the build and return. If a build of this id runs already, use that one."""

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """Wait for the end of a build that was started. Stop the build at its deadline."""

    def publish(self, request: BuildRequest, result: BuildResult) -> BuildResult:
        """Push a checked result, unless it is in its registry. Return it with its name there."""
