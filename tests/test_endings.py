"""Ends of runs: the exit code depends on the cause alone, and never on -x, a time limit or another run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kmm_preflight.entry.places import REPORTS
from tests.demo import DEMO, GREEN, manifests, module
from tests.real.faults import MANIFESTS, Fault, FaultyRegistry
from tests.runs import ROOT, run_preflight

pytestmark = pytest.mark.slow

STOPS: tuple[tuple[str, ...], ...] = (
    (),
    ("-x",),
    ("--maxfail=100",),
    ("--timeout=2",),
    ("--timeout=2", "-x"),
    ("--timeout=2", "--maxfail=100"),
    ("--timeout=2", "-x", "-n2"),
    ("--timeout=2", "--maxfail=100", "-n2"),
    ("--timeout=2", "--timeout-method=thread"),
    ("--timeout=2", "--timeout-method=thread", "-x"),
    ("--timeout=2", "--timeout-method=thread", "-n2"),
)


@pytest.mark.parametrize("options", STOPS, ids=" ".join)
def test_a_registry_that_hangs_or_fails_is_undecided_with_any_stop(tmp_path: Path, options: tuple[str, ...]) -> None:
    fault = Fault(MANIFESTS, hang_s=60) if "--timeout=2" in options else Fault(MANIFESTS, status=503)
    with FaultyRegistry({}, fault) as registry:
        given = manifests(tmp_path, *(module(name, f"{registry.host}/team/{name}:v1") for name in ("a", "b")))
        run = run_preflight(tmp_path, "--kernel=5.14.0-1.el9.x86_64", "--proof=path", given, *options)
    assert run.returncode == 10, run.output
    assert {verdict[0] for verdict in run.verdicts().values()} <= {"undecided", "not verified in this run"}
    assert run.document["exitCode"] == 10
    judged = [found for verdict, *found in run.verdicts().values() if verdict == "undecided"]
    assert judged
    assert all(found for found in judged), "each undecided Module has a finding with a remedy"
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == sorted(REPORTS)


def test_a_helm_template_in_a_folder_is_listed_and_the_others_are_judged(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "template.yaml").write_text("{{ if .Values.kmm }}\nkind: Module\n{{ end }}\n")
    (folder / "hello.yaml").write_text((ROOT / "demo/modules/hello.yaml").read_text())
    run = run_preflight(tmp_path, *DEMO, f"--manifests={folder}")
    assert run.returncode == 10, run.output
    assert run.verdicts()["hello"][0] == "verified"
    (listed,) = run.document["notJudged"]
    assert listed["subject"].startswith(str(folder / "template.yaml"))
    assert "1 object, document or file not judged" in run.document["sentence"]
    assert "Every Module" not in run.stdout
    excluded = run_preflight(tmp_path, *DEMO, f"--manifests={folder}", "--exclude=template.yaml")
    assert excluded.returncode == 0, excluded.output
    assert "--exclude template.yaml left out 1 file or object" in excluded.stdout
    named = run_preflight(tmp_path, *DEMO, f"--manifests={folder / 'template.yaml'}")
    assert named.returncode == 4
    assert "invalid YAML" in named.output


def test_a_folder_with_nothing_but_a_template_names_it(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/template.yaml").write_text("{{ if .Values.kmm }}\nkind: Module\n{{ end }}\n")
    run = run_preflight(tmp_path, *DEMO, f"--manifests={tmp_path / 'm'}")
    assert run.returncode == 5, run.output
    assert f"not judged: {tmp_path / 'm/template.yaml'}, line 2" in run.output


def test_a_second_run_in_the_same_folder_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, os, sys, time\n"
         "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\nprint(flush=True)\ntime.sleep(60)", folder],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout
        holder.stdout.readline()
        (folder / "preflight.html").write_text("of the first run")
        run = run_preflight(tmp_path, *DEMO, GREEN)
        assert run.returncode == 4, run.output
        assert f"--artifact-dir {folder}: another run writes its reports there" in run.output
        assert (folder / "preflight.html").read_text() == "of the first run"
    finally:
        holder.kill()
        holder.communicate()
    assert run_preflight(tmp_path, *DEMO, GREEN).returncode == 0
