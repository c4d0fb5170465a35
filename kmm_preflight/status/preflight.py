"""The PreflightValidationOCP as read from a cluster: its spec, its dialect, and what earlier runs left."""

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
from kmm_preflight.status.dialects import GROUP, RESOURCE, Dialect, claims, key_of
from kmm_preflight.status.record import ANNOTATION, Recall, Record, VerdictBasis, parse_record, recall

KIND = "PreflightValidationOCP"


@dataclass(frozen=True)
class Preflight:
    """What a spec gives in place of options; "" where it does not. Later generations have a kernel, not a release.

    record is what earlier runs left, record_problem why it could not be read. claims tells of the entries that stand as
    verified who says so, by the entry's key. identity is that of the object that was read.
    """

    name: str
    dialect: Dialect
    release_image: str = ""
    kernel: str = ""
    driver_toolkit: str | None = None
    realtime: bool = False
    push_built_image: bool = False
    record: Record = field(default_factory=dict)
    record_problem: str = ""
    claims: Mapping[ModuleName, str] = field(default_factory=dict)
    identity: tuple[object, object] = (None, None)


def identity_of(manifest: Manifest) -> tuple[object, object]:
    """Which object with which spec it is: uid and generation."""
    metadata = Field(manifest)["metadata"]
    return metadata["uid"].value, metadata["generation"].value


def owner_of(preflight: Preflight) -> Manifest:
    """The object as the owner of what is made for it, so that it goes when the object goes."""
    return {
        "apiVersion": f"{GROUP}/{preflight.dialect.api_version}",
        "kind": KIND,
        "metadata": {"name": preflight.name, "uid": preflight.identity[0]},
    }


def preflights(dialect: Dialect) -> ResourceKind:
    """The resource in the version through which the dialect is written."""
    return ResourceKind(GROUP, dialect.api_version, RESOURCE, namespaced=False)


def dialect_of_crd(crd: Manifest) -> Dialect:
    """The generation by the live schema, not by the list of versions: 2.3 and 2.4 both serve v1beta2."""
    versions = {one["name"].text(): one for one in Field(crd)["spec"]["versions"]}
    if "v1beta2" not in versions:
        return Dialect.SEED
    schema = versions["v1beta2"].walk("schema", "openAPIV3Schema", "properties", "spec", "properties")
    return Dialect.LATER if "kernelVersion" in schema.mapping() else Dialect.LIST


def read_dialect(api: Api) -> Dialect:
    """The generation that the cluster serves; UsageProblem when it does not know the resource."""
    crd = api.get(CRDS, f"{RESOURCE}.{GROUP}")
    if crd is None:
        raise UsageProblem(f"--preflight: API server {api.server} has no {RESOURCE}.{GROUP}: is KMM installed?")
    return dialect_of_crd(crd)


def read_preflight(api: Api, name: str, dialect: Dialect) -> Preflight | None:
    """The object of that name, None when there is none."""
    manifest = api.get(preflights(dialect), name)
    return parse_preflight(manifest, dialect) if manifest else None


def parse_preflight(manifest: Manifest, dialect: Dialect) -> Preflight:
    """The object as a value; a record that cannot be read is none, and said."""
    spec = Field(manifest)["spec"]
    record, problem = record_of(manifest)
    return Preflight(
        name=Field(manifest)["metadata"]["name"].text(),
        dialect=dialect,
        release_image=spec["releaseImage"].text(),
        kernel=spec["kernelVersion"].text(),
        driver_toolkit=spec["dtkImage"].optional_text(),
        realtime=spec["useRTKernel"].flag(),
        push_built_image=spec["pushBuiltImage"].flag(),
        record=record,
        record_problem=problem,
        claims=claims(manifest, dialect),
        identity=identity_of(manifest),
    )


def record_of(manifest: Manifest) -> tuple[Record, str]:
    """The record in the object's annotation, and why it cannot be read, in which case it is empty."""
    text = Field(manifest)["metadata"]["annotations"][ANNOTATION].text()
    try:
        return (parse_record(text) if text else {}), ""
    except PreflightError as exc:
        return {}, exc.message


def create_preflight(api: Api, preflight: Preflight) -> Preflight:
    """Makes the object with what the value has of a spec."""
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
    """The name of the object of each kernel, where one object answers one: NAME-<stream>-<flavour>.

    With the architecture behind it where two would have the same; a kernel that was given without a stream is named by
    its version, and by NAME alone when it is the only one.
    """
    several = tuple(kernels)
    if len(several) == 1 and not several[0].stream:
        return {several[0]: name}
    short = {kernel: _slug(f"{name}-{kernel.stream or ''}-{kernel.flavour.value}") for kernel in several}
    shared = Counter(short.values())
    return {kernel: _object_name(name, kernel, short[kernel], shared[short[kernel]] > 1) for kernel in several}


def _object_name(name: str, kernel: TargetKernel, short: str, shared: bool) -> str:
    if not kernel.stream:
        return _slug(f"{name}-{kernel.version}")
    return f"{short}-{kernel.arch}" if shared else short


def _slug(text: str) -> str:
    """A name that the API server takes."""
    return re.sub(r"[^a-z0-9.-]", "-", text.lower()).strip("-.")


def new_preflight(
    name: str, dialect: Dialect, release_image: str | None, kernels: tuple[TargetKernel, ...], push: bool
) -> Preflight:
    """The object to be made: of the release, or of the one kernel where the dialect has that in place of it."""
    if dialect is Dialect.LATER:
        (kernel,) = kernels
        return Preflight(
            name, dialect, kernel=kernel.version, driver_toolkit=kernel.driver_toolkit, push_built_image=push
        )
    realtime = bool(kernels) and all(kernel.flavour is Flavour.RT for kernel in kernels)
    return Preflight(name, dialect, release_image or "", realtime=realtime, push_built_image=push)


def remembering(
    cases: Iterable[Case], bases: Mapping[ModuleName, VerdictBasis], preflight: Preflight, depth: str, rules: str
) -> tuple[Case, ...]:
    """The plans with what the object's record has of them, and with a note where it says verified without one."""
    return tuple(_remembering(case, bases.get(case.module), preflight, depth, rules) for case in cases)


def _remembering(case: Case, basis: VerdictBasis | None, preflight: Preflight, depth: str, rules: str) -> Case:
    recalled = recall(preflight.record, case, basis, depth, rules) if basis else Recall()
    if recalled.proof:
        return replace(case, recorded=Recorded(recalled.proof.digest, recalled.proof.date))
    claim = preflight.claims.get(key_of(case.module, preflight.dialect))
    if not claim:
        return case
    why = recalled.why or f"{claim} without a record of this suite"
    return replace(
        case,
        notes=(
            *case.notes,
            findings.JUDGED_AGAIN(object=f"{KIND} {preflight.name}", got=why),
        ),
    )
