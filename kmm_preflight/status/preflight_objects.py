"""Preflight objects whose status a run updates: one for all kernels, or one for each kernel (KMM 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kmm_preflight.cluster.api import Api, Conflict
from kmm_preflight.errors import UsageProblem
from kmm_preflight.kernel_version import looks_like_kernel
from kmm_preflight.model import TargetKernel
from kmm_preflight.status.dialects import Dialect
from kmm_preflight.status.operator import find_operator
from kmm_preflight.status.preflight import (
    Preflight,
    create_preflight,
    names_by_kernel,
    new_preflight,
    read_dialect,
    read_preflight,
)
from kmm_preflight.status.preflight_kind import OCP, SIG, PreflightKind


@dataclass(frozen=True)
class RequestedPreflight:
    """Object that --preflight names."""

    name: str
    """Value of --preflight."""
    dialect: Dialect
    """Status dialect of the cluster."""
    preflight: Preflight | None = None
    """Object of that name; None if there is none."""
    kind: PreflightKind = OCP
    """Kind of the object, or of objects to create."""

    def check_exists(self, create: bool, kernels_known: bool) -> None:
        """Raise UsageProblem if there is no object and the run cannot choose or create another.

        kernels_known is true if options name a release image or kernels. KMM 2.4 has an object for each kernel.
        """
        if self.preflight:
            return
        if not kernels_known or not (create or self.dialect is Dialect.ONE_KERNEL):
            raise self.absent(kernels_known)

    def absent(self, kernels_known: bool) -> UsageProblem:
        """Return the error for an object that does not exist."""
        options = "--create-preflight" if kernels_known else "--create-preflight and --release-image"
        return UsageProblem(
            f"--preflight {self.name}: no such {self.kind.name} in the cluster. "
            f"Correct the name, or pass {options} to create it."
        )


def read_requested(api: Api, name: str) -> RequestedPreflight:
    """Read the object that --preflight names. Raise UsageProblem if KMM is not installed, or as Api.

    If objects of both kinds have the name, return OpenShift's. If none has, return a kind that the cluster serves.
    """
    own = _requested(api, name, OCP)
    if own and own.preflight:
        return own
    # Discovery needs no right. An account that may read OpenShift's kind only does not lose it.
    other = _requested(api, name, SIG) if api.serves(SIG.resource(Dialect.ONE_KERNEL)) else None
    if other and (other.preflight or not own):
        return other
    if own:
        return own
    raise UsageProblem(
        f"--preflight: API server {api.server} has no {OCP.crd}, and no {SIG.crd} with the status of KMM 2.4 or later: "
        "is KMM installed?"
    )


def _requested(api: Api, name: str, kind: PreflightKind) -> RequestedPreflight | None:
    """Return the object of a kind, or None if the cluster has no such kind that is answered."""
    dialect = read_dialect(api, kind)
    return RequestedPreflight(name, dialect, read_preflight(api, name, dialect, kind), kind) if dialect else None


@dataclass(frozen=True)
class ObjectOptions:
    """Options that decide which objects a run updates and creates."""

    create: bool = False
    """True if the run creates missing objects."""
    release_image: str | None = None
    """Release image of the run; None if only kernels are given."""
    spec_release: str | None = None
    """Release image in the requested object's spec, in the notation of release_image."""
    kernels_given: bool = False
    """True if --kernel names the target kernels."""
    push_built_image: bool = False
    """True if results of builds are pushed."""
    allow_operator_builds: bool = False
    """True if KMM's operator may push what it builds for a new object."""


@dataclass(frozen=True)
class UpdatedPreflight:
    """Object whose status the run updates."""

    preflight: Preflight
    """Object as it was read or created."""
    kernels: tuple[TargetKernel, ...]
    """Target kernels whose verdicts its status shows."""


@dataclass(frozen=True)
class FoundObjects:
    """Objects of a run in the cluster."""

    updated: tuple[UpdatedPreflight, ...] = ()
    """Objects that exist."""
    to_create: Mapping[str, tuple[TargetKernel, ...]] = field(default_factory=dict)
    """Names of objects that the run creates, with their kernels."""
    words: tuple[str, ...] = ()
    """Sentences for the report."""


class PreflightObjects:
    """Finds and creates the objects whose status a run updates."""

    def __init__(
        self, api: Api, requested: RequestedPreflight, kernels: tuple[TargetKernel, ...], options: ObjectOptions
    ) -> None:
        self.api = api
        self.dialect = requested.dialect
        self.kind = requested.kind
        self._requested = requested
        self._kernels = kernels
        self._options = options

    def find(self) -> FoundObjects:
        """Find the objects that exist and those to create. Raise UsageProblem if there are neither, or as Api."""
        found = self._one_for_each_kernel() if self.dialect is Dialect.ONE_KERNEL else self._one_for_all_kernels()
        if not found.updated and not found.to_create:
            raise self._requested.absent(bool(self._options.release_image or self._options.kernels_given))
        if found.to_create and self.dialect is not Dialect.ONE_KERNEL and not self._options.release_image:
            raise UsageProblem(
                "--create-preflight requires --release-image: an object of KMM 1.0 to 2.3 names the release."
            )
        return found

    def operator_warning(self) -> str | None:
        """Return what KMM's operator will do with a new object; None if no operator runs.

        Raise UsageProblem if the operator pushes against pushBuiltImage and no option allows it.
        """
        operator = find_operator(self.api)
        if operator is None:
            return None
        words = operator.words(self.dialect, self._options.push_built_image)
        if operator.pushes_always(self.dialect) and not self._options.allow_operator_builds:
            raise UsageProblem(f"--create-preflight: {words}. Pass --allow-operator-builds to allow it.")
        return words

    def create(self, found: FoundObjects) -> FoundObjects:
        """Create the missing objects. Raise as Api."""
        created = [UpdatedPreflight(self._create(name, kernels), kernels) for name, kernels in found.to_create.items()]
        words = [f"this run created {one.preflight.subject}" for one in created]
        return FoundObjects((*found.updated, *created), words=(*found.words, *words))

    def _one_for_all_kernels(self) -> FoundObjects:
        preflight = self._requested.preflight
        if preflight is None:
            return FoundObjects(to_create={self._requested.name: self._kernels})
        found = FoundObjects((UpdatedPreflight(preflight, self._kernels),))
        if not self._options.kernels_given and self._options.release_image == self._options.spec_release:
            return found
        judged = ", ".join(kernel.version for kernel in self._kernels)
        words = (
            f"the spec of {preflight.subject} names {preflight.release_image}; its status shows verdicts on "
            f"{judged}, as the options say"
        )
        return replace(found, words=(words,))

    def _one_for_each_kernel(self) -> FoundObjects:
        self._check_kernel()
        named = [kernel for kernel in self._kernels if looks_like_kernel(kernel.version)]
        words = [
            f"{kernel.version} has no {self.kind.name}: the kernel is not known"
            for kernel in self._kernels
            if kernel not in named
        ]
        updated, absent = [], dict[str, tuple[TargetKernel, ...]]()
        for kernel, name in names_by_kernel(self._requested.name, named).items():
            preflight = self._requested.preflight
            if preflight is None or preflight.kernel != kernel.version:
                preflight = self._read(name, kernel)
            if preflight:
                updated.append(UpdatedPreflight(preflight, (kernel,)))
            else:
                absent[name] = (kernel,)
        if self._options.create:
            return FoundObjects(tuple(updated), absent, tuple(words))
        words += [
            f"the verdicts on kernel {kernel.version} are in no status: {self.kind.name} {name} does not exist. "
            "Pass --create-preflight to create it."
            for name, (kernel,) in absent.items()
        ]
        return FoundObjects(tuple(updated), words=tuple(words))

    def _check_kernel(self) -> None:
        """Raise UsageProblem if the requested object is for a kernel that the run does not judge."""
        preflight = self._requested.preflight
        if preflight and preflight.kernel not in {kernel.version for kernel in self._kernels}:
            judged = ", ".join(kernel.version for kernel in self._kernels)
            raise UsageProblem(
                f"--preflight {self._requested.name}: the object is for kernel {preflight.kernel}, "
                f"the run judges {judged}. Choose another name."
            )

    def _read(self, name: str, kernel: TargetKernel) -> Preflight | None:
        preflight = read_preflight(self.api, name, self.dialect, self.kind)
        if preflight and self.dialect is Dialect.ONE_KERNEL and preflight.kernel != kernel.version:
            raise UsageProblem(
                f"--preflight {self._requested.name}: {preflight.subject} is for kernel {preflight.kernel}, "
                f"not for {kernel.version}. Delete it, or choose another name."
            )
        return preflight

    def _create(self, name: str, kernels: tuple[TargetKernel, ...]) -> Preflight:
        options = self._options
        new = new_preflight(name, self.dialect, options.release_image, kernels, options.push_built_image, self.kind)
        try:
            return create_preflight(self.api, new)
        except Conflict:  # another run created it first
            return self._read(name, kernels[0]) or new
