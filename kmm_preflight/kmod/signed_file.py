"""The file of a signed kmod, from its end: a magic line, a header of 12 bytes, a CMS message, and the signed bytes.

The kernel looks at the last signature only (kernel/module_signature.c). A compressed kmod is signed inside.
"""

from __future__ import annotations

import struct
from pathlib import Path

from kmm_preflight.base.decompression import XZ
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.kmod.cms import read_message
from kmm_preflight.kmod.packed import UNPACKED_BYTES, compression, plain_pieces

MAGIC = b"~Module signature appended~\n"
# algo, hash, id_type, signer_len, key_id_len, three of padding, sig_len.
_HEADER = struct.Struct(">8BI")
_PKCS7 = 2
_PIECE = 1 << 16
# The limit of lib/asn1_decoder.c in the kernel. sign-file writes about 400 bytes.
_CMS_BYTES = 65535
# Bytes behind a signature that are searched for its magic line.
_BEHIND_BYTES = 4096

PlainBytes = bytes | bytearray
"""The bytes of a kmod that is not compressed."""


def unpack_kmod(data: bytes, path: str) -> bytearray:
    """Return the bytes of a compressed kmod.

    Raise Malformed if the stream is damaged, BoundExceeded if there are more than 512 MiB.
    """
    plain = bytearray()
    # In pieces: a decompressor copies its unread input on each call.
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    for piece in plain_pieces(pieces, f"kmod {path}"):
        plain += piece
        if len(plain) > UNPACKED_BYTES:
            raise BoundExceeded(f"kmod {path}: more than {UNPACKED_BYTES >> 20} MiB when unpacked")
    return plain


def cut_signature(data: PlainBytes) -> tuple[memoryview, bytes]:
    """Return the signed bytes, without a copy, and the CMS message behind them.

    Raise Malformed if header and message are not as the kernel expects them.
    """
    at = len(data) - len(MAGIC) - _HEADER.size
    if at < 0 or not data.endswith(MAGIC):
        raise Malformed("no header before the magic")
    algo, hashed, kind, *rest, size = _HEADER.unpack_from(data, at)
    if kind != _PKCS7:
        raise Malformed(f"a signature of type {kind} instead of {_PKCS7} (PKCS#7)")
    if algo or hashed or any(rest):
        raise Malformed("a header with bytes set that must be zero")
    if size >= at:
        raise Malformed(f"a signature of {size} bytes, with only {at} bytes before it")
    if not 0 < size <= _CMS_BYTES:
        raise Malformed(f"a signature of {size} bytes, expected 1 to {_CMS_BYTES}")
    return memoryview(data)[: at - size], bytes(data[at - size : at])


def has_signature_of_other_type(data: PlainBytes) -> bool:
    """True if the signature has a type that no kernel knows, and a size that fits into the file."""
    at = len(data) - len(MAGIC) - _HEADER.size
    if at < 0 or not data.endswith(MAGIC):
        return False
    _, _, kind, *_, size = _HEADER.unpack_from(data, at)
    return bool(kind != _PKCS7 and size < at)


def unsigned_end(data: PlainBytes) -> str:
    """Describe the end of a file that has no signature there."""
    at = data.rfind(MAGIC, max(0, len(data) - _BEHIND_BYTES))
    return (
        f"{len(data) - at - len(MAGIC)} bytes follow its signature" if at >= 0 else "there is no signature at its end"
    )


def compression_below_signature(path: Path) -> str | None:
    """Return the compression of a file that was compressed first and then signed. No kernel finds that signature.

    Return None for any other file.
    """
    with path.open("rb") as file:
        packed = compression(file.read(len(XZ)))
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return packed if file.read() == MAGIC else None


def signer_of(data: bytes) -> str | None:
    """Return the signer that the last signature names, or None without a readable signature.

    The signer is named by issuer and serial number, or by key identifier.
    """
    try:
        return last_signer(unpack_kmod(data, "kmod") if compression(data) else data)
    except (Malformed, BoundExceeded):
        return None


def signer_below(body: memoryview) -> str:
    """Return words for the signer of signed bytes that end with a signature of their own.

    No more bytes are copied than a signature can have.
    """
    most = 1 + _CMS_BYTES + _HEADER.size + len(MAGIC)
    try:
        return last_signer(bytes(body[-most:])) or "no signer"
    except Malformed:
        return "an unreadable signer"


def last_signer(data: PlainBytes) -> str | None:
    """Return the first signer of the last signature, or None if the message has no signer."""
    signers = read_message(cut_signature(data)[1]).signers
    return signers[0].signer.words if signers else None
