"""The PreflightValidationOCP as read from a cluster: what its spec asks for, and the dialect of its status."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight.cluster.api import CRDS, Api, Kind
from kmm_preflight.errors import UsageProblem
from kmm_preflight.fields import Field
from kmm_preflight.model import Manifest
from kmm_preflight.status import GROUP, RESOURCE, Dialect


@dataclass(frozen=True)
class Preflight:
    """What a spec gives in place of options; "" where it does not. Later generations have a kernel, not a release."""

    name: str
    dialect: Dialect
    release_image: str = ""
    kernel: str = ""
    driver_toolkit: str = ""
    realtime: bool = False
    push_built_image: bool = False


def preflights(dialect: Dialect) -> Kind:
    """The resource in the version through which the dialect is written."""
    return Kind(GROUP, dialect.api_version, RESOURCE, namespaced=False)


def dialect_of_crd(crd: Manifest) -> Dialect:
    """The generation by the live schema, not by the list of versions: 2.3 and 2.4 both serve v1beta2."""
    versions = {one["name"].text(): one for one in Field(crd)["spec"]["versions"]}
    if "v1beta2" not in versions:
        return Dialect.SEED
    schema = versions["v1beta2"].walk("schema", "openAPIV3Schema", "properties", "spec", "properties")
    return Dialect.LATER if "kernelVersion" in schema.mapping() else Dialect.LIST


def read_preflight(api: Api, name: str) -> Preflight:
    """The object of that name; UsageProblem when there is none, or the cluster does not know the resource."""
    crd = api.get(CRDS, f"{RESOURCE}.{GROUP}")
    if crd is None:
        raise UsageProblem(f"--preflight {name}: API server {api.server} has no {RESOURCE}.{GROUP}: is KMM installed?")
    dialect = dialect_of_crd(crd)
    manifest = api.get(preflights(dialect), name)
    if manifest is None:
        expected = "expected one that exists; create it, or run without --preflight"
        raise UsageProblem(f"--preflight {name}: got no such PreflightValidationOCP, {expected}")
    spec = Field(manifest)["spec"]
    return Preflight(
        name=name,
        dialect=dialect,
        release_image=spec["releaseImage"].text(),
        kernel=spec["kernelVersion"].text(),
        driver_toolkit=spec["dtkImage"].text(),
        realtime=spec["useRTKernel"].flag(),
        push_built_image=spec["pushBuiltImage"].flag(),
    )
