"""What each node will boot: a kernel of the release by stream, architecture and flavour, or one that stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kmm_preflight.kernel import kernel_flavour
from kmm_preflight.model import Flavour
from kmm_preflight.nodes.fleet import Fleet
from kmm_preflight.nodes.machine_config import MachineConfig, flavour_of, merged_kernel_type, own_image
from kmm_preflight.nodes.node import HOSTED_LABEL, Node
from kmm_preflight.nodes.node_pool import NodePool
from kmm_preflight.nodes.pool import Pool, pool_of

_KERNEL_PACKAGE = re.compile(r"\bkernel(-(rt|64k))?(-core|-modules)?\b")


@dataclass(frozen=True)
class Offered:
    """What a release has: its version and the streams of its driver toolkits, in the payload's order."""

    version: str
    streams: tuple[str, ...]


@dataclass(frozen=True)
class Boot:
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


def boot_of(node: Node, fleet: Fleet, offered: Offered) -> Boot:
    """What a node boots."""
    hosted = node.labels.get(HOSTED_LABEL)
    if hosted is not None and not fleet.pools:
        return _boot_hosted(node, hosted, fleet, offered)
    if not fleet.pools:
        return Boot("nodes without pools", arch=node.arch, flavour=kernel_flavour(node.kernel))
    pool = pool_of(node, fleet.pools)
    if pool is None:
        return _stays(Boot("nodes of no pool", arch=node.arch), node, "no machine config pool manages it")
    return _of_pool(pool, node, fleet, offered)


def boots_of_pool(pool: Pool, arches: Iterable[str], fleet: Fleet, offered: Offered) -> list[Boot]:
    """What a pool's nodes would boot that are not there yet, for each architecture that they may have."""
    boots = [_of_pool(pool, Node("", {}, arch), fleet, offered) for arch in arches]
    possible = [one for one in boots if _exists(one)]
    return possible or boots


def boots_of_node_pool(pool: NodePool, offered: Offered) -> Boot:
    """The same for a NodePool, which has one architecture."""
    boot = Boot(_named_hosted(pool.name), pool.stream or hosted_stream(offered), pool.arch, paused=pool.paused)
    return _configured(boot, Node("", {}, pool.arch), merged_kernel_type(pool.configs), own_image(pool.configs))


def hosted_stream(offered: Offered) -> str:
    """The stream of a hosted cluster's nodes by their release: rhel-10 from 5.0 on (openshift-reference 4.6)."""
    stream = "rhel-10" if _major(offered.version) >= 5 else "rhel-9"
    return _only(offered) or stream


def default_stream_of(fleet: Fleet, offered: Offered) -> str:
    """The stream where nothing names one (openshift-reference 4.4), "" where not even the first version is known."""
    if only := _only(offered):
        return only
    if not fleet.installed:
        return ""
    if "okd" in fleet.installed:
        return "centos-10"
    return "rhel-10" if _major(fleet.installed) >= 5 else "rhel-9"


def kernel_type_of(pool: Pool, fleet: Fleet) -> str | None:
    """kernelType of a pool's rendered MachineConfig, else of its sources together; None where neither is here."""
    rendered = fleet.configs.get(pool.rendered)
    if rendered:
        return rendered.kernel_type
    sources = fleet.sources(pool)
    return merged_kernel_type(sources) if sources else None


def _of_pool(pool: Pool, node: Node, fleet: Fleet, offered: Offered) -> Boot:
    stream = fleet.stream_of(pool) or default_stream_of(fleet, offered)
    file = fleet.layered.get(pool.name)
    boot = Boot(
        f"pool {pool.name}", stream, node.arch, paused=pool.paused, layered=file is not None or bool(node.image)
    )
    if file and (hit := _KERNEL_PACKAGE.search(file)):
        said = f"the Containerfile of its MachineOSConfig names {hit[0]}, which may replace the release's kernel"
        return replace(boot, flavour=kernel_flavour(node.kernel), unknown=said)
    kernel_type = kernel_type_of(pool, fleet)
    image = own_image(_without(fleet.sources(pool), pool.rendered))
    if kernel_type is None and not image:
        return replace(boot, flavour=kernel_flavour(node.kernel))
    settled = not node.wanted_config or node.config == node.wanted_config == pool.rendered
    return _configured(boot, node if settled else replace(node, kernel=""), kernel_type or "", image)


def _without(sources: Iterable[MachineConfig], rendered: str) -> list[MachineConfig]:
    return [one for one in sources if one.name != rendered]


def _configured(boot: Boot, node: Node, kernel_type: str, image: str) -> Boot:
    """The boot with the flavour of a configuration, or the node's own kernel where that sets an image of its own."""
    if image:
        return _stays(boot, node, f"osImageURL is set to {image}")
    flavour = flavour_of(kernel_type)
    if flavour is None:
        return replace(boot, flavour=kernel_flavour(node.kernel), unknown=f"kernelType is {kernel_type}")
    return replace(boot, flavour=flavour)


def _stays(boot: Boot, node: Node, why: str) -> Boot:
    """A node whose kernel the upgrade does not change: today's, where a node tells it."""
    if node.kernel:
        return replace(boot, stream="", flavour=kernel_flavour(node.kernel), kernel=node.kernel, own=why)
    return replace(boot, stream="", flavour=Flavour.STANDARD, unknown=f"{why}, and no node tells what that boots")


def _boot_hosted(node: Node, name: str, fleet: Fleet, offered: Offered) -> Boot:
    pool = next((one for one in fleet.node_pools if one.name == name), None)
    if pool is None:
        stream = hosted_stream(offered)
        return Boot(_named_hosted(name), stream, node.arch, kernel_flavour(node.kernel))
    boot = replace(boots_of_node_pool(pool, offered), arch=node.arch or pool.arch)
    if pool.lacking and not boot.unknown:
        return replace(boot, flavour=kernel_flavour(node.kernel))
    if boot.unknown and (image := own_image(pool.configs)):
        return _stays(replace(boot, unknown=""), node, f"osImageURL is set to {image}")
    return boot


def _named_hosted(name: str) -> str:
    return f"NodePool {name}"


def _exists(boot: Boot) -> bool:
    """Whether OpenShift has this flavour for the architecture: rt amd64, 64k arm64 (openshift-reference 4.2)."""
    only = {Flavour.RT: "amd64", Flavour.PAGES_64K: "arm64"}.get(boot.flavour or Flavour.STANDARD, boot.arch)
    return boot.arch in ("", only)


def _only(offered: Offered) -> str:
    return offered.streams[0] if len(set(offered.streams)) == 1 else ""


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
