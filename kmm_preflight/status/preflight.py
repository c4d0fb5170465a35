"""Preflight object of a cluster: its spec, its dialect, and the record of earlier runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import CRDS, Api, ResourceKind
from kmm_preflight.errors import PreflightError
from kmm_preflight.model import Flavour, Manifest, ModuleName, TargetKernel
from kmm_preflight.planning.plan import Case, Recorded
from kmm_preflight.stages import findings
from kmm_preflight.status.dialects import GROUP, Dialect, key_of, verified_claims
from kmm_preflight.status.preflight_kind import OCP, PreflightKind
from kmm_preflight.status.record import ANNOTATION, RecalledProof, Record, VerdictBasis, parse_record, recall


@dataclass(frozen=True)
class Preflight:
    """Preflight object as it was read, or as it will be created."""

    name: str
    """Name of the object."""
    dialect: Dialect
    """Status dialect of the cluster."""
    release_image: str | None = None
    """spec.releaseImage; None since KMM 2.4, where an object names a kernel."""
    kernel: str | None = None
    """spec.kernelVersion; None before KMM 2.4."""
    driver_toolkit: str | None = None
    """spec.dtkImage."""
    realtime: bool = False
    """spec.useRTKernel."""
    push_built_image: bool = False
    """spec.pushBuiltImage."""
    record: Record = field(default_factory=dict)
    """Record of earlier runs; empty if it cannot be read."""
    record_problem: str | None = None
    """Reason why the record cannot be read."""
    claims: Mapping[ModuleName, str] = field(default_factory=dict)
    """Status and writer of each entry that says "verified", by the key of the entry."""
    identity: tuple[object, object] = (None, None)
    """uid and generation of the object."""
    kind: PreflightKind = OCP
    """Kind of the object."""

    @property
    def subject(self) -> str:
        """Kind and name, for messages."""
        return f"{self.kind.name} {self.name}"

    @property
    def resource(self) -> ResourceKind:
        """The resource, in the API version of the dialect."""
        return self.kind.resource(self.dialect)


def identity_of(manifest: Manifest) -> tuple[object, object]:
    """Return uid and generation: they change if the object is created again, or if its spec changes."""
    metadata = Field(manifest)["metadata"]
    return metadata["uid"].value, metadata["generation"].value


def owner_of(preflight: Preflight) -> Manifest:
    """Return the object as an owner: Kubernetes deletes what it owns together with it."""
    return {
        "apiVersion": f"{GROUP}/{preflight.dialect.api_version}",
        "kind": preflight.kind.name,
        "metadata": {"name": preflight.name, "uid": preflight.identity[0]},
    }


def read_dialect(api: Api, kind: PreflightKind) -> Dialect | None:
    """Return the dialect of a kind in the cluster; None if its CRD is not installed, or has no dialect to answer in."""
    crd = api.get(CRDS, kind.crd)
    return kind.dialect(crd) if crd else None


def read_preflight(api: Api, name: str, dialect: Dialect, kind: PreflightKind = OCP) -> Preflight | None:
    """Return the object of that name, or None."""
    manifest = api.get(kind.resource(dialect), name)
    return parse_preflight(manifest, dialect, kind) if manifest else None


def parse_preflight(manifest: Manifest, dialect: Dialect, kind: PreflightKind = OCP) -> Preflight:
    """Return the object as a value. Raise Malformed, but not for a damaged record."""
    spec = Field(manifest)["spec"]
    record, problem = record_of(manifest)
    return Preflight(
        name=Field(manifest)["metadata"]["name"].text(),
        dialect=dialect,
        release_image=spec["releaseImage"].optional_text(),
        kernel=spec["kernelVersion"].optional_text(),
        driver_toolkit=spec["dtkImage"].optional_text(),
        realtime=spec["useRTKernel"].flag(),
        push_built_image=spec["pushBuiltImage"].flag(),
        record=record,
        record_problem=problem,
        claims=verified_claims(manifest, dialect),
        identity=identity_of(manifest),
        kind=kind,
    )


def record_of(manifest: Manifest) -> tuple[Record, str | None]:
    """Return the record in the object's annotation. If it is damaged, return an empty one and the reason."""
    text = Field(manifest)["metadata"]["annotations"][ANNOTATION].text()
    try:
        return (parse_record(text) if text else {}), None
    except PreflightError as exc:
        return {}, exc.message


def create_preflight(api: Api, preflight: Preflight) -> Preflight:
    """Create the object with the spec of the value, and return it with its identity."""
    spec: dict[str, object] = {
        "releaseImage": preflight.release_image,
        "kernelVersion": preflight.kernel,
        "dtkImage": preflight.driver_toolkit if preflight.kind.names_driver_toolkit else None,
        "useRTKernel": preflight.realtime,
        "pushBuiltImage": preflight.push_built_image,
    }
    manifest = {
        "apiVersion": f"{GROUP}/{preflight.dialect.api_version}",
        "kind": preflight.kind.name,
        "metadata": {"name": preflight.name},
        "spec": {key: value for key, value in spec.items() if value},
    }
    return parse_preflight(api.create(preflight.resource, manifest), preflight.dialect, preflight.kind)


def names_by_kernel(name: str, kernels: Iterable[TargetKernel]) -> dict[TargetKernel, str]:
    """Return the name of each kernel's object since KMM 2.4: NAME-<stream>-<flavour>.

    If two kernels have one name, add the architecture. If a kernel has no stream, use its version; if it is the only
    kernel, use NAME alone.
    """
    kernels = tuple(kernels)
    if len(kernels) == 1 and not kernels[0].stream:
        return {kernels[0]: name}
    short = {kernel: _slug(f"{name}-{kernel.stream or ''}-{kernel.flavour.value}") for kernel in kernels}
    counts = Counter(short.values())
    return {kernel: _object_name(name, kernel, short[kernel], counts[short[kernel]] > 1) for kernel in kernels}


def _object_name(name: str, kernel: TargetKernel, short: str, shared: bool) -> str:
    if not kernel.stream:
        return _slug(f"{name}-{kernel.version}")
    return f"{short}-{kernel.arch}" if shared else short


def _slug(text: str) -> str:
    """Return a name that the API server accepts."""
    return re.sub(r"[^a-z0-9.-]", "-", text.lower()).strip("-.")


def new_preflight(
    name: str,
    dialect: Dialect,
    release_image: str | None,
    kernels: tuple[TargetKernel, ...],
    push: bool,
    kind: PreflightKind = OCP,
) -> Preflight:
    """Return an object to create: for the release, or since KMM 2.4 for the one kernel."""
    new = Preflight(name, dialect, push_built_image=push, kind=kind)
    if dialect is Dialect.ONE_KERNEL:
        (kernel,) = kernels
        return replace(new, kernel=kernel.version, driver_toolkit=kernel.driver_toolkit)
    realtime = bool(kernels) and all(kernel.flavour is Flavour.RT for kernel in kernels)
    return replace(new, release_image=release_image, realtime=realtime)


def with_records(
    cases: Iterable[Case], bases: Mapping[ModuleName, VerdictBasis], preflight: Preflight, depth: str, rules: str
) -> tuple[Case, ...]:
    """Return the cases with their recorded proofs. Add a note if the status says "verified" without a valid proof."""
    return tuple(_with_record(case, bases.get(case.module), preflight, depth, rules) for case in cases)


def _with_record(case: Case, basis: VerdictBasis | None, preflight: Preflight, depth: str, rules: str) -> Case:
    recalled = recall(preflight.record, case, basis, depth, rules) if basis else RecalledProof()
    if recalled.proof:
        return replace(case, recorded=Recorded(recalled.proof.digest, recalled.proof.date))
    claim = preflight.claims.get(key_of(case.module, preflight.dialect))
    if not claim:
        return case
    got = recalled.problem or f"its status is {claim}, without a record of this suite"
    note = findings.JUDGED_AGAIN(object=preflight.subject, got=got)
    return replace(case, notes=(*case.notes, note))
