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
# Flags of a Dockerfile that buildah 1.28 does not know, and later versions do.
_NEW_FLAG = re.compile(
    r"STEP .*--(?P<flag>network|checksum|link|parents|exclude|security|keep-git-dir|start-interval)\b.*"
    r"(only supports the|flag provided but not defined)"
)
# Words of git, curl, dnf, wget, apt, pip, go and npm, if a name or a server cannot be reached.
_NO_NETWORK = re.compile(
    r"could ?n[o']t resolve (host|proxy)|temporary failure (in name resolution|resolving)|name or service not known|"
    r"bad address '|unable to resolve host|network is unreachable|no route to host|failed to connect to|"
    r"could ?n[o']t connect to|connection timed out|curl: \((5|6|7|28)\)|curl error \((5|6|7|28)\)|"
    r"failed to establish a new connection|dial tcp: (lookup|i/o timeout)|dial tcp .*(i/o timeout|connection refused)|"
    r"getaddrinfo|EAI_AGAIN|ENOTFOUND|can't connect to remote host|unknown host",
    re.IGNORECASE,
)
_DISK_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_NOT_AN_INSTRUCTION = re.compile(r'Unknown instruction|"/<<')
_ERROR = re.compile(r"\berror:|\bfatal\b|undefined!|No such file|not found|denied", re.IGNORECASE)


def failure_of(log: str, problem: str, stage: Stage, on_this_machine: bool = False) -> Finding:
    """Return the finding of a build that failed. It is undecided if the log shows that the builder failed.

    The log shows that by the builder's last error, by a full disk in the last step, or by missing subordinate ids.
    If on_this_machine is true, a step without network, or with a flag that the builder does not know, is undecided too:
    the cluster may have another network and another builder.
    """
    error = error_line(log) or ""
    if too_old := _too_old(error, log):
        return builder_failed(log, f"the builder does not support {too_old} ({shortened(error)})")
    if _STEP_FAILED not in error:
        of_builder = _BUILDER_ERROR.search(error)
    else:
        of_builder = _line_of_last_step(_DISK_FULL, log)
        if on_this_machine and not of_builder and (line := _line_of_last_step(_NO_NETWORK, log)):
            return replace(findings.BUILD_NO_NETWORK(problem=shortened(line.string)), lines=excerpt(log))
    of_builder = of_builder or _NO_IDS.search(log)
    return builder_failed(log, problem) if of_builder else build_failed(log, problem, stage)


def _too_old(error: str, log: str) -> str | None:
    """Return the part of a Dockerfile that this version of the builder does not support, or None."""
    if _NOT_AN_INSTRUCTION.search(error) and _has_here_document(log):
        return "here-documents, which buildah 1.33 and podman 4.8 support"
    if hit := _NEW_FLAG.search(error):
        return f"the flag --{hit['flag']}, which a later version may support"
    return None


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


def _line_of_last_step(pattern: re.Pattern[str], log: str) -> re.Match[str] | None:
    """Return the first hit in the output of the last step. The lines that name the step do not count."""
    start = max((hit.start() for hit in STEP.finditer(log)), default=0)
    lines = (line for line in _lines(log[start:]) if not _STEP_NAMED.search(line))
    return next((hit for line in lines if (hit := pattern.search(line))), None)


def _lines(log: str) -> list[str]:
    return [line.strip() for line in log.splitlines() if line.strip()]


def excerpt(log: str) -> tuple[str, ...]:
    """Return the last lines of a log, with lines above them that look like errors, safe to print."""
    lines = [clean(line.rstrip()) for line in log.splitlines() if line.strip()]
    above, last = lines[:-LAST_LINES], lines[-LAST_LINES:]
    errors = [line for line in above if _ERROR.search(line)][:_ERRORS_ABOVE]
    return (*errors, *(("…",) if len(errors) < len(above) and above else ()), *last)
