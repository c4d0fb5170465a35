"""Findings of the image stage, and about Modules that change during a run."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

TOOLKIT_UNREAD = define(
    "toolkit-unread",
    UNDECIDED,
    "driver toolkit {toolkit} could not be read, so the kmod cannot be checked against {kernel}: {problem}",
    "Make sure that this machine can pull the driver toolkit, or check less with --proof=node.",
)

IMAGE_ACCESS_DENIED = define(
    "image-access-denied",
    REFUTES,
    "{problem} (with {credentials})",
    "Set spec.imageRepoSecret to a Secret that may pull this image. In a run with --manifests, add the Secret to the "
    "manifests or pass --authfile.",
)

IMAGE_LOGIN_UNKNOWN = define(
    "image-login-unknown",
    UNDECIDED,
    "{problem} (with {credentials}); nodes add logins of their own, which this run does not have",
    "Pass the login of the nodes with --authfile, or add the Module's imageRepoSecret and the Secret "
    "openshift-config/pull-secret to the manifests.",
)

REGISTRY_INTERNAL = define(
    "registry-internal",
    UNDECIDED,
    "{problem}; {host} is a name of the cluster's own network, which this machine does not reach",
    "Run the suite in a Pod of the cluster. Or expose the registry by its route (default-route), and add mirror sets "
    "to the manifests whose source is {host} and whose mirror is the host of the route.",
)

REGISTRY_TLS_IGNORED = define(
    "registry-tls-ignored",
    REFUTES,
    "nodes refuse the registry, because they do not apply the Module's registryTLS: {problem}",
    "Add the registry's CA to additionalTrustedCA of image.config.openshift.io/cluster, or the registry to its "
    "insecureRegistries. registryTLS is only for KMM's operator.",
)

REGISTRY_TLS_OPEN = define(
    "registry-tls-open",
    UNDECIDED,
    "nodes do not apply the Module's registryTLS, and it is not known whether they trust the registry: {problem}",
    "Add image.config.openshift.io/cluster, with the ConfigMap of its additionalTrustedCA, to the manifests. Or pass "
    "the CA that nodes trust with --registry-ca.",
)

IMAGE_SIGNATURE_REFUSED = define(
    "image-signature-refused",
    REFUTES,
    "{policy} requires a signature of image {image}, so nodes refuse the image: {problem}",
    "Sign the manifest {digest} with the key of the policy, for example with cosign sign --key, under a name that the "
    "policy accepts. Or correct the policy.",
)

IMAGE_SIGNATURE_OPEN = define(
    "image-signature-open",
    UNDECIDED,
    "{policy} requires a signature of image {image}, which this suite does not verify in full: {problem}",
    "Pull the image once on a node, for example with a Pod that uses it in the namespace of the Module.",
)

NODE_IMAGE_BAD = define(
    "node-image-bad",
    REFUTES,
    "{nodes} will not pull image {image} ({policy}), because the name is there already with {held}, not with {now}; "
    "and that image is not good: {problem}",
    "Give the new image a tag of its own, with ${{KERNEL_FULL_VERSION}} in it. Or set imagePullPolicy: Always in the "
    "Module.",
)

NODE_IMAGE_OPEN = define(
    "node-image-open",
    UNDECIDED,
    "{nodes} will not pull image {image} ({policy}), because the name is there already with {held}, not with {now}; "
    "that image could not be judged: {problem}",
    "Give the new image a tag of its own, with ${{KERNEL_FULL_VERSION}} in it. Or set imagePullPolicy: Always in the "
    "Module.",
)

NODE_IMAGE_OTHER = define(
    "node-image-other",
    NOTE,
    "{nodes} will not pull image {image} ({policy}), because the name is there already with {held}, not with {now}; "
    "that image is good too",
    "If all nodes must run the same image, give each image a tag of its own.",
)

IMAGE_NEVER_PULLED = define(
    "image-never-pulled",
    REFUTES,
    "imagePullPolicy is Never, and image {image} is not on {nodes}",
    "Set imagePullPolicy: IfNotPresent in the Module, or load the image onto the nodes.",
)

IMAGE_NEVER_OPEN = define(
    "image-never-open",
    UNDECIDED,
    "imagePullPolicy is Never, and it is not known whether image {image} is on {nodes}",
    "Set imagePullPolicy: IfNotPresent in the Module. Or look with crictl images on each node.",
)

KMOD_ABSENT = define(
    "kmod-absent",
    REFUTES,
    "the image has no {expected} in /{folder}: {got}",
    "Build the kmod for {kernel} and install it into /{folder} of the image.",
)

KMOD_NAME_SUFFIX = define(
    "kmod-name-suffix",
    REFUTES,
    "moduleName is {kmod}, but modprobe takes names without {suffix}: it does not find {kmod} in /{folder}",
    "Write moduleName: {name} (remove {suffix}).",
)

KMOD_REMOVED = define(
    "kmod-removed",
    REFUTES,
    "a layer of the image removes the kmod: /{path} is in layer {layer} of {layers}, and a later layer deletes or "
    "hides it",
    "Do not delete or replace /{folder} in a later step of the Dockerfile.",
)

KMOD_LINK_BROKEN = define(
    "kmod-link-broken",
    REFUTES,
    "/{path} is a link to {target}, which leads to no file in the image ({problem})",
    "Install the kmod itself instead of a link, or make the link lead to a file in the image.",
)

KMOD_NOT_ELF = define(
    "kmod-not-elf",
    REFUTES,
    "/{path} is not a complete ELF object but {got}",
    "Check what the Dockerfile copies to /{path}.",
)

MODPROBE_ARGUMENTS = define(
    "modprobe-arguments-unchecked",
    NOTE,
    "modprobe.rawArgs replaces all arguments of modprobe, so the name of the kmod is not known; every kmod in "
    "/{folder} was checked ({count})",
    "Check by hand that the arguments name one of these kmods.",
)

MODPROBE_ARGUMENTS_OPEN = define(
    "modprobe-arguments-open",
    UNDECIDED,
    "modprobe.rawArgs may name a kmod that does not load: {count} of {all} kmods in /{folder} are not proved to "
    "load, such as {kmod}: {problem}",
    "Use moduleName instead of rawArgs, so that the suite knows the kmod. Or remove the other kmods from the image.",
)

MODPROBE_OPTIONS_OPEN = define(
    "modprobe-options-open",
    UNDECIDED,
    "options change what modprobe does, so it is not known what will load: {options}",
    "Remove these options from modprobe.args.load, parameters or rawArgs, or check less with --proof=path.",
)

BOOT_BLACKLISTED = define(
    "boot-blacklisted",
    REFUTES,
    "{group} boots with module_blacklist, which names {name}: its nodes refuse {kmod}",
    "Remove {name} from module_blacklist in the MachineConfig. Use inTreeModulesToRemove against an in-tree kmod of "
    "this name.",
)

BOOT_ALIAS_SKIPPED = define(
    "boot-alias-skipped",
    REFUTES,
    "{group} boots with modprobe.blacklist, which names {name}: for the alias {alias} modprobe reports success, and "
    "does not load {name}",
    "Write moduleName: {name}, which modprobe.blacklist does not stop, or remove {name} from modprobe.blacklist.",
)

BOOT_MODULES_DISABLED = define(
    "boot-modules-disabled",
    REFUTES,
    "{group} boots with {argument}: its nodes load no kmod after the boot",
    "Remove {argument} from the kernelArguments of the MachineConfig.",
)

BOOT_ARGUMENTS_OPEN = define(
    "boot-arguments-open",
    UNDECIDED,
    "{group} boots with {argument}: its nodes may refuse kmods that IMA does not accept, and this run does not check "
    "that",
    "Load the kmod on such a node by hand, or remove the argument from the MachineConfig.",
)

NODE_NAME_CLASH = define(
    "node-name-clash",
    REFUTES,
    "{kmod} and {other} of {module} are different kmods with the name {name}, and the same nodes load both Modules: "
    "only the kmod that comes first is loaded",
    "Install one version of {name} into both images, or use selectors that choose different nodes.",
)

NODE_EXPORTS_CLASH = define(
    "node-exports-clash",
    REFUTES,
    "{kmod} and {other} of {module} export the same symbols, and the same nodes load both Modules: {symbols}",
    "Move the code of these symbols to one kmod that both images have, or use selectors that choose different nodes.",
)

NODE_CLASH_OPEN = define(
    "node-clash-open",
    UNDECIDED,
    "{kmod} and {other} of {module} exclude each other, and a node may have the labels of both Modules: {got}",
    "Give one label different values in the two selectors, or give the run the nodes.",
)

NODE_SYMBOLS_PROVIDED = define(
    "node-symbols-provided",
    NOTE,
    "{kmod} needs symbols of {other}, which {module} loads on the same nodes: {symbols}",
    "No action is needed while {module} loads: KMM tries again until its kmod is there.",
)

NODE_SYMBOLS_ELSEWHERE = define(
    "node-symbols-elsewhere",
    UNDECIDED,
    "{kmod} needs symbols of {other}, which {module} loads, but not surely on all nodes of this Module: {symbols}",
    "Give this Module all labels of the selector of {module}, or install {other} into the image too.",
)

NODE_SYMBOLS_OPEN = define(
    "node-symbols-open",
    UNDECIDED,
    "{kmod} needs symbols that neither the kernel nor its image exports, and another Module or operator may export "
    "them: {symbols}; not known: {others}",
    "Give the run the Module whose kmod exports these symbols, or install that kmod into the image too.",
)

KMOD_UNSIGNED = define(
    "kmod-unsigned",
    NOTE,
    "/{path} is not signed: nodes with Secure Boot or module.sig_enforce=1 refuse it",
    "If your nodes enforce signatures (Secure Boot), add a sign section to the Module. Otherwise no action is needed.",
)

BOOT_SIGNATURE = define(
    "boot-signature",
    REFUTES,
    "{group} boots with {argument}, so its nodes load only kmods with a valid signature: {problem}",
    "Add a sign section to the Module, with a key that these nodes trust.",
)

BOOT_KEY_UNKNOWN = define(
    "boot-key-unknown",
    UNDECIDED,
    "{group} boots with {argument}, and it is not known whether its nodes trust the signer: {problem}",
    "Add a sign section whose certificate these nodes have enrolled (mokutil --list-enrolled), or make its Secret "
    "available to this run.",
)

BOOT_KEY_NEEDED = define(
    "boot-key-needed",
    WARNING,
    "{group} boots with {argument}: the nodes must have enrolled the certificate of the sign section for {paths}",
    "Check on a node with mokutil --list-enrolled that the certificate is there.",
)

SIGN_CERT_INVALID = define(
    "sign-cert-invalid",
    REFUTES,
    "{problem}",
    "Put the certificate of the signing key into the Secret under the key cert, in PEM or DER.",
)

FILES_TO_SIGN_ABSENT = define(
    "files-to-sign-absent",
    REFUTES,
    "filesToSign names {path}, which is not in the image to sign: {got}",
    "Correct the path. The folder for this kernel is {folder}. Variables in filesToSign have _ where the folder has +.",
)

JUDGED_AGAIN = define(
    "judged-again",
    NOTE,
    "{object} reports the Module as verified, but it was checked again: {got}",
    "No action is needed: the verdict is from this run. If you do not know who wrote the status, check who may write "
    "it.",
)

MODULE_CHANGED = define(
    "module-changed",
    UNDECIDED,
    "the Module changed during the run: its generation is {got} now, and an older one was checked",
    "Run again to check the current Module.",
)

MODULE_APPEARED = define(
    "module-appeared",
    UNDECIDED,
    "the Module appeared during the run, so it was not checked",
    "Run again to check the Module.",
)

WORKER_LOST = define(
    "worker-lost",
    UNDECIDED,
    "the worker process that ran this check ended before it had a result",
    "Run again. If it happens again, check whether this machine has enough memory.",
)

CHECK_BROKEN = define(
    "check-broken",
    UNDECIDED,
    "the check ended before it had a result: {problem}",
    "If a time limit of pytest-timeout ended the check, pass a longer --timeout. Otherwise report the error as a "
    "defect of kmm-preflight.",
)
