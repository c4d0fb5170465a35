"""Files of an image whose bytes the checks of a run need, as rules for the reading of layers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kmm_preflight.depth import Depth
from kmm_preflight.kmod.names import is_kmod_file, module_key, wanted_key
from kmm_preflight.oci.layers import KeepRules
from kmm_preflight.planning.plan import Plan
from kmm_preflight.release.kernel_image import KERNEL_FILES
from kmm_preflight.worker.image_configuration import CONFIGURATION_FILES
from kmm_preflight.worker.indexes import INDEX_FILES
from kmm_preflight.worker.program import PROGRAM_FILES

_ALL_FILES = re.compile(f"{KERNEL_FILES.pattern}|{CONFIGURATION_FILES.pattern}")


def kept_files(plans: Iterable[Plan], depth: Depth) -> KeepRules:
    """Return the rules for the images of these plans.

    - At depth path: the kmods that the plans name. With rawArgs or a sign section: every kmod of the kernel's folder.
    - At depth node: every kmod of the folder, the indexes and configuration of modprobe, and the programs that
      KMM's worker calls.
    - At depth kernel: also the kernel's own files.
    """
    every = tuple(plans)
    deep = depth.reaches(Depth.NODE)
    indexes = frozenset(f"{plan.folder}/{name}" for plan in every for name in INDEX_FILES)
    return keep_rules(
        paths=indexes | PROGRAM_FILES if deep else frozenset(),
        kmods=frozenset(wanted_key(plan.kmod) for plan in every if plan.kmod),
        folders=frozenset(plan.folder for plan in every if deep or plan.kmod is None or plan.sign),
        matching=_ALL_FILES if depth.reaches(Depth.KERNEL) else CONFIGURATION_FILES if deep else None,
    )


def keep_rules(
    paths: frozenset[str] = frozenset(),
    kmods: frozenset[str] = frozenset(),
    folders: frozenset[str] = frozenset(),
    matching: re.Pattern[str] | None = None,
) -> KeepRules:
    """Return rules for single paths, kmods by name (with _ for -), the kmods of folders, and paths that match."""

    def keeps(path: str) -> bool:
        if matching and matching.fullmatch(path):
            return True
        return is_kmod_file(path) and module_key(path.rpartition("/")[2]) in kmods

    return KeepRules(paths, keeps, is_kmod_file, folders)
