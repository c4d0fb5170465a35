"""Record of verified Modules: its content, the proofs that still count, the record after a run, damaged records."""

from __future__ import annotations

import base64
import json
import random
import uuid
import zlib
from dataclasses import replace

import pytest

from kmm_preflight.errors import BoundExceeded, Malformed, PreflightError
from kmm_preflight.model import (
    BootArguments,
    Flavour,
    JudgedImage,
    ModuleName,
    Outcome,
    Stage,
    StageResult,
    TargetKernel,
)
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.verdict import Conclusion, Verdict
from kmm_preflight.status.record import (
    RecalledProof,
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
RUN = RunFacts("path", RULES, "2026-11-23T00:00:00+00:00")
NEW_PROOF = RecordedProof(KERNEL.version, "amd64", NEW_DIGEST, "path", RULES, RUN.date)


def verdict(conclusion: Conclusion, digest: str = NEW_DIGEST, carried: bool = False, plan: Plan = PLAN) -> Verdict:
    outcome = Outcome.NOT_NEEDED if carried else Outcome.VERIFIED
    result = StageResult(Stage.IMAGE, outcome, "", (), JudgedImage("r.io/a:1", digest, digest))
    return Verdict(plan, conclusion, Stage.IMAGE, "", (result,))


def test_a_formatted_record_is_parsed_to_the_same_value() -> None:
    record = {**RECORD, ModuleName("ns", "b"): RecordedModule(VerdictBasis(None, 0))}
    assert parse_record(format_record(record)) == record


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BASIS, None),
        (replace(BASIS, uid="new"), "the Module was deleted and created again"),
        (replace(BASIS, generation=4), "generation 4 of the Module, not 3"),
        (replace(BASIS, objects=(("configmap/file", "9"), ("secret/pull", "8"))), "another version of configmap/file"),
        (replace(BASIS, objects=(("secret/pull", "8"),)), "another version of configmap/file"),
        (replace(BASIS, objects=(*BASIS.objects, ("secret/key", None))), "another version of secret/key"),
    ],
)
def test_a_difference_of_bases_is_named(now: VerdictBasis, words: str | None) -> None:
    assert difference(BASIS, now) == words


def since(words: str) -> RecalledProof:
    return RecalledProof(problem=f"{words}, since it was verified on {PROOF.date}")


@pytest.mark.parametrize(
    ("record", "plan", "basis", "depth", "expected"),
    [
        (RECORD, PLAN, BASIS, "path", RecalledProof(PROOF)),
        (RECORD, replace(PLAN, kernel=OTHER), BASIS, "path", RecalledProof()),
        (RECORD, replace(PLAN, kernel=replace(KERNEL, arch="arm64")), BASIS, "path", RecalledProof()),
        (RECORD, replace(PLAN, module=ModuleName("other", "a")), BASIS, "path", RecalledProof()),
        ({NAME: RecordedModule(BASIS)}, PLAN, BASIS, "path", RecalledProof()),
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
def test_a_proof_is_recalled_if_nothing_has_changed(
    record: Record, plan: Plan, basis: VerdictBasis, depth: str, expected: RecalledProof
) -> None:
    assert recall(record, plan, basis, depth, RULES) == expected


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        (verdict(Conclusion.VERIFIED), (NEW_PROOF,)),
        (verdict(Conclusion.VERIFIED, carried=True), (PROOF,)),
        (verdict(Conclusion.REFUTED), ()),
        (verdict(Conclusion.UNDECIDED), (PROOF,)),
        (Verdict(PLAN, Conclusion.NOT_VERIFIED, Stage.IMAGE, ""), (PROOF,)),
        (Verdict(PLAN, Conclusion.VERIFIED, Stage.IMAGE, ""), ()),
    ],
    ids=["new", "carried over", "refuted", "undecided", "not in this run", "without an image"],
)
def test_proofs_after_a_run(judged: Verdict, expected: tuple[RecordedProof, ...]) -> None:
    assert renewed(RECORD, [judged], {NAME: BASIS}, RUN) == {NAME: RecordedModule(BASIS, expected)}


def test_a_changed_basis_removes_earlier_proofs() -> None:
    now = replace(BASIS, generation=4)
    undecided = verdict(Conclusion.UNDECIDED)
    assert renewed(RECORD, [undecided], {NAME: now}, RUN) == {NAME: RecordedModule(now)}


def test_the_newest_proofs_of_other_kernels_are_kept() -> None:
    others = tuple(
        replace(PROOF, kernel=f"6.1.0-{number}-amd64", date=f"2026-10-0{number}T00:00:00+00:00")
        for number in range(1, 7)
    )
    record = {NAME: RecordedModule(BASIS, (PROOF, *others))}
    after = renewed(record, [verdict(Conclusion.VERIFIED)], {NAME: BASIS}, RUN)[NAME]
    assert after.proofs == (NEW_PROOF, *reversed(others[3:]))


def test_modules_that_were_not_judged_stay_unless_they_are_gone() -> None:
    other, gone = ModuleName("ns", "b"), ModuleName("ns", "c")
    record = {other: RecordedModule(BASIS, (PROOF,)), gone: RecordedModule(BASIS, (PROOF,))}
    after = renewed(record, [verdict(Conclusion.VERIFIED)], {NAME: BASIS}, replace(RUN, gone=frozenset({gone})))
    assert after == {NAME: RecordedModule(BASIS, (NEW_PROOF,)), other: record[other]}


def record_of_modules(count: int) -> Record:
    """Return a record of Modules with different digests and versions."""
    dice = random.Random(count)
    modules = {}
    for number in range(count):
        digest = f"sha256:{dice.randbytes(32).hex()}"
        basis = VerdictBasis(
            str(uuid.UUID(bytes=dice.randbytes(16))), dice.randrange(1, 99), (("secret/pull", str(number)),)
        )
        modules[ModuleName(f"ns{number % 40}", f"module-{number}")] = RecordedModule(
            basis, (replace(PROOF, digest=digest),)
        )
    return modules


def test_a_thousand_modules_fit_and_a_larger_record_is_refused() -> None:
    assert parse_record(format_record(record_of_modules(1000))) == record_of_modules(1000)
    with pytest.raises(BoundExceeded, match="at most 204800 are allowed"):
        format_record(record_of_modules(5000))


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
        packed({"format": 1, "modules": {"ns/a": ["u", 1, {}, [["k", "a", "sha256:x", "path", 1, RUN.date]]]}}),
    ],
)
def test_a_damaged_record_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_record(text)


def test_a_record_with_a_number_of_rules_is_read_and_does_not_count() -> None:
    """Releases before 0.2 numbered the rules by hand."""
    proof = [KERNEL.version, "amd64", DIGEST, "path", 2, PROOF.date]
    record = parse_record(packed({"format": 1, "modules": {"ns/a": ["uid", 3, dict(BASIS.objects), [proof]]}}))
    assert recall(record, PLAN, BASIS, "path", RULES) == since(f"rules 2, not {RULES}")


def test_a_record_that_unpacks_to_too_many_bytes_is_refused() -> None:
    with pytest.raises(PreflightError, match="unpacks to more than"):
        parse_record(base64.b64encode(zlib.compress(bytes(100 << 20))).decode())


def test_a_proof_does_not_count_for_other_boot_arguments() -> None:
    booted = replace(PLAN, boot_arguments=(BootArguments("pool a", ("module.sig_enforce=1",)), BootArguments("pool b")))
    plain = replace(PLAN, boot_arguments=(BootArguments("pool b"),))
    run = RunFacts("kernel", RULES, RUN.date)
    kept = renewed({}, [verdict(Conclusion.VERIFIED, plan=booted)], {PLAN.module: BASIS}, run)
    renamed = replace(booted, boot_arguments=(BootArguments("pool c", ("module.sig_enforce=1",)),))
    assert [recall(kept, of, BASIS, "kernel", RULES).proof is not None for of in (booted, renamed, plain, PLAN)] == [
        True,
        True,
        False,
        False,
    ]
