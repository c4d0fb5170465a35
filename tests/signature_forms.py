"""Signatures in many forms by openssl, with and without certificates inside, whole and damaged."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .real.cache import kept
from .real.drivers import small_kmods
from .real.requirement import need_tool
from .signing_desk import Key, Pair, append, flip, make_pair

_DAMAGED_AT = 5000
_HASHES = ("sha1", "sha224", "sha384", "sha512", "md5", "sha3-256", "sha3-384", "sha3-512")
_KEYS: dict[str, Callable[[], Key]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "second": lambda: rsa.generate_private_key(65537, 2048),
    "large": lambda: rsa.generate_private_key(65537, 4160),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
}
# Signatures by label: the key, and options of openssl. {name} is the certificate of another key, {name.key} its key.
_SIGNED: dict[str, tuple[str, str]] = {
    **{f"by {name}": (name, "-nocerts") for name in _KEYS},
    **{f"by {name}, certificate inside": (name, "") for name in _KEYS},
    **{f"by rsa with {name}": ("rsa", f"-nocerts -md {name}") for name in _HASHES},
    **{f"by rsa with {name}, certificate inside": ("rsa", f"-md {name}") for name in _HASHES},
    **{f"by p384 with {name}, certificate inside": ("p384", f"-md {name}") for name in ("sha1", "sha512")},
    "by key identifier, certificate inside": ("rsa", "-keyid"),
    "pss": ("rsa", "-nocerts -keyopt rsa_padding_mode:pss"),
    "pss, certificate inside": ("rsa", "-keyopt rsa_padding_mode:pss"),
    **{
        f"by {one} and {other}{words}": (one, f"{options} -signer {{{other}}} -inkey {{{other}.key}}")
        for one, other in (("rsa", "second"), ("rsa", "p384"), ("rsa", "p521"), ("p384", "second"))
        for words, options in (("", "-nocerts"), (", certificates inside", ""))
    },
    "another certificate too": ("rsa", "-certfile {second}"),
    "only another certificate": ("rsa", "-nocerts -certfile {second}"),
    "only a certificate of p521": ("rsa", "-nocerts -certfile {p521}"),
    "a certificate of p521 too": ("rsa", "-certfile {p521}"),
    "a certificate of p384 too": ("rsa", "-certfile {p384}"),
    "a certificate of a key that is too large too": ("rsa", "-certfile {large}"),
}


def signature_forms(release: str) -> dict[str, bytes]:
    """Return kmods for a kernel by label. The keys are kept with the kmods, so that they are the same each time."""
    version = hashlib.sha256(repr((_SIGNED, _DAMAGED_AT)).encode()).hexdigest()[:12]
    folder = kept(f"signature-forms/{release}/{version}", lambda scratch: _make(release, scratch))
    return {label: (folder / label).read_bytes() for label in _labels()}


def _labels() -> Iterator[str]:
    for label in _SIGNED:
        yield from (label, f"{label}, damaged")


def _make(release: str, scratch: Path) -> Path:
    need_tool("openssl", "apt-get install openssl")
    kmod = small_kmods(release)["pf_plain"]
    (scratch / "body").write_bytes(kmod)
    pairs = {
        name: make_pair(scratch, name, make(), serial, name)
        for serial, (name, make) in enumerate(_KEYS.items(), start=0x21)
    }
    result = scratch / "made"
    result.mkdir()
    for label, (name, options) in _SIGNED.items():
        signed = append(kmod, _message(scratch, pairs, name, options))
        (result / label).write_bytes(signed)
        (result / f"{label}, damaged").write_bytes(flip(signed, _DAMAGED_AT))
    return result


def _message(folder: Path, pairs: dict[str, Pair], name: str, options: str) -> bytes:
    places = {pair: str(paths.cert) for pair, paths in pairs.items()}
    for pair, paths in pairs.items():
        options = options.replace(f"{{{pair}.key}}", str(paths.key)).replace(f"{{{pair}}}", places[pair])
    signer = ["-signer", places[name], "-inkey", str(pairs[name].key)]
    command = ["openssl", "cms", "-sign", "-binary", "-noattr", "-outform", "DER", "-in", "body", "-out", "message"]
    subprocess.run([*command, *signer, *options.split()], cwd=folder, check=True, capture_output=True, timeout=60)
    return (folder / "message").read_bytes()
