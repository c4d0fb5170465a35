"""Findings about the kernels that the nodes of a Module will boot."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, UNDECIDED, define

RELEASE_LACKS_KERNEL = define(
    "release-lacks-kernel",
    UNDECIDED,
    "release {release} has no kernel for {group}: got {got}, expected {expected}",
    "Give a release that has it (one for several architectures, another stream), or change the pool.",
)

KERNEL_UNKNOWN = define(
    "kernel-unknown",
    UNDECIDED,
    "which kernel {group} will boot is not known: got {got}, expected the release's kernel or a node that tells it",
    "Name the kernel with --kernel, or let a node of the pool run its configuration and run again.",
)

KERNEL_STAYS = define(
    "kernel-stays",
    NOTE,
    "the kernel of {group} is not the release's: got {got}, so that the upgrade leaves it at {kernel}",
    "Judge the Module on that kernel in a run of its own, with --kernel and --driver-toolkit: the release has no "
    "toolkit of it.",
)

POOL_PAUSED = define(
    "pool-paused",
    NOTE,
    "{group} is paused: its nodes keep today's kernel until it is not, and then boot the one that is judged",
    "None is needed. Before you unpause the pool, run again on the release that the cluster has by then.",
)

POOL_LAYERED = define(
    "pool-layered",
    NOTE,
    "{group} boots an image that the cluster builds on the release's: got a layered pool, expected it to keep the "
    "release's kernel",
    "Look whether its Containerfile replaces the kernel; where it does, name that one with --kernel.",
)

NO_NODE_SELECTED = define(
    "no-node-selected",
    NOTE,
    "no node selected today: got {got} among {count}, so it is judged on the kernels of the pools that could have one",
    "None is needed where nodes come later; else look at the Module's selector.",
)
