"""Whole runs of the suite in a process of their own, and the manifests that they are given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PYTEST = ("env", "--default-signal", sys.executable, "-m", "pytest")
"""For runs that are sent signals: under nohup, or in the background of a script, some are ignored by all below it."""
_KEPT = ("PREFLIGHT_PROOF", "PATH", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START")
# A child's peak counts from its fork on, when it still has its parent's memory: the parent must be a small process.
_MEASURED = (
    "import pathlib, resource, subprocess, sys\n"
    "code = subprocess.run(sys.argv[2:]).returncode\n"
    "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
    "pathlib.Path(sys.argv[1]).write_text(str(peak * 1024))\n"
    "sys.exit(code if code >= 0 else 128 - code)\n"
)


@dataclass(frozen=True)
class Run:
    """What a run left. document and junit are empty where it wrote none; peak in bytes, of the largest process."""

    returncode: int
    stdout: str
    stderr: str
    document: Mapping[str, Any]
    junit: ElementTree.Element
    seconds: float
    peak: int

    def verdicts(self) -> dict[str, tuple[str, ...]]:
        """By Module name: the verdict, then the ids of its findings in order."""
        return {
            one["name"]: (one["verdict"], *(finding["id"] for finding in one["findings"]))
            for one in self.document.get("modules", ())
        }

    def sentences(self) -> dict[str, str]:
        """By Module name: the sentences of its findings, one a line."""
        return {
            one["name"]: "\n".join(finding["sentence"] for finding in one["findings"])
            for one in self.document.get("modules", ())
        }

    @property
    def output(self) -> str:
        """Everything that was printed."""
        return self.stdout + self.stderr


def run_preflight(
    tmp_path: Path,
    *options: str | Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    workers_by_default: bool = False,
) -> Run:
    """Run the suite in the checkout with these options; reports, cache and home are below tmp_path.

    Of the environment only what a process needs is handed on, and env. An option given here wins over ours, of which
    one is -n0 (where xdist is): each worker takes as long to start as a small run takes. workers_by_default leaves
    that to the suite.
    """
    artifacts = tmp_path / "artifacts"
    ours = [
        f"--artifact-dir={artifacts}",
        f"--cache-dir={tmp_path / 'cache'}",
        "-o",
        f"cache_dir={tmp_path / 'pytest'}",
        *(() if workers_by_default or "no:xdist" in options else ("-n0",)),
    ]
    command = [sys.executable, "-m", "pytest", *ours, *map(str, options)]
    (tmp_path / "home").mkdir(parents=True, exist_ok=True)
    for stale in (artifacts / "preflight.json", artifacts / "junit_preflight.xml"):
        stale.unlink(missing_ok=True)
    return _finished(tmp_path, command, _environment(tmp_path / "home", env or {}), timeout)


def _environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), **more}


def _finished(tmp_path: Path, command: list[str], env: Mapping[str, str], timeout: float) -> Run:
    peak = tmp_path / "peak"
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", _MEASURED, str(peak), *command],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    seconds = time.monotonic() - start
    report, junit = tmp_path / "artifacts/preflight.json", tmp_path / "artifacts/junit_preflight.xml"
    return Run(
        process.returncode,
        stdout,
        stderr,
        json.loads(report.read_text()) if report.exists() else {},
        ElementTree.parse(junit).getroot() if junit.exists() else ElementTree.Element("none"),
        seconds,
        int(peak.read_text()),
    )


def module(
    name: str,
    image: str,
    kmod: str = "probe",
    *,
    namespace: str = "shapes",
    regexp: str = "^.+$",
    **more: Any,
) -> dict[str, Any]:
    """A Module manifest. more: dirName, imageRepoSecret, registryTLS, build; rawArgs takes the place of moduleName."""
    mapping: dict[str, object] = {"regexp": regexp, "containerImage": image}
    mapping |= {key: more[key] for key in ("registryTLS", "build", "sign") if key in more}
    modprobe: dict[str, object] = {key: more[key] for key in ("dirName", "rawArgs") if key in more}
    if "rawArgs" not in more:
        modprobe["moduleName"] = kmod
    spec: dict[str, object] = {
        "selector": {"node-role.kubernetes.io/worker": ""},
        "moduleLoader": {"container": {"modprobe": modprobe, "kernelMappings": [mapping]}},
    }
    if "imageRepoSecret" in more:
        spec["imageRepoSecret"] = {"name": more["imageRepoSecret"]}
    return _manifest("kmm.sigs.x-k8s.io/v1beta1", "Module", namespace, name, spec=spec)


def secret(name: str, kind: str, data: Mapping[str, str], namespace: str = "shapes") -> dict[str, Any]:
    """A Secret manifest of type kubernetes.io/KIND; data is base64 already."""
    return _manifest("v1", "Secret", namespace, name, type=f"kubernetes.io/{kind}", data=dict(data))


def _manifest(api: str, kind: str, namespace: str, name: str, **body: object) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"namespace": namespace, "name": name}, **body}


def write_manifests(folder: Path, manifests: Iterable[Mapping[str, Any]]) -> Path:
    """The folder with one file for each manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in manifests:
        (folder / f"{one['kind']}-{one['metadata']['name']}.json".lower()).write_text(json.dumps(one))
    return folder
