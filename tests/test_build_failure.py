"""Failures of builds: lines of the log in a finding, and whether the build or the builder failed."""

from __future__ import annotations

import pytest

from kmm_preflight.build.failure import LAST_LINES, build_failed, excerpt, failure_of, shortened
from kmm_preflight.model import Stage


def test_an_excerpt_has_the_last_lines_and_errors_above_them() -> None:
    log = "\n".join(["first", "x.c:3:1: error: no", *(f"line {number}" for number in range(LAST_LINES)), ""])
    assert excerpt(log) == ("x.c:3:1: error: no", "…", *(f"line {number}" for number in range(LAST_LINES)))


def test_an_excerpt_of_a_short_log_is_the_whole_log() -> None:
    assert excerpt("one\n\n  two  \n") == ("one", "  two")
    assert excerpt("") == ()


def test_lines_are_safe_to_print() -> None:
    assert excerpt("\x1b[31mred\x1b[0m ::error::x") == ("\\x1b[31mred\\x1b[0m : :error: :x",)
    assert build_failed("::stop::", "x", Stage.BUILD).lines == (": :stop::",)


STEP_FAILED = 'Error: building at STEP "RUN make": exit status 2'
PULL = "Error: creating build container: writing blob: processing tar file(write /x: no space left on device)"
OLD = 'STEP 3/6: RUN <<EOF\nSTEP 4/6: mkdir -p /opt\nError: building at STEP "MKDIR ": Unknown instruction: "MKDIR"'


@pytest.mark.parametrize(
    ("log", "stage", "id"),
    [
        ("", Stage.BUILD, "build-failed"),
        (f"x.c:1: error: y\n{STEP_FAILED}", Stage.BUILD, "build-failed"),
        (f"sign-file: key\n{STEP_FAILED}", Stage.SIGN, "sign-failed"),
        (PULL, Stage.BUILD, "builder-failed"),
        (f"Error: initializing source x\n{STEP_FAILED}", Stage.BUILD, "build-failed"),  # printed by a step
        (f"cc1: No space left on device\n{STEP_FAILED}", Stage.BUILD, "builder-failed"),
        ('STEP 2/2: RUN echo no space left on device\nError: building at STEP "RUN echo no space left on device"',
         Stage.BUILD, "build-failed"),
        ("Error: pushing image: received unexpected HTTP status: 503 Service Unavailable", Stage.BUILD,
         "builder-failed"),
        ('level=error msg="error determining current user: user: unknown userid 4242"', Stage.BUILD, "builder-failed"),
        (f'msg="Found no UID ranges set aside for user"\n{STEP_FAILED}', Stage.BUILD, "builder-failed"),
        (OLD, Stage.BUILD, "builder-failed"),
        ('STEP 2/2: COPY <<EOF /x\nError: building at STEP "COPY <<EOF /x": copier: stat: "/<<EOF": no such file',
         Stage.BUILD, "builder-failed"),
        ('STEP 1/2: FROM a\nError: building at STEP "FOO ": Unknown instruction: "FOO"', Stage.BUILD, "build-failed"),
    ],
)  # fmt: skip
def test_the_log_decides_if_the_build_or_the_builder_failed(log: str, stage: Stage, id: str) -> None:
    assert failure_of(log, "x", stage).id == id


@pytest.mark.parametrize(
    "line",
    [
        "wget: bad address 'a.example.com'",
        "curl: (6) Could not resolve host: a.example.com",
        "curl: (7) Failed to connect to a.example.com port 443 after 3 ms: Couldn't connect to server",
        "fatal: unable to access 'https://a/': Could not resolve host: a",
        "Errors during downloading metadata for repository 'b':\n  - Curl error (6): Couldn't resolve host name for https://a",
        "Temporary failure resolving 'deb.debian.org'",
        "wget: unable to resolve host address 'a'",
        "go: a/b@v1: Get https://a: dial tcp: lookup a on 10.0.0.1:53: no such host",
        "npm ERR! code EAI_AGAIN",
        "ssh: connect to host a port 22: Network is unreachable",
        "Failed to establish a new connection: [Errno -2] Name or service not known",
    ],
)
def test_a_step_without_network_is_undecided_on_this_machine_only(line: str) -> None:
    log = f"STEP 1/2: FROM a\nSTEP 2/2: RUN make\n{line}\n" + "more\n" * 2 * LAST_LINES + STEP_FAILED
    assert failure_of(log, "x", Stage.BUILD, on_this_machine=True).id == "build-no-network"
    assert failure_of(log, "x", Stage.BUILD).id == "build-failed"
    fixed = log.replace("STEP 2/2", "STEP 2/3") + "\nSTEP 3/3: RUN cc x.c\nx.c:1: error: y\n" + STEP_FAILED
    assert failure_of(fixed, "x", Stage.BUILD, on_this_machine=True).id == "build-failed"


@pytest.mark.parametrize(
    ("error", "id"),
    [
        ('"RUN --network=none make": RUN only supports the --mount flag', "builder-failed"),
        ('"ADD --checksum=sha256:a b c": ADD only supports the --chmod=<permissions> flag', "builder-failed"),
        ('"COPY --parents a b": COPY only supports the --chmod=<permissions> flags', "builder-failed"),
        ('"HEALTHCHECK --start-interval=1s CMD x": flag provided but not defined: -start-interval', "builder-failed"),
        ('"RUN --invented=1 make": RUN only supports the --mount flag', "build-failed"),
        ('"RUN make --network": exit status 2', "build-failed"),
    ],
)
def test_a_flag_of_later_builders_is_undecided(error: str, id: str) -> None:
    assert failure_of(f"Error: building at STEP {error}", "x", Stage.BUILD).id == id


def test_a_long_error_keeps_its_end() -> None:
    assert shortened("short") == "short"
    assert shortened("Error: " + "x" * 1000 + ": unauthorized").endswith("x: unauthorized")
    assert len(shortened("x" * 1000)) < 300
