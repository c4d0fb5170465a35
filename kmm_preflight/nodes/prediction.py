"""What each node will boot: a kernel of the release by stream, architecture and flavour, or one that stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kmm_preflight.kernel_version import kernel_flavour
from kmm_preflight.model import Flavour
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.machine_config import MachineConfig, flavour_of, merged_kernel_type, own_image
from kmm_preflight.nodes.node import HOSTED_LABEL, Node
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import Pool, pool_of
from kmm_preflight.text import listed

# In a Containerfile: the package, with or without its version, but none such as kernel-devel beside it.
_KERNEL_PACKAGE = re.compile(r"(?<![\w.-])kernel(-rt|-64k)?(-core|-modules(-core|-extra)?)?(?=-\d|[\s\"'*,;&|]|$)")
_TWO_NODE_POOLS = "several NodePools given have this name"


@dataclass(frozen=True)
class ReleaseStreams:
    """What a release has: its version and the streams of its driver toolkits, in the payload's order."""

    version: str
    streams: tuple[str, ...]


@dataclass(frozen=True)
class PredictedKernel:
    """What a node boots after the upgrade. stream and arch "" are any of the release, flavour None the chosen ones.

    kernel is set where it is not the release's: own says why. unknown says why it is not known at all. group names the
    nodes that boot the same, in words.
    """

    group: str
    stream: str = ""
    arch: str = ""
    flavour: Flavour | None = None
    kernel: str = ""
    own: str = ""
    unknown: str = ""
    paused: bool = False
    layered: bool = False


class Prediction:
    """What each node of a fleet boots of a release, and what the nodes would that a pool has not yet."""

    def __init__(self, fleet: Fleet, offered: ReleaseStreams) -> None:
        self.fleet = fleet
        self.offered = offered
        self._members = {node.name: pool_of(node, fleet.pools) for node in fleet.nodes}
        self._configured = {pool.name: self._read(pool) for pool in fleet.pools}
        self._of_nodes = {node.name: self._boot(node) for node in fleet.nodes}

    def of_node(self, node: Node) -> PredictedKernel:
        """What a node of the fleet boots."""
        return self._of_nodes[node.name]

    def of_pool(self, pool: Pool, arch: str = "") -> list[PredictedKernel]:
        """What a pool's nodes boot, those that come later too.

        For the architecture that they must have, else those of its nodes, else of all nodes, else the release's own.
        """
        mine = [node for node in self.fleet.nodes if self._members[node.name] == pool and arch in ("", node.arch)]
        if mine:
            return list(dict.fromkeys(self.of_node(node) for node in mine))
        others = sorted({node.arch for node in self.fleet.nodes if not node.windows}) or [""]
        return [self._of_pool(pool, Node("", {}, one)) for one in ([arch] if arch else others)]

    def of_node_pool(self, pool: NodePool) -> PredictedKernel:
        """What the nodes of a NodePool boot, which has one architecture."""
        boot = self._blank(pool)
        if image := own_image(pool.configs):
            return _stays(boot, self._kernels_of(pool), _set_to(image))
        return _flavoured(boot, merged_kernel_type(pool.configs))

    def _boot(self, node: Node) -> PredictedKernel:
        pool, hosted = self._members[node.name], node.labels.get(HOSTED_LABEL)
        if hosted is not None:
            return self._boot_hosted(node, hosted)
        if pool:
            return self._of_pool(pool, node)
        if self.fleet.pools:
            return _stays(
                PredictedKernel("nodes of no pool", arch=node.arch), {node.kernel}, "no machine config pool manages it"
            )
        return PredictedKernel("nodes without pools", arch=node.arch, flavour=kernel_flavour(node.kernel))

    def _boot_hosted(self, node: Node, name: str) -> PredictedKernel:
        today = PredictedKernel(_hosted(name), hosted_stream(self.offered), node.arch, kernel_flavour(node.kernel))
        pools = [pool for pool in self.fleet.node_pools if pool.label == name]
        if len(pools) > 1:
            return replace(today, unknown=_TWO_NODE_POOLS)
        if not pools:
            return today
        (pool,) = pools
        if pool.lacking:
            return replace(self._blank(pool), flavour=today.flavour)
        return self.of_node_pool(pool)

    def _blank(self, pool: NodePool) -> PredictedKernel:
        return PredictedKernel(
            _hosted(pool.name), pool.stream or hosted_stream(self.offered), pool.arch, paused=pool.paused
        )

    def _of_pool(self, pool: Pool, node: Node) -> PredictedKernel:
        known = self._configured[pool.name]
        layered = known.containerfile is not None or bool(node.image)
        boot = PredictedKernel(f"pool {pool.name}", known.stream, node.arch, paused=pool.paused, layered=layered)
        today = replace(boot, flavour=kernel_flavour(node.kernel))
        if package := _kernel_package(known.containerfile or ""):
            said = f"the Containerfile of its MachineOSConfig names {package}, which may replace the release's kernel"
            return replace(today, unknown=said)
        if known.image:
            return _stays(boot, known.kernels.get(node.arch, set()), _set_to(known.image))
        return today if known.kernel_type is None else _flavoured(boot, known.kernel_type)

    def _read(self, pool: Pool) -> _Configured:
        """What a pool's configuration says; its rendered MachineConfig is no source of itself."""
        fleet, kernels = self.fleet, dict[str, set[str]]()
        sources = [one for one in fleet.sources(pool) if one.name != pool.rendered]
        for node in fleet.nodes:
            if self._members[node.name] == pool and node.config == node.wanted_config == pool.rendered:
                kernels.setdefault(node.arch, set()).add(node.kernel)
        rendered = fleet.configs.get(pool.rendered)
        return _Configured(
            stream=fleet.stream_of(pool) or default_stream_of(fleet, self.offered),
            kernel_type=rendered.kernel_type if rendered else self._merged(pool, sources),
            image=own_image(sources),
            containerfile=fleet.layered.get(pool.name),
            kernels=kernels,
        )

    def _merged(self, pool: Pool, sources: Sequence[MachineConfig]) -> str | None:
        """The kernelType of the sources, None where one that is not here may be the one that sets it."""
        merged = merged_kernel_type(sources)
        return merged if merged or (sources and not self.fleet.missing_sources(pool)) else None

    def _kernels_of(self, pool: NodePool) -> set[str]:
        return {node.kernel for node in self.fleet.nodes if node.labels.get(HOSTED_LABEL) == pool.label}


@dataclass(frozen=True)
class _Configured:
    """A pool's configuration. kernel_type is None where it is not known; kernels are those of the nodes that run it."""

    stream: str
    kernel_type: str | None
    image: str
    containerfile: str | None
    kernels: Mapping[str, set[str]]


def hosted_stream(offered: ReleaseStreams) -> str:
    """Return the stream of a hosted cluster's nodes: rhel-10 from 5.0 on (docs/reference/openshift.md 4.6)."""
    stream = "rhel-10" if _major(offered.version) >= 5 else "rhel-9"
    return _only(offered) or stream


def default_stream_of(fleet: Fleet, offered: ReleaseStreams) -> str:
    """Return the stream if no object names a stream (docs/reference/openshift.md 4.4).

    Return "" if the first version of the cluster is unknown.
    """
    if only := _only(offered):
        return only
    if not fleet.installed:
        return ""
    if "okd" in fleet.installed:
        return "centos-10"
    return "rhel-10" if _major(fleet.installed) >= 5 else "rhel-9"


def _kernel_package(containerfile: str) -> str:
    """The kernel package that a Containerfile names, "" for none; comments do not count."""
    lines = [line for line in containerfile.splitlines() if not line.lstrip().startswith("#")]
    hit = _KERNEL_PACKAGE.search("\n".join(lines))
    return hit[0] if hit else ""


def _flavoured(boot: PredictedKernel, kernel_type: str) -> PredictedKernel:
    flavour = flavour_of(kernel_type)
    if flavour is None:
        return replace(boot, flavour=Flavour.STANDARD, unknown=f"kernelType is {kernel_type}")
    return replace(boot, flavour=flavour)


def _stays(boot: PredictedKernel, kernels: set[str], why: str) -> PredictedKernel:
    """Nodes whose kernel the upgrade does not change: the one that all of them boot today who run what they shall."""
    boot = replace(boot, stream="")
    if len(kernels) == 1 and "" not in kernels:
        (kernel,) = kernels
        return replace(boot, flavour=kernel_flavour(kernel), kernel=kernel, own=why)
    unknown = "no node shows which kernel that image boots"
    if any(kernels):
        unknown = f"nodes that run it boot {listed(sorted(kernels))}"
    return replace(boot, flavour=Flavour.STANDARD, unknown=f"{why}, and {unknown}")


def _set_to(image: str) -> str:
    return f"osImageURL is set to {image}"


def _hosted(name: str) -> str:
    return f"NodePool {name}"


def exists(boot: PredictedKernel) -> bool:
    """True if OpenShift has the flavour for the architecture: rt amd64, 64k arm64 (docs/reference/openshift.md 4.2)."""
    only = {Flavour.RT: "amd64", Flavour.PAGES_64K: "arm64"}.get(boot.flavour or Flavour.STANDARD, boot.arch)
    return boot.arch in ("", only)


def _only(offered: ReleaseStreams) -> str:
    return offered.streams[0] if len(set(offered.streams)) == 1 else ""


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
