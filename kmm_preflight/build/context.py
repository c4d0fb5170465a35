"""Context of the build stage: what every build of a run uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from kmm_preflight.build.builder import Builder
from kmm_preflight.build.prepare import BuildPolicy
from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.cluster.sections import SectionObjects
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.image_check import FurtherCheck


class SharedResults(Protocol):
    """Values that the processes of a run share, by a name that is also a file name."""

    def once(self, name: str, make: Callable[[], object]) -> object:
        """Return the value that the first process made. Other processes wait for it."""

    def known(self, name: str) -> object | None:
        """Return the value, or None if no process has made it."""


class Watcher(Protocol):
    """Receiver of progress."""

    def doing(self, plan: Plan, words: str) -> None:
        """Take the current step of the plan's build, in a few words."""


@dataclass(frozen=True)
class BuildContext:
    """Parts and settings that every build of a run uses."""

    builder: Builder | None
    """Builder of the run."""
    reason: str
    """Reason for this builder, or for having none."""
    policy: BuildPolicy
    """Rules for pushes, the signer and the deadline."""
    sources: SectionObjects
    """Source of ConfigMaps and Secrets that sections name."""
    images: ImageResolver
    """Resolver of images."""
    credentials: Mapping[str, Credentials] = field(repr=False)
    """Credentials of builds by plan id."""
    plans: tuple[Plan, ...]
    """All plans of the run."""
    load_check: FurtherCheck
    """Check of a result beyond the kmod's path."""
    load_check_unsigned: FurtherCheck
    """Check of a result that is still to be signed: it has no signatures."""
    signatures_checked: bool
    """True if load_check checks the signatures of sign sections."""
    logs: Path
    """Folder of logs among the artifacts."""
    now: Callable[[], datetime]
    """Clock; its times are aware."""
