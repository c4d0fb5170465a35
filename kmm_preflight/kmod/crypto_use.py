"""Kmods that register algorithms of the crypto API, which FIPS mode accepts from signed kmods only."""

from __future__ import annotations

from kmm_preflight.kmod.object import KernelObject

_REGISTER = ("crypto_register_", "crypto_engine_register_")
_OTHER = frozenset(("crypto_register_notifier",))


def registers_algorithms(kmod: KernelObject) -> bool:
    """True if the kmod calls a function that registers an algorithm (docs/reference/loader.md 7)."""
    return any(symbol.name.startswith(_REGISTER) and symbol.name not in _OTHER for symbol in kmod.needed)
