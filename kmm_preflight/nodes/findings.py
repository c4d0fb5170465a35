"""Findings about the kernels that the nodes of a Module will boot."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, UNDECIDED, define

RELEASE_LACKS_KERNEL = define(
    "release-lacks-kernel",
    UNDECIDED,
    "release {release} has no kernel for {group}: got {got}, expected {expected}",
    "Pass a release image that has this kernel, such as one for several architectures. Or change the pool.",
)

KERNEL_UNKNOWN = define(
    "kernel-unknown",
    UNDECIDED,
    "it is not known which kernel {group} will boot: {got}",
    "Pass the kernel with --kernel. Or wait until a node of the pool runs the pool's configuration, then run again.",
)

KERNEL_STAYS = define(
    "kernel-stays",
    NOTE,
    "the upgrade does not change the kernel of {group}, which stays {kernel}: {got}",
    "The release has no driver toolkit for this kernel. To check the Module on it, run again with --kernel and "
    "--driver-toolkit.",
)

POOL_PAUSED = define(
    "pool-paused",
    NOTE,
    "{group} is paused: its nodes keep today's kernel until you unpause it, then they boot the kernel that was checked",
    "No action is needed now. Before you unpause the pool, run again on the release that the cluster has then.",
)

POOL_LAYERED = define(
    "pool-layered",
    NOTE,
    "{group} boots an image that the cluster builds on the release's OS image; the release's kernel was checked",
    "Check whether the pool's Containerfile replaces the kernel. If it does, pass the new kernel with --kernel.",
)

POOL_WITHOUT_NODES = define(
    "pool-without-nodes",
    NOTE,
    "{group} has no node today, so the kmod is checked on the kernel that nodes to come will boot",
    "If nodes are added to the pool later, no action is needed. Otherwise correct the name of the pool.",
)

SPOKES_UNKNOWN = define(
    "spokes-unknown",
    NOTE,
    "nodes of other clusters load the kmods, and {got}: the kmods are checked on every kernel read from the release",
    "Pass --arch, --stream and --flavour for the nodes of these clusters. Or run the suite on each of these clusters.",
)

NO_NODE_SELECTED = define(
    "no-node-selected",
    NOTE,
    "the Module selects no node today ({got}), so it is checked on the kernel of each pool that could have such a node",
    "If nodes are added later, no action is needed. Otherwise correct the Module's selector or tolerations.",
)
