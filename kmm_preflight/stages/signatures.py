"""Signatures of an image's kmods, by the rules of a sign section, of the run, or of a kernel that enforces none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache, cached_property

from kmm_preflight.cluster.credentials import is_elided
from kmm_preflight.cluster.sections import SectionObjects, files_of, words_of
from kmm_preflight.errors import AccessDenied, Malformed
from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.certificate import Certificate, parse_certificate
from kmm_preflight.kmod.kernel_files import KernelFiles, mainline_version
from kmm_preflight.kmod.signature import judge_signature, judge_unenforced_signature
from kmm_preflight.kmod.signature_rules import signature_rules
from kmm_preflight.model import Finding
from kmm_preflight.oci.image import Image
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages import findings
from kmm_preflight.stages.image_paths import content, files_matching, neighbours
from kmm_preflight.stages.kmod_folder import KmodFolder
from kmm_preflight.text import listed

CERT = "cert"


class ImageSignatures:
    """The signatures in one image. Each file is read and checked once, also if several kmods depend on it."""

    def __init__(self, plan: Plan, image: Image, sources: SectionObjects, required: bool = False) -> None:
        """Read nothing yet. sources has the Secret with the certificate.

        required: True if each loaded file must be signed. Every method raises what reading the image raises.
        """
        self._plan, self._image, self._sources = plan, image, sources
        self._files_to_sign = plan.sign.files_to_sign if plan.sign else ()
        self._rules = signature_rules(mainline_version(plan.kernel.version), None)
        self._signed = cache(self._judge_signed)
        self._other = cache(self._judge_required if required else self._judge_unenforced)

    def use_configuration(self, kernel: KernelFiles) -> None:
        """Judge by the build configuration of the kernel too: it says which methods of signatures the kernel has."""
        self._rules = signature_rules(kernel.version, kernel.configuration)

    def judge_loaded(self, kmod: str, paths: Iterable[str]) -> tuple[Finding, ...]:
        """Return the findings for a kmod, at most one for each file. paths are the files that are loaded with it.

        With a sign section: check filesToSign and the kmod itself by its certificate, all other paths without one.
        """
        section = self._paths(kmod) if self._plan.sign else ()
        others = (self._other(path) for path in paths if path not in section)
        return (*self.judge_section(kmod), *(finding for finding in others if finding))

    def judge_enforced(self, kmod: str, path: str) -> Finding | None:
        """Return the finding about a file for a kernel that loads signed kmods only.

        None: the certificate of the sign section proves the signature.
        """
        if self._plan.sign and path in self._paths(kmod):
            return self._certificate if isinstance(self._certificate, Finding) else self._signed(path)
        return self._judge_required(path)

    def judge_section(self, kmod: str | None) -> tuple[Finding, ...]:
        """Return the findings for the sign section: filesToSign and the files of the kmod. Without a section: none.

        Without the certificate of certSecret, a finding names the signer.
        """
        if self._plan.sign is None:
            return ()
        if isinstance(self._certificate, Finding):
            return (self._certificate,)
        absent = [self._absent(entry) for entry in self._files_to_sign if not self._matches(entry)]
        signatures = [finding for path in self._paths(kmod) if (finding := self._signed(path))]
        return tuple(dict.fromkeys((*absent, *signatures)))

    def _paths(self, kmod: str | None) -> tuple[str, ...]:
        """Return the paths that the section has signed, each once. The kmod counts wherever filesToSign leads."""
        kmods = KmodFolder(replace(self._plan, kmod=kmod), self._image).kmods() if kmod else ()
        files = [located for entry in self._files_to_sign for located in files_matching(entry, self._image.files)]
        return tuple(dict.fromkeys(located.path for located in (*files, *kmods)))

    def _matches(self, entry: str) -> bool:
        return bool(files_matching(entry, self._image.files))

    def _absent(self, entry: str) -> Finding:
        got = neighbours(entry, self._image.files)
        return findings.FILES_TO_SIGN_ABSENT(path=entry, got=got, folder=f"/{self._plan.folder}")

    def _judge_signed(self, path: str) -> Finding | None:
        assert not isinstance(self._certificate, Finding)
        return judge_signature(path, content(path, self._image), self._certificate, self._rules)

    def _judge_required(self, path: str) -> Finding | None:
        return judge_signature(path, content(path, self._image), None, self._rules)

    def _judge_unenforced(self, path: str) -> Finding | None:
        """Return the finding for a signature that every kernel refuses, or the note for an unsigned kmod."""
        data = content(path, self._image)
        finding = judge_signature(path, data, None, self._rules)
        if finding and finding.id == kmod_findings.SIGNATURE_MISSING.id:
            return findings.KMOD_UNSIGNED(path=path)
        return judge_unenforced_signature(path, data, self._rules)

    @cached_property
    def _certificate(self) -> Certificate | Finding | None:
        """The certificate of certSecret, None if the run may not read it, or the finding for an invalid one."""
        key = (self._plan.module.namespace, (self._plan.sign and self._plan.sign.cert_secret) or "")
        try:
            secret = self._sources.secret(key)
            if secret is None or is_elided(secret):
                return None
            files = files_of(secret, f"Secret {words_of(key)}")
            if CERT not in files:
                raise Malformed(f"Secret {words_of(key)}: got keys {listed(sorted(files))}, expected {CERT}")
            return parse_certificate(files[CERT], f"Secret {words_of(key)}")
        except AccessDenied:
            return None
        except Malformed as exc:
            return findings.SIGN_CERT_INVALID(problem=exc.message)
