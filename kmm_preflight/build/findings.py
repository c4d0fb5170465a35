"""Findings of the build stage and the sign stage."""

from __future__ import annotations

from kmm_preflight.catalogue import NOTE, REFUTES, UNDECIDED, WARNING, define

BUILDER_NONE = define(
    "builder-none",
    REFUTES,
    "the image is not good and the build section would have to make it: got no builder ({why}), expected one that "
    "runs it",
    "Choose a builder with --builder, or build and push {image} as the build section says; then run again.",
)

SIGNER_NONE = define(
    "signer-none",
    REFUTES,
    "the image is not good and the sign section would have to make it: got {why}, expected what signs it",
    "Choose a builder with --builder, and --signer-image where no driver toolkit is known, or sign and push {image} as "
    "the sign section says; then run again.",
)

SOURCE_UNREAD = define(
    "source-unread",
    UNDECIDED,
    "what the section names could not be read: {problem}",
    "Let the account of this run read it (deploy/rbac.yaml and deploy/rbac-builds.yaml), then run again.",
)

SOURCE_INVALID = define(
    "source-invalid",
    REFUTES,
    "what the section names cannot be used: {problem}",
    "Correct the object; an API server would not have taken it.",
)

DOCKERFILE_ABSENT = define(
    "dockerfile-absent",
    REFUTES,
    "there is no Dockerfile to build from: got {got}, expected ConfigMap {config_map} with the key dockerfile",
    "Put the Dockerfile under the key dockerfile of that ConfigMap, in the Module's namespace; in a manifests run put "
    "the ConfigMap among the manifests.",
)

DOCKERFILE_KEY = define(
    "dockerfile-key",
    REFUTES,
    "ConfigMap {config_map} has its Dockerfile under a key that KMM does not read: got {got}, expected dockerfile",
    "Name the key dockerfile, in lower case: oc create configmap … --from-file=dockerfile=Dockerfile.",
)

DOCKERFILE_RUNNING_KERNEL = define(
    "dockerfile-running-kernel",
    WARNING,
    "the Dockerfile asks for the kernel that is running where it is built: got {got}, expected the argument "
    "KERNEL_FULL_VERSION",
    "Declare ARG KERNEL_FULL_VERSION after FROM and use it instead: {kernel} does not run before the upgrade.",
)

DOCKERFILE_DEPMOD = define(
    "dockerfile-depmod",
    WARNING,
    "depmod without a kernel makes the index for the one that is running: got {got}, expected a kernel in it",
    "Write depmod -b {directory} ${{KERNEL_FULL_VERSION}}, so that the index is made for {kernel}.",
)

BUILD_SECRET_ABSENT = define(
    "build-secret-absent",
    REFUTES,
    "the build section names Secret {secret}: got none, expected one",
    "Create the Secret in the Module's namespace; in a manifests run put it among the manifests.",
)

TOOLKIT_UNKNOWN = define(
    "driver-toolkit-unknown",
    REFUTES,
    "the Dockerfile takes DTK_AUTO: got no driver toolkit for {kernel}, expected the one of its release",
    "Pass --release-image, or --driver-toolkit beside --kernel.",
)

BASE_IMAGE_UNRESOLVED = define(
    "base-image-unresolved",
    REFUTES,
    "the Dockerfile takes an image whose name cannot be made: got {got}, expected an image name",
    "Give the argument a default in the Dockerfile, or a value in buildArgs, in a place before the first FROM.",
)

BASE_IMAGE_ABSENT = define(
    "base-image-absent",
    REFUTES,
    "{section} takes an image that cannot be pulled: {problem}",
    "Push that image for the architecture of {kernel}, or correct its name.",
)

BASE_IMAGE_DENIED = define(
    "base-image-denied",
    REFUTES,
    "{section} takes an image that may not be pulled: {problem} (with {credentials})",
    "Let spec.imageRepoSecret name a Secret that may pull it too; builds have no other login than that, else those of "
    "the account builder.",
)

BUILD_FAILED = define(
    "build-failed",
    REFUTES,
    "the build failed: {problem}",
    "Read the last lines of the log, mend the Dockerfile or the sources for the new kernel, then run again.",
)

BUILD_TIMEOUT = define(
    "build-timeout",
    REFUTES,
    "the build was stopped at its deadline: got no end within {seconds} s, expected one",
    "Look at the last lines of the log for what it waits for; --build-timeout gives it more time.",
)

BUILDER_FAILED = define(
    "builder-failed",
    UNDECIDED,
    "the builder did not come to an end of the build: {problem}",
    "Mend what is said of the builder, then run again.",
)

BUILD_UNPROVED = define(
    "build-unproved",
    UNDECIDED,
    "the build ended well and its result is nowhere to be had: got builder {builder} without a push, expected an image "
    "that can be looked into",
    "Pass --push-built-image, or choose --builder=local or job, which hand the result back.",
)

BUILD_UNPROVED_UNSIGNED = define(
    "build-unproved-unsigned",
    WARNING,
    "the build ended well and its result was not looked into: got builder {builder} without a push",
    "Pass --push-built-image, or choose --builder=local.",
)

SIGN_IMAGE_NONE = define(
    "sign-image-none",
    REFUTES,
    "no image to sign is given: got neither a build section nor unsignedImage, expected one of them",
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
    "Secret {secret} cannot be signed with: got {got}, expected the key {key}",
    "Create it in the Module's namespace: oc create secret generic NAME --from-file={key}=FILE; in a manifests run put "
    "it among the manifests.",
)

SIGN_KEY_INVALID = define(
    "sign-key-invalid",
    REFUTES,
    "the key in Secret {secret} cannot sign kmods: got {got}, expected {expected}, unencrypted, in PEM or DER",
    "Put the private key itself under `key` of the Secret.",
)

SIGN_KEY_MISMATCH = define(
    "sign-key-mismatch",
    REFUTES,
    "the key in Secret {key} does not belong to the certificate in Secret {cert}: got another key, expected that of "
    "{expected}",
    "Put a key and the certificate that was made for it into the two Secrets.",
)

SIGN_CERT_EXPIRED = define(
    "sign-cert-expired",
    WARNING,
    "the certificate in Secret {secret} is not valid on {now}: got {got}, expected one that is valid",
    "Plan a new certificate, which the nodes must be enrolled with first: kernels load what this one signs.",
)

FILES_TO_SIGN_NONE = define(
    "files-to-sign-none",
    REFUTES,
    "nothing would be signed: got {got}, expected filesToSign with absolute paths of kmods in the image",
    "List the kmods in filesToSign of the sign section.",
)

FILES_TO_SIGN_COMPRESSED = define(
    "files-to-sign-compressed",
    REFUTES,
    "/{path} of filesToSign is compressed: a signature behind compressed data is none for the kernel",
    "Sign the .ko and compress it afterwards, or install it uncompressed.",
)

FILES_TO_SIGN_SIGNED = define(
    "files-to-sign-signed",
    WARNING,
    "/{path} of filesToSign is signed already: got a signature by {signer}, expected none; kernels look at the last "
    "one alone, which will be by the Module's key",
    "Take the file from filesToSign if that signature is the one that is wanted, else strip it in the Dockerfile.",
)

SIGN_FAILED = define(
    "sign-failed",
    REFUTES,
    "signing failed: {problem}",
    "Read the last lines of the log, where sign-file says what it refuses; --signer-image names another signer.",
)

PUSH_DIGEST = define(
    "push-digest",
    REFUTES,
    "{image} can be the name of nothing that is made: got a digest, expected a tag",
    "Write containerImage with a tag.",
)

PUSH_REFUSED = define(
    "push-refused",
    REFUTES,
    "{image} is not overwritten: {problem}",
    "Let the tag name the kernel (${{KERNEL_FULL_VERSION}}), or pass --overwrite if no node needs what is there.",
)

PUSH_DENIED = define(
    "push-denied",
    REFUTES,
    "{image} was proved, and may not be pushed: {problem}",
    "Let spec.imageRepoSecret name a Secret that may push to it.",
)

PUSH_FAILED = define(
    "push-failed",
    UNDECIDED,
    "{image} was proved, and could not be pushed: {problem}",
    "Check network, proxy and registry, then run again.",
)

PUSHED_BEFORE_PROOF = define(
    "pushed-before-proof",
    NOTE,
    "builder {builder} pushes before anything is proved: {image} is in its registry whatever this run says of it",
    "None is needed for a green; after a red, mend the Module before its nodes are upgraded.",
)

IMAGE_SHARED = define(
    "image-shared",
    REFUTES,
    "{other} takes the same image {image}, and does not find what it loads in what was made: {problem}",
    "Give each its own name, with ${{MOD_NAME}} or ${{KERNEL_FULL_VERSION}} in it, or let one build make the kmods of "
    "all.",
)
