"""The run's facts as labels and words, the same in every output."""

from __future__ import annotations

from kmm_preflight.model import TargetKernel
from kmm_preflight.stages.report import Report
from kmm_preflight.stages.verdict import Verdict
from kmm_preflight.text import clean


def facts(report: Report) -> list[tuple[str, str]]:
    """Label and words of each fact, in reading order; safe to print, not escaped for markup."""
    told = [("suite", f"kmm-preflight {report.version}")]
    if report.release:
        told.append(("release", f"{report.release.version} ({report.release.reference}, {report.release.digest})"))
        told += [
            ("driver toolkit", f"{one.stream} {one.arch}: {one.reference} ({one.digest})")
            for one in report.release.toolkits
        ]
    elif report.release_requested:
        told.append(("release", f"{report.release_requested} (not read)"))
    told += [("target kernel", kernel_words(kernel)) for kernel in report.kernels]
    if report.builder:
        told.append(("builder", report.builder))
    told += [("assumed", words) for words in report.assumed]
    told += [("listed, no case", f"{one.module}: {one.reason}") for one in report.not_judged]
    if report.answered:
        told.append(("answered", report.answered))
    told.append(("proof", f"depth {report.proof.words}; not checked: {'; '.join(report.proof.not_checked)}"))
    told.append(("started", f"{report.started:%Y-%m-%d %H:%M:%S} UTC"))
    told.append(("seconds", f"{(report.finished - report.started).total_seconds():.1f}"))
    return [(label, clean(words)) for label, words in told]


def kernel_words(kernel: TargetKernel) -> str:
    """A target kernel with its architecture, stream, flavour and provenance."""
    stream = f", {kernel.stream}" if kernel.stream else ""
    return f"{kernel.version} ({kernel.arch}{stream}, {kernel.flavour.value}): {kernel.provenance}"


def finding_ids(verdict: Verdict) -> str:
    """The ids of a verdict's findings, in the order of the stages."""
    return ", ".join(dict.fromkeys(finding.id for finding in verdict.findings))


def remedies(verdict: Verdict) -> list[str]:
    """What to do, once each."""
    return list(dict.fromkeys(finding.remedy for finding in verdict.open_findings))
