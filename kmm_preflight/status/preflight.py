"""PreflightValidationOCP of a cluster: its spec, its dialect, and the record of earlier runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.api import CRDS, Api, ResourceKind
from kmm_preflight.errors import PreflightError, UsageProblem
from kmm_preflight.model import Flavour, Manifest, ModuleName, TargetKernel
from kmm_preflight.planning.plan import Case, Recorded
from kmm_preflight.stages import findings
from kmm_preflight.status.dialects import GROUP, RESOURCE, Dialect, key_of, verified_claims
from kmm_preflight.status.record import ANNOTATION, RecalledProof, Record, VerdictBasis, parse_record, recall

KIND = "PreflightValidationOCP"


@dataclass(frozen=True)
class Preflight:
    """PreflightValidationOCP as it was read, or as it will be created."""

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


def identity_of(manifest: Manifest) -> tuple[object, object]:
    """Return uid and generation: they change if the object is created again, or if its spec changes."""
    metadata = Field(manifest)["metadata"]
    return metadata["uid"].value, metadata["generation"].value


def owner_of(preflight: Preflight) -> Manifest:
    """Return the object as an owner: Kubernetes deletes what it owns together with it."""
    return {
        "apiVersion": f"{GROUP}/{preflight.dialect.api_version}",
        "kind": KIND,
        "metadata": {"name": preflight.name, "uid": preflight.identity[0]},
    }


def preflights(dialect: Dialect) -> ResourceKind:
    """Return the resource, in the API version of the dialect."""
    return ResourceKind(GROUP, dialect.api_version, RESOURCE, namespaced=False)


def dialect_of_crd(crd: Manifest) -> Dialect:
    """Return the dialect of a CRD by its schema. Its versions do not differ between 2.3 and 2.4: both serve v1beta2."""
    versions = {version["name"].text(): version for version in Field(crd)["spec"]["versions"]}
    if "v1beta2" not in versions:
        return Dialect.MAP
    schema = versions["v1beta2"].walk("schema", "openAPIV3Schema", "properties", "spec", "properties")
    return Dialect.ONE_KERNEL if "kernelVersion" in schema.mapping() else Dialect.LIST


def read_dialect(api: Api) -> Dialect:
    """Return the dialect of the cluster. Raise UsageProblem if KMM's CRD is not installed."""
    crd = api.get(CRDS, f"{RESOURCE}.{GROUP}")
    if crd is None:
        raise UsageProblem(f"--preflight: API server {api.server} has no {RESOURCE}.{GROUP}: is KMM installed?")
    return dialect_of_crd(crd)


def read_preflight(api: Api, name: str, dialect: Dialect) -> Preflight | None:
    """Return the object of that name, or None."""
    manifest = api.get(preflights(dialect), name)
    return parse_preflight(manifest, dialect) if manifest else None


def parse_preflight(manifest: Manifest, dialect: Dialect) -> Preflight:
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
        "dtkImage": preflight.driver_toolkit,
        "useRTKernel": preflight.realtime,
        "pushBuiltImage": preflight.push_built_image,
    }
    manifest = {
        "apiVersion": f"{GROUP}/{preflight.dialect.api_version}",
        "kind": KIND,
        "metadata": {"name": preflight.name},
        "spec": {key: value for key, value in spec.items() if value},
    }
    return parse_preflight(api.create(preflights(preflight.dialect), manifest), preflight.dialect)


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
    name: str, dialect: Dialect, release_image: str | None, kernels: tuple[TargetKernel, ...], push: bool
) -> Preflight:
    """Return an object to create: for the release, or since KMM 2.4 for the one kernel."""
    if dialect is Dialect.ONE_KERNEL:
        (kernel,) = kernels
        return Preflight(
            name, dialect, kernel=kernel.version, driver_toolkit=kernel.driver_toolkit, push_built_image=push
        )
    realtime = bool(kernels) and all(kernel.flavour is Flavour.RT for kernel in kernels)
    return Preflight(name, dialect, release_image, realtime=realtime, push_built_image=push)


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
    note = findings.JUDGED_AGAIN(object=f"{KIND} {preflight.name}", got=got)
    return replace(case, notes=(*case.notes, note))
