"""DER as kernels parse it (lib/asn1_decoder.c), which is stricter than asn1crypto."""

from __future__ import annotations

from asn1crypto import core

from kmm_preflight.errors import Malformed

_ELEMENTS = 4096
_LONG_TAG, _CONSTRUCTED = 0x1F, 0x20
_LONG_LENGTH = 0x80
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""Exceptions of asn1crypto for damaged bytes. It has no exception class of its own."""


def absent(value: object) -> bool:
    """True if an optional part is absent."""
    return isinstance(value, core.Void)


def check_der(data: bytes) -> None:
    """Raise Malformed unless the data is one element, and each element inside ends where its parent allows.

    asn1crypto does not check this: it reads beyond the end of an element, and accepts lengths that only BER allows.
    """
    regions, count = [(0, len(data))], 0
    while regions:
        at, end = regions.pop()
        while at < end:
            inside, after = element(data, at, end)
            count += 1
            if count > _ELEMENTS:
                raise Malformed(f"DER of more than {_ELEMENTS} elements")
            if at == 0 and after != len(data):
                raise Malformed(f"{len(data) - after} bytes behind the CMS message")
            if data[at] & _CONSTRUCTED:
                regions.append((inside, after))
            at = after


def element(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the begin and end of an element's content. Raise Malformed if it is damaged or ends beyond end."""
    if at + 2 > end or data[at] & _LONG_TAG == _LONG_TAG:
        raise Malformed("a CMS message that is broken DER")
    size, inside = data[at + 1], at + 2
    if size >= _LONG_LENGTH:
        inside += size - _LONG_LENGTH
        size = int.from_bytes(data[at + 2 : inside]) if size - _LONG_LENGTH in {1, 2} else 0
        if size < _LONG_LENGTH or data[at + 2] == 0:
            raise Malformed("a CMS message that is broken DER")
    if inside + size > end:
        raise Malformed("a CMS message that is cut short")
    return inside, inside + size
