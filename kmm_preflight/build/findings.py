"""Findings of the build stage and the sign stage."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

BUILDER_NONE = define(
    "builder-none",
    UNDECIDED,
    "the image is not good, and no builder can run the build section ({why})",
    "Choose a builder with --builder. Or build and push {image} as the build section describes, then run again.",
)

SIGNER_NONE = define(
    "signer-none",
    UNDECIDED,
    "the image is not good, and nothing can run the sign section ({why})",
    "Choose a builder with --builder. If no driver toolkit is known, pass --signer-image too. Or sign and push "
    "{image} as the sign section describes, then run again.",
)

SOURCE_UNREAD = define(
    "source-unread",
    UNDECIDED,
    "an object that the build or sign section needs could not be read: {problem}",
    "Give the account of this run access to the object (deploy/rbac.yaml and deploy/rbac-builds.yaml), then run again.",
)

SOURCE_INVALID = define(
    "source-invalid",
    REFUTES,
    "an object that the build or sign section names is not valid: {problem}",
    "Correct the object. A cluster does not accept it as it is.",
)

DOCKERFILE_ABSENT = define(
    "dockerfile-absent",
    REFUTES,
    "the key dockerfile of ConfigMap {config_map} has no Dockerfile: {got}",
    "Put the Dockerfile under the key dockerfile of this ConfigMap, in the Module's namespace. In a run with "
    "--manifests, add the ConfigMap to the manifests.",
)

DOCKERFILE_KEY = define(
    "dockerfile-key",
    REFUTES,
    "ConfigMap {config_map} has the Dockerfile under a key that KMM does not read: got {got}, expected dockerfile",
    "Rename the key to dockerfile, in lower case: oc create configmap … --from-file=dockerfile=Dockerfile.",
)

DOCKERFILE_RUNNING_KERNEL = define(
    "dockerfile-running-kernel",
    WARNING,
    "the Dockerfile reads the kernel version of the machine that runs the build: {got}",
    "Declare ARG KERNEL_FULL_VERSION after FROM and use this argument instead. No machine runs {kernel} before the "
    "upgrade.",
)

DOCKERFILE_DEPMOD = define(
    "dockerfile-depmod",
    WARNING,
    "the Dockerfile runs depmod without a kernel version, so the index is made for the kernel of the build machine: "
    "{got}",
    "Write depmod -b {directory} ${{KERNEL_FULL_VERSION}}, so that the index is made for {kernel}.",
)

BUILD_SECRET_ABSENT = define(
    "build-secret-absent",
    REFUTES,
    "the build section names Secret {secret}, which does not exist",
    "Create the Secret in the Module's namespace. In a run with --manifests, add the Secret to the manifests.",
)

TOOLKIT_UNKNOWN = define(
    "driver-toolkit-unknown",
    REFUTES,
    "the Dockerfile uses DTK_AUTO, but no driver toolkit is known for {kernel}",
    "Pass --release-image, or pass --driver-toolkit together with --kernel.",
)

BASE_IMAGE_UNRESOLVED = define(
    "base-image-unresolved",
    REFUTES,
    "the Dockerfile uses an image whose name cannot be resolved: {got}",
    "Declare the argument before the first FROM, with a default value there or a value in buildArgs.",
)

BASE_IMAGE_ABSENT = define(
    "base-image-absent",
    REFUTES,
    "{section} uses an image that does not exist: {problem}",
    "Push this image for the architecture of {kernel}, or correct its name.",
)

BASE_IMAGE_DENIED = define(
    "base-image-denied",
    REFUTES,
    "{section} uses an image that this run may not pull: {problem} (with {credentials})",
    "Set spec.imageRepoSecret to a Secret that may pull this image too. Without this field, a build uses the Secrets "
    "of the account builder.",
)

BUILD_FAILED = define(
    "build-failed",
    REFUTES,
    "the build failed: {problem}",
    "Read the last lines of the log. Fix the Dockerfile or the sources for the new kernel, then run again.",
)

BUILD_TIMEOUT = define(
    "build-timeout",
    REFUTES,
    "the build was stopped, because it did not finish within {seconds} s",
    "Read the last lines of the log to see what the build waits for. To allow more time, pass --build-timeout.",
)

BUILDER_FAILED = define(
    "builder-failed",
    UNDECIDED,
    "the build did not finish: {problem}",
    "Fix the problem that this finding names, then run again.",
)

BUILD_NO_NETWORK = define(
    "build-no-network",
    UNDECIDED,
    "a RUN step found no network on this machine: {problem}",
    "Let this machine reach the server that the step names. Or build in the cluster with --builder=job, which decides.",
)

BUILD_UNPROVED = define(
    "build-unproved",
    UNDECIDED,
    "the build succeeded, but its result cannot be checked: builder {builder} does not keep an image that is not "
    "pushed",
    "Pass --push-built-image. Or choose --builder=local or --builder=job, which keep the result.",
)

BUILD_UNPROVED_UNSIGNED = define(
    "build-unproved-unsigned",
    WARNING,
    "the build succeeded, but its result was not checked: builder {builder} did not push it",
    "Pass --push-built-image, or choose --builder=local.",
)

BUILD_UNUSED = define(
    "build-unused",
    REFUTES,
    "the section makes a good image, but no node will load it: nodes take the image that {image} names already "
    "({digest}), and KMM builds and signs nothing under a name that exists; {got}",
    "Push the good image over the old image: pass --push-built-image. Or delete the tag, so that KMM builds the image.",
)

BUILD_UNSIGNED = define(
    "build-unsigned",
    REFUTES,
    "the section makes a good image, but {policy} requires a signature of {image}, and neither KMM nor this run signs "
    "images",
    "Sign each image that KMM pushes with the key of the policy. Or push a signed image yourself, and remove the build "
    "section.",
)

SIGN_IMAGE_NONE = define(
    "sign-image-none",
    REFUTES,
    "the sign section has no image to sign: the Module has neither a build section nor unsignedImage",
    "Set unsignedImage in the sign section, or add a build section.",
)

SIGN_INPUT_ABSENT = define(
    "sign-input-absent",
    REFUTES,
    "the sign section signs the image that the build section makes, and this image is not available without "
    "PushBuiltImage",
    "Pass --push-built-image, or set pushBuiltImage in the PreflightValidationOCP. Or choose --builder=local, which "
    "keeps the image and signs it without a push.",
)

SIGN_SECRET_ABSENT = define(
    "sign-secret-absent",
    REFUTES,
    "the sign section needs the key {key} in Secret {secret}: {got}",
    "Create the Secret in the Module's namespace: oc create secret generic NAME --from-file={key}=FILE. In a run "
    "with --manifests, add the Secret to the manifests.",
)

SIGN_KEY_INVALID = define(
    "sign-key-invalid",
    REFUTES,
    "the key in Secret {secret} cannot sign kmods: got {got}, expected {expected}, unencrypted, in PEM or DER",
    "Put the private key itself into the Secret, under the key named key.",
)

SIGN_KEY_MISMATCH = define(
    "sign-key-mismatch",
    REFUTES,
    "the key in Secret {key} does not belong to the certificate in Secret {cert}, which is for {expected}",
    "Put a key and its own certificate into the two Secrets.",
)

SIGN_CERT_EXPIRED = define(
    "sign-cert-expired",
    WARNING,
    "the certificate in Secret {secret} is not valid on {now}: {got}",
    "Plan a new certificate, and enroll it on the nodes first. Kernels still load kmods that this certificate signs.",
)

FILES_TO_SIGN_NONE = define(
    "files-to-sign-none",
    REFUTES,
    "filesToSign does not list absolute paths of kmods: {got}",
    "List the absolute paths of the kmods in filesToSign of the sign section.",
)

FILES_TO_SIGN_COMPRESSED = define(
    "files-to-sign-compressed",
    REFUTES,
    "filesToSign names /{path}, which is compressed: kernels do not find a signature behind compressed data",
    "Sign the .ko file and compress it afterwards, or install it uncompressed.",
)

FILES_TO_SIGN_SIGNED = define(
    "files-to-sign-signed",
    WARNING,
    "filesToSign names /{path}, which {signer} signed already: kernels check only the last signature, which will be "
    "by the Module's key",
    "If you want to keep the existing signature, remove the file from filesToSign. Otherwise strip the signature in "
    "the Dockerfile.",
)

SIGN_FAILED = define(
    "sign-failed",
    REFUTES,
    "signing failed: {problem}",
    "Read the last lines of the log, which show the error of sign-file. To use another signer image, pass "
    "--signer-image.",
)

PUSH_DIGEST = define(
    "push-digest",
    REFUTES,
    "containerImage {image} names a digest, but a new image gets a new digest",
    "Write containerImage with a tag instead of a digest.",
)

PUSH_REFUSED = define(
    "push-refused",
    REFUTES,
    "{image} is not overwritten: {problem}",
    "Put the kernel into the tag (${{KERNEL_FULL_VERSION}}). If no node needs the image that is there, pass "
    "--overwrite.",
)

PUSH_DENIED = define(
    "push-denied",
    REFUTES,
    "{image} was proved, but this run may not push it: {problem}",
    "Set spec.imageRepoSecret to a Secret that may push this image.",
)

PUSH_FAILED = define(
    "push-failed",
    UNDECIDED,
    "{image} was proved, but it could not be pushed: {problem}",
    "Check the network, the proxy and the registry, then run again.",
)

PUSHED_BEFORE_PROOF = define(
    "pushed-before-proof",
    NOTE,
    "builder {builder} pushes before the proof, so {image} is in its registry whatever the verdict is",
    "If the Module is verified, no action is needed. If it is refuted, fix the Module before its nodes are upgraded.",
)

IMAGE_SHARED = define(
    "image-shared",
    REFUTES,
    "{other} uses the same image {image}, but the new image does not have its kmod: {problem}",
    "Give each image its own name, with ${{MOD_NAME}} or ${{KERNEL_FULL_VERSION}} in it. Or make the kmods of all in "
    "one build.",
)
