"""Every finding: its id, what it weighs, its sentence and its remedy. A page in docs/findings/ tells more of each."""

from __future__ import annotations

from dataclasses import dataclass

from kmm_preflight import errors
from kmm_preflight.model import Finding, Severity
from kmm_preflight.outside import clean


@dataclass(frozen=True)
class Kind:
    """One cause. Called with the names in its sentence, it gives the Finding."""

    id: str
    severity: Severity
    sentence: str
    remedy: str

    def __call__(self, **values: object) -> Finding:
        """The finding with the values, cleaned, in its sentence and remedy."""
        shown = {name: clean(str(value)) for name, value in values.items()}
        return Finding(self.id, self.severity, self.sentence.format(**shown), self.remedy.format(**shown))


CATALOGUE: dict[str, Kind] = {}


def _kind(id: str, severity: Severity, sentence: str, remedy: str) -> Kind:
    return CATALOGUE.setdefault(id, Kind(id, severity, sentence, remedy))


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
MAPPING_SECRET_ABSENT = _kind(
    "secret-not-given",
    _WARNING,
    "the Module's imageRepoSecret {secret} is not among the manifests: got {used}, expected the Secret",
    "Put the Secret among the manifests, or pass --authfile.",
)

# Stages that cannot run.
BUILDER_NONE = _kind(
    "builder-none",
    _REFUTES,
    "the image is not good and the build section would have to make it: got no builder, expected one that runs it",
    "Build and push {image} as the build section says, then run again.",
)
SIGNER_NONE = _kind(
    "signer-none",
    _REFUTES,
    "the image is not good and the sign section would have to make it: got no builder, expected one that runs it",
    "Sign and push {image} as the sign section says, then run again.",
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

_OF_TROUBLE: dict[type[errors.PreflightError], Kind] = {
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


def of_trouble(trouble: errors.PreflightError, kernel: str) -> Finding:
    """The finding for trouble with an image, by the error's class. AccessDenied needs the credentials: not here."""
    return _OF_TROUBLE[type(trouble)](problem=trouble.message, kernel=kernel)
