"""Which kernels of a release each Module of a run is judged on, and what was assumed for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kmm_preflight.model import ModuleName, Release, TargetKernel
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.prediction import PredictedKernel, Prediction, ReleaseStreams, default_stream_of
from kmm_preflight.nodes.targets import Demand, Target, everywhere, filter_of, needed, targets, with_nodes
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.module import Module, RefusedModule
from kmm_preflight.release.choice import Choice, KernelFilter
from kmm_preflight.release.payload import read_release, read_streams


@dataclass(frozen=True)
class Selection:
    """The release, all kernels of the run, those of each Module, and words for the report."""

    release: Release
    kernels: tuple[TargetKernel, ...]
    targets: Mapping[ModuleName, tuple[Target, ...]]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelOptions:
    """What options say of kernels: the choice, and whether its flavours were named; what is named wins over nodes."""

    choice: Choice
    flavour_named: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """The options that were given."""
        given = {"--arch": self.choice.arches, "--stream": self.choice.streams, "--flavour": self.flavour_named}
        return tuple(name for name, there in given.items() if there)

    def over(self, boot: PredictedKernel) -> PredictedKernel:
        """The boot with what is named left to the choice; a kernel that is not the release's is not chosen of it."""
        if boot.kernel or boot.unknown:
            return boot
        return replace(
            boot,
            arch="" if self.choice.arches else boot.arch,
            stream="" if self.choice.streams else boot.stream,
            flavour=None if self.flavour_named else boot.flavour,
        )


def choose_kernels(
    images: ImageResolver,
    name: str,
    options: KernelOptions,
    credentials: PullCredentials,
    modules: Iterable[Module | RefusedModule],
    fleet: Fleet | None,
) -> Selection:
    """The kernels of the release of that name that the Modules are judged on. Raises what read_release raises."""
    several = tuple(modules)
    if fleet is None or not fleet.known:
        release, kernels = read_release(images, name, options.choice, credentials)
        every = everywhere(kernels)
        return Selection(release, tuple(one.kernel for one in every), {one.name: every for one in several})
    offered = ReleaseStreams(*read_streams(images, name, options.choice.arches or fleet.arches, credentials))
    boots = Prediction(fleet, offered)
    wanted = {one.name: _needed(one, boots, options) for one in several}
    release, kernels = read_release(images, name, _choice(options, wanted.values()), credentials)
    found = {module: targets(many, kernels, offered) for module, many in wanted.items()}
    every = tuple(target for many in found.values() for target in many)
    used = [target.kernel for target in every]
    order = [kernel for kernel in kernels if kernel in used] + used
    told = with_nodes(order, every)
    return Selection(
        release,
        tuple(told.values()),
        {name: tuple(replace(one, kernel=told[one.kernel.version]) for one in many) for name, many in found.items()},
        (*fleet.lacking, *_assumed(fleet, offered, options, name)),
    )


def _needed(module: Module | RefusedModule, boots: Prediction, options: KernelOptions) -> tuple[Demand, ...]:
    """What a Module needs; of one that cannot be read, every node counts."""
    one = Module(module.name, None) if isinstance(module, RefusedModule) else module
    return tuple(replace(need, boot=options.over(need.boot)) for need in needed(one, boots))


def _choice(options: KernelOptions, needs: Iterable[tuple[Demand, ...]]) -> Choice:
    wants: set[KernelFilter | None] = {filter_of(one.boot) for several in needs for one in several}
    return replace(options.choice, filters=frozenset(want for want in wants if want))


def _assumed(fleet: Fleet, offered: ReleaseStreams, options: KernelOptions, release: str) -> list[str]:
    said = []
    if options.named:
        said.append(f"{', '.join(options.named)}: taken for every Module, whatever its nodes say")
    if len(set(offered.streams)) > 1 and fleet.pools and not fleet.default_stream and not options.choice.streams:
        stream = default_stream_of(fleet, offered)
        how = f"{stream}, as OpenShift does on a cluster installed with {fleet.installed}" if stream else (
            "every stream of the release, since the version that the cluster was installed with is not known either"
        )  # fmt: skip
        said.append(f"no OSImageStream tells the default stream: pools without a stream are taken to boot {how}")
    said += [
        f"NodePool {pool.name} asks for release {pool.release} today: its nodes are judged on {release}"
        for pool in fleet.node_pools
        if pool.release and pool.release != release
    ]
    return said
