"""The kernel's module loader: its checks of a kmod, in its order (docs/reference/loader.md 1, 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kmm_preflight.errors import Malformed
from kmm_preflight.kmod import findings
from kmm_preflight.kmod.build_checks import (
    check_layout,
    check_livepatch,
    check_vermagic,
    check_versions,
)
from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.load_case import CheckResults, LoadCase, MissingInput
from kmm_preflight.kmod.object import KernelObject, NotAModule, SymbolTableMissing, read_object
from kmm_preflight.kmod.object_checks import check_object, check_relocations, check_sections
from kmm_preflight.kmod.packed import ObjectBytes, unpacked
from kmm_preflight.kmod.resolution import NO_OTHERS, OtherKmods, resolve
from kmm_preflight.kmod.sections import WrongArchitecture
from kmm_preflight.kmod.symbol_checks import check_exports, check_imports, check_name, check_symbols
from kmm_preflight.kmod.type_data_check import check_type_data
from kmm_preflight.model import Finding

# The loader's order. The first check that refutes is the one whose message the kernel prints.
_CHECKS: tuple[Callable[[LoadCase], CheckResults], ...] = (
    check_object,
    check_layout,
    check_versions,
    check_vermagic,
    check_livepatch,
    check_sections,
    check_imports,
    check_symbols,
    check_relocations,
    check_exports,
    check_type_data,
    check_name,
)


def read_kmod(name: str, data: ObjectBytes, kernel: KernelFiles) -> KernelObject | Finding:
    """Return the kmod in these bytes, or the finding if the kernel does not accept the object.

    name: the kmod's name in the finding. Raise BoundExceeded if the kmod needs too much memory here.
    """
    try:
        return read_object(data, kernel.machine)
    except WrongArchitecture as exc:
        return findings.KMOD_ARCHITECTURE(kmod=name, got=exc.message, expected=kernel.machine.word)
    except NotAModule as exc:
        return findings.KMOD_NO_MODULE(kmod=name, got=exc.message)
    except SymbolTableMissing as exc:
        return findings.KMOD_STRIPPED(kmod=name, got=exc.message)
    except Malformed as exc:
        return findings.KMOD_NOT_LOADABLE(kmod=name, got=exc.message, kernel=kernel.release)


def read_kmod_file(name: str, path: Path, kernel: KernelFiles) -> KernelObject | Finding:
    """Return the kmod in a file, compressed or not, or the finding if the kernel does not accept the object.

    name: the kmod's name in the finding. Raise BoundExceeded if the kmod needs too much memory here.
    """
    try:
        with unpacked(path) as data:
            return read_kmod(name, data, kernel)
    except Malformed as exc:
        return findings.KMOD_NOT_LOADABLE(kmod=name, got=exc.message, kernel=kernel.release)


def judge_kmod(
    name: str, kmod: KernelObject, kernel: KernelFiles, others: OtherKmods = NO_OTHERS
) -> tuple[Finding, ...]:
    """Return the findings about the kmod on this kernel, one for each cause, in the loader's order.

    If none refutes and none is undecided, the loader accepts the kmod, as far as files show. Not checked here:
    signatures. In no file: lockdown, parameters, and the result of the kmod's own init.
    """
    case = LoadCase(name, kmod.as_read_by(kernel.version), kernel, others)
    results = [result for check in _CHECKS for result in check(case)]
    causes = tuple(result for result in results if isinstance(result, Finding))
    missing = dict.fromkeys(result.file for result in results if isinstance(result, MissingInput))
    if not missing:
        return causes
    what = " and no ".join(missing)
    return (*causes, findings.KERNEL_INPUT_MISSING(kmod=name, kernel=kernel.release, what=what))


def judge_chain(
    kmods: Sequence[tuple[str, KernelObject]],
    kernel: KernelFiles,
    not_loaded: tuple[KernelObject, ...] = (),
    in_tree: frozenset[str] = frozenset(),
    removed: frozenset[str] = frozenset(),
    foreign: tuple[KernelObject, ...] = (),
) -> tuple[Finding, ...]:
    """Return the findings about kmods that are loaded one after the other.

    kmods: names and objects in modprobe's order, the wanted kmod last. modprobe stops at the first that is refused.
    not_loaded: the image's other kmods. in_tree: the kernel's own kmods that are loaded before all of these. removed:
    the kernel's own kmods that are unloaded before. foreign: kmods of other images that are loaded before.
    """
    before = tuple(kmod.as_read_by(kernel.version) for kmod in foreign)
    objects = tuple(kmod.as_read_by(kernel.version) for _, kmod in kmods)
    return tuple(
        finding
        for number, (name, kmod) in enumerate(kmods)
        for finding in judge_kmod(
            name, kmod, kernel, OtherKmods((*before, *objects[:number]), not_loaded, in_tree, removed)
        )
    )


def absent_symbols(
    kmods: Sequence[tuple[str, KernelObject]],
    kernel: KernelFiles,
    in_tree: frozenset[str] = frozenset(),
    removed: frozenset[str] = frozenset(),
) -> Mapping[str, tuple[str, ...]]:
    """Map names of kmods to the symbols that neither the kernel nor a kmod before exports, if there are any."""
    if kernel.symvers is None:
        return {}
    objects = tuple(kmod.as_read_by(kernel.version) for _, kmod in kmods)
    absent = {
        name: tuple(resolve(kmod, kernel, kernel.symvers, OtherKmods(objects[:number], (), in_tree, removed)).absent)
        for number, ((name, _), kmod) in enumerate(zip(kmods, objects, strict=True))
    }
    return {name: symbols for name, symbols in absent.items() if symbols}
