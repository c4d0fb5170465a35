"""DER as kernels take it (lib/asn1_decoder.c): stricter than what asn1crypto reads."""

from __future__ import annotations

from asn1crypto import core

from kmm_preflight.errors import Malformed

_ELEMENTS = 4096
_LONG_TAG, _CONSTRUCTED = 0x1F, 0x20
# What asn1crypto raises for bytes that are not what they should be; it has no class of its own.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


def absent(value: object) -> bool:
    """Whether an optional part is not there."""
    return isinstance(value, core.Void)


def check_der(data: bytes) -> None:
    """Malformed unless data is one element that ends where data does, and all inside ends where it should.

    asn1crypto reads on past what does not fit, and takes lengths that only BER allows.
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
    """Where the content of the element begins and ends."""
    short = 0x80
    if at + 2 > end or data[at] & _LONG_TAG == _LONG_TAG:
        raise Malformed("a CMS message that is broken DER")
    size, inside = data[at + 1], at + 2
    if size >= short:
        inside += size - short
        size = int.from_bytes(data[at + 2 : inside]) if size - short in {1, 2} else 0
        if size < short or data[at + 2] == 0:
            raise Malformed("a CMS message that is broken DER")
    if inside + size > end:
        raise Malformed("a CMS message that is cut short")
    return inside, inside + size
