"""The kernel's command line, as far as it decides on the loading of kmods (docs/reference/loader.md 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kmm_preflight.kmod.configuration import KernelConfiguration
from kmm_preflight.kmod.names import wanted_key
from kmm_preflight.model import BootArguments

# Levels of lockdown. Each of them refuses kmods without a valid signature.
_LOCKDOWN = ("integrity", "confidentiality")
# Arguments that decide on kmods of any name.
_DECIDING = frozenset(("module.sig_enforce", "lockdown", "module_blacklist", "modprobe.blacklist", "fips"))
_ENFORCING = frozenset(("module.sig_enforce", "lockdown", "fips"))
_TRUE = re.compile(r"[yYtT1]|[oO][nN]")
_NUMBER = re.compile(r"\s*[+-]?(0[xX][0-9a-fA-F]+|\d+)")
_NOT_ZERO = re.compile(r"[1-9a-fA-F]")
_KMOD_PARAMETER = re.compile(r"([\w-]+)\.(.+)", re.DOTALL)


@dataclass(frozen=True)
class CommandLine:
    """The arguments of a kernel that decide on kmods. Names of kmods have _ for -, except those in forbidden."""

    enforcing: str | None = None
    """The argument for which the kernel refuses kmods without a valid signature, or None."""
    fips: str | None = None
    """The argument for which the kernel runs in FIPS mode, or None."""
    forbidden: frozenset[str] = frozenset()
    """Names of kmods that the kernel refuses (module_blacklist), as they are compared with a kmod's own name."""
    skipped: frozenset[str] = frozenset()
    """Names of kmods that modprobe does not load by an alias (modprobe.blacklist)."""
    closed: str | None = None
    """The argument for which the kernel loads no kmods at all, or None."""
    unjudged: tuple[str, ...] = ()
    """Arguments with which the kernel may refuse kmods, and that no check judges."""
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Parameters of kmods by the name of the kmod, which modprobe reads from /proc/cmdline."""


def read_command_line(boot: BootArguments, configuration: KernelConfiguration | None) -> CommandLine:
    """Return what the boot arguments decide about kmods. Without a .config, assume that the kernel obeys them."""
    values = [*_values(boot.arguments)]
    blacklist = _last(values, "module_blacklist") or ""
    fips = _last(values, "fips")
    is_fips = _is_number(fips) if fips is not None else boot.fips
    parameters: dict[str, tuple[str, ...]] = {}
    skipped: set[str] = set()
    for name, value in values:
        if name == "modprobe.blacklist":
            skipped |= {wanted_key(kmod) for kmod in value.split(",") if kmod}
        elif match := _KMOD_PARAMETER.fullmatch(name):
            kmod = wanted_key(match[1])
            parameters[kmod] = (*parameters.get(kmod, ()), f"{match[2]}={value}")
    return CommandLine(
        enforcing=_enforcing(values, configuration),
        fips="fips=1" if is_fips and _may_have(configuration, "CRYPTO_FIPS") else None,
        forbidden=frozenset(name for name in blacklist.split(",") if name),
        skipped=frozenset(skipped),
        closed=_closed(values),
        unjudged=tuple(f"{name}={value}" for name, value in values if _appraises(name, value)),
        parameters=parameters,
    )


def deciding_arguments(boot: BootArguments, kmods: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a command line that decide on the loading of these kmods, for a boot of the kernel alone.

    Words with blanks or quotes are left out. kmods: names with _ for -.
    """
    names = frozenset(kmods)
    words = [word for word in boot.arguments if not re.search(r'[\s"]', word)]
    if "--" in words:
        words = words[: words.index("--")]
    if boot.fips and not any(word.startswith("fips=") for word in words):
        words.append("fips=1")
    return tuple(word for word in words if _decides(word.partition("=")[0].replace("-", "_"), names))


def without_enforcement(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words without those for which the kernel refuses kmods by their signatures."""
    return tuple(word for word in words if word.partition("=")[0].replace("-", "_") not in _ENFORCING)


def _decides(name: str, kmods: frozenset[str]) -> bool:
    parameter = _KMOD_PARAMETER.fullmatch(name)
    return name in _DECIDING or bool(parameter and parameter[1] in kmods)


def always_enforcing(configuration: KernelConfiguration | None) -> str | None:
    """Return the option for which the kernel always refuses kmods without a valid signature, or None."""
    forcing = ("MODULE_SIG_FORCE", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY", "LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY")
    return next((f"CONFIG_{name}=y" for name in forcing if configuration and configuration.on(name)), None)


def _values(arguments: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the arguments as name and value, up to `--`. The kernel takes - for _ in names of parameters."""
    for word in arguments:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        yield name.replace("-", "_"), value if equals else "1"


def _last(values: list[tuple[str, str]], wanted: str) -> str | None:
    return next((value for name, value in reversed(values) if name == wanted), None)


def _enforcing(values: list[tuple[str, str]], configuration: KernelConfiguration | None) -> str | None:
    """Return the first argument that enforces signatures. A later argument cannot take that back."""
    for name, value in values:
        if name == "module.sig_enforce" and _TRUE.match(value) and _may_have(configuration, "MODULE_SIG"):
            return f"module.sig_enforce={value}"
        if name == "lockdown" and value in _LOCKDOWN and _may_have(configuration, "SECURITY_LOCKDOWN_LSM"):
            return f"lockdown={value}"
    return None


def _closed(values: list[tuple[str, str]]) -> str | None:
    names = ("sysctl.kernel.modules_disabled", "sysctl.kernel/modules_disabled")
    return next((f"{name}={value}" for name, value in values if name in names and _is_number(value)), None)


def _appraises(name: str, value: str) -> bool:
    """True if IMA may refuse kmods without a signature of its own (ima_policy=secure_boot)."""
    return name == "ima_policy" and "secure_boot" in re.split(r"[|\s]+", value)


def _is_number(value: str) -> bool:
    """True if the value begins with a number other than zero."""
    number = _NUMBER.match(value)
    return bool(number and _NOT_ZERO.search(number[1].lower().removeprefix("0x")))


def _may_have(configuration: KernelConfiguration | None, option: str) -> bool:
    return configuration is None or configuration.on(option)
