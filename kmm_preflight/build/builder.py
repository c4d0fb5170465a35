"""What a builder is told to make, how it answers, and the protocol that every builder follows."""

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
    """A Secret of the Module's namespace that stands at /run/secrets/<folder> while a step runs, and in no layer.

    secret is its name, files what is in it. The folder is the Secret's own name in a build; in a sign it is `key` or
    `cert`, as KMM has it.
    """

    folder: str
    secret: str
    files: Files = field(repr=False)


@dataclass(frozen=True)
class BuildRequest:
    """What a builder is to make of a plan: the image of its build section, or of its sign section.

    id is the same for the same plan and stage in every run, and names files and objects. image is the result's name,
    which is pushed to it only where push says so. images are the names of all images that the Dockerfile takes from,
    with the arguments in place; platforms has the architecture of those that are taken for one of their own. selector
    has the labels of nodes that may build; timeout is in seconds.
    """

    id: str
    stage: Stage
    plan: Plan
    dockerfile: str
    image: str
    push: bool
    timeout: float
    arguments: tuple[tuple[str, str], ...] = ()
    secrets: tuple[MountedSecret, ...] = ()
    images: tuple[str, ...] = ()
    platforms: Mapping[str, str] = field(default_factory=dict)
    pull_tls: RegistryTLS = VERIFIED_HTTPS
    push_tls: RegistryTLS = VERIFIED_HTTPS
    credentials: PullCredentials = field(default_factory=PullCredentials, repr=False)
    selector: tuple[tuple[str, str], ...] = ()

    @property
    def makes_image(self) -> bool:
        """True if the result is the image of the plan. False if that image is still to be signed."""
        return self.stage is Stage.SIGN or self.plan.sign is None


@dataclass(frozen=True)
class BuildResult:
    """How a build ended: finding is what speaks against it, None when the builder says that it went well.

    image is where the result can be read, "" when it is nowhere to be had; pushed that it is in its registry by now.
    log is all that the builder printed, without secrets.
    """

    finding: Finding | None = None
    image: str = ""
    pushed: bool = False
    log: str = field(default="", repr=False)


Show = Callable[[str], None]
"""Takes what a build is doing right now, in a few words, for whoever watches."""


class Builder(Protocol):
    """Runs builds beside the run: whoever starts one need not be the process that takes its result.

    Both raise what errors.py has for trouble with cluster or machine; that leaves a stage undecided.
    """

    @property
    def name(self) -> str:
        """As the option --builder has it."""

    @property
    def keeps(self) -> bool:
        """Whether the result of a build can be signed although it was not pushed."""

    @property
    def pushes_first(self) -> bool:
        """Whether a result is in its registry before it was proved."""

    def start(self, request: BuildRequest) -> None:
        """Starts the build, or adopts the one of that id which goes on already; returns at once."""

    def result(self, request: BuildRequest, show: Show) -> BuildResult:
        """Waits for the end of a build that was started, at most until its deadline, and stops it there."""

    def publish(self, request: BuildRequest, build_result: BuildResult) -> BuildResult:
        """Pushes a result that was proved, where it is not in its registry yet; image is then its name there."""
