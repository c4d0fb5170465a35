"""Simulate the worker's steps on the node between the image pull and the first insmod."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.planning.plan import Plan
from kmm_preflight.text import listed
from kmm_preflight.worker import findings
from kmm_preflight.worker.firmware import judge_firmware_path
from kmm_preflight.worker.folder import NodeFolder
from kmm_preflight.worker.image_configuration import judge_configuration
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.program import ImageFiles, judge_programs
from kmm_preflight.worker.sequence import LoadSequence, load_sequence

_PLAIN = re.compile(r"[\w/.+@%:=,-]*", re.ASCII)


@dataclass(frozen=True)
class NodeContents:
    """The kmods that modprobe loads and unloads on a node. Names have _ for -."""

    findings: tuple[Finding, ...] = ()
    """All findings, of every weight."""
    sequence: tuple[Located, ...] = ()
    """Files of the image in the order of loading, each once. Empty if the plan has rawArgs."""
    in_tree: frozenset[str] = frozenset()
    """The kernel's own kmods that modprobe loads too, through a link of the image such as host."""
    removed: frozenset[str] = frozenset()
    """The kernel's own kmods that KMM unloads first."""


def prepare_node(plan: Plan, image: ImageFiles, worker: Worker, kernel: KernelFiles | None = None) -> NodeContents:
    """Return the kmods that modprobe handles if KMM's worker runs with this image on the plan's kernel.

    kernel: None leaves out checks that need the list of the kernel's own kmods. Raise the errors of reading the image.
    """
    problems = [
        *_unquoted_paths(plan, worker),
        *judge_programs(image, worker, plan.kernel.arch, firmware=bool(plan.firmware_path)),
        *judge_firmware_path(plan, image.files, worker),
        *(_judge_removal(plan, worker, kernel) if kernel else ()),
    ]
    folder = NodeFolder(plan, image, worker, kernel)
    sequence = LoadSequence()
    if problem := folder.problem():
        problems.append(problem)
    elif plan.kmod is not None:
        sequence = load_sequence(folder, plan.kmod, plan.modules_loading_order)
        problems += sequence.findings
    names = {module_key(located.path.rpartition("/")[2]) for located in sequence.files} | set(sequence.in_tree)
    problems += judge_configuration(image, worker, names) if names else ()
    if kernel and (unknown := [name for name in sequence.in_tree if kernel.has_in_tree(name) is None]):
        problems.append(findings.NODE_IN_TREE_UNKNOWN(kernel=plan.kernel.version, names=listed(unknown)))
    return NodeContents(tuple(problems), sequence.files, frozenset(sequence.in_tree), _removed(plan, kernel))


def _unquoted_paths(plan: Plan, worker: Worker) -> Iterator[Finding]:
    """Yield paths that break the command `mkdir -p …; cp -R … …`, which KMM 2.2 and later run with /bin/sh -c."""
    if worker is not Worker.COPIED:
        return
    for path in (plan.directory, plan.firmware_path):
        if path and not _PLAIN.fullmatch(path):
            got = listed(sorted({repr(character) for character in path if not _PLAIN.fullmatch(character)}))
            yield findings.NODE_PATH_UNQUOTED(path=path, got=got)


def _judge_removal(plan: Plan, worker: Worker, kernel: KernelFiles) -> Iterator[Finding]:
    """Yield findings for modules that KMM cannot unload: they are built in, or not of this kernel.

    modprobe -r of such a module exits with 1 (tested). KMM 2.2 and later look for the module's file first.
    """
    names = [name for name in plan.in_tree_modules_to_remove if kernel.has_in_tree(wanted_key(name)) is False]
    unknown = [name for name in plan.in_tree_modules_to_remove if kernel.has_in_tree(wanted_key(name)) is None]
    if unknown and worker is not Worker.COPIED:
        yield findings.NODE_IN_TREE_UNKNOWN(kernel=plan.kernel.version, names=listed(unknown))
    yield from _judge_users(plan, kernel)
    if names:
        kind = findings.IN_TREE_STAYS if worker is Worker.COPIED else findings.IN_TREE_STAYS_FAILS
        yield kind(names=listed(names), kernel=plan.kernel.version)


def _judge_users(plan: Plan, kernel: KernelFiles) -> Iterator[Finding]:
    """Yield a finding for each kmod to remove that other in-tree kmods use (docs/reference/kmm.md 11)."""
    listed_names = [wanted_key(name) for name in plan.in_tree_modules_to_remove]
    for number, name in enumerate(listed_names):
        users = [user for user in kernel.users.get(name, ()) if user not in listed_names[:number]]
        if users:
            yield findings.IN_TREE_USED(name=name, kernel=kernel.release, users=listed(users))


def _removed(plan: Plan, kernel: KernelFiles | None) -> frozenset[str]:
    names = frozenset(wanted_key(name) for name in plan.in_tree_modules_to_remove)
    return frozenset(name for name in names if not kernel or kernel.has_in_tree(name) is not False)
