"""Methods of signatures that a kernel knows (docs/reference/loader.md 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kmm_preflight.kmod.configuration import KernelConfiguration

_RSA_SIGNATURE = "1.2.840.113549.1.1."
_PSS = "1.2.840.113549.1.1.10"
_ECDSA_SIGNATURE = ("1.2.840.10045.4.", "2.16.840.1.101.3.4.3.")
# Releases since which signatures by unknown methods count as none, since which ECDSA, SHA-3 and P-521 are known, and
# since which MD5 is not.
_FORGIVING, _EC, _SHA3, _P521, _WITHOUT_MD5 = (5, 4), (5, 13), (6, 7), (6, 11), (6, 2)
_ALWAYS = frozenset(("sha1", "sha224", "sha256", "sha384", "sha512"))
_LATER = frozenset(("sha3-256", "sha3-384", "sha3-512"))


@dataclass(frozen=True)
class SignatureRules:
    """The part of a kernel that decides on methods of signatures."""

    version: tuple[int, int] = (0, 0)
    """The mainline release that the kernel is based on, or (0, 0) if it is unknown."""
    options: frozenset[str] | None = None
    """Options of the kernel's build with y or m, as far as they are about signatures. None without its .config."""

    @property
    def forgives(self) -> bool:
        """True if a signature by an unknown method counts as none, where no signature is required."""
        return not (0, 0) < self.version < _FORGIVING

    @property
    def checks_ec(self) -> bool:
        """True if the kernel can check signatures by EC keys. Without its .config: as kernels of RHEL can."""
        return self.options is None or "CRYPTO_ECDSA" in self.options

    def knows_hash(self, name: str) -> bool:
        """True if the kernel knows the hash. name: as hashlib spells it."""
        if name in _LATER:
            return self.version >= _SHA3 and self.options is not None and "CRYPTO_SHA3" in self.options
        return name in _ALWAYS or (name == "md5" and (0, 0) < self.version < _WITHOUT_MD5)

    def knows_key(self, key: PublicKeyTypes) -> bool:
        """True if the kernel knows keys of this kind. A key of this kind may still have a size that it refuses."""
        match key:
            case rsa.RSAPublicKey():
                return True
            case ec.EllipticCurvePublicKey():
                return self._knows_curve(key.curve)
            case _:
                return False

    def _knows_curve(self, curve: ec.EllipticCurve) -> bool:
        if isinstance(curve, ec.SECP521R1):
            return self.version >= _P521
        known = isinstance(curve, (ec.SECP256R1, ec.SECP384R1))
        return known and (self.version == (0, 0) or self.version >= _EC)

    def knows_certificate(self, certificate: x509.Certificate) -> bool:
        """True if the kernel knows the kind of the key, and the method with which the certificate is signed."""
        oid = certificate.signature_algorithm_oid.dotted_string
        try:
            known = self.knows_key(certificate.public_key())
            algorithm = certificate.signature_hash_algorithm
        except (UnsupportedAlgorithm, ValueError):
            return False
        method = oid != _PSS and oid.startswith((_RSA_SIGNATURE, *_ECDSA_SIGNATURE))
        return known and method and algorithm is not None and self.knows_hash(algorithm.name)


ANY_KERNEL = SignatureRules()
"""Rules for an unknown kernel: only methods that all kernels of OpenShift know."""


def signature_rules(version: tuple[int, int], configuration: KernelConfiguration | None) -> SignatureRules:
    """Return the rules of a kernel, by its mainline release and its .config."""
    if configuration is None:
        return SignatureRules(version)
    options = configuration.options.items()
    set_options = (name for name, value in options if name.startswith("CRYPTO_") and value in ("y", "m"))
    return SignatureRules(version, frozenset(set_options))
