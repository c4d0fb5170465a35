"""Findings of the image stage, and about Modules that change during a run."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, define

TOOLKIT_UNREAD = define(
    "toolkit-unread",
    UNDECIDED,
    "nothing is known of {kernel}, so that its kmod is not proved: got {problem}, expected the files of that kernel in "
    "driver toolkit {toolkit}",
    "See to it that the driver toolkit can be pulled from here, or ask for less with --proof=node.",
)

IMAGE_ACCESS_DENIED = define(
    "image-access-denied",
    REFUTES,
    "{problem} (with {credentials})",
    "Let spec.imageRepoSecret name a Secret that may pull this image; in a manifests run put the Secret among the "
    "manifests or pass --authfile.",
)

KMOD_ABSENT = define(
    "kmod-absent",
    REFUTES,
    "the image has no kmod {kmod} in /{folder}: got {got}, expected {expected}",
    "Build the kmod for {kernel} and install it into /{folder} of the image.",
)

KMOD_REMOVED = define(
    "kmod-removed",
    REFUTES,
    "the kmod {kmod} is not in the image any more: got /{path} in layer {layer} of {layers}, hidden by a layer above "
    "it, expected it in the image's own file system",
    "Do not delete or replace /{folder} in a later step of the Dockerfile.",
)

KMOD_LINK_BROKEN = define(
    "kmod-link-broken",
    REFUTES,
    "/{path} leads to no file: got a link to {target} ({problem}), expected a file in the image",
    "Install the kmod itself instead of a link, or let the link lead to a file of the image.",
)

KMOD_NOT_ELF = define(
    "kmod-not-elf",
    REFUTES,
    "/{path} is no ELF object: got {got}, expected \\x7fELF at the start of an object of 64 bytes or more",
    "Check what the Dockerfile copies to /{path}.",
)

MODPROBE_ARGUMENTS = define(
    "modprobe-arguments-unchecked",
    NOTE,
    "modprobe.rawArgs replaces all of modprobe's arguments, which are the Module's own: looked at {count} kmods in "
    "/{folder} instead of one by name",
    "Check by hand that the arguments name one of them.",
)

MODPROBE_ARGUMENTS_OPEN = define(
    "modprobe-arguments-open",
    UNDECIDED,
    "modprobe.rawArgs may name a kmod that does not load: got {count} of {all} kmods of /{folder} for which that is "
    "so, such as {kmod}, expected none; {problem}",
    "Use moduleName, so that the suite knows which kmod is meant, or take the others out of the image.",
)

MODPROBE_OPTIONS_OPEN = define(
    "modprobe-options-open",
    UNDECIDED,
    "modprobe.args.load changes what modprobe does: got {options}, expected none but such as -v; what it will load "
    "with them is not known",
    "Leave the options out, or ask for less with --proof=path.",
)

KMOD_UNSIGNED = define(
    "kmod-unsigned",
    NOTE,
    "/{path} is not signed: nodes with Secure Boot or module.sig_enforce=1 would refuse it",
    "None is needed where nodes do not enforce signatures; else add a sign section to the Module.",
)

SIGN_CERT_INVALID = define(
    "sign-cert-invalid",
    REFUTES,
    "{problem}",
    "Put the certificate of the signing key under `cert` of the Secret, in PEM or DER.",
)

FILES_TO_SIGN_ABSENT = define(
    "files-to-sign-absent",
    REFUTES,
    "filesToSign names what the image to sign does not have: got {got} for {path}, expected a file",
    "Correct the path: it stands under {folder} for this kernel; + of a kernel's name becomes _ in filesToSign, but "
    "not in the folder.",
)

JUDGED_AGAIN = define(
    "judged-again",
    NOTE,
    "{object} said that it is verified: got {got}, expected what its record covers; judged again",
    "None is needed: the verdict is this run's own. If you do not know who wrote the status, look who may.",
)

MODULE_CHANGED = define(
    "module-changed",
    UNDECIDED,
    "the Module was changed while the run went on: got generation {got} by now, expected the one that was judged",
    "Run again, so that the Module is judged as it is now.",
)

MODULE_APPEARED = define(
    "module-appeared",
    UNDECIDED,
    "the Module appeared while the run went on: got no verdict, expected one",
    "Run again, so that the Module is judged.",
)

WORKER_LOST = define(
    "worker-lost",
    UNDECIDED,
    "the worker that judged this step ended before it had a result: got none, expected one",
    "Run again; if it happens again, look for a lack of memory on this machine.",
)
