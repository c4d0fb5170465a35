"""What a node has of an image when its loader is asked: everything between the pull and the first kmod."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import wanted_key
from kmm_preflight.model import Finding
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.planning.plan import Plan
from kmm_preflight.text import listed
from kmm_preflight.worker import findings
from kmm_preflight.worker.firmware import judge_firmware_path
from kmm_preflight.worker.folder import NodeFolder
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.program import ImageFiles, judge_programs
from kmm_preflight.worker.sequence import Sequence, load_sequence

_PLAIN = re.compile(r"[\w/.+@%:=,-]*", re.ASCII)


@dataclass(frozen=True)
class NodeContents:
    """What the loader will be asked for: the image's files in order, each once, none with rawArgs.

    in_tree are the kernel's own kmods (with _ for -) that modprobe loads with them, through the link `host`; removed
    those that KMM unloads before. findings is all that there is to tell, of every weight.
    """

    findings: tuple[Finding, ...] = ()
    sequence: tuple[Located, ...] = ()
    in_tree: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


def prepare_node(plan: Plan, image: ImageFiles, worker: Worker, kernel: KernelFiles | None = None) -> NodeContents:
    """What KMM's worker makes of the plan's image on a node of the plan's kernel.

    kernel None leaves out what only the kernel's own files tell: which in-tree kmods there are. Raises what reading the
    image raises.
    """
    told = [
        *_unquoted(plan, worker),
        *judge_programs(image, worker, plan.kernel.arch, firmware=bool(plan.firmware_path)),
        *judge_firmware_path(plan, image.files, worker),
        *(_judge_removal(plan, worker, kernel) if kernel else ()),
    ]
    folder = NodeFolder(plan, image, worker, kernel)
    sequence = Sequence()
    if problem := folder.problem():
        told.append(problem)
    elif plan.kmod is not None:
        sequence = load_sequence(folder, plan.kmod, plan.modules_loading_order)
        told += sequence.findings
    if kernel and (unknown := [name for name in sequence.in_tree if kernel.has_in_tree(name) is None]):
        told.append(findings.NODE_IN_TREE_UNKNOWN(kernel=plan.kernel.version, names=listed(unknown)))
    return NodeContents(tuple(told), sequence.files, frozenset(sequence.in_tree), _removed(plan, kernel))


def _unquoted(plan: Plan, worker: Worker) -> Iterator[Finding]:
    """KMM 2.2 and later: `mkdir -p …; cp -R … …` for /bin/sh -c."""
    if worker is not Worker.COPIED:
        return
    for path in (plan.directory, plan.firmware_path or ""):
        if not _PLAIN.fullmatch(path):
            got = listed(sorted({repr(one) for one in path if not _PLAIN.fullmatch(one)}))
            yield findings.NODE_PATH_UNQUOTED(path=path, got=got)


def _judge_removal(plan: Plan, worker: Worker, kernel: KernelFiles) -> Iterator[Finding]:
    """modprobe -r of what is built in, or not there, ends 1 (tried); KMM 2.2 and later asks for the file before."""
    names = [name for name in plan.in_tree_modules_to_remove if kernel.has_in_tree(wanted_key(name)) is False]
    unknown = [name for name in plan.in_tree_modules_to_remove if kernel.has_in_tree(wanted_key(name)) is None]
    if unknown and worker is not Worker.COPIED:
        yield findings.NODE_IN_TREE_UNKNOWN(kernel=plan.kernel.version, names=listed(unknown))
    if names:
        kind = findings.IN_TREE_STAYS if worker is Worker.COPIED else findings.IN_TREE_STAYS_FAILS
        yield kind(names=listed(names), kernel=plan.kernel.version)


def _removed(plan: Plan, kernel: KernelFiles | None) -> frozenset[str]:
    names = frozenset(wanted_key(name) for name in plan.in_tree_modules_to_remove)
    return frozenset(name for name in names if not kernel or kernel.has_in_tree(name) is not False)
