"""Findings about the kernels that the nodes of a Module will boot."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

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

NODE_NOT_COREOS = define(
    "node-not-coreos",
    UNDECIDED,
    "no release decides the kernel of {group}, because these nodes do not run CoreOS",
    "Pass the kernel that the next update of these nodes installs with --kernel. Or exclude the nodes by the Module's "
    "selector.",
)

NODES_WITHOUT_VERSION = define(
    "nodes-without-version",
    NOTE,
    "nodes without the label {label} load no kmod of the Module: {got}",
    "If these nodes must load the kmod, set the label to {version}. Otherwise no action is needed.",
)

VERSION_KEPT = define(
    "version-kept",
    NOTE,
    "nodes with version {got} keep the image in their NodeModulesConfig and load it on {kernel}; the Module has "
    "version {expected} now",
    "No action is needed now. Before you set the label of these nodes to {expected}, run again.",
)

VERSION_KERNEL = define(
    "version-kernel",
    REFUTES,
    "nodes with version {got} of the Module find no kmod on {kernel}: their NodeModulesConfig names {today}, and KMM "
    "2.2 and later copies only the folder of that kernel from the image",
    "Before you upgrade the cluster, finish the ordered upgrade of these nodes to version {expected}.",
)

VERSION_KERNEL_UNCLEAR = define(
    "version-kernel-unclear",
    WARNING,
    "the NodeModulesConfig of nodes with version {got} of the Module names {today}, not {kernel}: KMM 2.2 and later "
    "copies only the folder of that kernel from the image",
    "Pass the version of KMM with --kmm-version. Or finish the ordered upgrade of these nodes to version {expected} "
    "before you upgrade the cluster.",
)

VERSION_IMAGE_UNKNOWN = define(
    "version-image-unknown",
    UNDECIDED,
    "the image of version {got} of the Module is not known: nodes keep this version, the Module has {expected} now, "
    "and no NodeModulesConfig was given for these nodes",
    "Pass the NodeModulesConfigs too (oc get nodemodulesconfigs -o yaml), or allow the account to list them.",
)

NO_NODE_LOADS = define(
    "no-node-loads",
    UNDECIDED,
    "no node will load a kmod of the Module: {got}",
    "If nodes must load the kmod, correct the Module's selector or the labels of the nodes. Otherwise delete the "
    "Module.",
)

SELECTOR_LOST = define(
    "selector-lost",
    REFUTES,
    "on {kernel} the Module does not select the nodes of {group} any more: for label {key} got {got}, expected "
    "{expected}",
    "Select the nodes by a label that an upgrade does not change. Otherwise they run without the kmod after the "
    "upgrade.",
)

SELECTOR_UNCLEAR = define(
    "selector-unclear",
    UNDECIDED,
    "it is not known whether the Module selects {group} after the upgrade, because the upgrade may change label {key}",
    "Select the nodes by a label that an upgrade does not change, then run again.",
)

SELECTOR_NEW = define(
    "selector-new",
    NOTE,
    "the Module does not select these nodes of {group} today: the upgrade sets their label {key} to {got}",
    "If these nodes are to load the kmod, no action is needed. Otherwise correct the Module's selector.",
)

POOL_TO_COME = define(
    "pool-to-come",
    NOTE,
    "{group} has no node today, and the Module is checked on the pool's kernel too, because it can select the nodes "
    "that the pool will have",
    "If nodes are added later, no action is needed. If the pool is not needed, delete it.",
)

POOL_NOT_CHECKED = define(
    "pool-not-checked",
    NOTE,
    "the kernel of pools without nodes is not checked, because nothing says whether the Module will select their "
    "nodes: {group}",
    "If the Module is to select nodes of these pools, run again with the pool's kernel in --kernel.",
)

NODES_KEPT_AWAY = define(
    "nodes-kept-away",
    NOTE,
    "the kernel of nodes with the Module's labels is not checked, because they have a taint that the Module does not "
    "tolerate: {got}",
    "If the taint is removed later, run again with the kernel of these nodes in --kernel. Otherwise no action is "
    "needed.",
)
