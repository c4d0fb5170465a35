"""Findings about the steps of KMM's worker on the node."""

from __future__ import annotations

from kmm_preflight.catalogue import REFUTES, UNDECIDED, WARNING, define

NODE_PATH_UNQUOTED = define(
    "node-path-unquoted",
    UNDECIDED,
    "KMM writes a path into a shell's command without quotes: got {path} with {got} in it, expected letters, digits "
    "and /._-+@%:=, only",
    "Choose another dirName or firmwarePath.",
)

NODE_PROGRAM_ABSENT = define(
    "node-program-absent",
    REFUTES,
    "KMM calls {program} in the image on the node, and the image has none: got {got}, expected an executable file",
    "Build the image on one that has a shell and its tools, such as ubi9/ubi-minimal, or install BusyBox.",
)

NODE_PROGRAM_UNFIT = define(
    "node-program-unfit",
    REFUTES,
    "KMM calls {path} of the image on the node, which cannot run it: got {got}, expected {expected}",
    "Build the image for the node's architecture, on a base image of that architecture.",
)

NODE_PROGRAM_INTERPRETER = define(
    "node-program-interpreter",
    REFUTES,
    "KMM calls {path} of the image on the node, and what runs it is not in the image: got no {interpreter}, expected "
    "an executable file there",
    "Install {interpreter} too, or a program that is linked statically.",
)

NODE_FOLDER = define(
    "node-folder",
    REFUTES,
    "the node has no /{folder} of this image: got {got}, expected a folder that it can take over",
    "Install the kmods into the folder itself, in a dirName outside of /tmp and other than / and /usr.",
)

KMOD_NOT_A_FILE = define(
    "kmod-not-a-file",
    REFUTES,
    "/{path} is no file: got a {kind}, expected an ELF object",
    "Install the kmod itself at /{path}.",
)

NODE_LINK = define(
    "node-link",
    REFUTES,
    "/{path} leads nowhere on the node: got a link to {target} on the way to {kmod}, expected one that stays in "
    "/{folder}, or leads to the node's own modules",
    "Install the kmod itself instead of a link, and run depmod -b {directory} {kernel} again.",
)

NODE_BUILT_IN = define(
    "node-built-in",
    REFUTES,
    "modprobe loads nothing for {kmod} and says that all is well: got its name in /{folder}/modules.builtin.bin, "
    "expected it only in modules.dep.bin",
    "Rename the kmod, or do not install the kernel's modules.builtin into the image.",
)

NODE_IN_TREE_UNKNOWN = define(
    "node-in-tree-unknown",
    UNDECIDED,
    "it depends on {kernel}'s own kmods, and which these are is not known: got {names} in question, expected "
    "modules.order of that kernel",
    "Name a driver toolkit that has lib/modules/{kernel}, or ask for less with --proof=node.",
)

LOADING_ORDER_ABSENT = define(
    "loading-order-absent",
    REFUTES,
    "modulesLoadingOrder names what modprobe does not find: got {name}, which /{folder}/modules.dep.bin does not name, "
    "expected a kmod",
    "Install the kmod into the image, run depmod, or take its name out of modulesLoadingOrder.",
)

LOADING_ORDER_OVERRULED = define(
    "loading-order-overruled",
    REFUTES,
    "modprobe does not follow modulesLoadingOrder, and never comes to {names}: got {got}, expected KMM's own lines",
    "Take MODULE_SOFTDEP out of the kmod's source (depmod writes it to modules.softdep), and name kmods by their own "
    "names.",
)

FIRMWARE_EMPTY = define(
    "firmware-empty",
    REFUTES,
    "the copy of the firmware fails on the node: got {got} at firmwarePath {path}, expected a folder with files in it",
    "Install the firmware into {path} of the image, or take firmwarePath out of the Module.",
)

FIRMWARE_ABSENT = define(
    "firmware-absent",
    WARNING,
    "{kmod} may ask for firmware that the image does not bring: got no {names} in {place}, expected them unless the "
    "node has its own",
    "Install the files into firmwarePath of the image under the names that modinfo -F firmware tells.",
)

IN_TREE_STAYS = define(
    "in-tree-stays",
    WARNING,
    "inTreeModulesToRemove removes nothing: got {names}, which {kernel} has built in or not at all, expected kmods of "
    "the kernel",
    "Take the names out of inTreeModulesToRemove for this kernel.",
)

IN_TREE_STAYS_FAILS = define(
    "in-tree-stays-fails",
    REFUTES,
    "modprobe -r fails before anything is loaded: got {names} in inTreeModulesToRemove, which {kernel} has built in or "
    "not at all, expected kmods of the kernel",
    "Take the names out of inTreeModulesToRemove for this kernel, or upgrade KMM to 2.2 or later.",
)
