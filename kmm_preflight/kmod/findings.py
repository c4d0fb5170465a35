"""Findings about kmods: the kernel's loader, the index of modprobe, and signatures."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

KERNEL_INPUT_MISSING = define(
    "kernel-input-missing",
    UNDECIDED,
    "{kmod} is not proved to load on {kernel}: no {what} of that kernel is available",
    "Pass a driver toolkit that has these files below /usr/src/kernels/{kernel} (--kernel with --driver-toolkit), or "
    "check less with --proof=node.",
)

INDEX_ABSENT = define(
    "index-absent",
    REFUTES,
    "modprobe finds no kmod in /{folder}: {got}",
    "In the Dockerfile, run depmod -b {directory} {kernel} from the kmod package, after the kmods are installed.",
)

INDEX_DAMAGED = define(
    "index-damaged",
    REFUTES,
    "/{folder}/modules.dep.bin is not a valid index: {got}",
    "In the Dockerfile, run depmod -b {directory} {kernel} from the kmod package, after the kmods are installed.",
)

INDEX_LACKS_KMOD = define(
    "index-lacks-kmod",
    REFUTES,
    "/{folder}/modules.dep.bin does not list {kmod}; it lists {got}",
    "In the Dockerfile, run depmod -b {directory} {kernel} from the kmod package, after the kmods are installed. A "
    "depmod that cannot read a compressed kmod leaves it out.",
)

INDEX_STALE = define(
    "index-stale",
    REFUTES,
    "/{folder}/modules.dep.bin lists {kmod} at {path}, but there is no such file",
    "In the Dockerfile, run depmod -b {directory} {kernel} from the kmod package, after the kmods are installed.",
)

INDEX_DEPENDENCY_MISSING = define(
    "index-dependency-missing",
    WARNING,
    "/{folder}/modules.dep.bin lists files to load before {kmod} that do not exist, so modprobe loads only {kmod}: "
    "{paths}",
    "Install the missing kmods, or run depmod -b {directory} {kernel} again.",
)

KMOD_NOT_LOADABLE = define(
    "kmod-not-loadable",
    REFUTES,
    "the loader of {kernel} refuses {kmod}: {got}",
    "Build the kmod again. Check what changes the file after the build: strip, objcopy, signing or copying.",
)

KMOD_ARCHITECTURE = define(
    "kmod-architecture",
    REFUTES,
    "{kmod} is built for another architecture: got {got}, expected {expected}",
    "Build the kmod for {expected}, in an image for that platform.",
)

KMOD_NO_MODULE = define(
    "kmod-no-module",
    REFUTES,
    "{kmod} is an ELF object but not a kernel module: {got}",
    "Install the .ko file that kbuild makes, not one of its .o files.",
)

KMOD_STRIPPED = define(
    "kmod-stripped",
    REFUTES,
    "{kmod} is stripped and cannot be linked with the kernel: {got}",
    "Strip only with --strip-debug, and strip before signing.",
)

KMOD_OTHER_KERNEL = define(
    "kmod-other-kernel",
    REFUTES,
    "{kmod} is built for another kernel, not for {kernel}: got {got}, expected {expected}",
    "Build the kmod with the kernel-devel package of {kernel}.",
)

KMOD_VERMAGIC = define(
    "kmod-vermagic",
    REFUTES,
    "{kmod} has the version magic of another kernel: got {got}, expected {expected}",
    "Build the kmod with the kernel-devel package of {kernel}, for the same flavour.",
)

KMOD_UNVERSIONED = define(
    "kmod-unversioned",
    WARNING,
    "{kmod} has no {what}, so it does not state which kernel it was built for; the kernel loads it and marks itself "
    "as tainted",
    "Build the kmod with the Module.symvers of {kernel}, and do not remove sections from it.",
)

KMOD_UNVERSIONED_REFUSED = define(
    "kmod-unversioned-refused",
    REFUTES,
    "{kmod} has no {what}, so it does not state which kernel it was built for; {kernel} refuses such a kmod",
    "Build the kmod with the Module.symvers of {kernel}, and do not remove sections from it.",
)

KMOD_LIVEPATCH = define(
    "kmod-livepatch",
    REFUTES,
    "{kmod} is marked as a livepatch (livepatch= in its modinfo), but {kernel} does not support livepatches",
    "Load the kmod only on kernels that are built with CONFIG_LIVEPATCH.",
)

KMOD_SECTIONS = define(
    "kmod-sections",
    REFUTES,
    "{kernel} refuses {kmod} because of its sections: {got}",
    "Link the kmod with the linker script and the flags of kbuild.",
)

KMOD_SYMBOLS_ABSENT = define(
    "kmod-symbols-absent",
    REFUTES,
    "{kmod} needs symbols that neither {kernel} nor another kmod of the image exports: {symbols}",
    "Port the kmod to {kernel}. If another kmod exports the symbols, install that kmod into the image too.",
)

KMOD_SYMBOLS_GPL = define(
    "kmod-symbols-gpl",
    REFUTES,
    "{kmod} uses symbols that only GPL kmods may use, but {license}: {symbols}",
    "If the kmod is under the GPL, write its licence as the kernel knows it, such as GPL or Dual MIT/GPL. Otherwise "
    "use other symbols.",
)

KMOD_PROPRIETARY_OWNER = define(
    "kmod-proprietary-owner",
    REFUTES,
    "{kmod} uses GPL-only symbols, and also symbols of a proprietary kmod: {symbols}",
    "Use either GPL-only symbols or symbols of the proprietary kmod, not both in one kmod.",
)

KMOD_NAMESPACE = define(
    "kmod-namespace",
    REFUTES,
    "{kmod} uses symbols of namespaces that it does not import: {symbols}",
    "Add MODULE_IMPORT_NS with each namespace to the source of the kmod.",
)

KMOD_NAMESPACE_RESERVED = define(
    "kmod-namespace-reserved",
    REFUTES,
    "{kmod} uses symbols that {kernel} keeps for kmods of other names: {symbols}",
    "Use other symbols. Do not import these namespaces: the kernel refuses a kmod that does.",
)

KMOD_NAMESPACE_IMPORT = define(
    "kmod-namespace-import",
    REFUTES,
    "{kmod} imports namespaces that {kernel} keeps for kmods of certain names, and no kmod may import them: "
    "{namespaces}",
    "Remove MODULE_IMPORT_NS with these namespaces from the source of the kmod. A kmod with one of the names needs no "
    "import.",
)

KMOD_ORDER = define(
    "kmod-order",
    REFUTES,
    "{kmod} needs symbols of other kmods in the image, but modprobe does not load these kmods first: {symbols}",
    "Run depmod in the Dockerfile after all kmods are installed, or list the kmods in modulesLoadingOrder.",
)

KMOD_NEEDS_IN_TREE = define(
    "kmod-needs-in-tree",
    UNDECIDED,
    "{kmod} needs the in-tree kmods {modules}, but modules.dep.bin does not load them first; the symbols are {symbols}",
    "Before depmod runs, create the link host to the node's own modules, as KMM's documentation shows. If your nodes "
    "always load these kmods, pass --assume-loaded.",
)

KMOD_SYMBOLS_DIFFER = define(
    "kmod-symbols-differ",
    REFUTES,
    "{count} of {all} symbols that {kmod} uses have another version than in {kernel}: {symbols}",
    "Build the kmod with the kernel-devel package of {kernel}, together with the kmods that it uses.",
)

KMOD_SYMBOLS_UNVERSIONED = define(
    "kmod-symbols-unversioned",
    WARNING,
    "{kmod} has no version for some of its symbols: {symbols}",
    "Build the kmod with the Module.symvers of {kernel} and of the kmods that it uses.",
)

KMOD_SYMBOLS_UNVERSIONED_REFUSED = define(
    "kmod-symbols-unversioned-refused",
    REFUTES,
    "{kmod} has no version for some of its symbols, which {kernel} refuses: {symbols}",
    "Build the kmod with the Module.symvers of {kernel} and of the kmods that it uses.",
)

KMOD_COMMON = define(
    "kmod-common",
    REFUTES,
    "{kmod} has tentative definitions, which the loader refuses: {symbols}",
    "Compile the kmod with -fno-common.",
)

KMOD_EXPORTS_CLASH = define(
    "kmod-exports-clash",
    REFUTES,
    "{kmod} exports symbols that are already exported: {symbols}",
    "Rename the exported functions, or do not load the other kmod before this one.",
)

KMOD_EXPORTS_IN_TREE = define(
    "kmod-exports-in-tree",
    WARNING,
    "{kmod} exports symbols that in-tree kmods export too, so only one of the kmods can be loaded: {symbols}",
    "If this kmod replaces the in-tree kmod, add the in-tree kmod to inTreeModulesToRemove.",
)

KMOD_BTF = define(
    "kmod-btf",
    UNDECIDED,
    "{kmod} has type data (BTF) of a build for {got}, which {kernel} refuses if it does not fit: {why}",
    "Build the kmod without a vmlinux file, so that it has no .BTF section. Or remove the section before signing: "
    "objcopy -R .BTF.",
)

KMOD_BTF_UNFIT = define(
    "kmod-btf-unfit",
    REFUTES,
    "{kmod} has type data (BTF) that does not fit {kernel}: {got}",
    "Build the kmod against {kernel}. Or build it without a vmlinux file, so that it has no .BTF section.",
)

KMOD_NAME_BUILT_IN = define(
    "kmod-name-built-in",
    REFUTES,
    "{kmod} has the module name {name}, which {kernel} uses for built-in code",
    "Rename the kmod.",
)

KMOD_NAME_IN_TREE = define(
    "kmod-name-in-tree",
    WARNING,
    "{kmod} has the module name of the in-tree kmod {name}; while that kmod is loaded, modprobe reports success and "
    "does not load this one",
    "Add the in-tree kmod to inTreeModulesToRemove.",
)

KMOD_COPY_IN_TREE = define(
    "kmod-copy-in-tree",
    NOTE,
    "{kmod} is a copy of the in-tree kmod {name} of {kernel}, so it does not matter which of the two the node loads",
    "No action is needed. Do not remove the in-tree kmod: other kmods of the node may need it.",
)

KMOD_PARAMETER_REFUSED = define(
    "kmod-parameter-refused",
    REFUTES,
    "{kmod} refuses the parameter {parameter}: {got}",
    "Correct the value in modprobe.parameters, or in the kernel arguments of the MachineConfig.",
)

KMOD_PARAMETER_UNKNOWN = define(
    "kmod-parameter-unknown",
    WARNING,
    "{kmod} does not have these parameters, so the kernel ignores them: {parameters}; it has {known}",
    "Correct the names in modprobe.parameters, as modinfo -p prints them.",
)

SIGNATURE_MISSING = define(
    "signature-missing",
    REFUTES,
    "/{path} is not signed, but {expected} is required: {got}",
    "Add the kmod to filesToSign, or sign it with sign-file. Strip the kmod before signing, and change nothing "
    "afterwards.",
)

SIGNATURE_COMPRESSED = define(
    "signature-compressed",
    REFUTES,
    "/{path} was signed after it was compressed: the signature is behind the {packed} data, but kernels look for it "
    "inside",
    "Sign the kmod first, then compress it.",
)

SIGNATURE_BROKEN = define(
    "signature-broken",
    REFUTES,
    "the signature of /{path} cannot be parsed: {got}",
    "Build and sign the kmod again. Kernels refuse this kmod even if they do not require signatures.",
)

SIGNATURE_FORM = define(
    "signature-form",
    REFUTES,
    "kernels do not accept the form of the signature of /{path}: it has {got}",
    "Sign the kmod with sign-file sha256, with an RSA key or with an EC key on P-256 or P-384.",
)

SIGNATURE_SIGNER = define(
    "signature-signer",
    WARNING,
    "the signature of /{path} could not be verified, because the certificate of its signer is not available: {got}",
    "Compare the signer with the certificate that the nodes trust, or make the Secret of certSecret available to "
    "this run.",
)

SIGNATURE_FOREIGN = define(
    "signature-foreign",
    REFUTES,
    "/{path} is signed by another certificate: got {got}, expected {expected}",
    "Sign the kmod with the key of the Module's certSecret. If the nodes trust the other certificate, put that one "
    "into certSecret.",
)

SIGNATURE_WRONG = define(
    "signature-wrong",
    REFUTES,
    "the {hash} signature of /{path} is not valid for {expected}: the kmod was changed after signing, or another key "
    "signed it",
    "Sign the kmod in the last step that changes it, with the key that belongs to the certificate.",
)

SIGNATURE_TWICE = define(
    "signature-twice",
    WARNING,
    "/{path} is signed more than once: before the last signature is another one by {got}",
    "Sign the kmod only once. Kernels check only the last signature, and the last one is correct.",
)
