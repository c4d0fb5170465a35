"""The record: what is in it, what it covers, what of it stands after a run, and what it does with damage."""

from __future__ import annotations

import base64
import json
import random
import uuid
import zlib
from dataclasses import replace

import pytest

from kmm_preflight.errors import BoundExceeded, Malformed, PreflightError
from kmm_preflight.model import Flavour, JudgedImage, ModuleName, Outcome, Stage, StageResult, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.status.record import (
    Recall,
    Record,
    RecordedModule,
    RecordedProof,
    RunFacts,
    VerdictBasis,
    difference,
    format_record,
    parse_record,
    recall,
    renewed,
)

NAME = ModuleName("ns", "a")
RULES = "0123456789abcdef"
KERNEL = TargetKernel("6.1.0-56-amd64", "amd64", None, Flavour.STANDARD, None, "")
OTHER = replace(KERNEL, version="6.1.0-47-amd64")
PLAN = Plan(NAME, KERNEL, image=Reference.parse("r.io/a:1"))
BASIS = VerdictBasis("uid", 3, (("configmap/file", "7"), ("secret/pull", "8")))
DIGEST, NEW_DIGEST = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
PROOF = RecordedProof(KERNEL.version, "amd64", DIGEST, "path", RULES, "2026-11-01T00:00:00+00:00")
RECORD: Record = {NAME: RecordedModule(BASIS, (PROOF,))}
RAN = RunFacts("path", RULES, "2026-11-23T00:00:00+00:00")
DRAWN = RecordedProof(KERNEL.version, "amd64", NEW_DIGEST, "path", RULES, RAN.date)


def verdict(conclusion: Conclusion, digest: str = NEW_DIGEST, carried: bool = False, plan: Plan = PLAN) -> Verdict:
    outcome = Outcome.NOT_NEEDED if carried else Outcome.VERIFIED
    result = StageResult(Stage.IMAGE, outcome, "", (), JudgedImage("r.io/a:1", digest, digest))
    return Verdict(plan, conclusion, Stage.IMAGE, "", (result,))


def test_it_comes_back_as_it_was() -> None:
    record = {**RECORD, ModuleName("ns", "b"): RecordedModule(VerdictBasis("", 0))}
    assert parse_record(format_record(record)) == record


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BASIS, ""),
        (replace(BASIS, uid="new"), "a Module made anew under the same name"),
        (replace(BASIS, generation=4), "generation 4 of the Module, not 3"),
        (replace(BASIS, objects=(("configmap/file", "9"), ("secret/pull", "8"))), "another version of configmap/file"),
        (replace(BASIS, objects=(("secret/pull", "8"),)), "another version of configmap/file"),
        (replace(BASIS, objects=(*BASIS.objects, ("secret/key", ""))), "another version of secret/key"),
    ],
)
def test_what_has_changed(now: VerdictBasis, words: str) -> None:
    assert difference(BASIS, now) == words


def since(words: str) -> Recall:
    return Recall(why=f"{words}, since it was verified on {PROOF.date}")


@pytest.mark.parametrize(
    ("record", "plan", "basis", "depth", "want"),
    [
        (RECORD, PLAN, BASIS, "path", Recall(PROOF)),
        (RECORD, replace(PLAN, kernel=OTHER), BASIS, "path", Recall()),
        (RECORD, replace(PLAN, kernel=replace(KERNEL, arch="arm64")), BASIS, "path", Recall()),
        (RECORD, replace(PLAN, module=ModuleName("other", "a")), BASIS, "path", Recall()),
        ({NAME: RecordedModule(BASIS)}, PLAN, BASIS, "path", Recall()),
        (RECORD, PLAN, replace(BASIS, generation=4), "path", since("generation 4 of the Module, not 3")),
        (RECORD, PLAN, BASIS, "kernel", since("depth of proof path, not kernel; by no driver toolkit")),
        (
            RECORD,
            replace(PLAN, kernel=replace(KERNEL, driver_toolkit="dtk@1", os_image="os@2")),
            BASIS,
            "kernel",
            since("depth of proof path, not kernel; by dtk@1 or os@2"),
        ),
        (
            {NAME: RecordedModule(BASIS, (replace(PROOF, rules="2"),))},
            PLAN,
            BASIS,
            "path",
            since(f"rules 2, not {RULES}"),
        ),
    ],
    ids=["covered", "kernel", "arch", "namespace", "unproved", "generation", "depth", "files", "rules"],
)
def test_what_it_has_of_a_plan(record: Record, plan: Plan, basis: VerdictBasis, depth: str, want: Recall) -> None:
    assert recall(record, plan, basis, depth, RULES) == want


@pytest.mark.parametrize(
    ("drawn", "want"),
    [
        (verdict(Conclusion.VERIFIED), (DRAWN,)),
        (verdict(Conclusion.VERIFIED, carried=True), (PROOF,)),
        (verdict(Conclusion.REFUTED), ()),
        (verdict(Conclusion.UNDECIDED), (PROOF,)),
        (Verdict(PLAN, Conclusion.NOT_VERIFIED, Stage.IMAGE, ""), (PROOF,)),
        (Verdict(PLAN, Conclusion.VERIFIED, Stage.IMAGE, ""), ()),
    ],
    ids=["new", "carried over", "refuted", "undecided", "not in this run", "without an image"],
)
def test_what_stands_after_a_run(drawn: Verdict, want: tuple[RecordedProof, ...]) -> None:
    assert renewed(RECORD, [drawn], {NAME: BASIS}, RAN) == {NAME: RecordedModule(BASIS, want)}


def test_on_another_basis_nothing_stands_of_before() -> None:
    now = replace(BASIS, generation=4)
    undecided = verdict(Conclusion.UNDECIDED)
    assert renewed(RECORD, [undecided], {NAME: now}, RAN) == {NAME: RecordedModule(now)}


def test_proofs_of_kernels_that_were_not_asked_for_stand_and_do_not_pile_up() -> None:
    others = tuple(
        replace(PROOF, kernel=f"6.1.0-{number}-amd64", date=f"2026-10-0{number}T00:00:00+00:00")
        for number in range(1, 7)
    )
    record = {NAME: RecordedModule(BASIS, (PROOF, *others))}
    made = renewed(record, [verdict(Conclusion.VERIFIED)], {NAME: BASIS}, RAN)[NAME]
    assert made.proofs == (DRAWN, *reversed(others[3:]))


def test_modules_of_other_runs_stay_and_those_that_are_gone_do_not() -> None:
    other, gone = ModuleName("ns", "b"), ModuleName("ns", "c")
    record = {other: RecordedModule(BASIS, (PROOF,)), gone: RecordedModule(BASIS, (PROOF,))}
    made = renewed(record, [verdict(Conclusion.VERIFIED)], {NAME: BASIS}, replace(RAN, gone=frozenset({gone})))
    assert made == {NAME: RecordedModule(BASIS, (DRAWN,)), other: record[other]}


def many(count: int) -> Record:
    """A record of Modules that have nothing in common."""
    dice = random.Random(count)
    made = {}
    for number in range(count):
        digest = f"sha256:{dice.randbytes(32).hex()}"
        basis = VerdictBasis(
            str(uuid.UUID(bytes=dice.randbytes(16))), dice.randrange(1, 99), (("secret/pull", str(number)),)
        )
        made[ModuleName(f"ns{number % 40}", f"module-{number}")] = RecordedModule(
            basis, (replace(PROOF, digest=digest),)
        )
    return made


def test_a_thousand_modules_fit_and_what_does_not_is_said() -> None:
    assert parse_record(format_record(many(1000))) == many(1000)
    with pytest.raises(BoundExceeded, match="expected at most"):
        format_record(many(5000))


def packed(document: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()


@pytest.mark.parametrize(
    "text",
    [
        "no base64!",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"no JSON")).decode(),
        base64.b64encode(zlib.compress(b"[" * 100_000)).decode(),
        format_record(RECORD)[:-8],
        packed([]),
        packed({}),
        packed({"format": 2, "modules": {}}),
        packed({"format": "1", "modules": {}}),
        packed({"format": 1, "modules": []}),
        packed({"format": 1, "modules": {"no-namespace": ["u", 1, {}, []]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {}]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", "1", {}, []]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {"secret/x": 5}, []]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {}, [["k", "a", "d", "path", True, "t"]]]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {}, [["k", "a", "d", "path", 1]]]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {}, [["k", "a", DIGEST, "path", 1, "\x1b[31mred\n"]]]}}),
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {}, [["k", "a", "sha256:x", "path", 1, RAN.date]]]}}),
    ],
)
def test_what_is_no_record_of_ours(text: str) -> None:
    with pytest.raises(Malformed):
        parse_record(text)


def test_a_record_whose_rules_are_a_number_is_read_and_judged_again() -> None:
    """Releases before 0.2 numbered the rules by hand."""
    proof = [KERNEL.version, "amd64", DIGEST, "path", 2, PROOF.date]
    record = parse_record(packed({"format": 1, "modules": {"ns/a": ["uid", 3, dict(BASIS.objects), [proof]]}}))
    assert recall(record, PLAN, BASIS, "path", RULES) == since(f"rules 2, not {RULES}")


def test_a_record_that_unpacks_without_end_is_not_unpacked() -> None:
    with pytest.raises(PreflightError, match="unpacks to more than"):
        parse_record(base64.b64encode(zlib.compress(bytes(100 << 20))).decode())
