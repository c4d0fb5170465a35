"""Select the kernels on which each Module of a run is judged: kernels of a release, or kernels that options name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kmm_preflight.kernel_version import given_architecture, kernel_architecture, kernel_flavour
from kmm_preflight.model import ModuleName, Release, TargetKernel
from kmm_preflight.nodes.candidates import missing_arch
from kmm_preflight.nodes.demand import Demand, demand_of
from kmm_preflight.nodes.demand_elsewhere import boot_demand, spoke_demand
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.named import named_targets
from kmm_preflight.nodes.prediction import PredictedKernel, Prediction, ReleaseStreams, default_stream_of
from kmm_preflight.nodes.settling import NO_UPGRADE, OrderedUpgrade
from kmm_preflight.nodes.superseded import with_superseded
from kmm_preflight.nodes.target import Target
from kmm_preflight.nodes.targets import targets_by_selector, targets_for_any_node, targets_of, with_nodes
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.module import Module
from kmm_preflight.planning.source import BootPlacement, KmodSource, SpokePlacement
from kmm_preflight.release.choice import Choice
from kmm_preflight.release.payload import read_release, read_streams
from kmm_preflight.text import listed

ALL_KERNELS = "every Module is judged on every kernel read from the release"


@dataclass(frozen=True)
class Selection:
    """The kernels on which the Modules of a run are judged."""

    release: Release | None
    """The release that was read, or None if options name the kernels."""
    kernels: tuple[TargetKernel, ...]
    """All kernels of the run."""
    targets: Mapping[ModuleName, tuple[Target, ...]]
    """The target kernels of each Module."""
    assumed: tuple[str, ...] = ()
    """Sentences for the report about assumptions, without those of the release."""
    without_case: Mapping[ModuleName, str] = field(default_factory=dict)
    """Modules without a target kernel, with the reason."""

    @property
    def all_assumed(self) -> tuple[str, ...]:
        """All sentences for the report about assumptions."""
        return (*self.assumed, *(self.release.notes if self.release else ()))


@dataclass(frozen=True)
class KernelOptions:
    """The options that choose kernels of a release. An option wins over the nodes."""

    choice: Choice
    """The values of --arch, --stream and --flavour."""
    flavour_named: bool = False
    """True if --flavour was given."""
    one_folder: bool = False
    """True if KMM is known to copy only the folder of the kernel that a NodeModulesConfig names."""

    @property
    def named(self) -> tuple[str, ...]:
        """The options that were given."""
        given = {"--arch": self.choice.arches, "--stream": self.choice.streams, "--flavour": self.flavour_named}
        return tuple(name for name, value in given.items() if value)

    def applied_to(self, predicted: PredictedKernel) -> PredictedKernel:
        """Return the prediction without the parts that options decide. Options do not change a kernel of today."""
        if not predicted.in_release:
            return predicted
        return replace(
            predicted,
            arch=None if self.choice.arches else predicted.arch,
            stream=None if self.choice.streams else predicted.stream,
            flavour=None if self.flavour_named else predicted.flavour,
        )


def choose_kernels(
    images: ImageResolver,
    name: str,
    options: KernelOptions,
    credentials: PullCredentials,
    modules: Iterable[KmodSource],
    fleet: Fleet | None,
) -> Selection:
    """Return the kernels of the release on which the Modules are judged. Raise the errors of read_release."""
    judged = tuple(modules)
    if fleet is None or not fleet.known:
        release, kernels = read_release(images, name, options.choice, credentials)
        targets = targets_for_any_node(kernels)
        return Selection(
            release,
            tuple(target.kernel for target in targets),
            {module.name: targets_by_selector(module, targets) for module in judged},
            (_all_kernels(options.choice, fleet), *_versions_unknown(judged)),
        )
    streams = ReleaseStreams(*read_streams(images, name, options.choice.arches or fleet.arches, credentials))
    prediction = Prediction(fleet, streams)
    demands = {module.name: _demand(module, prediction, options) for module in judged}
    release, kernels = read_release(images, name, _choice(options, demands.values()), credentials)
    readable = [module for module in judged if isinstance(module, Module)]
    upgrades = {module.name: OrderedUpgrade(module.version, options.one_folder) for module in readable}
    every = {
        name: targets_of(demand, kernels, streams, upgrades.get(name, NO_UPGRADE)) for name, demand in demands.items()
    }
    by_module = with_superseded(readable, every)
    all_targets = tuple(target for targets in by_module.values() for target in targets)
    used = [target.kernel for target in all_targets]
    ordered = [kernel for kernel in kernels if kernel in used] + used
    by_version = with_nodes(ordered, all_targets)
    return Selection(
        release,
        tuple(by_version.values()),
        {
            module: tuple(replace(target, kernel=by_version[target.kernel.version]) for target in targets)
            for module, targets in by_module.items()
        },
        (*fleet.assumed, *_assumed(fleet, streams, options, name)),
        _of_missing_arches(readable, every, fleet),
    )


def _of_missing_arches(
    modules: Iterable[Module], targets: Mapping[ModuleName, tuple[Target, ...]], fleet: Fleet
) -> dict[ModuleName, str]:
    """Return the Modules without a target because of the architecture that they select, with the reason."""
    missing = {module.name: missing_arch(module, fleet) for module in modules if not targets[module.name]}
    return {name: f"no node and no pool has {arch}" for name, arch in missing.items() if arch}


def named_kernels(
    versions: Iterable[str],
    arches: tuple[str, ...],
    driver_toolkit: str | None,
    release: str | None,
    modules: Iterable[KmodSource],
    fleet: Fleet | None = None,
    one_folder: bool = False,
) -> Selection:
    """Return the kernels that options name. No release is read. Nodes boot them whatever their pools say.

    arches are the architectures that options name. release is the image that options name in addition. one_folder is
    the field of KernelOptions.
    """
    given, kernels = tuple(modules), _given_kernels(versions, arches, driver_toolkit)
    instead = f" instead of those of {release}" if release else ""
    assumed = [f"target kernels were given by --kernel{instead}: no release image was read"]
    assumed += [
        f"kernel {kernel.version} names no architecture: {kernel.arch} is assumed"
        for kernel in kernels
        if not kernel_architecture(kernel.version)
    ]
    prediction = Prediction(fleet, ReleaseStreams("", ())) if fleet and fleet.known else None
    by_module = {}
    for module in given:
        upgrade = OrderedUpgrade(module.version, one_folder) if isinstance(module, Module) else NO_UPGRADE
        demands = _placed(module, prediction) if prediction else ()
        targets = targets_for_any_node(kernels)
        by_module[module.name] = tuple(each for target in targets for each in named_targets(target, demands, upgrade))
    assumed += [] if prediction else _versions_unknown(given)
    return Selection(None, kernels, by_module, tuple(assumed))


def _versions_unknown(modules: Iterable[KmodSource]) -> list[str]:
    """Return a sentence about the Modules of ordered upgrades, for a run that knows no nodes."""
    names = [str(module.name) for module in modules if isinstance(module, Module) and module.version is not None]
    reason = "no node was read, so all nodes are assumed to run the version that the Module has now"
    return [f"ordered upgrades of {listed(names)}: {reason}"] if names else []


def _given_kernels(
    versions: Iterable[str], arches: tuple[str, ...], driver_toolkit: str | None
) -> tuple[TargetKernel, ...]:
    return tuple(
        TargetKernel(
            version=version,
            arch=given_architecture(version, arches),
            stream=None,
            flavour=kernel_flavour(version),
            driver_toolkit=driver_toolkit,
            provenance="given by --kernel",
        )
        for version in versions
    )


def _all_kernels(choice: Choice, fleet: Fleet | None) -> str:
    """Return the sentence of a run that knows no nodes."""
    names = ", ".join([*choice.arches, *choice.streams, *(flavour.value for flavour in choice.flavours)])
    reasons = "; ".join(fleet.assumed) if fleet else ""
    return f"{reasons or f'no cluster was read: {ALL_KERNELS}'} ({names})"


def _demand(source: KmodSource, prediction: Prediction, options: KernelOptions) -> tuple[Demand, ...]:
    """Return the kernels that the nodes of an object will boot."""
    return tuple(
        replace(demand, predicted=options.applied_to(demand.predicted)) for demand in _placed(source, prediction)
    )


def _placed(source: KmodSource, prediction: Prediction) -> tuple[Demand, ...]:
    """Return the demand by the placement of an object. A Module that cannot be read selects all nodes."""
    match source.placement:
        case BootPlacement() as placement:
            return boot_demand(placement, prediction)
        case SpokePlacement() as placement:
            return spoke_demand(placement)
        case None:
            return demand_of(source if isinstance(source, Module) else Module(source.name, None), prediction)


def _choice(options: KernelOptions, demands: Iterable[tuple[Demand, ...]]) -> Choice:
    filters = {demand.filter for module_demands in demands for demand in module_demands}
    return replace(options.choice, filters=frozenset(kernels for kernels in filters if kernels))


def _assumed(fleet: Fleet, streams: ReleaseStreams, options: KernelOptions, release: str) -> list[str]:
    assumed = []
    if options.named:
        assumed.append(f"{', '.join(options.named)}: used for every Module, whatever kernels its nodes would boot")
    if len(set(streams.streams)) > 1 and fleet.pools and not fleet.default_stream and not options.choice.streams:
        assumed.append(f"no OSImageStream with a default stream: {_assumed_stream(fleet, streams)}")
    assumed += [
        f"NodePool {pool.name} requests release {pool.release} today: its nodes are judged on {release}"
        for pool in fleet.node_pools
        if pool.release and pool.release != release
    ]
    return assumed


def _assumed_stream(fleet: Fleet, streams: ReleaseStreams) -> str:
    if stream := default_stream_of(fleet, streams):
        installed = f"as OpenShift does on a cluster installed with {fleet.installed_version}"
        return f"pools without a stream are assumed to boot {stream}, {installed}"
    return (
        "pools without a stream are assumed to boot every stream of the release, because the version that the cluster "
        "was installed with is unknown too"
    )
