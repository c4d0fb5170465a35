"""Turn the sign section into a request: key, certificate, files to sign, Dockerfile (docs/reference/kmm.md 6)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from kmm_preflight.build import findings
from kmm_preflight.build.builder import BuildRequest, MountedSecret
from kmm_preflight.build.image_options import format_options
from kmm_preflight.build.keys import KeyNames, check_keys, pem_label
from kmm_preflight.build.prepare import BuildPolicy, PreparedBuild, refused, request_id
from kmm_preflight.cluster.sections import SectionObjects, files_of, words_of
from kmm_preflight.kmod.kernel_files import mainline_version
from kmm_preflight.kmod.signature_rules import signature_rules
from kmm_preflight.kmod.signed_file import signer_of
from kmm_preflight.model import Finding, Severity, Stage
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.oci.image import Image
from kmm_preflight.planning.plan import Plan, Sign
from kmm_preflight.stages import findings as stages_findings
from kmm_preflight.stages.image_paths import content, files_matching, neighbours
from kmm_preflight.stages.signatures import CERT
from kmm_preflight.text import listed

HASH = "sha256"
KEY = "key"
_GLOB_PARTS = re.compile(r"[*?]|\[[^\]/]*\]")
# Characters without a special meaning in a Dockerfile. The names are quoted for the shell.
_PLAIN = re.compile(r"[A-Za-z0-9/._+@%=:,~ (){}&;!#^-]+")
_SOURCE, _SIGNED = "/kmm-preflight-source", "/kmm-preflight-signed"
# GNU's cp keeps the modes of the folders. Another cp may not know --parents.
_COPY = (
    f'signed="{_SIGNED}/$file"; mkdir -p {_SIGNED}; '
    f'{{ ( cd {_SOURCE} && cp -pL --parents "./$file" {_SIGNED} ) 2> /dev/null || '
    f'{{ mkdir -p "${{signed%/*}}" && cp -pL "{_SOURCE}/$file" "$signed"; }}; }}'
)
_NAMES_BYTES = 64 << 10
_PACKED = (".gz", ".xz", ".zst")


@dataclass(frozen=True)
class SignInput:
    """Image to sign."""

    name: str
    """Name under which the builder pulls the image."""
    image: Image
    """Content of the image."""


def prepare_sign(
    plan: Plan,
    sign: Sign,
    sign_input: SignInput,
    sources: SectionObjects,
    credentials: PullCredentials,
    policy: BuildPolicy,
    now: datetime,
) -> PreparedBuild:
    """Return the request of a plan's sign section. Raise the errors of reading its Secrets and its image."""
    signer = policy.signer_image or plan.kernel.driver_toolkit
    if not signer:
        why = "no driver toolkit is known for its kernel, and --signer-image is not set"
        return refused(findings.SIGNER_NONE(image=plan.image.name, why=why))
    if plan.image.digest:  # no signing can make a given digest
        return refused(findings.PUSH_DIGEST(image=plan.image.name))
    keys = _signing_keys(plan, sign, sources, now)
    if isinstance(keys, PreparedBuild):
        return keys
    files = _files_to_sign(plan, sign, sign_input.image)
    if isinstance(files, Finding):
        return refused(files)
    signer_image = SignerImage(signer, pem_label(keys.key.files[KEY]))
    request = BuildRequest(
        id=request_id(plan, Stage.SIGN),
        stage=Stage.SIGN,
        plan=plan,
        dockerfile=sign_dockerfile(
            sign_input.name, signer_image, files, plan.kernel.version, sign_input.image.config().on_build
        ),
        image=plan.image.name,
        push=policy.push,
        timeout=policy.timeout,
        secrets=(keys.key, keys.cert),
        images=tuple(dict.fromkeys((sign_input.name, signer))),
        options=format_options(sign_input.image),
        pull_tls=sign.unsigned_image_registry_tls,
        push_tls=plan.tls,
        credentials=credentials,
        selector=plan.selector,
    )
    return PreparedBuild(request, (*keys.notes, *_signed_already(files, sign_input.image)))


@dataclass(frozen=True)
class _SigningKeys:
    """Key and certificate that can sign."""

    key: MountedSecret
    """Secret with the private key."""
    cert: MountedSecret
    """Secret with the certificate."""
    notes: tuple[Finding, ...]
    """Findings that do not prevent the signing."""


def _signing_keys(plan: Plan, sign: Sign, sources: SectionObjects, now: datetime) -> _SigningKeys | PreparedBuild:
    """Read and check key and certificate. If they cannot sign, return the findings without a request."""
    key, cert = (
        _secret(plan, name, part, sources) for name, part in ((sign.key_secret, KEY), (sign.cert_secret, CERT))
    )
    if isinstance(key, Finding):
        return refused(key)
    if isinstance(cert, Finding):
        return refused(cert)
    namespace = plan.module.namespace
    names = KeyNames(f"{namespace}/{sign.key_secret}", f"{namespace}/{sign.cert_secret}")
    rules = signature_rules(mainline_version(plan.kernel.version), None)
    certificate, notes = check_keys(key.files[KEY], cert.files[CERT], names, now, rules)
    if certificate is None or any(note.severity is Severity.REFUTES for note in notes):
        return PreparedBuild(None, notes)
    return _SigningKeys(key, cert, notes)


def _secret(plan: Plan, name: str | None, part: str, sources: SectionObjects) -> MountedSecret | Finding:
    key = (plan.module.namespace, name or "")
    secret = sources.secret(key) if name else None
    if name is None or secret is None:
        return findings.SIGN_SECRET_ABSENT(secret=words_of(key), got="the Secret does not exist", key=part)
    files = files_of(secret, f"Secret {words_of(key)}")
    if part not in files:
        return findings.SIGN_SECRET_ABSENT(
            secret=words_of(key), got=f"its keys are {listed(sorted(files))}" if files else "it has no keys", key=part
        )
    return MountedSecret(part, name, {part: files[part]})


@dataclass(frozen=True)
class SignerImage:
    """Image with sign-file, and the format of the key."""

    image: str
    """Name of the image."""
    label: str | None
    """PEM label for a key in DER, such as "PRIVATE KEY"; None for a key in PEM."""


def sign_dockerfile(
    unsigned: str, signer: SignerImage, files: tuple[str, ...], kernel: str, on_build: tuple[str, ...] = ()
) -> str:
    """Return a Dockerfile that signs files of an image with the signer's sign-file. No layer has the key.

    on_build has the image's own instructions of ONBUILD, which a build removes from its base image.
    """
    out = [f"FROM {unsigned} AS source", f"FROM {signer.image} AS signer", "USER 0"]
    tools = (f"/usr/src/kernels/{kernel}/scripts/sign-file", "/usr/local/bin/sign-file")
    find = f'for tool in {shlex.join(tools)}; do [ -x "$tool" ] && break; done'
    missing = 'echo "the signer image has no sign-file" >&2; exit 3'
    # The step copies the files by itself, since a COPY takes a tenth of a second for each file.
    mount = f"--mount=type=bind,from=source,target={_SOURCE}"
    for paths in _groups(files):
        sign = f'for file in {shlex.join(paths)}; do {_COPY} && {_sign(signer.label)} "$signed" || exit 1; done'
        out.append(f'RUN {mount} {find}; [ -x "$tool" ] || {{ {missing}; }}; {sign}')
    # Not `FROM source`: old versions of buildah count layers wrongly if a stage is based on an earlier one.
    out += [f"FROM {unsigned}", f"COPY --from=signer {_SIGNED}/ /"]
    out += [f"ONBUILD {instruction}" for instruction in on_build]
    return "\n".join(out) + "\n"


def _groups(files: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the files in groups whose names fit into one argument of a process: Linux allows 128 KiB."""
    group: list[str] = []
    size = 0
    for path in files:
        size += len(path.encode()) + 1
        if group and size > _NAMES_BYTES:
            yield tuple(group)
            group, size = [], len(path.encode()) + 1
        group.append(path)
    yield tuple(group)


def _sign(label: str | None) -> str:
    key, cert = f"/run/secrets/{KEY}/{KEY}", f"/run/secrets/{CERT}/{CERT}"
    if not label:
        return f'"$tool" {HASH} {key} {cert}'
    # In two parts, so that a scanner for keys does not take the line for a key.
    pem = f"echo '-----''BEGIN {label}-----'; base64 {key}; echo '-----''END {label}-----'"
    return f'{{ {pem}; }} | "$tool" {HASH} /dev/stdin {cert}'


def _files_to_sign(plan: Plan, sign: Sign, image: Image) -> tuple[str, ...] | Finding:
    """Return the paths without the first slash, each once, or the finding if they cannot be signed."""
    if not sign.files_to_sign:
        return findings.FILES_TO_SIGN_NONE(got="it is empty")
    for entry in sign.files_to_sign:
        if not entry.startswith("/") or not _PLAIN.fullmatch(_GLOB_PARTS.sub("", entry)):
            return findings.FILES_TO_SIGN_NONE(got=f"{entry} is not an absolute path of plain characters")
    files: list[Located] = []
    for entry in sign.files_to_sign:
        matching = files_matching(entry, image.files)
        if not matching:
            got = neighbours(entry, image.files)
            return stages_findings.FILES_TO_SIGN_ABSENT(path=entry, got=got, folder=f"/{plan.folder}")
        files += matching
    for located in files:
        if not _PLAIN.fullmatch(located.path):
            got = f"/{located.path}, which it matches, has a quote, $, backslash, wildcard or control character"
            return findings.FILES_TO_SIGN_NONE(got=got)
        if located.path.endswith(_PACKED):
            return findings.FILES_TO_SIGN_COMPRESSED(path=located.path)
    # Without links: the result of the signing must replace files, and never a linked folder.
    real = (image.files.resolve(located.path) or located for located in files)
    return tuple(dict.fromkeys(located.path for located in real))


def _signed_already(files: Iterable[str], image: Image) -> tuple[Finding, ...]:
    signers = {path: signer_of(content(path, image)) for path in files}
    return tuple(findings.FILES_TO_SIGN_SIGNED(path=path, signer=signer) for path, signer in signers.items() if signer)
