"""Facts of a run as labels and words, for every output."""

from __future__ import annotations

from kmm_preflight.model import TargetKernel
from kmm_preflight.stages.report import Report
from kmm_preflight.stages.verdict import Verdict
from kmm_preflight.text import clean


def facts(report: Report) -> list[tuple[str, str]]:
    """Return label and words of each fact, in reading order. They are safe to print, but not escaped for HTML."""
    labelled = [("suite", f"kmm-preflight {report.version}")]
    if report.release:
        labelled.append(("release", f"{report.release.version} ({report.release.reference}, {report.release.digest})"))
        labelled += [
            ("driver toolkit", f"{toolkit.stream} {toolkit.arch}: {toolkit.reference} ({toolkit.digest})")
            for toolkit in report.release.toolkits
        ]
    elif report.release_requested:
        labelled.append(("release", f"{report.release_requested} (not read)"))
    labelled += [("target kernel", kernel_words(kernel)) for kernel in report.kernels]
    if report.builder:
        labelled.append(("builder", report.builder))
    labelled += [("assumed", words) for words in report.assumed]
    labelled += [("listed, no case", f"{item.module}: {item.reason}") for item in report.listed]
    labelled += [("not judged", f"{item.subject}: {item.reason}") for item in report.not_judged]
    if report.answered:
        labelled.append(("answered", report.answered))
    labelled.append(("proof", f"depth {report.proof.words}; not checked: {'; '.join(report.proof.not_checked)}"))
    labelled.append(("started", f"{report.started:%Y-%m-%d %H:%M:%S} UTC"))
    labelled.append(("seconds", f"{(report.finished - report.started).total_seconds():.1f}"))
    return [(label, clean(words)) for label, words in labelled]


def kernel_words(kernel: TargetKernel) -> str:
    """Return a target kernel with its architecture, stream, flavour and provenance, in words."""
    stream = f", {kernel.stream}" if kernel.stream else ""
    return f"{kernel.version} ({kernel.arch}{stream}, {kernel.flavour.value}): {kernel.provenance}"


def finding_ids(verdict: Verdict) -> str:
    """Return the ids of a verdict's findings, in the order of the stages."""
    return ", ".join(dict.fromkeys(finding.id for finding in verdict.findings))


def remedies(verdict: Verdict) -> list[str]:
    """Return the remedies of the open findings. Each remedy is listed once."""
    return list(dict.fromkeys(finding.remedy for finding in verdict.open_findings))
