"""Signatures of an image's kmods: as a sign section or the run asks for them, and as a kernel stumbles over them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from kmm_preflight.cluster.credentials import is_elided
from kmm_preflight.cluster.sections import SectionObjects, files_of, words_of
from kmm_preflight.errors import AccessDenied, BoundExceeded, Malformed
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.certificate import Certificate, parse_certificate
from kmm_preflight.kmod.signature import judge_signature, judge_unenforced_signature
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import FileSystem, LinkBroken, Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.tar import EntryKind
from kmm_preflight.planning.plan import Plan, Sign
from kmm_preflight.stages import findings
from kmm_preflight.stages.image_check import kmods_of
from kmm_preflight.text import listed

CERT = "cert"
FILES_MOST = 1000
FILE_BYTES = 256 << 20
_GLOB = re.compile(r"[*?\[]")


def judge_signed(plan: Plan, sign: Sign, image: Image, sources: SectionObjects) -> tuple[Finding, ...]:
    """What is to be said of the signatures of filesToSign, and of the kmod itself, at most one finding a file.

    Without the certificate of certSecret it is told whose signatures they are.
    """
    try:
        certificate = _certificate(plan, sign, sources)
    except Malformed as exc:
        return (findings.SIGN_CERT_INVALID(problem=exc.message),)
    told: list[Finding] = []
    for entry in sign.files_to_sign:
        if not files_matching(entry, image.files):
            got = neighbours(entry, image.files)
            told.append(findings.FILES_TO_SIGN_ABSENT(path=entry, got=got, folder=f"/{plan.folder}"))
    for path in signed_files(plan, sign, image):
        if problem := judge_signature(path, content(path, image), certificate):
            told.append(problem)
    return tuple(dict.fromkeys(told))


def signed_files(plan: Plan, sign: Sign, image: Image) -> tuple[str, ...]:
    """What the section has signed: filesToSign, and the kmod itself wherever these have led; each path once."""
    paths = [located.path for entry in sign.files_to_sign for located in files_matching(entry, image.files)]
    own = kmods_of(plan, image) if plan.kmod else []
    return tuple(dict.fromkeys((*paths, *(located.path for located in own))))


def judge_required(image: Image, paths: Iterable[str]) -> tuple[Finding, ...]:
    """The same of kmods for which no section names a certificate, at most one finding a file."""
    judged = (judge_signature(path, content(path, image), None) for path in paths)
    return tuple(one for one in judged if one)


def judge_unasked(image: Image, paths: Iterable[str]) -> tuple[Finding, ...]:
    """What a kernel refuses although it asks for no signature; that there is none is a note."""
    told: list[Finding] = []
    for path in paths:
        data = content(path, image)
        judged = judge_signature(path, data, None)
        if judged and judged.id == kmod_findings.SIGNATURE_MISSING.id:
            told.append(findings.KMOD_UNSIGNED(path=path))
        elif refused := judge_unenforced_signature(path, data):
            told.append(refused)
    return tuple(told)


def _certificate(plan: Plan, sign: Sign, sources: SectionObjects) -> Certificate | None:
    """That of certSecret; None where there is no such Secret, or none that may be read."""
    key = (plan.module.namespace, sign.cert_secret or "")
    try:
        secret = sources.secret(key)
    except AccessDenied:
        return None
    if secret is None or is_elided(secret):
        return None
    files = files_of(secret, f"Secret {words_of(key)}")
    if CERT not in files:
        raise Malformed(f"Secret {words_of(key)}: got keys {listed(sorted(files))}, expected {CERT}")
    return parse_certificate(files[CERT], f"Secret {words_of(key)}")


def files_matching(pattern: str, files: FileSystem) -> list[Located]:
    """The files that a path with *, ? and [ ] in its parts leads to, as a shell expands it; links are followed."""
    paths = [""]
    for part in posixpath.normpath(pattern).strip("/").split("/"):
        paths = [f"{path}/{name}".lstrip("/") for path in paths for name in _names(path, part, files)]
        if len(paths) > FILES_MOST:
            raise BoundExceeded(f"filesToSign {pattern}: more than {FILES_MOST} files")
    return [located for path in paths if (located := _file(path, files))]


def _names(folder: str, part: str, files: FileSystem) -> list[str]:
    if not _GLOB.search(part):
        return [part]
    located = resolved(folder, files)
    children = files.children(located.path) if located else []
    # A shell's * takes no name that begins with a dot.
    return [name for name in children if fnmatchcase(name, part) and name.startswith(".") is part.startswith(".")]


def _file(path: str, files: FileSystem) -> Located | None:
    located = files.file(path)
    return Located(path, located.entry, located.layer) if located else None


def target(path: str, files: FileSystem) -> Located | None:
    """What a path leads to, of a hard link the file itself."""
    located = resolved(path, files)
    return files.hardlink_target(located) if located and located.entry.kind is EntryKind.HARDLINK else located


def resolved(path: str, files: FileSystem) -> Located | None:
    try:
        return files.resolve(path)
    except LinkBroken:
        return None


def neighbours(entry: str, files: FileSystem) -> str:
    """What stands in the folder of a path that leads nowhere."""
    folder = resolved(posixpath.dirname(entry), files)
    if folder is None:
        return f"there is no folder {posixpath.dirname(entry)}"
    names = files.children(folder.path)
    return f"its folder has {listed(names)}" if names else "its folder is empty"


def content(path: str, image: Image) -> bytes:
    """The bytes of a file that a path of the image leads to; BoundExceeded when it is larger than any kmod."""
    located = target(path, image.files)
    if located is None:
        return b""
    file = image.content(located)
    if file.stat().st_size > FILE_BYTES:
        raise BoundExceeded(f"/{path}: larger than {FILE_BYTES >> 20} MiB")
    return file.read_bytes()
