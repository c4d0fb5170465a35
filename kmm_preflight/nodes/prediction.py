"""Predict the kernel of each node after the upgrade: a kernel of the release, or today's kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from kmm_preflight.kernel_version import kernel_flavour
from kmm_preflight.model import BootArguments, Flavour
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.kernel_arguments import node_pool_arguments, pool_arguments
from kmm_preflight.nodes.machine_config import (
    DEFAULT_KERNEL_TYPE,
    MachineConfig,
    custom_os_image,
    flavour_of,
    merged_kernel_type,
)
from kmm_preflight.nodes.node import HOSTED_LABEL, Node
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import Pool, pool_of
from kmm_preflight.text import listed

# A kernel package in a Containerfile, with or without a version. Other packages, such as kernel-devel, do not match.
_KERNEL_PACKAGE = re.compile(r"(?<![\w.-])kernel(-rt|-64k)?(-core|-modules(-core|-extra)?)?(?=-\d|[\s\"'*,;&|]|$)")
_TWO_NODE_POOLS = "several NodePools have this name"
_NO_POOL = "no machine config pool manages them"


@dataclass(frozen=True)
class ReleaseStreams:
    """The streams of a release."""

    version: str
    """The version of the release."""
    streams: tuple[str, ...]
    """Streams of its driver toolkits, in the payload's order."""

    @property
    def only(self) -> str | None:
        """The stream, if all driver toolkits have the same."""
        return self.streams[0] if len(set(self.streams)) == 1 else None


@dataclass(frozen=True)
class PredictedKernel:
    """The kernel that a group of nodes will boot after the upgrade."""

    group: str
    """The nodes, in words, such as "pool worker"."""
    stream: str | None = None
    """The stream, or None for every stream of the release."""
    arch: str | None = None
    """The architecture in Go's spelling, or None for every architecture of the release."""
    flavour: Flavour | None = None
    """The flavour, or None for the flavours of the options."""
    kernel: str | None = None
    """Today's kernel, if the upgrade does not change it. Otherwise None: the kernel is in the release."""
    unchanged_because: str | None = None
    """The reason why the upgrade does not change the kernel, or None."""
    unknown_because: str | None = None
    """The reason why the kernel is unknown, or None."""
    paused: bool = False
    """True if the pool is paused."""
    layered: bool = False
    """True if the cluster builds the OS image of the pool."""
    foreign_os: str | None = None
    """The operating system of the nodes, if it is not CoreOS: no release decides their kernel."""
    boot: BootArguments | None = None
    """The arguments of the kernel, or None if unknown."""

    @property
    def in_release(self) -> bool:
        """True if the release has the kernel."""
        return self.kernel is None and self.unknown_because is None


class Prediction:
    """The kernels that the nodes of a fleet will boot after the upgrade to a release."""

    def __init__(self, fleet: Fleet, streams: ReleaseStreams) -> None:
        self.fleet = fleet
        self.streams = streams
        self._pools = {node.name: pool_of(node, fleet.pools) for node in fleet.nodes}
        self._nodes: dict[str, PredictedKernel] = {}
        self._members: dict[str, list[Node]] = {}
        for node in fleet.nodes:
            if of_node := self._pools[node.name]:
                self._members.setdefault(of_node.name, []).append(node)
        self._configurations = {pool.name: self._configuration(pool) for pool in fleet.pools}
        once: dict[PredictedKernel, PredictedKernel] = {}
        for node in fleet.nodes:
            predicted = self._predict(node)
            self._nodes[node.name] = once.setdefault(predicted, predicted)

    def of_node(self, node: Node) -> PredictedKernel:
        """Return the kernel that a node of the fleet will boot. Equal kernels are one object."""
        return self._nodes[node.name]

    def members(self, pool: Pool) -> list[Node]:
        """Return the nodes of a pool."""
        return self._members.get(pool.name, [])

    def of_pool(self, pool: Pool, arch: str | None = None) -> list[PredictedKernel]:
        """Return the kernels that the nodes of a pool will boot, also nodes that will be added later.

        For a pool without nodes, predict for the architecture if given, else for those of all nodes.
        """
        members = [node for node in self.members(pool) if node.core_os and arch in (None, node.arch)]
        if members:
            return list(dict.fromkeys(self.of_node(node) for node in members))
        return [self._of_pool(pool, name) for name in ([arch] if arch else self._arches)]

    def nodes_of_pool(self, name: str) -> tuple[Node, ...]:
        """Return the nodes of the machine config pool of this name, by name, as the machine config operator sees it."""
        pool = self.fleet.pool(name)
        return tuple(self.members(pool)) if pool else ()

    def of_node_pool(self, pool: NodePool) -> PredictedKernel:
        """Return the kernel that the nodes of a NodePool will boot. They have one architecture."""
        predicted = self._without_configs(pool)
        if image := custom_os_image(pool.configs):
            return _unchanged(predicted, self._kernels_of(pool), _set_to(image))
        return _with_kernel_type(predicted, merged_kernel_type(pool.configs))

    @cached_property
    def _arches(self) -> list[str | None]:
        """The architectures of compute nodes, else those of all nodes, else an unknown one."""
        linux = [node for node in self.fleet.nodes if not node.windows]
        compute = [node for node in linux if not _of_control_plane(self._pools[node.name])]
        all_arches = {node.arch for node in compute or linux} or {None}
        return sorted(all_arches, key=lambda name: name or "")

    def _predict(self, node: Node) -> PredictedKernel:
        pool, node_pool = self._pools[node.name], node.labels.get(HOSTED_LABEL)
        if not node.core_os:
            return PredictedKernel(
                f"nodes with {node.os_image}",
                arch=node.arch,
                flavour=Flavour.STANDARD,
                unknown_because=f"they run {node.os_image}",
                foreign_os=node.os_image,
            )
        if node_pool is not None:
            return self._of_hosted_node(node, node_pool)
        if pool:
            return self._of_pool(pool, node.arch, node)
        if self.fleet.pools:
            return _unchanged(PredictedKernel("nodes of no pool", arch=node.arch), {node.kernel}, _NO_POOL)
        return PredictedKernel("nodes without pools", arch=node.arch, flavour=node.flavour)

    def _of_hosted_node(self, node: Node, node_pool: str) -> PredictedKernel:
        as_today = PredictedKernel(_hosted_group(node_pool), hosted_stream(self.streams), node.arch, node.flavour)
        pools = [pool for pool in self.fleet.node_pools if pool.label == node_pool]
        if len(pools) > 1:
            return replace(as_today, unknown_because=_TWO_NODE_POOLS)
        if not pools:
            return as_today
        (pool,) = pools
        if pool.missing_config_maps:
            return replace(self._without_configs(pool), flavour=as_today.flavour)
        return self.of_node_pool(pool)

    def _without_configs(self, pool: NodePool) -> PredictedKernel:
        """Return the prediction for a NodePool without its MachineConfigs."""
        stream = pool.stream or hosted_stream(self.streams)
        boot = node_pool_arguments(pool)
        return PredictedKernel(_hosted_group(pool.name), stream, pool.arch, paused=pool.paused, boot=boot)

    def _of_pool(self, pool: Pool, arch: str | None, node: Node | None = None) -> PredictedKernel:
        """Return the kernel of a node in the pool, or of a node that will be added later."""
        configuration = self._configurations[pool.name]
        layered = configuration.containerfile is not None or (node is not None and node.desired_image is not None)
        predicted = PredictedKernel(
            f"pool {pool.name}",
            configuration.stream,
            arch,
            paused=pool.paused,
            layered=layered,
            boot=configuration.boot,
        )
        as_today = replace(predicted, flavour=node.flavour if node else Flavour.STANDARD)
        if package := _kernel_package(configuration.containerfile or ""):
            reason = f"the Containerfile of its MachineOSConfig names {package}, which may replace the release's kernel"
            return replace(as_today, unknown_because=reason)
        if configuration.os_image:
            return _unchanged(predicted, configuration.kernels.get(arch, set()), _set_to(configuration.os_image))
        if configuration.kernel_type is None:
            return as_today
        return _with_kernel_type(predicted, configuration.kernel_type)

    def _configuration(self, pool: Pool) -> _PoolConfiguration:
        fleet, kernels = self.fleet, dict[str | None, set[str | None]]()
        sources = [config for config in fleet.sources(pool) if config.name != pool.rendered]
        for node in self.members(pool):
            if node.core_os and node.current_config == node.desired_config == pool.rendered:
                kernels.setdefault(node.arch, set()).add(node.kernel)
        rendered = fleet.configs.get(pool.rendered) if pool.rendered else None
        kernel_type = rendered.kernel_type or DEFAULT_KERNEL_TYPE if rendered else self._kernel_type(pool, sources)
        return _PoolConfiguration(
            stream=fleet.stream_of(pool) or default_stream_of(fleet, self.streams),
            kernel_type=kernel_type,
            os_image=custom_os_image(sources),
            containerfile=fleet.containerfiles.get(pool.name),
            kernels=kernels,
            boot=pool_arguments(pool, fleet),
        )

    def _kernel_type(self, pool: Pool, sources: Sequence[MachineConfig]) -> str | None:
        """Return the kernelType of the sources, or None if a source that was not given may set it."""
        merged = merged_kernel_type(sources)
        if merged != DEFAULT_KERNEL_TYPE:
            return merged
        return merged if sources and not self.fleet.missing_sources(pool) else None

    def _kernels_of(self, pool: NodePool) -> set[str | None]:
        return {node.kernel for node in self.fleet.nodes if node.labels.get(HOSTED_LABEL) == pool.label}


@dataclass(frozen=True)
class _PoolConfiguration:
    """The configuration of a pool."""

    stream: str | None
    """Its stream, or None if unknown."""
    kernel_type: str | None
    """Its kernelType, or None if unknown."""
    os_image: str | None
    """The osImageURL that a user set, or None."""
    containerfile: str | None
    """The Containerfile of a layered pool, or None."""
    kernels: Mapping[str | None, set[str | None]]
    """Kernels of the nodes that run the configuration, by architecture."""
    boot: BootArguments | None
    """Its kernel arguments, or None if unknown."""


def _of_control_plane(pool: Pool | None) -> bool:
    return pool is not None and pool.control_plane


def hosted_stream(streams: ReleaseStreams) -> str:
    """Return the stream of a hosted cluster's nodes: rhel-10 from 5.0 on (docs/reference/openshift.md 4.6)."""
    return streams.only or ("rhel-10" if _major(streams.version) >= 5 else "rhel-9")


def default_stream_of(fleet: Fleet, streams: ReleaseStreams) -> str | None:
    """Return the stream if no object names a stream (docs/reference/openshift.md 4.4).

    Return None if the first version of the cluster is unknown.
    """
    if streams.only:
        return streams.only
    if fleet.installed_version is None:
        return None
    if "okd" in fleet.installed_version:
        return "centos-10"
    return "rhel-10" if _major(fleet.installed_version) >= 5 else "rhel-9"


def flavour_exists(predicted: PredictedKernel) -> bool:
    """True if OpenShift has the flavour for the architecture: rt amd64, 64k arm64 (docs/reference/openshift.md 4.2)."""
    only = {Flavour.RT: "amd64", Flavour.PAGES_64K: "arm64"}.get(predicted.flavour or Flavour.STANDARD)
    return only is None or predicted.arch in (None, only)


def _kernel_package(containerfile: str) -> str | None:
    """Return the kernel package that a Containerfile names, or None. Ignore comments."""
    lines = [line for line in containerfile.splitlines() if not line.lstrip().startswith("#")]
    match = _KERNEL_PACKAGE.search("\n".join(lines))
    return match[0] if match else None


def _with_kernel_type(predicted: PredictedKernel, kernel_type: str) -> PredictedKernel:
    flavour = flavour_of(kernel_type)
    if flavour is None:
        return replace(predicted, flavour=Flavour.STANDARD, unknown_because=f"kernelType is {kernel_type}")
    return replace(predicted, flavour=flavour)


def _unchanged(predicted: PredictedKernel, kernels: set[str | None], reason: str) -> PredictedKernel:
    """Return the prediction for nodes whose kernel the upgrade does not change.

    kernels are today's kernels of the nodes that run the current configuration. If they are not one known kernel,
    the prediction is unknown.
    """
    predicted = replace(predicted, stream=None)
    known = sorted(kernel for kernel in kernels if kernel)
    if len(known) == len(kernels) == 1:
        (kernel,) = known
        return replace(predicted, flavour=kernel_flavour(kernel), kernel=kernel, unchanged_because=reason)
    unknown = ["an unknown kernel"] if None in kernels else []
    today = f"nodes with this image boot {listed([*known, *unknown])}" if known else "no node reports the kernel"
    return replace(predicted, flavour=Flavour.STANDARD, unknown_because=f"{reason}, and {today}")


def _set_to(image: str) -> str:
    return f"osImageURL is set to {image}"


def _hosted_group(node_pool: str) -> str:
    return f"NodePool {node_pool}"


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
