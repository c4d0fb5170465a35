"""Findings about the steps of KMM's worker on the node."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

NODE_PATH_UNQUOTED = define(
    "node-path-unquoted",
    UNDECIDED,
    "KMM writes the path {path} into a shell command without quotes, and the path has characters that a shell "
    "interprets: {got}",
    "Use only letters, digits and the characters /._-+@%:=, in dirName and firmwarePath.",
)

NODE_PROGRAM_ABSENT = define(
    "node-program-absent",
    REFUTES,
    "KMM runs {program} from the image on the node, but the image does not have this program: {got}",
    "Use a base image with a shell and its tools, such as ubi9/ubi-minimal, or install BusyBox.",
)

NODE_PROGRAM_UNFIT = define(
    "node-program-unfit",
    REFUTES,
    "KMM runs {path} from the image on the node, but the node cannot run this file: got {got}, expected {expected}",
    "Build the image for the architecture of the node, on a base image for that architecture.",
)

NODE_PROGRAM_INTERPRETER = define(
    "node-program-interpreter",
    REFUTES,
    "KMM runs {path} from the image on the node, but the image does not have {interpreter}, which runs {path}",
    "Install {interpreter} into the image too, or use a statically linked program.",
)

NODE_FOLDER = define(
    "node-folder",
    REFUTES,
    "modprobe does not find /{folder} of the image on the node: {got}",
    "Install the kmods into the folder itself. Use a dirName outside /tmp, other than / and /usr.",
)

KMOD_NOT_A_FILE = define(
    "kmod-not-a-file",
    REFUTES,
    "/{path} has the wrong type: got {got}, expected {expected}",
    "Make /{path} {expected}.",
)

NODE_LINK = define(
    "node-link",
    REFUTES,
    "/{path} is a link to {target}, which does not exist on the node, so modprobe does not find {kmod}; a link "
    "must stay in /{folder} or lead to the node's own modules",
    "Install the kmod itself instead of a link, then run depmod -b {directory} {kernel} again.",
)

NODE_BUILT_IN = define(
    "node-built-in",
    REFUTES,
    "modprobe does not load {kmod} but reports success, because /{folder}/modules.builtin.bin lists it as built into "
    "the kernel",
    "Rename the kmod, or do not install the kernel's modules.builtin into the image.",
)

NODE_IN_TREE_UNKNOWN = define(
    "node-in-tree-unknown",
    UNDECIDED,
    "the Module uses in-tree kmods that {kernel} may not have, and modules.order of that kernel is not available: "
    "{names}",
    "Use a driver toolkit that has lib/modules/{kernel}, or check less with --proof=node.",
)

MODPROBE_LOADS_NOTHING = define(
    "modprobe-loads-nothing",
    REFUTES,
    "modprobe does not load {kmod} with the arguments {arguments}: {got}",
    "Correct the arguments of modprobe in the Module: words that begin with - are options, also behind the name.",
)

MODPROBE_OTHER_FOLDER = define(
    "modprobe-other-folder",
    REFUTES,
    "the arguments of modprobe lead to {got}, but on the node the kmods of the image are in {expected}",
    "Write -d {directory} into the arguments, and leave out -S.",
)

MODPROBE_FOLDER_MOVED = define(
    "modprobe-folder-moved",
    WARNING,
    "modprobe.rawArgs name the folder {got}; KMM 2.0 and later have the kmods of the image in another folder, such as "
    "{expected}",
    "With KMM 2.2 or later, write -d {expected} into rawArgs. Name your version with --kmm-version.",
)

MODPROBE_NODE_ABSENT = define(
    "modprobe-node-absent",
    REFUTES,
    "the arguments of modprobe do not lead to the image, so modprobe looks for {name} among the node's own kmods, and "
    "{kernel} has no such kmod",
    "Write -d {directory} into the arguments, so that modprobe looks into the folder of the image.",
)

MODPROBE_NODE_KMOD = define(
    "modprobe-node-kmod",
    NOTE,
    "the arguments of modprobe load the in-tree kmod {name} of the node, and not a kmod of the image",
    "If the kmod of the image is meant, write -d {directory} into the arguments. Otherwise no action is needed.",
)

MODPROBE_CONFIGURATION_UNSEEN = define(
    "modprobe-configuration-unseen",
    WARNING,
    "the image has configuration of modprobe for these kmods, which KMM 2.0 and later do not read: {lines}",
    "Write the options into modprobe.parameters, and softdeps into modprobe.modulesLoadingOrder.",
)

MODPROBE_CONFIGURATION_OPEN = define(
    "modprobe-configuration-open",
    UNDECIDED,
    "the image's own modprobe reads configuration that changes what it loads: {lines}",
    "Remove these lines from the image, or check less with --proof=path.",
)

LOADING_ORDER_ABSENT = define(
    "loading-order-absent",
    REFUTES,
    "modulesLoadingOrder names {name}, but /{folder}/modules.dep.bin does not list this kmod",
    "Install the kmod into the image and run depmod, or remove {name} from modulesLoadingOrder.",
)

LOADING_ORDER_OVERRULED = define(
    "loading-order-overruled",
    REFUTES,
    "modprobe does not follow modulesLoadingOrder and does not load {names}: {got}",
    "Remove MODULE_SOFTDEP from the source of the kmod (depmod writes it to modules.softdep), and list kmods by "
    "their own names.",
)

FIRMWARE_EMPTY = define(
    "firmware-empty",
    REFUTES,
    "KMM cannot copy the firmware on the node: firmwarePath {path} {got}",
    "Install the firmware into {path} of the image, or remove firmwarePath from the Module.",
)

FIRMWARE_ABSENT = define(
    "firmware-absent",
    WARNING,
    "{kmod} may request firmware that {place} does not provide: {names}",
    "If the nodes do not have these files, install them into firmwarePath of the image, under the names that modinfo "
    "-F firmware prints.",
)

IN_TREE_STAYS = define(
    "in-tree-stays",
    WARNING,
    "inTreeModulesToRemove has no effect for {names}: {kernel} has them built in, or does not have them",
    "Remove these names from inTreeModulesToRemove for this kernel.",
)

IN_TREE_USED = define(
    "in-tree-used",
    WARNING,
    "inTreeModulesToRemove names {name}, which these in-tree kmods of {kernel} use: {users}; while a node has such a "
    "kmod loaded, modprobe -r fails and the Module is not loaded",
    "If nodes load one of these kmods, list it before {name} in inTreeModulesToRemove, or keep nodes from loading it.",
)

IN_TREE_STAYS_FAILS = define(
    "in-tree-stays-fails",
    REFUTES,
    "modprobe -r fails before the kmod is loaded: inTreeModulesToRemove names {names}, which {kernel} has built in "
    "or does not have",
    "Remove these names from inTreeModulesToRemove for this kernel, or upgrade KMM to 2.2 or later.",
)
