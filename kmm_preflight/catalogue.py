"""Every finding: its id, what it weighs, its sentence and its remedy. A page in docs/findings/ tells more of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmm_preflight import errors
from kmm_preflight.model import Finding, Severity
from kmm_preflight.text import clean


@dataclass(frozen=True)
class FindingKind:
    """One cause. Called with the names in its sentence, it gives the Finding."""

    id: str
    severity: Severity
    sentence: str
    remedy: str

    def __call__(self, **values: object) -> Finding:
        """The finding with the values, cleaned, in its sentence and remedy."""
        shown = {name: clean(str(value)) for name, value in values.items()}
        return Finding(self.id, self.severity, self.sentence.format(**shown), self.remedy.format(**shown))


CATALOGUE: dict[str, FindingKind] = {}


def _kind(id: str, severity: Severity, sentence: str, remedy: str) -> FindingKind:
    return CATALOGUE.setdefault(id, FindingKind(id, severity, sentence, remedy))


_REFUTES, _UNDECIDED, _WARNING, _NOTE = Severity.REFUTES, Severity.UNDECIDED, Severity.WARNING, Severity.NOTE

# From Module and kernel to a plan.
MODULE_INVALID = _kind(
    "module-invalid",
    _REFUTES,
    "the Module in the cluster is none that KMM can load: {problem}",
    "Correct the Module; KMM's webhook would have refused it, so look whether it runs.",
)
JUDGED_AGAIN = _kind(
    "judged-again",
    _NOTE,
    "{object} said that it is verified: got {got}, expected what its record covers; judged again",
    "None is needed: the verdict is this run's own. If you do not know who wrote the status, look who may.",
)
MODULE_CHANGED = _kind(
    "module-changed",
    _UNDECIDED,
    "the Module was changed while the run went on: got generation {got} by now, expected the one that was judged",
    "Run again, so that the Module is judged as it is now.",
)
MODULE_APPEARED = _kind(
    "module-appeared",
    _UNDECIDED,
    "the Module appeared while the run went on: got no verdict, expected one",
    "Run again, so that the Module is judged.",
)
NO_MAPPING = _kind(
    "no-mapping",
    _REFUTES,
    "no kernel mapping matches {kernel}: got {tried}, expected a literal equal to it or a regexp found in it",
    "Add a mapping for {kernel}, or widen a regexp.",
)
NAME_UNRESOLVED = _kind(
    "name-unresolved",
    _REFUTES,
    "the name of the container image cannot be made: got {got}, expected {expected}",
    "Correct the template in containerImage; variables are KERNEL_FULL_VERSION, KERNEL_VERSION, KERNEL_XYZ, "
    "KERNEL_X, KERNEL_Y, KERNEL_Z, MOD_NAME and MOD_NAMESPACE.",
)
IMAGE_NAME_INVALID = _kind(
    "image-name-invalid",
    _REFUTES,
    "the image name does not parse: {problem}",
    "Write containerImage as host[:port]/repository[:tag][@digest].",
)
CREDENTIALS_INVALID = _kind(
    "credentials-invalid",
    _REFUTES,
    "the pull secret cannot be used: {problem}",
    "Give a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg in the Module's namespace.",
)

# Which kernels the nodes of a Module will boot.
MAPPING_LOST = _kind(
    "mapping-lost",
    _REFUTES,
    "no kernel mapping matches {kernel}, while one matches {today}, which its nodes boot today: got {tried}, expected "
    "a literal equal to the new kernel or a regexp found in it",
    "Add a mapping for {kernel}, or widen a regexp: after the upgrade these nodes run without the kmod.",
)
RELEASE_LACKS_KERNEL = _kind(
    "release-lacks-kernel",
    _UNDECIDED,
    "release {release} has no kernel for {group}: got {got}, expected {expected}",
    "Give a release that has it (one for several architectures, another stream), or change the pool.",
)
KERNEL_UNKNOWN = _kind(
    "kernel-unknown",
    _UNDECIDED,
    "which kernel {group} will boot is not known: got {got}, expected the release's kernel or a node that tells it",
    "Name the kernel with --kernel, or let a node of the pool run its configuration and run again.",
)
KERNEL_STAYS = _kind(
    "kernel-stays",
    _NOTE,
    "the kernel of {group} is not the release's: got {got}, so that the upgrade leaves it at {kernel}",
    "Judge the Module on that kernel in a run of its own, with --kernel and --driver-toolkit: the release has no "
    "toolkit of it.",
)
POOL_PAUSED = _kind(
    "pool-paused",
    _NOTE,
    "{group} is paused: its nodes keep today's kernel until it is not, and then boot the one that is judged",
    "None is needed. Before you unpause the pool, run again on the release that the cluster has by then.",
)
POOL_LAYERED = _kind(
    "pool-layered",
    _NOTE,
    "{group} boots an image that the cluster builds on the release's: got a layered pool, expected it to keep the "
    "release's kernel",
    "Look whether its Containerfile replaces the kernel; where it does, name that one with --kernel.",
)
NO_NODE_SELECTED = _kind(
    "no-node-selected",
    _NOTE,
    "no node selected today: got {got} among {count}, so it is judged on the kernels of the pools that could have one",
    "None is needed where nodes come later; else look at the Module's selector.",
)

# The image as the registry has it.
IMAGE_NOT_FOUND = _kind(
    "image-not-found",
    _REFUTES,
    "{problem}",
    "Build and push the image for {kernel}, or correct containerImage of the mapping that matches it.",
)
IMAGE_ACCESS_DENIED = _kind(
    "image-access-denied",
    _REFUTES,
    "{problem} (with {credentials})",
    "Let spec.imageRepoSecret name a Secret that may pull this image; in a manifests run put the Secret among the "
    "manifests or pass --authfile.",
)
IMAGE_ACCESS_UNDECIDED = _kind(
    "image-access-undecided",
    _UNDECIDED,
    "{problem} (with --authfile, which is not what the node uses)",
    "Pass an --authfile that may pull this image, or put the Module's imageRepoSecret among the manifests.",
)
REGISTRY_BLOCKED = _kind(
    "registry-blocked",
    _REFUTES,
    "{problem}, so no node pulls it",
    "Change registrySources of image.config.openshift.io/cluster or the mirror set, or move the image to a registry "
    "that nodes may ask.",
)
IMAGE_PLATFORM_MISSING = _kind(
    "image-platform-missing",
    _REFUTES,
    "{problem}",
    "Push the image for the architecture of {kernel} too, as part of an image index.",
)
IMAGE_UNREADABLE = _kind(
    "image-unreadable",
    _REFUTES,
    "{problem}",
    "Build and push the image again: a node cannot unpack this one.",
)

# The file system of the image.
KMOD_ABSENT = _kind(
    "kmod-absent",
    _REFUTES,
    "the image has no kmod {kmod} in /{folder}: got {got}, expected {expected}",
    "Build the kmod for {kernel} and install it into /{folder} of the image.",
)
KMOD_REMOVED = _kind(
    "kmod-removed",
    _REFUTES,
    "the kmod {kmod} is not in the image any more: got /{path} in layer {layer} of {layers}, hidden by a layer above "
    "it, expected it in the image's own file system",
    "Do not delete or replace /{folder} in a later step of the Dockerfile.",
)
KMOD_LINK_BROKEN = _kind(
    "kmod-link-broken",
    _REFUTES,
    "/{path} leads to no file: got a link to {target} ({problem}), expected a file in the image",
    "Install the kmod itself instead of a link, or let the link lead to a file of the image.",
)
KMOD_NOT_A_FILE = _kind(
    "kmod-not-a-file",
    _REFUTES,
    "/{path} is no file: got a {kind}, expected an ELF object",
    "Install the kmod itself at /{path}.",
)
KMOD_NOT_ELF = _kind(
    "kmod-not-elf",
    _REFUTES,
    "/{path} is no ELF object: got {got}, expected \\x7fELF at the start of an object of 64 bytes or more",
    "Check what the Dockerfile copies to /{path}.",
)
MODPROBE_ARGUMENTS = _kind(
    "modprobe-arguments-unchecked",
    _NOTE,
    "modprobe.rawArgs replaces all of modprobe's arguments, which are the Module's own: looked at {count} kmods in "
    "/{folder} instead of one by name",
    "Check by hand that the arguments name one of them.",
)
MODPROBE_ARGUMENTS_OPEN = _kind(
    "modprobe-arguments-open",
    _UNDECIDED,
    "modprobe.rawArgs may name a kmod that does not load: got {count} of {all} kmods of /{folder} for which that is "
    "so, such as {kmod}, expected none; {problem}",
    "Use moduleName, so that the suite knows which kmod is meant, or take the others out of the image.",
)
MODPROBE_OPTIONS_OPEN = _kind(
    "modprobe-options-open",
    _UNDECIDED,
    "modprobe.args.load changes what modprobe does: got {options}, expected none but such as -v; what it will load "
    "with them is not known",
    "Leave the options out, or ask for less with --proof=path.",
)
MAPPING_SECRET_ABSENT = _kind(
    "secret-not-given",
    _WARNING,
    "the Module's imageRepoSecret {secret} is not among the manifests: got {used}, expected the Secret",
    "Put the Secret among the manifests, or pass --authfile.",
)

# The kernel itself.
KERNEL_DIFFERS = _kind(
    "kernel-differs",
    _REFUTES,
    "driver toolkit and OS image of the release have different kernels: got {got} in {toolkit}, expected {expected} in "
    "{image}, which is what nodes boot",
    "Take a release whose driver toolkit has its OS image's kernel, or build for {expected} and judge with "
    "--kernel={expected}.",
)
KERNEL_UNCLEAR = _kind(
    "kernel-unclear",
    _UNDECIDED,
    "driver toolkit and OS image of the release seem to have different kernels: got {got} in {toolkit}, expected "
    "{expected}, and no proof of either: {why}",
    "Look which kernel the OS image has, and judge with --kernel.",
)

# What the loader of the target kernel says of the kmod, in its order.
TOOLKIT_UNREAD = _kind(
    "toolkit-unread",
    _UNDECIDED,
    "nothing is known of {kernel}, so that its kmod is not proved: got {problem}, expected the files of that kernel in "
    "driver toolkit {toolkit}",
    "See to it that the driver toolkit can be pulled from here, or ask for less with --proof=node.",
)
KERNEL_FILES_OS_IMAGE = _kind(
    "kernel-files-os-image",
    _NOTE,
    "driver toolkit {toolkit} does not have all files of {kernel}: got {files} from OS image {image}, expected them in "
    "the toolkit",
    "None is needed: it is the image of the release that nodes boot this kernel of.",
)
OS_IMAGE_UNREAD = _kind(
    "os-image-unread",
    _WARNING,
    "driver toolkit {toolkit} does not have all files of {kernel}, and the OS image was not read for them: got "
    "{problem}, expected {files} in {image}",
    "See to it that the OS image of the release can be pulled from here, as nodes pull it.",
)
KMOD_NOT_LOADABLE = _kind(
    "kmod-not-loadable",
    _REFUTES,
    "{kmod} is not a loadable object: got {got}, as the loader of {kernel} reads it",
    "Build the kmod again, and look at what is done to the file afterwards (strip, objcopy, signing, copying).",
)
KMOD_ARCHITECTURE = _kind(
    "kmod-architecture",
    _REFUTES,
    "{kmod} is built for another architecture: got {got}, expected {expected}",
    "Build the kmod for {expected}, in an image of that platform.",
)
KMOD_NO_MODULE = _kind(
    "kmod-no-module",
    _REFUTES,
    "{kmod} is an object, but no kernel module: got {got}, expected what kbuild links into each .ko",
    "Install the .ko that kbuild makes, not one of the .o files that it is linked from.",
)
KMOD_STRIPPED = _kind(
    "kmod-stripped",
    _REFUTES,
    "{kmod} is stripped of its symbols: got {got}, expected the table that the loader links with",
    "Strip with --strip-debug at most, and before signing.",
)
KMOD_OTHER_KERNEL = _kind(
    "kmod-other-kernel",
    _REFUTES,
    "{kmod} is built for another kernel than {kernel}: got {got}, expected {expected}",
    "Build the kmod against the kernel-devel package of {kernel}.",
)
KMOD_VERMAGIC = _kind(
    "kmod-vermagic",
    _REFUTES,
    "{kmod} has the version magic of another kernel: got {got}, expected {expected}",
    "Build the kmod against the kernel-devel package of {kernel}, in the same flavour.",
)
KMOD_UNVERSIONED = _kind(
    "kmod-unversioned",
    _WARNING,
    "{kmod} does not tell all of what it was built for: got no {what}, expected that; it loads, and taints the kernel",
    "Build the kmod with the Module.symvers of {kernel} at hand, and do not remove sections from it.",
)
KMOD_UNVERSIONED_REFUSED = _kind(
    "kmod-unversioned-refused",
    _REFUTES,
    "{kmod} does not tell what it was built for: got no {what}, expected that on {kernel}, which refuses to guess",
    "Build the kmod with the Module.symvers of {kernel} at hand, and do not remove sections from it.",
)
KMOD_LIVEPATCH = _kind(
    "kmod-livepatch",
    _REFUTES,
    "{kmod} is marked as a livepatch: got livepatch= in its modinfo, expected none on {kernel}, which cannot livepatch",
    "Load it only on kernels that are built with CONFIG_LIVEPATCH.",
)
KMOD_SECTIONS = _kind(
    "kmod-sections",
    _REFUTES,
    "{kmod} has sections that {kernel} does not take: got {got}, expected {expected}",
    "Link the kmod with kbuild's own linker script and flags.",
)
KMOD_SYMBOLS_ABSENT = _kind(
    "kmod-symbols-absent",
    _REFUTES,
    "{kmod} needs what nobody exports: got {symbols}, expected them in {kernel} or another kmod of the image",
    "Port the kmod to {kernel}, or install the kmod that exports the symbol into the image.",
)
KMOD_SYMBOLS_GPL = _kind(
    "kmod-symbols-gpl",
    _REFUTES,
    "{kmod} may not use what is for GPL kmods only: got {symbols} with the licence {license}, expected one that the "
    "kernel takes for the GPL",
    "State the licence with the exact words that the kernel knows, such as GPL or Dual MIT/GPL, or use other symbols.",
)
KMOD_PROPRIETARY_OWNER = _kind(
    "kmod-proprietary-owner",
    _REFUTES,
    "{kmod} mixes GPL-only symbols with those of a proprietary kmod: got {symbols}, expected only one of the two",
    "Use either GPL-only symbols or the proprietary kmod, but not both in one kmod.",
)
KMOD_SYMBOLS_DIFFER = _kind(
    "kmod-symbols-differ",
    _REFUTES,
    "{kmod} is built with other versions of {count} of its {all} symbols: got {symbols}, expected those of {kernel}",
    "Build the kmod against the kernel-devel package of {kernel}, and the kmods that it uses together with it.",
)
KMOD_SYMBOLS_UNVERSIONED = _kind(
    "kmod-symbols-unversioned",
    _WARNING,
    "{kmod} does not tell which version of some symbols it was built with: got none for {symbols}, expected one each",
    "Build the kmod with the Module.symvers of {kernel}, and of the kmods that it uses, at hand.",
)
KMOD_SYMBOLS_UNVERSIONED_REFUSED = _kind(
    "kmod-symbols-unversioned-refused",
    _REFUTES,
    "{kmod} does not tell which version of some symbols it was built with: got none for {symbols}, expected one each, "
    "without which {kernel} refuses",
    "Build the kmod with the Module.symvers of {kernel}, and of the kmods that it uses, at hand.",
)
KMOD_NAMESPACE = _kind(
    "kmod-namespace",
    _REFUTES,
    "{kmod} uses symbols of namespaces that it does not import: got {symbols}, expected MODULE_IMPORT_NS of each",
    "Add MODULE_IMPORT_NS for the namespace to the kmod's source.",
)
KMOD_ORDER = _kind(
    "kmod-order",
    _REFUTES,
    "{kmod} needs kmods of the image that are not loaded before it: got {symbols}, expected a line of modules.dep.bin "
    "that loads them first",
    "Run depmod in the Dockerfile after all kmods are installed, or name them in modulesLoadingOrder.",
)
KMOD_NEEDS_IN_TREE = _kind(
    "kmod-needs-in-tree",
    _UNDECIDED,
    "{kmod} needs in-tree kmods to be loaded before it: got no line of modules.dep.bin that loads {modules}, expected "
    "one, for {symbols}",
    "Run depmod with the link host to the node's own modules in place, as KMM's documentation shows, or see to it that "
    "nodes have them loaded.",
)
KMOD_COMMON = _kind(
    "kmod-common",
    _REFUTES,
    "{kmod} has tentative definitions, for which the loader has no room: got {symbols}, expected none",
    "Compile the kmod with -fno-common.",
)
KMOD_EXPORTS_CLASH = _kind(
    "kmod-exports-clash",
    _REFUTES,
    "{kmod} exports what is exported already: got {symbols}, expected names of its own",
    "Rename the exported functions, or do not load the other kmod before this one.",
)
KMOD_EXPORTS_IN_TREE = _kind(
    "kmod-exports-in-tree",
    _WARNING,
    "{kmod} exports what in-tree kmods export: got {symbols}, expected names of its own; one of the two is refused",
    "Name the in-tree kmod in inTreeModulesToRemove if this one replaces it.",
)
KMOD_BTF = _kind(
    "kmod-btf",
    _UNDECIDED,
    "{kmod} carries type data (BTF) of another kernel build: got that of {got}, expected that of {kernel}, which "
    "refuses what does not fit",
    "Build the kmod beside {kernel}, or without a vmlinux at hand so that it has no .BTF.",
)
KMOD_NAME_BUILT_IN = _kind(
    "kmod-name-built-in",
    _REFUTES,
    "{kmod} has the name of code that {kernel} has built in: got {name}, expected one that is not in /sys/module",
    "Rename the kmod.",
)
KMOD_NAME_IN_TREE = _kind(
    "kmod-name-in-tree",
    _WARNING,
    "{kmod} has the name of an in-tree kmod: got {name}, expected one of its own; while the other is loaded, modprobe "
    "says that all is well and loads nothing",
    "Name the in-tree kmod in inTreeModulesToRemove.",
)
KERNEL_INPUT_MISSING = _kind(
    "kernel-input-missing",
    _UNDECIDED,
    "{kmod} is not proved to load on {kernel}: got no {what} of that kernel, expected it in its driver "
    "toolkit or OS image",
    "Such files stand in a release's driver toolkit below /usr/src/kernels/{kernel}, and in its OS image below "
    "/usr/lib/modules/{kernel}. Name a driver toolkit that has them (--kernel beside --driver-toolkit), or ask for "
    "less with --proof=node.",
)

# What the node does first.
NODE_PROGRAM_ABSENT = _kind(
    "node-program-absent",
    _REFUTES,
    "KMM calls {program} in the image on the node, and the image has none: got {got}, expected an executable file",
    "Build the image on one that has a shell and its tools, such as ubi9/ubi-minimal, or install BusyBox.",
)
NODE_PROGRAM_UNFIT = _kind(
    "node-program-unfit",
    _REFUTES,
    "KMM calls {path} of the image on the node, which cannot run it: got {got}, expected {expected}",
    "Build the image for the node's architecture, on a base image of that architecture.",
)
NODE_PROGRAM_INTERPRETER = _kind(
    "node-program-interpreter",
    _REFUTES,
    "KMM calls {path} of the image on the node, and what runs it is not in the image: got no {interpreter}, expected "
    "an executable file there",
    "Install {interpreter} too, or a program that is linked statically.",
)
NODE_PATH_UNQUOTED = _kind(
    "node-path-unquoted",
    _UNDECIDED,
    "KMM writes a path into a shell's command without quotes: got {path} with {got} in it, expected letters, digits "
    "and /._-+@%:=, only",
    "Choose another dirName or firmwarePath.",
)
NODE_FOLDER = _kind(
    "node-folder",
    _REFUTES,
    "the node has no /{folder} of this image: got {got}, expected a folder that it can take over",
    "Install the kmods into the folder itself, in a dirName outside of /tmp and other than / and /usr.",
)
NODE_LINK = _kind(
    "node-link",
    _REFUTES,
    "/{path} leads nowhere on the node: got a link to {target} on the way to {kmod}, expected one that stays in "
    "/{folder}, or leads to the node's own modules",
    "Install the kmod itself instead of a link, and run depmod -b {directory} {kernel} again.",
)
NODE_BUILT_IN = _kind(
    "node-built-in",
    _REFUTES,
    "modprobe loads nothing for {kmod} and says that all is well: got its name in /{folder}/modules.builtin.bin, "
    "expected it only in modules.dep.bin",
    "Rename the kmod, or do not install the kernel's modules.builtin into the image.",
)
NODE_IN_TREE_UNKNOWN = _kind(
    "node-in-tree-unknown",
    _UNDECIDED,
    "it depends on {kernel}'s own kmods, and which these are is not known: got {names} in question, expected "
    "modules.order of that kernel",
    "Name a driver toolkit that has lib/modules/{kernel}, or ask for less with --proof=node.",
)
LOADING_ORDER_ABSENT = _kind(
    "loading-order-absent",
    _REFUTES,
    "modulesLoadingOrder names what modprobe does not find: got {name}, which /{folder}/modules.dep.bin does not name, "
    "expected a kmod",
    "Install the kmod into the image, run depmod, or take its name out of modulesLoadingOrder.",
)
LOADING_ORDER_OVERRULED = _kind(
    "loading-order-overruled",
    _REFUTES,
    "modprobe does not follow modulesLoadingOrder, and never comes to {names}: got {got}, expected KMM's own lines",
    "Take MODULE_SOFTDEP out of the kmod's source (depmod writes it to modules.softdep), and name kmods by their own "
    "names.",
)
FIRMWARE_EMPTY = _kind(
    "firmware-empty",
    _REFUTES,
    "the copy of the firmware fails on the node: got {got} at firmwarePath {path}, expected a folder with files in it",
    "Install the firmware into {path} of the image, or take firmwarePath out of the Module.",
)
FIRMWARE_ABSENT = _kind(
    "firmware-absent",
    _WARNING,
    "{kmod} may ask for firmware that the image does not bring: got no {names} in {place}, expected them unless the "
    "node has its own",
    "Install the files into firmwarePath of the image under the names that modinfo -F firmware tells.",
)
IN_TREE_STAYS = _kind(
    "in-tree-stays",
    _WARNING,
    "inTreeModulesToRemove removes nothing: got {names}, which {kernel} has built in or not at all, expected kmods of "
    "the kernel",
    "Take the names out of inTreeModulesToRemove for this kernel.",
)
IN_TREE_STAYS_FAILS = _kind(
    "in-tree-stays-fails",
    _REFUTES,
    "modprobe -r fails before anything is loaded: got {names} in inTreeModulesToRemove, which {kernel} has built in or "
    "not at all, expected kmods of the kernel",
    "Take the names out of inTreeModulesToRemove for this kernel, or upgrade KMM to 2.2 or later.",
)

# The index by which modprobe finds a kmod.
INDEX_ABSENT = _kind(
    "index-absent",
    _REFUTES,
    "modprobe finds no kmod in /{folder}: got {got}, expected modules.dep.bin",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed.",
)
INDEX_DAMAGED = _kind(
    "index-damaged",
    _REFUTES,
    "/{folder}/modules.dep.bin is no index: got {got}",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed.",
)
INDEX_LACKS_KMOD = _kind(
    "index-lacks-kmod",
    _REFUTES,
    "/{folder}/modules.dep.bin does not name {kmod}: got {got}, expected {kmod}",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed; a depmod "
    "that does not know how a kmod is compressed leaves it out.",
)
INDEX_STALE = _kind(
    "index-stale",
    _REFUTES,
    "/{folder}/modules.dep.bin leads to no file: got {path} for {kmod}, expected the kmod there",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed.",
)
INDEX_DEPENDENCY_MISSING = _kind(
    "index-dependency-missing",
    _WARNING,
    "/{folder}/modules.dep.bin names what is not there: got {paths} to load before {kmod}, expected files; modprobe "
    "then loads {kmod} alone",
    "Install the kmod that is missing, or run depmod -b {directory} {kernel} again.",
)

# A trial load.
TRIAL_LOADED = _kind(
    "trial-loaded",
    _NOTE,
    "{kmod} loads on {kernel} {how}: got {got} loaded, as modprobe loads it on a node",
    "None is needed: the lines are what modprobe and the kernel said.",
)
TRIAL_REFUSED = _kind(
    "trial-refused",
    _REFUTES,
    "{kmod} does not load on {kernel} {how}: got {got}, expected it loaded",
    "Read what the kernel said in the lines, and build the kmod for {kernel}.",
)
TRIAL_NO_DEVICE = _kind(
    "trial-no-device",
    _WARNING,
    "{kmod} was taken by the loader of {kernel} {how}, and did not stay: got {got}, expected its device, which the "
    "virtual machine has not",
    "Load the kmod on a node that has its device, if a proof of its init is wanted.",
)
TRIAL_KEY_UNKNOWN = _kind(
    "trial-key-unknown",
    _UNDECIDED,
    "{kmod} is not shown to load on {kernel} {how}: got {got}, expected one that nodes have enrolled",
    "Enrol the key on the nodes with mokutil, and load the kmod there; or run without --trial-sig-enforce.",
)
TRIAL_UNDECIDED = _kind(
    "trial-undecided",
    _UNDECIDED,
    "{kmod} is not shown to load on {kernel} {how}: got {got}, expected a load or a refusal",
    "Give it more time with --trial-timeout, or load the kmod on a node of the new kernel by hand.",
)
TRIAL_UNABLE = _kind(
    "trial-unable",
    _UNDECIDED,
    "{kmod} cannot be tried on {kernel}: got {got}, expected all that a trial load needs",
    "{remedy}",
)

# Stages that cannot run.
BUILDER_NONE = _kind(
    "builder-none",
    _REFUTES,
    "the image is not good and the build section would have to make it: got no builder ({why}), expected one that "
    "runs it",
    "Choose a builder with --builder, or build and push {image} as the build section says; then run again.",
)
SIGNER_NONE = _kind(
    "signer-none",
    _REFUTES,
    "the image is not good and the sign section would have to make it: got {why}, expected what signs it",
    "Choose a builder with --builder, and --signer-image where no driver toolkit is known, or sign and push {image} as "
    "the sign section says; then run again.",
)

# What a build needs, looked at before it is started.
SOURCE_UNREAD = _kind(
    "source-unread",
    _UNDECIDED,
    "what the section names could not be read: {problem}",
    "Let the account of this run read it (deploy/rbac.yaml and deploy/rbac-builds.yaml), then run again.",
)
SOURCE_INVALID = _kind(
    "source-invalid",
    _REFUTES,
    "what the section names cannot be used: {problem}",
    "Correct the object; an API server would not have taken it.",
)
DOCKERFILE_ABSENT = _kind(
    "dockerfile-absent",
    _REFUTES,
    "there is no Dockerfile to build from: got {got}, expected ConfigMap {config_map} with the key dockerfile",
    "Put the Dockerfile under the key dockerfile of that ConfigMap, in the Module's namespace; in a manifests run put "
    "the ConfigMap among the manifests.",
)
DOCKERFILE_KEY = _kind(
    "dockerfile-key",
    _REFUTES,
    "ConfigMap {config_map} has its Dockerfile under a key that KMM does not read: got {got}, expected dockerfile",
    "Name the key dockerfile, in lower case: oc create configmap … --from-file=dockerfile=Dockerfile.",
)
DOCKERFILE_RUNNING_KERNEL = _kind(
    "dockerfile-running-kernel",
    _WARNING,
    "the Dockerfile asks for the kernel that is running where it is built: got {got}, expected the argument "
    "KERNEL_FULL_VERSION",
    "Declare ARG KERNEL_FULL_VERSION after FROM and use it instead: {kernel} does not run before the upgrade.",
)
DOCKERFILE_DEPMOD = _kind(
    "dockerfile-depmod",
    _WARNING,
    "depmod without a kernel makes the index for the one that is running: got {got}, expected a kernel in it",
    "Write depmod -b {directory} ${{KERNEL_FULL_VERSION}}, so that the index is made for {kernel}.",
)
BUILD_SECRET_ABSENT = _kind(
    "build-secret-absent",
    _REFUTES,
    "the build section names Secret {secret}: got none, expected one",
    "Create the Secret in the Module's namespace; in a manifests run put it among the manifests.",
)
TOOLKIT_UNKNOWN = _kind(
    "driver-toolkit-unknown",
    _REFUTES,
    "the Dockerfile takes DTK_AUTO: got no driver toolkit for {kernel}, expected the one of its release",
    "Pass --release-image, or --driver-toolkit beside --kernel.",
)
BASE_IMAGE_UNRESOLVED = _kind(
    "base-image-unresolved",
    _REFUTES,
    "the Dockerfile takes an image whose name cannot be made: got {got}, expected an image name",
    "Give the argument a default in the Dockerfile, or a value in buildArgs, in a place before the first FROM.",
)
BASE_IMAGE_ABSENT = _kind(
    "base-image-absent",
    _REFUTES,
    "{section} takes an image that cannot be pulled: {problem}",
    "Push that image for the architecture of {kernel}, or correct its name.",
)
BASE_IMAGE_DENIED = _kind(
    "base-image-denied",
    _REFUTES,
    "{section} takes an image that may not be pulled: {problem} (with {credentials})",
    "Let spec.imageRepoSecret name a Secret that may pull it too; builds have no other login than that, else those of "
    "the account builder.",
)

# How a build or a sign ends.
BUILD_FAILED = _kind(
    "build-failed",
    _REFUTES,
    "the build failed: {problem}",
    "Read the last lines of the log, mend the Dockerfile or the sources for the new kernel, then run again.",
)
SIGN_FAILED = _kind(
    "sign-failed",
    _REFUTES,
    "signing failed: {problem}",
    "Read the last lines of the log, where sign-file says what it refuses; --signer-image names another signer.",
)
BUILD_TIMEOUT = _kind(
    "build-timeout",
    _REFUTES,
    "the build was stopped at its deadline: got no end within {seconds} s, expected one",
    "Look at the last lines of the log for what it waits for; --build-timeout gives it more time.",
)
BUILDER_FAILED = _kind(
    "builder-failed",
    _UNDECIDED,
    "the builder did not come to an end of the build: {problem}",
    "Mend what is said of the builder, then run again.",
)
BUILD_UNPROVED = _kind(
    "build-unproved",
    _UNDECIDED,
    "the build ended well and its result is nowhere to be had: got builder {builder} without a push, expected an image "
    "that can be looked into",
    "Pass --push-built-image, or choose --builder=local or job, which hand the result back.",
)
BUILD_UNPROVED_UNSIGNED = _kind(
    "build-unproved-unsigned",
    _WARNING,
    "the build ended well and its result was not looked into: got builder {builder} without a push",
    "Pass --push-built-image, or choose --builder=local.",
)
SIGN_INPUT_ABSENT = _kind(
    "sign-input-absent",
    _REFUTES,
    "In case a build section exists, the sign section input image is the build section's output image. Therefore, in "
    "order for the input image to be available for the sign section, the PushBuiltImage flag must be defined in the "
    "PreflightValidationOCP CR.",
    "Pass --push-built-image, or choose --builder=local, which keeps the image and signs it without a push.",
)
SIGN_IMAGE_NONE = _kind(
    "sign-image-none",
    _REFUTES,
    "no image to sign is given: got neither a build section nor unsignedImage, expected one of them",
    "Set unsignedImage in the sign section, or add a build section.",
)
SIGN_SECRET_ABSENT = _kind(
    "sign-secret-absent",
    _REFUTES,
    "Secret {secret} cannot be signed with: got {got}, expected the key {key}",
    "Create it in the Module's namespace: oc create secret generic NAME --from-file={key}=FILE; in a manifests run put "
    "it among the manifests.",
)
FILES_TO_SIGN_NONE = _kind(
    "files-to-sign-none",
    _REFUTES,
    "nothing would be signed: got {got}, expected filesToSign with absolute paths of kmods in the image",
    "List the kmods in filesToSign of the sign section.",
)
FILES_TO_SIGN_ABSENT = _kind(
    "files-to-sign-absent",
    _REFUTES,
    "filesToSign names what the image to sign does not have: got {got} for {path}, expected a file",
    "Correct the path: it stands under {folder} for this kernel; + of a kernel's name becomes _ in filesToSign, but "
    "not in the folder.",
)
FILES_TO_SIGN_COMPRESSED = _kind(
    "files-to-sign-compressed",
    _REFUTES,
    "/{path} of filesToSign is compressed: a signature behind compressed data is none for the kernel",
    "Sign the .ko and compress it afterwards, or install it uncompressed.",
)
FILES_TO_SIGN_SIGNED = _kind(
    "files-to-sign-signed",
    _WARNING,
    "/{path} of filesToSign is signed already: got a signature by {signer}, expected none; kernels look at the last "
    "one alone, which will be by the Module's key",
    "Take the file from filesToSign if that signature is the one that is wanted, else strip it in the Dockerfile.",
)
# Pushing what was made.
IMAGE_SHARED = _kind(
    "image-shared",
    _REFUTES,
    "{other} takes the same image {image}, and does not find what it loads in what was made: {problem}",
    "Give each its own name, with ${{MOD_NAME}} or ${{KERNEL_FULL_VERSION}} in it, or let one build make the kmods of "
    "all.",
)
PUSH_REFUSED = _kind(
    "push-refused",
    _REFUTES,
    "{image} is not overwritten: {problem}",
    "Let the tag name the kernel (${{KERNEL_FULL_VERSION}}), or pass --overwrite if no node needs what is there.",
)
PUSH_DIGEST = _kind(
    "push-digest",
    _REFUTES,
    "{image} can be the name of nothing that is made: got a digest, expected a tag",
    "Write containerImage with a tag.",
)
PUSH_DENIED = _kind(
    "push-denied",
    _REFUTES,
    "{image} was proved, and may not be pushed: {problem}",
    "Let spec.imageRepoSecret name a Secret that may push to it.",
)
PUSH_FAILED = _kind(
    "push-failed",
    _UNDECIDED,
    "{image} was proved, and could not be pushed: {problem}",
    "Check network, proxy and registry, then run again.",
)
PUSHED_BEFORE_PROOF = _kind(
    "pushed-before-proof",
    _NOTE,
    "builder {builder} pushes before anything is proved: {image} is in its registry whatever this run says of it",
    "None is needed for a green; after a red, mend the Module before its nodes are upgraded.",
)

# Signatures and the keys that make them.
SIGNATURE_MISSING = _kind(
    "signature-missing",
    _REFUTES,
    "/{path} is not signed: got {got}, expected {expected}",
    "Name the kmod in filesToSign, or sign it with sign-file; strip it before, and change nothing afterwards.",
)
KMOD_UNSIGNED = _kind(
    "kmod-unsigned",
    _NOTE,
    "/{path} is not signed: nodes with Secure Boot or module.sig_enforce=1 would refuse it",
    "None is needed where nodes do not enforce signatures; else add a sign section to the Module.",
)
SIGNATURE_SIGNER = _kind(
    "signature-signer",
    _WARNING,
    "the signature of /{path} is whole, but not verified: got one by {got}, expected its certificate to verify it with",
    "Compare the signer with the certificate that nodes trust, or give the suite the Secret of certSecret.",
)
SIGNATURE_BROKEN = _kind(
    "signature-broken",
    _REFUTES,
    "the signature of /{path} is broken: got {got}, expected header and CMS message as sign-file appends them",
    "Build and sign the kmod again: a kernel refuses this one even where it asks for no signature.",
)
SIGNATURE_TWICE = _kind(
    "signature-twice",
    _WARNING,
    "/{path} is signed more than once: got below the last signature one by {got}, expected none",
    "Sign the kmod once, in one place: kernels look at the last signature alone, which is the right one.",
)
SIGNATURE_FOREIGN = _kind(
    "signature-foreign",
    _REFUTES,
    "/{path} is signed by another certificate: got {got}, expected {expected}",
    "Sign the kmod with the key of the Module's certSecret, or give the certificate that nodes trust there.",
)
SIGNATURE_WRONG = _kind(
    "signature-wrong",
    _REFUTES,
    "the signature of /{path} does not verify: got bytes that were changed after signing, or a signature by another "
    "key, expected the {hash} of these bytes signed by {expected}",
    "Sign the kmod as the last step that touches it, with the key that belongs to the certificate.",
)
SIGNATURE_COMPRESSED = _kind(
    "signature-compressed",
    _REFUTES,
    "/{path} was signed after it was compressed: got a signature behind {packed} data, expected it inside",
    "Sign the kmod first, then compress it.",
)
SIGNATURE_FORM = _kind(
    "signature-form",
    _REFUTES,
    "/{path} is signed in a form that kernels refuse: got {got}, expected a detached CMS signature without attributes, "
    "RSA with PKCS#1 v1.5 or ECDSA, over sha1 to sha512",
    "Sign the kmod with sign-file sha256, with a key that kernels take.",
)
SIGN_KEY_INVALID = _kind(
    "sign-key-invalid",
    _REFUTES,
    "the key in Secret {secret} cannot sign kmods: got {got}, expected {expected}, unencrypted, in PEM or DER",
    "Put the private key itself under `key` of the Secret.",
)
SIGN_CERT_INVALID = _kind(
    "sign-cert-invalid",
    _REFUTES,
    "{problem}",
    "Put the certificate of the signing key under `cert` of the Secret, in PEM or DER.",
)
SIGN_CERT_EXPIRED = _kind(
    "sign-cert-expired",
    _WARNING,
    "the certificate in Secret {secret} is not valid on {now}: got {got}, expected one that is valid",
    "Plan a new certificate, which the nodes must be enrolled with first: kernels load what this one signs.",
)
SIGN_KEY_MISMATCH = _kind(
    "sign-key-mismatch",
    _REFUTES,
    "the key in Secret {key} does not belong to the certificate in Secret {cert}: got another key, expected that of "
    "{expected}",
    "Put a key and the certificate that was made for it into the two Secrets.",
)

# Not answered: neither yes nor no.
REGISTRY_UNREACHABLE = _kind(
    "registry-unreachable", _UNDECIDED, "{problem}", "Check network, proxy and registry, then run again."
)
REGISTRY_UNTRUSTED = _kind(
    "registry-untrusted",
    _UNDECIDED,
    "{problem}",
    "Pass the registry's CA with --registry-ca.",
)
DIGEST_MISMATCH = _kind(
    "digest-mismatch", _UNDECIDED, "{problem}", "Look for a proxy or cache that alters content, then run again."
)
TRANSFER_TRUNCATED = _kind(
    "transfer-truncated", _UNDECIDED, "{problem}", "Check network, proxy and registry, then run again."
)
BOUND_EXCEEDED = _kind(
    "bound-exceeded",
    _UNDECIDED,
    "{problem}",
    "Look at the image by hand: no image of a kernel module should be like this.",
)
WORKER_LOST = _kind(
    "worker-lost",
    _UNDECIDED,
    "the worker that judged this step ended before it had a result: got none, expected one",
    "Run again; if it happens again, look for a lack of memory on this machine.",
)
RELEASE_UNREAD = _kind(
    "release-unread",
    _UNDECIDED,
    "{problem}",
    "Name the release image or the kernels so that they can be read, then run again.",
)

_OF_TROUBLE: dict[type[errors.PreflightError], FindingKind] = {
    errors.PlatformMissing: IMAGE_PLATFORM_MISSING,
    errors.NotFound: IMAGE_NOT_FOUND,
    errors.Malformed: IMAGE_UNREADABLE,
    errors.Blocked: REGISTRY_BLOCKED,
    errors.AccessUndecided: IMAGE_ACCESS_UNDECIDED,
    errors.Unreachable: REGISTRY_UNREACHABLE,
    errors.Untrusted: REGISTRY_UNTRUSTED,
    errors.DigestMismatch: DIGEST_MISMATCH,
    errors.Truncated: TRANSFER_TRUNCATED,
    errors.BoundExceeded: BOUND_EXCEEDED,
}


def heaviest_first(told: Iterable[Finding]) -> list[Finding]:
    """Those that refute, then what is undecided, then warnings and notes; else in the order given."""
    return sorted(told, key=lambda one: list(Severity).index(one.severity))


def of_trouble(trouble: errors.PreflightError, kernel: str) -> Finding:
    """The finding for trouble with an image, by the error's class. AccessDenied needs the credentials: not here."""
    return _OF_TROUBLE[type(trouble)](problem=trouble.message, kernel=kernel)
