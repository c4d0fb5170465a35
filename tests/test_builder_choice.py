"""Choice of the builder, by --builder, cluster and machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmm_preflight.build.choice import (
    BuilderChoice,
    BuilderOptions,
    LocalProgram,
    choose_builder,
    find_local_program,
)
from kmm_preflight.cluster.api import BUILDS, JOBS, Api
from kmm_preflight.errors import UsageProblem
from tests.memory_api import MemoryApi

BUILDAH = LocalProgram("/usr/bin/buildah", None)
ABSENT = LocalProgram(None, "neither buildah nor podman is on the PATH")
UNFIT = LocalProgram("/usr/bin/podman", "TMPDIR is too long")
KUBERNETES, OPENSHIFT = MemoryApi(JOBS), MemoryApi(JOBS, BUILDS)
AUTO, IMAGE, LAYOUT = (
    BuilderOptions("auto"),
    BuilderOptions("auto", builder_image=True),
    BuilderOptions("auto", image_layout=True),
)


@pytest.mark.parametrize(
    ("options", "program", "api", "name"),
    [
        (LAYOUT, BUILDAH, None, "none"),
        (LAYOUT, BUILDAH, OPENSHIFT, "none"),
        (IMAGE, BUILDAH, OPENSHIFT, "openshift"),
        (AUTO, ABSENT, OPENSHIFT, "openshift"),
        (IMAGE, BUILDAH, KUBERNETES, "job"),
        (AUTO, BUILDAH, KUBERNETES, "local"),
        (AUTO, ABSENT, KUBERNETES, "none"),
        (IMAGE, BUILDAH, None, "local"),
        (AUTO, UNFIT, None, "none"),
        (AUTO, ABSENT, None, "none"),
    ],
)
def test_auto_chooses_the_first_builder_that_can_run(
    options: BuilderOptions, program: LocalProgram, api: Api | None, name: str
) -> None:
    choice = choose_builder(options, program, api)
    assert choice.name == name
    assert choice.reason.startswith("auto: ")
    assert choice.program == (program.path if name == "local" else None)
    assert choice.in_cluster is (name in ("job", "openshift"))


@pytest.mark.parametrize(
    ("name", "api", "program"),
    [("local", None, BUILDAH), ("job", KUBERNETES, ABSENT), ("openshift", OPENSHIFT, UNFIT), ("none", None, BUILDAH)],
)
def test_a_named_builder_is_chosen_if_it_can_run(name: str, api: Api | None, program: LocalProgram) -> None:
    expected = BuilderChoice(name, "as --builder says", BUILDAH.path if name == "local" else None)
    assert choose_builder(BuilderOptions(name, builder_image=True), program, api) == expected


@pytest.mark.parametrize(
    ("name", "api", "program", "message"),
    [
        ("local", None, ABSENT, "--builder local: neither buildah nor podman is on the PATH"),
        ("local", OPENSHIFT, UNFIT, "--builder local: TMPDIR is too long"),
        ("openshift", KUBERNETES, BUILDAH, "--builder openshift: the cluster serves no builds.build.openshift.io"),
    ],
)
def test_a_named_builder_that_cannot_run_is_refused(
    name: str, api: Api | None, program: LocalProgram, message: str
) -> None:
    with pytest.raises(UsageProblem, match=message):
        choose_builder(BuilderOptions(name), program, api)


def test_a_program_that_builds_is_found_on_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    assert find_local_program(str(folder), tmp_path) == ABSENT
    podman, buildah = folder / "podman", folder / "buildah"
    for program in (podman, buildah):
        program.write_text("")
        program.chmod(0o755)
    assert find_local_program(str(folder), Path("/run/x")) == LocalProgram(str(buildah), None)
    buildah.unlink()
    long = find_local_program(str(folder), Path("/run") / ("x" * 50) / "kmm-preflight-1")
    assert long.path == str(podman)
    assert long.problem
    assert "podman" in long.problem
    comma = find_local_program(str(folder), Path("/run/a,b/kmm-preflight-1")).problem
    assert comma
    assert "/run/a,b" in comma
