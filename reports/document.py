"""preflight.json: the report as data. docs/report.md documents the fields. The name of the schema has its version."""

from __future__ import annotations

import json

from kmm_preflight.depth import ProofOptions
from kmm_preflight.model import Finding, ModuleName, NotJudged, StageResult, TargetKernel
from kmm_preflight.stages.report import SCHEMA, Report
from kmm_preflight.stages.verdict import Verdict
from kmm_preflight.text import clean


def to_json(report: Report) -> str:
    """Return the document as text, with keys in reading order."""
    body = {
        "schema": SCHEMA,
        "suite": report.version,
        "started": report.started.isoformat(timespec="seconds"),
        "finished": report.finished.isoformat(timespec="seconds"),
        "exitCode": report.exit_code,
        "sentence": report.sentence,
        "partial": report.partial,
        "proof": _proof(report.proof),
        "problem": _problem(report),
        "release": _release(report),
        "kernels": [_kernel(kernel) for kernel in report.kernels],
        "assumed": list(report.assumed),
        "kmmVersion": report.kmm_version,
        "answered": report.answered,
        "pushBuiltImage": report.push_built_image,
        "builder": report.builder,
        "modules": [_module(verdict) for verdict in report.verdicts],
        "listed": [{**_name(item.module), "reason": item.reason} for item in report.listed],
        "notJudged": [_not_judged(item) for item in report.not_judged],
    }
    return json.dumps(body, indent=2, ensure_ascii=True) + "\n"


def _proof(options: ProofOptions) -> dict[str, object]:
    return {
        "depth": options.depth.value,
        "assumeLoaded": sorted(options.assume_loaded),
        "requireSignature": options.require_signature,
        "kmmVersion": options.kmm_version,
        "trial": options.trial,
        "notChecked": list(options.not_checked),
    }


def _name(name: ModuleName) -> dict[str, object]:
    return {"kind": name.kind, "namespace": name.namespace, "name": name.name}


def _not_judged(item: NotJudged) -> dict[str, object]:
    return {"subject": clean(item.subject), "reason": clean(item.reason)}


def _problem(report: Report) -> dict[str, object] | None:
    if report.problem is None:
        return None
    finding = report.problem.finding
    return {"sentence": report.problem.sentence, "finding": _finding(finding) if finding else None}


def _release(report: Report) -> dict[str, object] | None:
    release = report.release
    if release is None:
        return {"reference": report.release_requested, "digest": None} if report.release_requested else None
    toolkits = [
        {"reference": toolkit.reference, "digest": toolkit.digest, "stream": toolkit.stream, "arch": toolkit.arch,
         "rhelVersion": toolkit.rhel_version}
        for toolkit in release.toolkits
    ]  # fmt: skip
    return {"reference": release.reference, "digest": release.digest, "version": release.version,
            "driverToolkits": toolkits}  # fmt: skip


def _kernel(kernel: TargetKernel) -> dict[str, object]:
    return {
        "version": kernel.version,
        "arch": kernel.arch,
        "stream": kernel.stream or "",
        "flavour": kernel.flavour.value,
        "driverToolkit": kernel.driver_toolkit or "",
        "provenance": kernel.provenance,
        "problem": kernel.problem.id if kernel.problem else None,
    }


def _module(verdict: Verdict) -> dict[str, object]:
    image = verdict.image
    return {
        **_name(verdict.case.module),
        "kernel": verdict.case.kernel.version,
        "version": verdict.case.version,
        "nodes": [clean(words) for words in verdict.case.nodes],
        "verdict": verdict.conclusion.value,
        "carriedOver": verdict.carried_over,
        "stage": verdict.stage.value,
        "reason": verdict.reason,
        "image": {
            "reference": clean(verdict.case.image_name or ""),
            "digest": image.digest if image else None,
            "manifestDigest": image.manifest_digest if image else None,
            "readFrom": image.read_from if image else None,
            "stored": image.stored if image else None,
        },
        "findings": [_finding(finding) for finding in verdict.findings],
        "stages": [_stage(result) for result in verdict.results],
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "sentence": finding.sentence,
        "lines": list(finding.lines),
        "remedy": finding.remedy,
    }


def _stage(result: StageResult) -> dict[str, object]:
    return {
        "stage": result.stage.value,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "log": result.log,
    }
