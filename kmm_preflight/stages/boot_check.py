"""Check kmods against the arguments with which their nodes boot the kernel (docs/reference/loader.md 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kmm_preflight.kmod import findings as kmod_findings
from kmm_preflight.kmod.command_line import CommandLine, always_enforcing, read_command_line
from kmm_preflight.kmod.crypto_use import registers_algorithms
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import BootArguments, Finding, Severity
from kmm_preflight.stages import findings
from kmm_preflight.text import listed

Chain = Sequence[tuple[str, KernelObject]]
"""Paths and objects of kmods in the order of loading. Paths begin with a slash."""
JudgeSignature = Callable[[str], Finding | None]
"""Return the finding for the signature at a path without its first slash. None: a certificate proves the signature."""


@dataclass(frozen=True)
class BootedKernel:
    """A kernel with the boot arguments of the nodes that boot it."""

    kernel: KernelFiles
    """The kernel."""
    boots: tuple[BootArguments, ...] = ()
    """Boot arguments of the nodes, each different set once."""

    @property
    def lines(self) -> tuple[tuple[str, CommandLine], ...]:
        """Groups of nodes, each with its command line."""
        return tuple((boot.group, read_command_line(boot, self.kernel.configuration)) for boot in self.boots)


def judge_boot(
    booted: BootedKernel,
    chain: Chain,
    in_tree: Iterable[str],
    signature: JudgeSignature | None,
    wanted: str | None = None,
) -> Iterator[Finding]:
    """Yield findings for kmods that a group of nodes does not load because of its boot arguments.

    in_tree: the kernel's own kmods that modprobe loads too. signature: None for kmods that are still to be signed.
    wanted: the name that modprobe looks up, which may be an alias.
    """
    lines = booted.lines
    for argument, groups in _by_argument(lines, lambda line: line.closed).items():
        yield findings.BOOT_MODULES_DISABLED(group=groups, argument=argument)
    for group, line in lines:
        yield from _judge_names(group, line, chain, in_tree)
        yield from _judge_alias(group, line, chain, wanted)
    for argument, groups in _by_argument(lines, lambda line: " ".join(line.unjudged) or None).items():
        yield findings.BOOT_ARGUMENTS_OPEN(group=groups, argument=argument)
    if signature:
        yield from _judge_signatures(booted, lines, chain, signature)


def _by_argument(
    lines: Iterable[tuple[str, CommandLine]], argument: Callable[[CommandLine], str | None]
) -> Mapping[str, str]:
    """Map each argument to the groups that boot with it, in words."""
    groups: dict[str, list[str]] = {}
    for group, line in lines:
        if found := argument(line):
            groups.setdefault(found, []).append(group)
    return {found: " and ".join(of_argument) for found, of_argument in groups.items()}


def _judge_names(group: str, line: CommandLine, chain: Chain, in_tree: Iterable[str]) -> Iterator[Finding]:
    for path, kmod in chain:
        name = kmod.modinfo.first("name") or kmod.name
        if name in line.forbidden:
            yield findings.BOOT_BLACKLISTED(group=group, kmod=path, name=name)
    for name in in_tree:
        if name in line.forbidden:
            yield findings.BOOT_BLACKLISTED(group=group, kmod=f"in-tree kmod {name}", name=name)


def _judge_alias(group: str, line: CommandLine, chain: Chain, wanted: str | None) -> Iterator[Finding]:
    name = module_key(chain[-1][0].rpartition("/")[2]) if chain else ""
    if wanted and wanted_key(wanted) != name and name in line.skipped:
        yield findings.BOOT_ALIAS_SKIPPED(group=group, name=name, alias=wanted)


def _judge_signatures(
    booted: BootedKernel, lines: Sequence[tuple[str, CommandLine]], chain: Chain, signature: JudgeSignature
) -> Iterator[Finding]:
    enforcing = dict(_by_argument(lines, lambda line: line.enforcing))
    if always := always_enforcing(booted.kernel.configuration):
        enforcing = {always: f"kernel {booted.kernel.release}"}
    for argument, groups in enforcing.items():
        yield from _signed(groups, argument, chain, signature)
    # FIPS mode matters only where signatures are not enforced anyway.
    fips = {group: line for group, line in lines if not line.enforcing} if not always else {}
    for argument, groups in _by_argument(fips.items(), lambda line: line.fips).items():
        yield from _signed(groups, argument, [item for item in chain if registers_algorithms(item[1])], signature)


def _signed(group: str, argument: str, chain: Chain, signature: JudgeSignature) -> Iterator[Finding]:
    """Yield a finding for each kind of trouble with the signatures, and a warning for keys that nodes must have."""
    proved = []
    for path, _ in chain:
        problem = signature(path.lstrip("/"))
        if problem is None or problem.id == kmod_findings.SIGNATURE_TWICE.id:
            proved.append(path)
        elif problem.severity is Severity.REFUTES:
            yield findings.BOOT_SIGNATURE(group=group, argument=argument, problem=problem.sentence)
        else:
            yield findings.BOOT_KEY_UNKNOWN(group=group, argument=argument, problem=problem.sentence)
    if proved:
        yield findings.BOOT_KEY_NEEDED(group=group, argument=argument, paths=listed(proved))
