"""Certificates inside a signature. Kernels check them, trusted or not (crypto/asymmetric_keys/pkcs7_verify.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod.certificate import Certificate, parse_certificate, unfit_size
from kmm_preflight.kmod.cms import CmsMessage, SignerInfo
from kmm_preflight.kmod.signature_rules import SignatureRules

UNPROVED = "a certificate inside that does not prove it"

IsSigner = Callable[[SignerInfo, Certificate], bool]
"""True if the signer names this certificate."""
Verify = Callable[[SignerInfo, Certificate], bool | None]
"""True if the signature is valid by the certificate, None if the kernel does not know its method."""


def is_unknown(message: CmsMessage, rules: SignatureRules) -> bool:
    """True if a certificate inside has a key or a signature of a kind that the kernel does not know.

    The kernel then does not read the message at all.
    """
    try:
        return not all(rules.knows_certificate(x509.load_der_x509_certificate(der)) for der in message.certificates)
    except ValueError:
        return False


def all_self_signed(message: CmsMessage) -> bool:
    """True if no certificate inside leads to another certificate."""
    certificates = [x509.load_der_x509_certificate(der) for der in message.certificates]
    return all(certificate.issuer == certificate.subject for certificate in certificates)


def certificate_problem(message: CmsMessage, rules: SignatureRules, is_signer: IsSigner, verify: Verify) -> str | None:
    """Return words for a certificate inside for which the kernel refuses the kmod, or None.

    The kernel also refuses the kmod if signatures are not required.
    """
    try:
        certificates = [parse_certificate(der, "certificate inside") for der in message.certificates]
    except Malformed:
        return "a certificate inside that cannot be read"
    for certificate in certificates:
        if problem := _problem(certificate, rules, [info for info in message.signers if is_signer(info, certificate)]):
            return problem
        if any(verify(info, certificate) is False for info in message.signers if is_signer(info, certificate)):
            return UNPROVED
    return None


def _problem(certificate: Certificate, rules: SignatureRules, signers: Sequence[SignerInfo]) -> str | None:
    """Return words for a certificate that the kernel cannot check, or that its own key disproves."""
    key = certificate.public_key()
    checked = bool(signers) or certificate.issuer == certificate.subject
    if checked and isinstance(key, ec.EllipticCurvePublicKey) and not rules.checks_ec:
        return "a certificate for an EC key inside, which this kernel cannot check"
    if checked and (unfit := unfit_size(key)):
        return f"a certificate for {unfit} inside"
    return None if certificate.proves_itself() else UNPROVED
