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
from kmm_preflight.status.dialects import Dialect, StatusEntry, entry, kubectl_line, preset, status_patch, worst

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
        (None, Dialect.SEED, "v1beta1"),
        ("1.0", Dialect.SEED, "v1beta1"),
        ("1.1", Dialect.SEED, "v1beta1"),
        ("2.0.1", Dialect.SEED, "v1beta1"),
        ("2.1", Dialect.LIST, "v1beta2"),
        ("v2.3.0", Dialect.LIST, "v1beta2"),
        ("2.4", Dialect.LATER, "v1beta2"),
        ("2.10", Dialect.LATER, "v1beta2"),
        ("3.0", Dialect.LATER, "v1beta2"),
    ],
)
def test_dialect(text: str | None, dialect: Dialect, api: str) -> None:
    assert (Dialect.of_version(text), dialect.api_version) == (dialect, api)


@pytest.mark.parametrize("text", ["", "2", "latest", "2.x", "2.3.4.5", "-1.2"])
def test_no_version(text: str) -> None:
    with pytest.raises(UsageProblem, match=f"--kmm-version {text}: expected a version of KMM such as 2.3"):
        Dialect.of_version(text)


@pytest.mark.parametrize(
    ("conclusion", "seed", "later"),
    [
        (VERIFIED, ("True", "Done"), ("Success", "Done")),
        (REFUTED, ("False", "Requeued"), ("Failure", "Done")),
        (UNDECIDED, ("False", "Requeued"), ("InProgress", "Image")),
    ],
)
def test_entry(conclusion: Conclusion, seed: tuple[str, str], later: tuple[str, str]) -> None:
    verdict, reason = _verdict("ns/a", conclusion), f"1.2.3: is {conclusion.value}"
    assert entry(verdict, Dialect.SEED) == StatusEntry(*seed, reason)
    assert entry(verdict, Dialect.LIST) == StatusEntry(*seed, reason)
    assert entry(verdict, Dialect.LATER) == StatusEntry(*later, reason)


def test_entry_names_the_image_that_was_judged() -> None:
    result = StageResult(Stage.IMAGE, Outcome.VERIFIED, "", image=JudgedImage("r/i:t", "sha256:a", "sha256:b"))
    verdict = replace(_verdict("ns/a", VERIFIED), results=(result,))
    assert entry(verdict, Dialect.SEED) == StatusEntry("True", "Done", "1.2.3: is verified (r/i:t, sha256:a)")


@pytest.mark.parametrize("dialect", list(Dialect))
def test_no_entry_for_what_was_not_verified(dialect: Dialect) -> None:
    assert entry(_verdict("ns/a", NOT_VERIFIED), dialect) is None


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
    ids=["nothing", "new", "done stays done", "requeued", "in between", "all three", "vanished"],
)
def test_preset(before: dict[str, str], modules: list[str], entries: dict[str, StatusEntry], removed: set[str]) -> None:
    assert preset(before, modules) == (entries, removed)


@pytest.mark.parametrize(
    ("conclusions", "first"),
    [
        ([VERIFIED, REFUTED, UNDECIDED, NOT_VERIFIED], REFUTED),
        ([VERIFIED, NOT_VERIFIED, UNDECIDED], UNDECIDED),
        ([VERIFIED, NOT_VERIFIED], NOT_VERIFIED),
        ([VERIFIED, VERIFIED], VERIFIED),
    ],
)
def test_worst(conclusions: list[Conclusion], first: Conclusion) -> None:
    assert worst(_verdict("ns/a", one) for one in conclusions).conclusion is first


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
        (Dialect.SEED, {"crStatuses": {"a": BAD, "b": OPEN}}),
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
            Dialect.LATER,
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
def test_status_patch(dialect: Dialect, status: dict[str, object]) -> None:
    """The worst of several kernels tells; the seed's names are shared by namespaces; some are left out."""
    assert status_patch(VERDICTS, dialect, NOW) == {"status": status}


@pytest.mark.parametrize("dialect", list(Dialect))
def test_status_patch_of_nothing_changes_nothing(dialect: Dialect) -> None:
    assert status_patch([], dialect, NOW.astimezone(UTC)) == {"status": {}}


@pytest.mark.parametrize("dialect", list(Dialect))
def test_kubectl_line_names_the_version_to_write_through(dialect: Dialect) -> None:
    resource = f"preflightvalidationsocp.{dialect.api_version}.kmm.sigs.x-k8s.io"
    expected = f"kubectl patch {resource} NAME --subresource=status --type=merge --patch-file=p.yaml"
    assert kubectl_line(dialect, "p.yaml") == expected
