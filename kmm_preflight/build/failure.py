"""How a build ended badly, as a finding: whom its log blames, and which of its lines show why."""

from __future__ import annotations

import re
from dataclasses import replace

from kmm_preflight.build import findings
from kmm_preflight.build.dockerfile import HEREDOC
from kmm_preflight.model import Finding, Stage
from kmm_preflight.text import clean

LAST_LINES = 12
_ERRORS_ABOVE = 5
_LAST_WORD_HEAD, _LAST_WORD_TAIL = 120, 160
# What a builder says when it builder_failed, whatever it was told to build.
_NOT_ITS_FAULT = re.compile(
    r"creating build container|initializing source|pinging container registry|reading manifest|i/o timeout|"
    r"connection re(fused|set)|no space left on device|TLS handshake|no such host|too many requests|server error|"
    r"HTTP status: 5\d\d",
    re.IGNORECASE,
)
# A user without subordinate ids: some of his steps fail, others do not.
_NO_IDS = re.compile(
    r"no [UG]ID ranges set aside|no sub[ug]id ranges found|unknown userid|newuidmap|error setting supplemental groups"
)
_STEP_FAILED = 'building at STEP "RUN'
_STEP_NAMED = re.compile(r"STEP [\d\"]")
STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: .*", re.MULTILINE)
"""A step of a Dockerfile, as buildah announces it."""
_NO_ROOM = re.compile(r"no space left on device", re.IGNORECASE)
_NOT_AN_INSTRUCTION = re.compile(r'Unknown instruction|"/<<')
_ERROR = re.compile(r"\berror:|\bfatal\b|undefined!|No such file|not found|denied", re.IGNORECASE)


def failure_of(log: str, problem: str, stage: Stage) -> Finding:
    """Return the finding of a build that failed: of its own steps, or of the builder if the log blames the builder.

    A log says so by its last word, by a full disk in its last lines, or by a user without subordinate ids.
    """
    word = error_line(log)
    if _NOT_AN_INSTRUCTION.search(word) and _has_here_document(log):
        got = f"got a builder that knows no here-documents ({shortened(word)})"
        return builder_failed(log, f"{got}, expected buildah 1.33, podman 4.8 or later")
    blameless = _has_no_room(log) if _STEP_FAILED in word else _NOT_ITS_FAULT.search(word)
    blameless = blameless or _NO_IDS.search(log)
    return builder_failed(log, problem) if blameless else failed(log, problem, stage)


def failed(log: str, problem: str, stage: Stage) -> Finding:
    """The build or the signing was run, and its own steps failed: problem says where."""
    kind = findings.SIGN_FAILED if stage is Stage.SIGN else findings.BUILD_FAILED
    return replace(kind(problem=problem), lines=excerpt(log))


def timed_out(log: str, seconds: float) -> Finding:
    """The build was stopped at its deadline."""
    return replace(findings.BUILD_TIMEOUT(seconds=f"{seconds:.0f}"), lines=excerpt(log))


def builder_failed(log: str, problem: str) -> Finding:
    """The builder did not get to an end of the build, for reasons that are not the build's: undecided."""
    return replace(findings.BUILDER_FAILED(problem=problem), lines=excerpt(log))


def error_line(log: str) -> str:
    """The builder's own last word, which names the step; "" where it has none."""
    return next((line for line in reversed(_lines(log)) if line.lower().startswith("error")), "")


def shortened(word: str) -> str:
    """A last word for a sentence, safe to print: without its middle where it is long, since the reason is its end."""
    if len(word) <= _LAST_WORD_HEAD + _LAST_WORD_TAIL:
        return clean(word)
    return clean(f"{word[:_LAST_WORD_HEAD]} … {word[-_LAST_WORD_TAIL:]}")


def _has_here_document(log: str) -> bool:
    return any(STEP.match(line) and HEREDOC.search(line) for line in _lines(log))


def _has_no_room(log: str) -> bool:
    return any(_NO_ROOM.search(line) and not _STEP_NAMED.search(line) for line in _lines(log)[-LAST_LINES:])


def _lines(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if line.strip()]


def excerpt(log: str) -> tuple[str, ...]:
    """The last lines of a log, and before them lines above that look like the error itself; safe to print."""
    lines = [clean(line.rstrip()) for line in log.splitlines() if line.strip()]
    above, last = lines[:-LAST_LINES], lines[-LAST_LINES:]
    errors = [line for line in above if _ERROR.search(line)][:_ERRORS_ABOVE]
    return (*errors, *(("…",) if len(errors) < len(above) and above else ()), *last)
