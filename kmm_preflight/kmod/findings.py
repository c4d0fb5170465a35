"""Findings about kmods: the kernel's loader, the index of modprobe, and signatures."""

from __future__ import annotations

from kmm_preflight.catalogue import REFUTES, UNDECIDED, WARNING, define

KERNEL_INPUT_MISSING = define(
    "kernel-input-missing",
    UNDECIDED,
    "{kmod} is not proved to load on {kernel}: got no {what} of that kernel, expected it in its driver "
    "toolkit or OS image",
    "Such files stand in a release's driver toolkit below /usr/src/kernels/{kernel}, and in its OS image below "
    "/usr/lib/modules/{kernel}. Name a driver toolkit that has them (--kernel beside --driver-toolkit), or ask for "
    "less with --proof=node.",
)

INDEX_ABSENT = define(
    "index-absent",
    REFUTES,
    "modprobe finds no kmod in /{folder}: got {got}, expected modules.dep.bin",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed.",
)

INDEX_DAMAGED = define(
    "index-damaged",
    REFUTES,
    "/{folder}/modules.dep.bin is no index: got {got}",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed.",
)

INDEX_LACKS_KMOD = define(
    "index-lacks-kmod",
    REFUTES,
    "/{folder}/modules.dep.bin does not name {kmod}: got {got}, expected {kmod}",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed; a depmod "
    "that does not know how a kmod is compressed leaves it out.",
)

INDEX_STALE = define(
    "index-stale",
    REFUTES,
    "/{folder}/modules.dep.bin leads to no file: got {path} for {kmod}, expected the kmod there",
    "Run depmod -b {directory} {kernel} of the kmod package in the Dockerfile, after the kmods are installed.",
)

INDEX_DEPENDENCY_MISSING = define(
    "index-dependency-missing",
    WARNING,
    "/{folder}/modules.dep.bin names what is not there: got {paths} to load before {kmod}, expected files; modprobe "
    "then loads {kmod} alone",
    "Install the kmod that is missing, or run depmod -b {directory} {kernel} again.",
)

KMOD_NOT_LOADABLE = define(
    "kmod-not-loadable",
    REFUTES,
    "{kmod} is not a loadable object: got {got}, as the loader of {kernel} reads it",
    "Build the kmod again, and look at what is done to the file afterwards (strip, objcopy, signing, copying).",
)

KMOD_ARCHITECTURE = define(
    "kmod-architecture",
    REFUTES,
    "{kmod} is built for another architecture: got {got}, expected {expected}",
    "Build the kmod for {expected}, in an image of that platform.",
)

KMOD_NO_MODULE = define(
    "kmod-no-module",
    REFUTES,
    "{kmod} is an object, but no kernel module: got {got}, expected what kbuild links into each .ko",
    "Install the .ko that kbuild makes, not one of the .o files that it is linked from.",
)

KMOD_STRIPPED = define(
    "kmod-stripped",
    REFUTES,
    "{kmod} is stripped of its symbols: got {got}, expected the table that the loader links with",
    "Strip with --strip-debug at most, and before signing.",
)

KMOD_OTHER_KERNEL = define(
    "kmod-other-kernel",
    REFUTES,
    "{kmod} is built for another kernel than {kernel}: got {got}, expected {expected}",
    "Build the kmod against the kernel-devel package of {kernel}.",
)

KMOD_VERMAGIC = define(
    "kmod-vermagic",
    REFUTES,
    "{kmod} has the version magic of another kernel: got {got}, expected {expected}",
    "Build the kmod against the kernel-devel package of {kernel}, in the same flavour.",
)

KMOD_UNVERSIONED = define(
    "kmod-unversioned",
    WARNING,
    "{kmod} does not tell all of what it was built for: got no {what}, expected that; it loads, and taints the kernel",
    "Build the kmod with the Module.symvers of {kernel} at hand, and do not remove sections from it.",
)

KMOD_UNVERSIONED_REFUSED = define(
    "kmod-unversioned-refused",
    REFUTES,
    "{kmod} does not tell what it was built for: got no {what}, expected that on {kernel}, which refuses to guess",
    "Build the kmod with the Module.symvers of {kernel} at hand, and do not remove sections from it.",
)

KMOD_LIVEPATCH = define(
    "kmod-livepatch",
    REFUTES,
    "{kmod} is marked as a livepatch: got livepatch= in its modinfo, expected none on {kernel}, which cannot livepatch",
    "Load it only on kernels that are built with CONFIG_LIVEPATCH.",
)

KMOD_SECTIONS = define(
    "kmod-sections",
    REFUTES,
    "{kmod} has sections that {kernel} does not take: got {got}, expected {expected}",
    "Link the kmod with kbuild's own linker script and flags.",
)

KMOD_SYMBOLS_ABSENT = define(
    "kmod-symbols-absent",
    REFUTES,
    "{kmod} needs what nobody exports: got {symbols}, expected them in {kernel} or another kmod of the image",
    "Port the kmod to {kernel}, or install the kmod that exports the symbol into the image.",
)

KMOD_SYMBOLS_GPL = define(
    "kmod-symbols-gpl",
    REFUTES,
    "{kmod} may not use what is for GPL kmods only: got {symbols} with the licence {license}, expected one that the "
    "kernel takes for the GPL",
    "State the licence with the exact words that the kernel knows, such as GPL or Dual MIT/GPL, or use other symbols.",
)

KMOD_PROPRIETARY_OWNER = define(
    "kmod-proprietary-owner",
    REFUTES,
    "{kmod} mixes GPL-only symbols with those of a proprietary kmod: got {symbols}, expected only one of the two",
    "Use either GPL-only symbols or the proprietary kmod, but not both in one kmod.",
)

KMOD_NAMESPACE = define(
    "kmod-namespace",
    REFUTES,
    "{kmod} uses symbols of namespaces that it does not import: got {symbols}, expected MODULE_IMPORT_NS of each",
    "Add MODULE_IMPORT_NS for the namespace to the kmod's source.",
)

KMOD_ORDER = define(
    "kmod-order",
    REFUTES,
    "{kmod} needs kmods of the image that are not loaded before it: got {symbols}, expected a line of modules.dep.bin "
    "that loads them first",
    "Run depmod in the Dockerfile after all kmods are installed, or name them in modulesLoadingOrder.",
)

KMOD_NEEDS_IN_TREE = define(
    "kmod-needs-in-tree",
    UNDECIDED,
    "{kmod} needs in-tree kmods to be loaded before it: got no line of modules.dep.bin that loads {modules}, expected "
    "one, for {symbols}",
    "Run depmod with the link host to the node's own modules in place, as KMM's documentation shows, or see to it that "
    "nodes have them loaded.",
)

KMOD_SYMBOLS_DIFFER = define(
    "kmod-symbols-differ",
    REFUTES,
    "{kmod} is built with other versions of {count} of its {all} symbols: got {symbols}, expected those of {kernel}",
    "Build the kmod against the kernel-devel package of {kernel}, and the kmods that it uses together with it.",
)

KMOD_SYMBOLS_UNVERSIONED = define(
    "kmod-symbols-unversioned",
    WARNING,
    "{kmod} does not tell which version of some symbols it was built with: got none for {symbols}, expected one each",
    "Build the kmod with the Module.symvers of {kernel}, and of the kmods that it uses, at hand.",
)

KMOD_SYMBOLS_UNVERSIONED_REFUSED = define(
    "kmod-symbols-unversioned-refused",
    REFUTES,
    "{kmod} does not tell which version of some symbols it was built with: got none for {symbols}, expected one each, "
    "without which {kernel} refuses",
    "Build the kmod with the Module.symvers of {kernel}, and of the kmods that it uses, at hand.",
)

KMOD_COMMON = define(
    "kmod-common",
    REFUTES,
    "{kmod} has tentative definitions, for which the loader has no room: got {symbols}, expected none",
    "Compile the kmod with -fno-common.",
)

KMOD_EXPORTS_CLASH = define(
    "kmod-exports-clash",
    REFUTES,
    "{kmod} exports what is exported already: got {symbols}, expected names of its own",
    "Rename the exported functions, or do not load the other kmod before this one.",
)

KMOD_EXPORTS_IN_TREE = define(
    "kmod-exports-in-tree",
    WARNING,
    "{kmod} exports what in-tree kmods export: got {symbols}, expected names of its own; one of the two is refused",
    "Name the in-tree kmod in inTreeModulesToRemove if this one replaces it.",
)

KMOD_BTF = define(
    "kmod-btf",
    UNDECIDED,
    "{kmod} carries type data (BTF) of another kernel build: got that of {got}, expected that of {kernel}, which "
    "refuses what does not fit",
    "Build the kmod beside {kernel}, or without a vmlinux at hand so that it has no .BTF.",
)

KMOD_NAME_BUILT_IN = define(
    "kmod-name-built-in",
    REFUTES,
    "{kmod} has the name of code that {kernel} has built in: got {name}, expected one that is not in /sys/module",
    "Rename the kmod.",
)

KMOD_NAME_IN_TREE = define(
    "kmod-name-in-tree",
    WARNING,
    "{kmod} has the name of an in-tree kmod: got {name}, expected one of its own; while the other is loaded, modprobe "
    "says that all is well and loads nothing",
    "Name the in-tree kmod in inTreeModulesToRemove.",
)

SIGNATURE_MISSING = define(
    "signature-missing",
    REFUTES,
    "/{path} is not signed: got {got}, expected {expected}",
    "Name the kmod in filesToSign, or sign it with sign-file; strip it before, and change nothing afterwards.",
)

SIGNATURE_COMPRESSED = define(
    "signature-compressed",
    REFUTES,
    "/{path} was signed after it was compressed: got a signature behind {packed} data, expected it inside",
    "Sign the kmod first, then compress it.",
)

SIGNATURE_BROKEN = define(
    "signature-broken",
    REFUTES,
    "the signature of /{path} is broken: got {got}, expected header and CMS message as sign-file appends them",
    "Build and sign the kmod again: a kernel refuses this one even where it asks for no signature.",
)

SIGNATURE_FORM = define(
    "signature-form",
    REFUTES,
    "/{path} is signed in a form that kernels refuse: got {got}, expected a detached CMS signature without attributes, "
    "RSA with PKCS#1 v1.5 or ECDSA, over sha1 to sha512",
    "Sign the kmod with sign-file sha256, with a key that kernels take.",
)

SIGNATURE_SIGNER = define(
    "signature-signer",
    WARNING,
    "the signature of /{path} is whole, but not verified: got one by {got}, expected its certificate to verify it with",
    "Compare the signer with the certificate that nodes trust, or give the suite the Secret of certSecret.",
)

SIGNATURE_FOREIGN = define(
    "signature-foreign",
    REFUTES,
    "/{path} is signed by another certificate: got {got}, expected {expected}",
    "Sign the kmod with the key of the Module's certSecret, or give the certificate that nodes trust there.",
)

SIGNATURE_WRONG = define(
    "signature-wrong",
    REFUTES,
    "the signature of /{path} does not verify: got bytes that were changed after signing, or a signature by another "
    "key, expected the {hash} of these bytes signed by {expected}",
    "Sign the kmod as the last step that touches it, with the key that belongs to the certificate.",
)

SIGNATURE_TWICE = define(
    "signature-twice",
    WARNING,
    "/{path} is signed more than once: got below the last signature one by {got}, expected none",
    "Sign the kmod once, in one place: kernels look at the last signature alone, which is the right one.",
)
