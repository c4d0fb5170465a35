"""Record of verified Modules: an annotation of a preflight object, for the next run.

The record holds identities, versions, digests and dates. It holds no secret and no hash of a secret. Whoever may write
the object's metadata may write the record, so the record may be damaged, but it must never harm the reader.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
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
# Proofs that are kept for kernels of earlier runs: runs may judge flavours in turn, but old releases must not pile up.
_OTHER_KERNELS = 3
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
# Kubernetes limits all annotations of an object to 256 KiB. Other writers need a part of it.
_ANNOTATION_BYTES = 200 << 10


@dataclass(frozen=True)
class VerdictBasis:
    """Versions in the cluster that a verdict depends on."""

    uid: str | None
    """uid of the Module."""
    generation: int
    """Generation of the Module."""
    objects: tuple[tuple[str, str | None], ...] = ()
    """kind/name and resourceVersion of ConfigMaps and Secrets in the Module's namespace; None for an absent object."""


@dataclass(frozen=True)
class RecordedProof:
    """Proof that an image was verified for a kernel."""

    kernel: str
    """Kernel version."""
    arch: str
    """Architecture, in Go's spelling."""
    digest: str
    """Digest of the image."""
    depth: str
    """Depth of proof, in words."""
    rules: str
    """Digest of the code that judged."""
    date: str
    """Time of the run, in ISO 8601."""


@dataclass(frozen=True)
class RecordedModule:
    """Record of one Module."""

    basis: VerdictBasis
    """Versions that the proofs depend on."""
    proofs: tuple[RecordedProof, ...] = ()
    """Proofs by kernel; empty if no run has verified the Module."""


Record = Mapping[ModuleName, RecordedModule]


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run for the record."""

    depth: str
    """Depth of proof, in words."""
    rules: str
    """Digest of the code that judged."""
    date: str
    """End of the run, in ISO 8601."""
    gone: frozenset[ModuleName] = frozenset()
    """Modules to remove from the record."""


def basis_of(module: Module, cases: tuple[Case, ...], inventory: Inventory) -> VerdictBasis:
    """Return the versions that verdicts on the cases of a Module depend on."""
    namespace = module.name.namespace
    named = {(namespace, name) for case in cases for name in secrets_named(case)}
    named |= {secret.key for case in cases for secret in node_secrets(case, inventory)}
    versions = {f"secret/{key[1]}": _version(inventory.secrets.get(key)) for key in named}
    maps = {(namespace, name) for case in cases for name in config_maps_named(case)}
    versions |= {f"configmap/{key[1]}": _version(inventory.config_maps.get(key)) for key in maps}
    return VerdictBasis(module.uid, module.generation, tuple(sorted(versions.items())))


def secrets_named(case: Case) -> tuple[str, ...]:
    """Return the names of the Secrets in a case's build and sign sections."""
    if isinstance(case, Unresolved):
        return ()
    sign = (case.sign.key_secret, case.sign.cert_secret) if case.sign else ()
    build = case.build.secrets if case.build else ()
    return tuple(name for name in (*build, *sign) if name)


def config_maps_named(case: Case) -> tuple[str, ...]:
    """Return the name of the ConfigMap with a case's Dockerfile, if there is one."""
    name = case.build.dockerfile_config_map if isinstance(case, Plan) and case.build else None
    return (name,) if name else ()


def _version(manifest: Manifest | None) -> str | None:
    return Field(manifest)["metadata"]["resourceVersion"].optional_text() if manifest else None


def difference(before: VerdictBasis, now: VerdictBasis) -> str | None:
    """Return what has changed between two bases, in words; None if nothing has."""
    if before.uid != now.uid:
        return "the Module was deleted and created again"
    if before.generation != now.generation:
        return f"generation {now.generation} of the Module, not {before.generation}"
    changed = sorted({name for name, _ in set(before.objects) ^ set(now.objects)})
    return f"another version of {', '.join(changed)}" if changed else None


@dataclass(frozen=True)
class RecalledProof:
    """Result of looking for a proof in the record."""

    proof: RecordedProof | None = None
    """Proof that still counts."""
    problem: str | None = None
    """Reason why a recorded proof no longer counts; None if it counts, or if no proof is recorded."""


def recall(record: Record, case: Case, basis: VerdictBasis, depth: str, rules: str) -> RecalledProof:
    """Look for the proof of a case. It counts if it has this basis, depth of proof and digest of rules."""
    module = record.get(case.module)
    # The record has one proof for each kernel: that of the Module's own version.
    proof = _of_kernel(module.proofs, case.kernel) if module and case.version is None else None
    if module is None or proof is None:
        return RecalledProof()
    changed = difference(module.basis, basis)
    depth = _depth_on(case, depth)
    if not changed and proof.depth != depth:
        changed = f"depth of proof {proof.depth}, not {depth}"
    if not changed and proof.rules != rules:
        changed = f"rules {proof.rules}, not {rules}"
    if changed:
        return RecalledProof(problem=f"{changed}, since it was verified on {proof.date}")
    return RecalledProof(proof)


def _of_kernel(proofs: Iterable[RecordedProof], kernel: TargetKernel) -> RecordedProof | None:
    return next((proof for proof in proofs if (proof.kernel, proof.arch) == (kernel.version, kernel.arch)), None)


def renewed(
    record: Record, verdicts: Iterable[Verdict], bases: Mapping[ModuleName, VerdictBasis], run: RunFacts
) -> Record:
    """Return the record after a run: with its proofs and those that still count, without Modules that are gone."""
    by_module: dict[ModuleName, list[Verdict]] = {}
    for verdict in verdicts:
        by_module.setdefault(verdict.case.module, []).append(verdict)
    judged = {
        name: _renewed_module(record.get(name), group, bases.get(name, VerdictBasis(None, 0)), run)
        for name, group in by_module.items()
    }
    return {name: module for name, module in {**record, **judged}.items() if name not in run.gone}


def _renewed_module(
    before: RecordedModule | None, verdicts: Iterable[Verdict], basis: VerdictBasis, run: RunFacts
) -> RecordedModule:
    valid = before.proofs if before and before.basis == basis else ()
    verdicts = [verdict for verdict in verdicts if verdict.case.version is None]
    kernels = {(verdict.case.kernel.version, verdict.case.kernel.arch) for verdict in verdicts}
    proofs = [proof for verdict in verdicts if (proof := _proof_after(verdict, valid, run))]
    others = [proof for proof in valid if (proof.kernel, proof.arch) not in kernels]
    newest = sorted(others, key=lambda proof: proof.date, reverse=True)[:_OTHER_KERNELS]
    return RecordedModule(basis, (*proofs, *newest))


def _proof_after(verdict: Verdict, valid: tuple[RecordedProof, ...], run: RunFacts) -> RecordedProof | None:
    """Return the proof after a verdict: a new one if it verifies, none if it refutes, else the one before."""
    kernel = verdict.case.kernel
    if verdict.conclusion is Conclusion.REFUTED:
        return None
    if verdict.conclusion is not Conclusion.VERIFIED or verdict.carried_over:
        return _of_kernel(valid, kernel)
    if not verdict.image or not verdict.image.stored or not verdict.image.digest:
        return None  # built and not pushed: the next run finds no image and builds again
    depth = _depth_on(verdict.case, run.depth)
    return RecordedProof(kernel.version, kernel.arch, verdict.image.digest, depth, run.rules, run.date)


def _depth_on(case: Case, depth: str) -> str:
    """Return the depth of proof on a kernel.

    If the proof used the kernel's files, add the images that they came from, and a digest of the boot arguments.
    """
    if depth.partition(";")[0] != Depth.KERNEL.value:
        return depth
    sources = " or ".join(name for name in (case.kernel.driver_toolkit, case.kernel.os_image) if name)
    return f"{depth}; by {sources or 'no driver toolkit'}{_boot_words(case)}"


def _boot_words(case: Case) -> str:
    """Return a digest of the boot arguments of a case's nodes, or nothing if all nodes boot without arguments."""
    boots = case.boot_arguments if isinstance(case, Plan) else ()
    sets = sorted((boot.arguments, boot.fips) for boot in boots if boot.arguments or boot.fips)
    return f"; boot arguments {hashlib.sha256(repr(sets).encode()).hexdigest()[:12]}" if sets else ""


def format_record(record: Record) -> str:
    """Return the text of the annotation. Raise BoundExceeded if it is too large."""
    modules = {
        str(name): [
            module.basis.uid or "",
            module.basis.generation,
            {name: version or "" for name, version in module.basis.objects},
            [_proof_values(proof) for proof in module.proofs],
        ]
        for name, module in sorted(record.items())
    }
    body = json.dumps({"format": _FORMAT, "modules": modules}, separators=(",", ":"))
    text = base64.b64encode(zlib.compress(body.encode(), 9)).decode()
    if len(text) > _ANNOTATION_BYTES:
        raise BoundExceeded(f"the record has {len(text)} bytes, at most {_ANNOTATION_BYTES} are allowed")
    return text


def parse_record(text: str) -> dict[ModuleName, RecordedModule]:
    """Return the record of an annotation. Raise Malformed, or BoundExceeded if it unpacks to too many bytes."""
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
    return {_name(key, modules): _module(modules[key]) for key in modules.mapping()}


def _name(key: str, modules: Field) -> ModuleName:
    namespace, slash, name = key.partition("/")
    if not slash:
        raise modules.refuse("names with their namespaces")
    return ModuleName(namespace, name)


def _module(field: Field) -> RecordedModule:
    uid, generation, objects, proofs = _exactly(field, 4)
    versions = tuple((name, version or None) for name, version in objects.text_pairs())
    basis = VerdictBasis(uid.optional_text(), generation.number(), versions)
    return RecordedModule(basis, tuple(_proof(proof) for proof in proofs))


def _proof(field: Field) -> RecordedProof:
    kernel, arch, digest, depth, rules, date = _exactly(field, 6)
    if not _DATE.fullmatch(date.text()):
        raise date.refuse("a date in UTC")
    parse_digest(digest.text())
    # Older records have a number of the rules. No digest is equal to such a number.
    judged_by = str(rules.number()) if isinstance(rules.value, int) else rules.text()
    return RecordedProof(kernel.text(), arch.text(), digest.text(), depth.text(), judged_by, date.text())


def _proof_values(proof: RecordedProof) -> list[str]:
    return [proof.kernel, proof.arch, proof.digest, proof.depth, proof.rules, proof.date]


def _exactly(field: Field, count: int) -> list[Field]:
    items = field.items()
    if len(items) != count:
        raise field.refuse(f"a list of {count}")
    return items
