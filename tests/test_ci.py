"""The gates of docs/ci.md and deploy/, run as each CI runs them: their shells, their variables, their files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from kmm_preflight.stages import report
from tests.demo import KERNEL, RELEASE, demo_images, module
from tests.pages import block
from tests.real.faults import FOREVER_S, MANIFESTS, Fault, FaultyRegistry
from tests.real.requirement import need_tool
from tests.runs import ROOT

pytestmark = pytest.mark.slow

PATIENCE_S = 180
HELLO = f"kmods/hello:{KERNEL}"
REPORTS = {"preflight.json", "junit_preflight.xml", "preflight.html", "status-patch.yaml"}
NO_LOGINS = '{"auths": {}}'
TASK: dict[str, Any] = yaml.safe_load((ROOT / "deploy/tekton-task.yaml").read_text())
(STEP,) = TASK["spec"]["steps"]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / "deploy/github-workflow.yaml").read_text())
# Of all the results of a task together.
TEKTON_BYTES = 4096

Variables = Mapping[str, str]


@dataclass(frozen=True)
class World:
    """What a gate has: a repository with manifests in modules/, a registry, and a sleep that only takes notes."""

    folder: Path
    registry: FaultyRegistry
    variables: Variables

    @property
    def artifacts(self) -> Path:
        """$ARTIFACT_DIR."""
        return Path(self.variables["ARTIFACT_DIR"])

    def have(self, image: str = HELLO, *faults: Fault) -> None:
        """One Module with this image."""
        (self.folder / "modules/hello.yaml").write_text(module("hello", f"{self.registry.host}/{image}"))
        self.registry.set_faults(*faults)

    def waits(self) -> list[str]:
        """The seconds that the gate has slept, once for each time."""
        slept = self.folder / "slept"
        return slept.read_text().split() if slept.exists() else []

    def run(self, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Run a gate in the repository."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.variables, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With the command on the PATH; the kernel is given, so no release is read."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sleep").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/slept\n')
    (tmp_path / "bin/sleep").chmod(0o755)
    variables = {
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(tmp_path),
        "ARTIFACT_DIR": str(tmp_path / "preflight"),
        "PREFLIGHT_KERNEL": KERNEL,
        "PREFLIGHT_PROOF": "path",
    }
    images = {name.partition("/")[2]: image for name, image in demo_images().items()}
    with FaultyRegistry({HELLO: images[HELLO]}) as registry:
        yield World(tmp_path, registry, variables)


def shell(world: World) -> int:
    """The page's first block, as sh runs it."""
    (world.folder / "auth.json").write_text(NO_LOGINS)
    return world.run(["sh", "-c", block("ci.md", "--authfile=auth.json")], RELEASE=RELEASE).returncode


def prow(world: World) -> int:
    """The commands of ci-operator's step, with what ci-operator puts in front and into the environment."""
    (step,) = yaml.safe_load(block("ci.md", "PREFLIGHT_RELEASE_IMAGE"))
    (dependency,) = step["dependencies"]
    (world.folder / "pull-secret").write_text(NO_LOGINS)
    told = {dependency["env"]: RELEASE, "CLUSTER_PROFILE_DIR": str(world.folder)}
    # The manifests stand for the cluster under test.
    told["PREFLIGHT_MANIFESTS"] = str(world.folder / "modules")
    return world.run(["/bin/bash", "-c", f"#!/bin/bash\nset -eu\n{step['commands']}"], **told).returncode


def github(world: World) -> int:
    """The workflow's steps that are scripts, but for its installation, in order; the code is that of the run's step."""
    (job,) = WORKFLOW["jobs"].values()
    known = {
        "github.workspace": str(world.folder),
        "inputs.release-image || '4.18.3'": RELEASE,
        "secrets.PULL_SECRET": NO_LOGINS,
    }
    files = {name: str(world.folder / name) for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
    told = {**files, "RUNNER_TEMP": str(world.folder), **evaluated(job["env"], known)}
    assert told["ARTIFACT_DIR"] == str(world.artifacts)
    codes: dict[str, int] = {}
    for step in job["steps"]:
        if "run" not in step or step["name"] == "install":
            continue
        assert "working-directory" not in step
        if not any(codes.values()) or step.get("if") == "always()":
            script = world.folder / "script.sh"
            script.write_text(step["run"])
            done = world.run(["bash", "-e", str(script)], **told, **evaluated(step.get("env", {}), known))
            codes[step["name"]] = done.returncode
            told |= line_by_line(Path(files["GITHUB_ENV"]))
    assert sorted(codes) == ["log in", "preflight", "summary"]
    assert codes["log in"] == codes["summary"] == 0
    assert told["REGISTRY_AUTH_FILE"] == str(world.folder / "auth.json")
    return codes["preflight"]


def evaluated(environment: Variables, known: Variables) -> dict[str, str]:
    """The environment with GitHub's expressions replaced; KeyError for one that is not known."""
    return {
        name: re.sub(r"\$\{\{ (.+?) \}\}", lambda found: known[found[1]], value) for name, value in environment.items()
    }


def line_by_line(file: Path) -> dict[str, str]:
    """What steps have added to the environment of later ones."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines()) if file.exists() else {}


REFUSED = 405  # such an answer is not asked for again by the suite itself
CASES = {
    "verified": (HELLO, (), report.EXIT_VERIFIED, []),
    "refuted": ("kmods/none:1", (), report.EXIT_REFUTED, []),
    "usage": ("", (), report.EXIT_USAGE, []),
    "undecided once": (HELLO, (Fault(MANIFESTS, times=1, status=REFUSED),), report.EXIT_VERIFIED, ["60"]),
    "undecided": (HELLO, (Fault(MANIFESTS, status=REFUSED),), report.EXIT_UNDECIDED, ["60"]),
}


# Each way that a script can take, and of scripts that are alike the ones that differ most.
TRIED = [
    *((shell, case) for case in CASES),
    *((github, case) for case in ("refuted", "undecided once", "undecided")),
    *((prow, case) for case in ("refuted", "undecided once")),
]


@pytest.mark.parametrize(("gate", "case"), TRIED, ids=[f"{gate.__name__}-{case}" for gate, case in TRIED])
def test_a_gate_keeps_the_exit_code_and_tries_again_what_is_undecided(
    world: World, gate: Callable[[World], int], case: str
) -> None:
    if gate is github:
        need_tool("jq", "apt-get install jq")
    image, faults, code, waits = CASES[case]
    world.have(image, *faults)
    if not image:
        (world.folder / "modules/hello.yaml").write_text("apiVersion: kmm.sigs.x-k8s.io/v1beta1\nkind: Module\n")
    assert gate(world) == code
    assert world.waits() == waits
    assert {path.name for path in world.artifacts.iterdir()} == REPORTS


def test_github_s_summary_has_the_verdict_and_the_table(world: World) -> None:
    need_tool("jq", "apt-get install jq")
    world.have("kmods/none:1")
    assert github(world) == report.EXIT_REFUTED
    assert (world.folder / "GITHUB_STEP_SUMMARY").read_text().splitlines() == [
        "### 1 of 1 Module will not load (1 of 1 Module and kernel pair).",
        "",
        "| Module | kernel | verdict | findings |",
        "|---|---|---|---|",
        f"| demo/hello | {KERNEL} | refuted | image-not-found |",
    ]
    assert (world.folder / "auth.json").stat().st_mode & 0o777 == 0o600


def test_github_s_summary_takes_words_from_outside_for_words(world: World) -> None:
    need_tool("jq", "apt-get install jq")
    world.artifacts.mkdir()
    told = {"sentence": "<b>a</b> | [x](y) `z`\n# \\ _c_", "modules": []}
    (world.artifacts / "preflight.json").write_text(json.dumps(told))
    summary = world.folder / "summary"
    (job,) = WORKFLOW["jobs"].values()
    (script,) = (step["run"] for step in job["steps"] if step.get("name") == "summary")
    assert world.run(["bash", "-e", "-c", script], GITHUB_STEP_SUMMARY=str(summary)).returncode == 0
    first = summary.read_text().splitlines()[0]
    assert first == r"### &lt;b&gt;a&lt;/b&gt; \| \[x\](y) \`z\` # \\ \_c\_"


def test_github_installs_what_the_image_has() -> None:
    (job,) = WORKFLOW["jobs"].values()
    (script,) = (step["run"] for step in job["steps"] if step.get("name") == "install")
    assert "install -q -r kmm-preflight/deploy/requirements.txt ./kmm-preflight\n" in script
    assert [step["if"] for step in job["steps"] if step.get("uses", "").startswith("actions/upload")] == ["always()"]


@dataclass(frozen=True)
class Task:
    """A task's step, with Tekton's variables replaced, and where its results are."""

    script: Path
    args: list[str]
    variables: Variables
    results: Path

    def told(self) -> dict[str, str]:
        """The results by name."""
        return {path.name: path.read_text() for path in self.results.iterdir()}


def task(world: World, *args: str, manifests: bool = True) -> Task:
    """The step as Tekton makes it; KeyError for a variable that the task does not declare."""
    results = world.folder / "results"
    results.mkdir()
    values = {"params.image": "an-image", "params.release-image": RELEASE}
    values |= {f"results.{one['name']}.path": str(results / one["name"]) for one in TASK["spec"]["results"]}
    bound = {"artifacts": world.artifacts, **({"manifests": world.folder / "modules"} if manifests else {})}
    values |= {f"workspaces.{one['name']}.path": str(bound.get(one["name"], "")) for one in TASK["spec"]["workspaces"]}
    world.artifacts.mkdir(exist_ok=True)

    def replaced(text: str) -> str:
        return re.sub(r"\$\(((?:params|results|workspaces)\..+?)\)", lambda found: values[found[1]], text)

    assert STEP["args"] == ["$(params.args[*])"]
    assert replaced(STEP["image"]) == "an-image"
    script = world.folder / "step"
    script.write_text(replaced(STEP["script"]))
    script.chmod(0o755)
    told = {one["name"]: replaced(one["value"]) for one in STEP["env"]}
    return Task(script, list(args), told, results)


@pytest.mark.parametrize("case", ["verified", "refuted", "usage", "undecided"])
def test_tekton_s_step_keeps_the_exit_code_and_leaves_results(world: World, case: str) -> None:
    image, faults, code, _ = CASES[case]
    world.have(image or HELLO, *faults)
    step = task(world, "-n0", *([] if image else ["--kernel=" + 3000 * "\N{SNOWMAN}"]))
    done = world.run([str(step.script), *step.args], **step.variables)
    assert done.returncode == code, done.stdout + done.stderr
    told = step.told()
    sentence = json.loads((world.artifacts / "preflight.json").read_text())["sentence"]
    assert told == {"exit-code": str(code), "sentence": sentence.encode()[:1024].decode(errors="ignore")}
    assert len(json.dumps(told)) < TEKTON_BYTES


def test_tekton_s_step_says_so_when_there_is_no_report(world: World) -> None:
    world.have()
    step = task(world, f"--artifact-dir={world.folder / 'modules/hello.yaml'}")
    (world.artifacts / "preflight.json").write_text('{"sentence": "of yesterday"}')
    assert world.run([str(step.script), *step.args], **step.variables).returncode == report.EXIT_USAGE
    assert step.told() == {"exit-code": str(report.EXIT_USAGE), "sentence": "The run left no report."}


def test_a_cancelled_task_leaves_results_and_reports(world: World) -> None:
    world.have(HELLO, Fault(MANIFESTS, hang_s=FOREVER_S))
    step = task(world)
    process = subprocess.Popen(
        [str(step.script), *step.args],
        cwd=world.folder,
        env={**world.variables, **step.variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not world.registry.requests():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Tekton's entrypoint hands a signal on to the whole group of the step.
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(PATIENCE_S) == report.EXIT_INTERRUPTED
    assert step.told()["exit-code"] == str(report.EXIT_INTERRUPTED)
    assert step.told()["sentence"].startswith("Interrupted before the end")
    assert {path.name for path in world.artifacts.iterdir()} == REPORTS


def test_tekton_without_manifests_asks_the_cluster(world: World) -> None:
    step = task(world, "--kubeconfig=no-such-file", manifests=False)
    assert world.run([str(step.script), *step.args], **step.variables).returncode == report.EXIT_USAGE
    assert "--kubeconfig" in step.told()["sentence"]


def test_the_page_s_task_run_names_what_the_task_has() -> None:
    text = block("ci.md", "kind: TaskRun").partition("<<EOF\n")[2].removesuffix("EOF\n")
    run = yaml.safe_load(Template(text).substitute(IMAGE="an-image", RELEASE=RELEASE))
    assert run["spec"]["taskRef"]["name"] == TASK["metadata"]["name"]
    for kind in ("params", "workspaces"):
        known = {one["name"]: one for one in TASK["spec"][kind]}
        given = {one["name"] for one in run["spec"][kind]}
        assert given <= set(known)
        needed = {name for name, one in known.items() if "default" not in one and not one.get("optional")}
        assert needed <= given


def test_the_step_calls_the_program_of_the_image() -> None:
    assert '\nENTRYPOINT ["kmm-preflight"]\n' in (ROOT / "Containerfile").read_text()
    assert '\nkmm-preflight "$@"\n' in STEP["script"]
