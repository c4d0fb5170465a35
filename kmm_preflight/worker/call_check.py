"""Check of the modprobe call that loads a plan's kmods: its names, its folder, and whether it loads at all."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from kmm_preflight.model import Finding, Severity
from kmm_preflight.planning.plan import Plan
from kmm_preflight.worker import findings
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.modprobe_call import ModprobeCall, parse_call

_NODE_ROOTS = ("/", "/usr")
_UNPACKED = "/the unpacked image"  # a name that no argument has


class Place(Enum):
    """The folder in which modprobe looks for kmods."""

    IMAGE = "image"
    """The folder of the image."""
    NODE = "node"
    """The node's own kmods."""
    ELSEWHERE = "elsewhere"
    """A folder that does not exist on the node."""


@dataclass(frozen=True)
class CheckedCall:
    """The modprobe call of a plan."""

    call: ModprobeCall
    """The parsed call."""
    place: Place
    """The folder in which modprobe looks."""
    findings: tuple[Finding, ...] = ()
    """Findings about the call."""

    @property
    def refuted(self) -> bool:
        """True if modprobe loads nothing, whatever the image has."""
        return any(finding.severity is Severity.REFUTES for finding in self.findings)


def check_call(plan: Plan, worker: Worker, version_known: bool) -> CheckedCall:
    """Return the call that loads the plan's kmods, with findings. version_known: the version of KMM is known."""
    directory = node_directory(plan, worker)
    words = plan.raw_arguments
    if plan.kmod is not None:
        words = ("-v", "-d", directory, *plan.load_options, plan.kmod, *plan.parameters)
    call = parse_call(words)
    place = _place(plan, call, worker, version_known)
    return CheckedCall(call, place, tuple(_judge(plan, call, place, directory)))


def node_directory(plan: Plan, worker: Worker) -> str:
    """Return the directory of the image's kmods for modprobe -d on the node."""
    own = _normal(plan.directory)
    match worker:
        case Worker.POD:
            return own
        case Worker.UNPACKED:
            return _normal(f"{_UNPACKED}{own}")
        case Worker.COPIED:
            return _normal(f"/tmp{own}")


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path.lstrip('/')}")


def _place(plan: Plan, call: ModprobeCall, worker: Worker, version_known: bool) -> Place:
    if call.kernel not in (None, plan.kernel.version):
        return Place.ELSEWHERE
    if call.directory is None:
        return Place.NODE
    directory, own = _normal(call.directory), _normal(plan.directory)
    is_likely = worker is Worker.UNPACKED or (worker is Worker.COPIED and not version_known)
    if directory == node_directory(plan, worker) or (is_likely and f"{directory}/".endswith(f"{own.rstrip('/')}/")):
        return Place.IMAGE
    return Place.NODE if directory in _NODE_ROOTS else Place.ELSEWHERE


def _judge(plan: Plan, call: ModprobeCall, place: Place, directory: str) -> Iterator[Finding]:
    wanted = plan.kmod or "a kmod"
    arguments = " ".join(plan.raw_arguments or (*plan.load_options, wanted, *plan.parameters))
    got = call.loads_nothing
    if got is None and plan.kmod and plan.kmod not in call.names:
        got = f"it takes {call.names[0]} for the name, and {plan.kmod} for a parameter"
    if got:
        yield findings.MODPROBE_LOADS_NOTHING(kmod=wanted, arguments=arguments, got=got)
    expected = f"{directory}/lib/modules/{plan.kernel.version}"
    if place is Place.ELSEWHERE:
        looked = f"{_normal(call.directory or '/')}/lib/modules/{call.kernel or plan.kernel.version}".replace("//", "/")
        yield findings.MODPROBE_OTHER_FOLDER(got=looked, expected=expected, directory=directory)
    elif plan.kmod is None and place is Place.IMAGE and call.directory and _normal(call.directory) != directory:
        yield findings.MODPROBE_FOLDER_MOVED(got=call.directory, expected=_normal(f"/tmp/{plan.directory}"))
