"""What runs of this suite answered and verified for a PreflightValidationOCP: an annotation of it, for the next run.

It holds identities, versions, digests and dates: no secret, and no hash of one. Whoever may write the object's metadata
may write the record too, as he may change a Module; what is in it is taken as damaged, never as harmless.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.cluster.credentials import node_secrets
from kmm_preflight.cluster.inventory import Inventory
from kmm_preflight.depth import Depth
from kmm_preflight.errors import BoundExceeded, Malformed
from kmm_preflight.model import Manifest, ModuleName, TargetKernel
from kmm_preflight.oci.reference import parse_digest
from kmm_preflight.planning.module import Module
from kmm_preflight.planning.plan import Case, Plan, Unresolved
from kmm_preflight.stages.verdict import Conclusion, Verdict

ANNOTATION = "kmm-preflight/record"
_FORMAT = 1
_TEXT_BYTES = 8 << 20
# Of kernels that the last run did not ask for: flavours may be verified in turn, but old releases may not pile up.
_OTHER_KERNELS = 3
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
# All annotations of an object together may have 256 KiB (Kubernetes), and others have theirs.
_ANNOTATION_BYTES = 200 << 10


@dataclass(frozen=True)
class VerdictBasis:
    """What a verdict rests on in the cluster: the Module's identity and generation, and what serves it.

    objects are resourceVersions by kind/name in the Module's namespace, "" for one that is not there.
    """

    uid: str
    generation: int
    objects: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RecordedProof:
    """An image that was verified for a kernel: depth of proof, digest of the judging code, and date (ISO 8601)."""

    kernel: str
    arch: str
    digest: str
    depth: str
    rules: str
    date: str


@dataclass(frozen=True)
class RecordedModule:
    """A Module that the object's status tells of; without proofs when no run has verified it."""

    basis: VerdictBasis
    proofs: tuple[RecordedProof, ...] = ()


Record = Mapping[ModuleName, RecordedModule]


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run for the record: depth of proof, rules, end (ISO 8601), and the Modules that are gone.

    rules is the digest of the code that judged (rules_digest.py).
    """

    depth: str
    rules: str
    date: str
    gone: frozenset[ModuleName] = frozenset()


def basis_of(module: Module, cases: tuple[Case, ...], inventory: Inventory) -> VerdictBasis:
    """What the verdicts on the plans of one Module rest on."""
    namespace = module.name.namespace
    named = {(namespace, name) for case in cases for name in secrets_named(case)}
    named |= {one.key for case in cases for one in node_secrets(case, inventory)}
    versions = {f"secret/{key[1]}": _version(inventory.secrets.get(key)) for key in named}
    maps = {(namespace, name) for case in cases for name in config_maps_named(case)}
    versions |= {f"configmap/{key[1]}": _version(inventory.config_maps.get(key)) for key in maps}
    return VerdictBasis(module.uid or "", module.generation, tuple(sorted(versions.items())))


def secrets_named(case: Case) -> tuple[str, ...]:
    """The Secrets that the plan's build and sign sections name."""
    if isinstance(case, Unresolved):
        return ()
    sign = (case.sign.key_secret, case.sign.cert_secret) if case.sign else ()
    build = case.build.secrets if case.build else ()
    return tuple(name for name in (*build, *sign) if name)


def config_maps_named(case: Case) -> tuple[str, ...]:
    """The ConfigMap of the plan's Dockerfile."""
    name = case.build.dockerfile_config_map if isinstance(case, Plan) and case.build else None
    return (name,) if name else ()


def _version(manifest: Manifest | None) -> str:
    return Field(manifest)["metadata"]["resourceVersion"].text() if manifest else ""


def difference(known: VerdictBasis, now: VerdictBasis) -> str:
    """What has changed between two bases, in words; "" when nothing has."""
    if known.uid != now.uid:
        return "a Module made anew under the same name"
    if known.generation != now.generation:
        return f"generation {now.generation} of the Module, not {known.generation}"
    changed = sorted({name for name, _ in set(known.objects) ^ set(now.objects)})
    return f"another version of {', '.join(changed)}" if changed else ""


@dataclass(frozen=True)
class Recall:
    """What the record has of a case: proof stands for a new one, or else why says what speaks against it.

    why is "" where the record has nothing of this Module and kernel.
    """

    proof: RecordedProof | None = None
    why: str = ""


def recall(record: Record, case: Case, basis: VerdictBasis, depth: str, rules: str) -> Recall:
    """Return the proof of a plan in the record, if it has this basis, depth of proof and digest of rules."""
    known = record.get(case.module)
    proofs = known.proofs if known else ()
    proof = _of_kernel(proofs, case.kernel)
    if known is None or proof is None:
        return Recall()
    changed = difference(known.basis, basis)
    if not changed and proof.depth != _on(case.kernel, depth):
        changed = f"depth of proof {proof.depth}, not {_on(case.kernel, depth)}"
    if not changed and proof.rules != rules:
        changed = f"rules {proof.rules}, not {rules}"
    return Recall(why=f"{changed}, since it was verified on {proof.date}") if changed else Recall(proof)


def _of_kernel(proofs: Iterable[RecordedProof], kernel: TargetKernel) -> RecordedProof | None:
    return next((one for one in proofs if (one.kernel, one.arch) == (kernel.version, kernel.arch)), None)


def renewed(
    record: Record, verdicts: Iterable[Verdict], bases: Mapping[ModuleName, VerdictBasis], ran: RunFacts
) -> Record:
    """The record after a run: what it verified, what still stands of before, and without what is gone."""
    by_module: dict[ModuleName, list[Verdict]] = {}
    for verdict in verdicts:
        by_module.setdefault(verdict.case.module, []).append(verdict)
    made = {
        name: _renewed(record.get(name), group, bases.get(name, VerdictBasis("", 0)), ran)
        for name, group in by_module.items()
    }
    return {name: one for name, one in {**record, **made}.items() if name not in ran.gone}


def _renewed(
    known: RecordedModule | None, verdicts: Iterable[Verdict], basis: VerdictBasis, ran: RunFacts
) -> RecordedModule:
    stands = known.proofs if known and known.basis == basis else ()
    drawn = list(verdicts)
    kernels = {(one.case.kernel.version, one.case.kernel.arch) for one in drawn}
    proofs = [proof for verdict in drawn if (proof := _proof_of(verdict, stands, ran))]
    others = [proof for proof in stands if (proof.kernel, proof.arch) not in kernels]
    return RecordedModule(basis, (*proofs, *sorted(others, key=lambda one: one.date, reverse=True)[:_OTHER_KERNELS]))


def _proof_of(verdict: Verdict, stands: tuple[RecordedProof, ...], ran: RunFacts) -> RecordedProof | None:
    """The proof that stands after a verdict: a new one, or that of before unless the verdict speaks against it."""
    kernel = verdict.case.kernel
    before = _of_kernel(stands, kernel)
    if verdict.conclusion is Conclusion.REFUTED:
        return None
    if verdict.conclusion is not Conclusion.VERIFIED or verdict.carried_over:
        return before
    # What was made and not pushed is nowhere: the next run finds no image again, and makes it again.
    digest = verdict.image.digest if verdict.image and verdict.image.stored else ""
    depth = _on(kernel, ran.depth)
    return RecordedProof(kernel.version, kernel.arch, digest, depth, ran.rules, ran.date) if digest else None


def _on(kernel: TargetKernel, depth: str) -> str:
    """The depth of proof with what the kernel was known by, where that was looked at."""
    deep = depth.partition(";")[0] == Depth.KERNEL.value
    known_by = " or ".join(name for name in (kernel.driver_toolkit, kernel.os_image) if name)
    return f"{depth}; by {known_by or 'no driver toolkit'}" if deep else depth


def format_record(record: Record) -> str:
    """The annotation's text. BoundExceeded when it does not fit."""
    modules = {
        str(name): [
            one.basis.uid,
            one.basis.generation,
            dict(one.basis.objects),
            [_proof_values(p) for p in one.proofs],
        ]
        for name, one in sorted(record.items())
    }
    body = json.dumps({"format": _FORMAT, "modules": modules}, separators=(",", ":"))
    text = base64.b64encode(zlib.compress(body.encode(), 9)).decode()
    if len(text) > _ANNOTATION_BYTES:
        raise BoundExceeded(f"the record: got {len(text)} bytes, expected at most {_ANNOTATION_BYTES}")
    return text


def parse_record(text: str) -> dict[ModuleName, RecordedModule]:
    """The record of an annotation. Malformed when it is none of ours, BoundExceeded when it unpacks to too much."""
    try:
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(base64.b64decode(text, validate=True), _TEXT_BYTES)
        if unpacker.unconsumed_tail:
            raise BoundExceeded(f"the record unpacks to more than {_TEXT_BYTES} bytes")
        if not unpacker.eof:
            raise Malformed("the record is cut off")
        document = Field(json.loads(body))
    except (binascii.Error, zlib.error, ValueError, RecursionError) as exc:
        raise Malformed("the record cannot be read") from exc
    if document["format"].number() != _FORMAT:
        raise document["format"].refuse(f"format {_FORMAT}")
    modules = document["modules"]
    return {_name(key, modules): _answered(modules[key]) for key in modules.mapping()}


def _name(key: str, modules: Field) -> ModuleName:
    namespace, slash, name = key.partition("/")
    if not slash:
        raise modules.refuse("names with their namespaces")
    return ModuleName(namespace, name)


def _answered(field: Field) -> RecordedModule:
    uid, generation, objects, proofs = _exactly(field, 4)
    basis = VerdictBasis(uid.text(), generation.number(), objects.text_pairs())
    return RecordedModule(basis, tuple(_proof(proof) for proof in proofs))


def _proof(field: Field) -> RecordedProof:
    kernel, arch, digest, depth, rules, date = _exactly(field, 6)
    if not _DATE.fullmatch(date.text()):
        raise date.refuse("a date in UTC")
    parse_digest(digest.text())
    # Records of the first format number their rules; no digest is equal to such a number.
    judged_by = str(rules.number()) if isinstance(rules.value, int) else rules.text()
    return RecordedProof(kernel.text(), arch.text(), digest.text(), depth.text(), judged_by, date.text())


def _proof_values(proof: RecordedProof) -> list[str]:
    return [proof.kernel, proof.arch, proof.digest, proof.depth, proof.rules, proof.date]


def _exactly(field: Field, count: int) -> list[Field]:
    items = field.items()
    if len(items) != count:
        raise field.refuse(f"a list of {count}")
    return items
