"""Failure of a build as a finding: decide if the build or the builder failed, and select lines of the log."""

from __future__ import annotations

import re
from dataclasses import replace

from kmm_preflight.build import findings
from kmm_preflight.build.dockerfile import HEREDOC
from kmm_preflight.model import Finding, Stage
from kmm_preflight.text import clean

LAST_LINES = 12
_ERRORS_ABOVE = 5
_HEAD_CHARACTERS, _TAIL_CHARACTERS = 120, 160
# Errors of a builder that do not depend on the Dockerfile.
_BUILDER_ERROR = re.compile(
    r"creating build container|initializing source|pinging container registry|reading manifest|i/o timeout|"
    r"connection re(fused|set)|no space left on device|TLS handshake|no such host|too many requests|server error|"
    r"HTTP status: 5\d\d",
    re.IGNORECASE,
)
# Errors of a user without subordinate ids: some steps of a build fail, others do not.
_NO_IDS = re.compile(
    r"no [UG]ID ranges set aside|no sub[ug]id ranges found|unknown userid|newuidmap|error setting supplemental groups"
)
_STEP_FAILED = 'building at STEP "RUN'
_STEP_NAMED = re.compile(r"STEP [\d\"]")
STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: .*", re.MULTILINE)
"""Line that buildah prints before a step of a Dockerfile."""
_DISK_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_NOT_AN_INSTRUCTION = re.compile(r'Unknown instruction|"/<<')
_ERROR = re.compile(r"\berror:|\bfatal\b|undefined!|No such file|not found|denied", re.IGNORECASE)


def failure_of(log: str, problem: str, stage: Stage) -> Finding:
    """Return the finding of a build that failed. It is undecided if the log shows that the builder failed.

    The log shows that by the builder's last error, by a full disk in its last lines, or by missing subordinate ids.
    """
    error = error_line(log) or ""
    if _NOT_AN_INSTRUCTION.search(error) and _has_here_document(log):
        words = f"the builder does not support here-documents ({shortened(error)}); use buildah 1.33 or podman 4.8"
        return builder_failed(log, words)
    of_builder = _has_full_disk(log) if _STEP_FAILED in error else _BUILDER_ERROR.search(error)
    of_builder = of_builder or _NO_IDS.search(log)
    return builder_failed(log, problem) if of_builder else build_failed(log, problem, stage)


def build_failed(log: str, problem: str, stage: Stage) -> Finding:
    """Return the finding of a build or a signing whose own steps failed."""
    kind = findings.SIGN_FAILED if stage is Stage.SIGN else findings.BUILD_FAILED
    return replace(kind(problem=problem), lines=excerpt(log))


def timed_out(log: str, seconds: float) -> Finding:
    """Return the finding of a build that was stopped at its deadline."""
    return replace(findings.BUILD_TIMEOUT(seconds=f"{seconds:.0f}"), lines=excerpt(log))


def builder_failed(log: str, problem: str) -> Finding:
    """Return the finding of a builder that failed: it says nothing about the build, so it is undecided."""
    return replace(findings.BUILDER_FAILED(problem=problem), lines=excerpt(log))


def error_line(log: str) -> str | None:
    """Return the builder's last error, which names the step, or None."""
    return next((line for line in reversed(_lines(log)) if line.lower().startswith("error")), None)


def shortened(error: str) -> str:
    """Return an error for a sentence, safe to print. Leave out the middle of a long error: its end has the reason."""
    if len(error) <= _HEAD_CHARACTERS + _TAIL_CHARACTERS:
        return clean(error)
    return clean(f"{error[:_HEAD_CHARACTERS]} … {error[-_TAIL_CHARACTERS:]}")


def _has_here_document(log: str) -> bool:
    return any(STEP.match(line) and HEREDOC.search(line) for line in _lines(log))


def _has_full_disk(log: str) -> bool:
    return any(_DISK_FULL.search(line) and not _STEP_NAMED.search(line) for line in _lines(log)[-LAST_LINES:])


def _lines(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if line.strip()]


def excerpt(log: str) -> tuple[str, ...]:
    """Return the last lines of a log, with lines above them that look like errors, safe to print."""
    lines = [clean(line.rstrip()) for line in log.splitlines() if line.strip()]
    above, last = lines[:-LAST_LINES], lines[-LAST_LINES:]
    errors = [line for line in above if _ERROR.search(line)][:_ERRORS_ABOVE]
    return (*errors, *(("…",) if len(errors) < len(above) and above else ()), *last)
