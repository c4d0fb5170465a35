"""ManagedClusterModule of a hub: its moduleSpec is the Module of each spoke (docs/reference/kmm.md 20.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.model import Manifest, ModuleName, TargetKernel
from kmm_preflight.planning.module import GROUP, VERSION, Module, parse_module
from kmm_preflight.planning.plan import Case
from kmm_preflight.planning.source import Spoke, SpokePlacement

KIND = "ManagedClusterModule"
CLAIM = "kernel-versions.kmm.node.kubernetes.io"
_KERNELS = 1000


@dataclass(frozen=True)
class ManagedClusterModule:
    """A Module that a hub makes on its spokes."""

    module: Module
    """The Module as a spoke gets it, with the mappings, builds and signs of the hub."""
    placement: SpokePlacement
    """The spokes."""

    @property
    def name(self) -> ModuleName:
        """Kind, namespace on the spokes, and name."""
        return self.module.name

    @property
    def deleting(self) -> bool:
        """True if the object is being deleted."""
        return self.module.deleting

    @property
    def uid(self) -> str | None:
        """The API server's uid. None for a manifest that was never on a server."""
        return self.module.uid

    @property
    def generation(self) -> int:
        """The API server's generation. 0 for a manifest that was never on a server."""
        return self.module.generation

    @property
    def secret(self) -> str | None:
        """Name of the imageRepoSecret, in the namespace on the spokes."""
        return self.module.secret

    @property
    def loads_kmods(self) -> bool:
        """True if the moduleSpec has a moduleLoader."""
        return self.module.loads_kmods

    def case_on(self, kernel: TargetKernel, today: tuple[str, ...]) -> Case:
        """Return the plan of the Module on a spoke."""
        return self.module.case_on(kernel, today)

    def on(self, clusters: tuple[Manifest, ...]) -> ManagedClusterModule:
        """Return the object with those ManagedClusters that its selector matches."""
        spokes = tuple(parse_spoke(cluster) for cluster in clusters if _selects(self.placement.selector, cluster))
        return replace(self, placement=replace(self.placement, spokes=spokes))


def parse_managed_cluster_module(manifest: Manifest, namespace: str) -> ManagedClusterModule:
    """Return the object of a manifest. Raise Malformed with the field that the CRD or KMM's webhook refuses."""
    del namespace  # it has none
    document = Field(manifest)
    spec = document["spec"].present(f"the spec of a {KIND}")
    spoke_namespace = spec["spokeNamespace"].present("the namespace on the spokes").text()
    metadata = {**document["metadata"].mapping(), "namespace": spoke_namespace}
    as_module = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Module",
        "metadata": metadata,
        "spec": spec["moduleSpec"].present("the spec of a Module").mapping(),
    }
    module = parse_module(as_module, spoke_namespace)
    named = replace(module, name=replace(module.name, kind=KIND))
    return ManagedClusterModule(named, SpokePlacement(spec["selector"].text_pairs()))


def parse_spoke(manifest: Manifest) -> Spoke:
    """Return the spoke of a ManagedCluster, with the kernels that its claim lists."""
    document = Field(manifest)
    kernels = [
        kernel
        for claim in document["status"]["clusterClaims"]
        if claim["name"].text() == CLAIM
        for kernel in claim["value"].text().splitlines()
        if kernel
    ]
    return Spoke(document["metadata"]["name"].name(), tuple(sorted(dict.fromkeys(kernels[:_KERNELS]))))


def _selects(selector: tuple[tuple[str, str], ...], cluster: Manifest) -> bool:
    labels = dict(Field(cluster)["metadata"]["labels"].text_pairs())
    return all(labels.get(key) == value for key, value in selector)
