"""Verdicts as the status of a PreflightValidationOCP, in each dialect."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kmm_preflight.errors import UsageProblem
from kmm_preflight.model import Flavour, JudgedImage, ModuleName, Outcome, Stage, StageResult, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.status.dialects import (
    Dialect,
    StatusEntry,
    entry_of,
    initial_entries,
    kubectl_line,
    status_patch,
    worst,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2)))
TIME = "2026-01-02T01:04:05Z"
VERIFIED, REFUTED = Conclusion.VERIFIED, Conclusion.REFUTED
UNDECIDED, NOT_VERIFIED = Conclusion.UNDECIDED, Conclusion.NOT_VERIFIED


def _verdict(name: str, conclusion: Conclusion, kernel: str = "1.2.3") -> Verdict:
    namespace, _, bare = name.rpartition("/")
    target = TargetKernel(kernel, "amd64", None, Flavour.STANDARD, None, "")
    return Verdict(
        Plan(ModuleName(namespace, bare), target, Reference.parse("r/i:t")),
        conclusion,
        Stage.IMAGE,
        f"is {conclusion.value}",
    )


@pytest.mark.parametrize(
    ("text", "dialect", "api"),
    [
        (None, Dialect.MAP, "v1beta1"),
        ("1.0", Dialect.MAP, "v1beta1"),
        ("1.1", Dialect.MAP, "v1beta1"),
        ("2.0.1", Dialect.MAP, "v1beta1"),
        ("2.1", Dialect.LIST, "v1beta2"),
        ("v2.3.0", Dialect.LIST, "v1beta2"),
        ("2.4", Dialect.ONE_KERNEL, "v1beta2"),
        ("2.10", Dialect.ONE_KERNEL, "v1beta2"),
        ("3.0", Dialect.ONE_KERNEL, "v1beta2"),
    ],
)
def test_a_version_of_kmm_has_a_dialect(text: str | None, dialect: Dialect, api: str) -> None:
    assert (Dialect.of_version(text), dialect.api_version) == (dialect, api)


@pytest.mark.parametrize("text", ["", "2", "latest", "2.x", "2.3.4.5", "-1.2"])
def test_text_that_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match=f"--kmm-version {text}: expected a version of KMM such as 2.3"):
        Dialect.of_version(text)


@pytest.mark.parametrize(
    ("conclusion", "fields", "one_kernel"),
    [
        (VERIFIED, ("True", "Done"), ("Success", "Done")),
        (REFUTED, ("False", "Requeued"), ("Failure", "Done")),
        (UNDECIDED, ("False", "Requeued"), ("InProgress", "Image")),
    ],
)
def test_the_entry_shows_the_conclusion(
    conclusion: Conclusion, fields: tuple[str, str], one_kernel: tuple[str, str]
) -> None:
    verdict, reason = _verdict("ns/a", conclusion), f"1.2.3: is {conclusion.value}"
    assert entry_of(verdict, Dialect.MAP) == StatusEntry(*fields, reason)
    assert entry_of(verdict, Dialect.LIST) == StatusEntry(*fields, reason)
    assert entry_of(verdict, Dialect.ONE_KERNEL) == StatusEntry(*one_kernel, reason)


def test_entry_names_the_image_that_was_judged() -> None:
    result = StageResult(Stage.IMAGE, Outcome.VERIFIED, "", image=JudgedImage("r/i:t", "sha256:a", "sha256:b"))
    verdict = replace(_verdict("ns/a", VERIFIED), results=(result,))
    assert entry_of(verdict, Dialect.MAP) == StatusEntry("True", "Done", "1.2.3: is verified (r/i:t, sha256:a)")


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_module_that_was_not_judged_has_no_entry(dialect: Dialect) -> None:
    assert entry_of(_verdict("ns/a", NOT_VERIFIED), dialect) is None


@pytest.mark.parametrize(
    ("before", "modules", "entries", "removed"),
    [
        ({}, [], {}, set()),
        ({}, ["a"], {"a": StatusEntry("False", "Image")}, set()),
        ({"a": "Done"}, ["a"], {"a": StatusEntry("True", "Done")}, set()),
        ({"a": "Requeued"}, ["a"], {"a": StatusEntry("False", "Requeued")}, set()),
        ({"a": "Build"}, ["a"], {"a": StatusEntry("False", "Build")}, set()),
        (
            {"a": "Done", "b": "Sign"},
            ["b", "c"],
            {"b": StatusEntry("False", "Sign"), "c": StatusEntry("False", "Image")},
            {"a"},
        ),
        ({"a": "Done"}, [], {}, {"a"}),
    ],
    ids=["empty", "new", "done", "requeued", "build", "done, kept and new", "deleted"],
)
def test_initial_entries_keep_the_stage(
    before: dict[str, str], modules: list[str], entries: dict[str, StatusEntry], removed: set[str]
) -> None:
    assert initial_entries(before, modules) == (entries, removed)


@pytest.mark.parametrize(
    ("conclusions", "worst_one"),
    [
        ([VERIFIED, REFUTED, UNDECIDED, NOT_VERIFIED], REFUTED),
        ([VERIFIED, NOT_VERIFIED, UNDECIDED], UNDECIDED),
        ([VERIFIED, NOT_VERIFIED], NOT_VERIFIED),
        ([VERIFIED, VERIFIED], VERIFIED),
    ],
)
def test_the_worst_verdict_comes_first(conclusions: list[Conclusion], worst_one: Conclusion) -> None:
    assert worst(_verdict("ns/a", conclusion) for conclusion in conclusions).conclusion is worst_one


def _fields(status: str, stage: str, reason: str) -> dict[str, str]:
    return {
        "verificationStatus": status,
        "verificationStage": stage,
        "statusReason": reason,
        "lastTransitionTime": TIME,
    }


VERDICTS = [
    _verdict("ns/b", VERIFIED),
    _verdict("ns/a", VERIFIED),
    _verdict("ns/a", REFUTED, "4.5.6"),
    _verdict("other/b", UNDECIDED),
    _verdict("ns/c", NOT_VERIFIED),
    _verdict("ns/d", VERIFIED),
    _verdict("ns/d", NOT_VERIFIED, "4.5.6"),
]
GOOD = _fields("True", "Done", "1.2.3: is verified")
BAD = _fields("False", "Requeued", "4.5.6: is refuted")
OPEN = _fields("False", "Requeued", "1.2.3: is undecided")


@pytest.mark.parametrize(
    ("dialect", "status"),
    [
        (Dialect.MAP, {"crStatuses": {"a": BAD, "b": OPEN}}),
        (
            Dialect.LIST,
            {
                "modules": [
                    {"namespace": "ns", "name": "a", **BAD},
                    {"namespace": "ns", "name": "b", **GOOD},
                    {"namespace": "other", "name": "b", **OPEN},
                ]
            },
        ),
        (
            Dialect.ONE_KERNEL,
            {
                "modules": [
                    {"namespace": "ns", "name": "a", **_fields("Failure", "Done", "4.5.6: is refuted")},
                    {"namespace": "ns", "name": "b", **_fields("Success", "Done", "1.2.3: is verified")},
                    {"namespace": "other", "name": "b", **_fields("InProgress", "Image", "1.2.3: is undecided")},
                ]
            },
        ),
    ],
)
def test_the_patch_holds_an_entry_for_each_key(dialect: Dialect, status: dict[str, object]) -> None:
    """Show the worst verdict of several kernels. Skip Modules that were not judged."""
    assert status_patch(VERDICTS, dialect, NOW) == {"status": status}


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_patch_without_verdicts_is_empty(dialect: Dialect) -> None:
    assert status_patch([], dialect, NOW.astimezone(UTC)) == {"status": {}}


@pytest.mark.parametrize("dialect", list(Dialect))
def test_the_kubectl_line_names_the_api_version(dialect: Dialect) -> None:
    resource = f"preflightvalidationsocp.{dialect.api_version}.kmm.sigs.x-k8s.io"
    expected = f"kubectl patch {resource} NAME --subresource=status --type=merge --patch-file=p.yaml"
    assert kubectl_line(dialect, "p.yaml") == expected
