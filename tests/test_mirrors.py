"""Mirrors as nodes apply them, a row for each rule (docs/reference/openshift.md 5.1), and registry settings."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.errors import (
    AccessDenied,
    AccessUndecided,
    Blocked,
    Malformed,
    NotFound,
    PreflightError,
    Unreachable,
    UsageProblem,
)
from kmm_preflight.model import VERIFIED_HTTPS, RegistryTLS
from kmm_preflight.oci.mirrors import KINDS, Mirrors, PullSource, merged, parse_mirrors
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.registries import Registries, parse_registries
from kmm_preflight.oci.resolver import combined_error

from .real.authority import Authority

DIGEST = "@sha256:" + "0a" * 32
IDMS, ITMS, ICSP = KINDS
Set = tuple[str, str, list[str]]


def mirror_set(
    kind: str, *entries: tuple[str, Sequence[str]], name: str = "set", never: bool = False
) -> dict[str, Any]:
    """Return an IDMS, ITMS or ICSP manifest."""
    policy = {"mirrorSourcePolicy": "NeverContactSource"} if never else {}
    body = [{"source": source, "mirrors": list(mirrors), **policy} for source, mirrors in entries]
    group = "operator.openshift.io/v1alpha1" if kind == ICSP else "config.openshift.io/v1"
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": {KINDS[kind][0]: body}}


def mirrors_of(*manifests: Mapping[str, Any]) -> Mirrors:
    """Return all rules of the objects."""
    return Mirrors(tuple(rule for manifest in manifests for rule in parse_mirrors(manifest)))


# Sets as "KIND source > mirror mirror", with a ! after the kind for NeverContactSource; then a name, then its pull
# sources. % means a digest.
ROWS = """
                                            | q.io/a/b:t           | q.io/a/b:t
                                            | q.io/a/b%            | q.io/a/b%
D q.io/a > m.io/x                           | q.io/a/b%            | m.io/x/b% q.io/a/b%
D q.io/a > m.io/x                           | q.io/a%              | m.io/x% q.io/a%
D q.io/a/b > m.io/x                         | q.io/a/b%            | m.io/x% q.io/a/b%
D q.io > m.io                               | q.io/a/b%            | m.io/a/b% q.io/a/b%
D q.io > m.io/x                             | q.io/a/b%            | m.io/x/a/b% q.io/a/b%
D q.io/a > m.io/x                           | q.io/ab%             | q.io/ab%
D q.io/a > m.io/x                           | q.io/b/a%            | q.io/b/a%
D q.io/a > m.io/x                           | r.io/a/b%            | r.io/a/b%
D q.io > m.io                               | q.io:5000/a%         | m.io:5000/a% q.io:5000/a%
D q.io:5000 > m.io                          | q.io:5000/a%         | m.io/a% q.io:5000/a%
D q.io:5000 > m.io                          | q.io/a%              | q.io/a%
D q.io > m.io:8443/x                        | q.io/a%              | m.io:8443/x/a% q.io/a%
D q.io > m.io n.io                          | q.io/a%              | m.io/a% n.io/a% q.io/a%
D q.io > m.io m.io                          | q.io/a%              | m.io/a% q.io/a%
D q.io > m.io                               | q.io/a:t             | q.io/a:t
T q.io > m.io                               | q.io/a:t             | m.io/a:t q.io/a:t
T q.io > m.io                               | q.io/a               | m.io/a:latest q.io/a:latest
T q.io > m.io                               | q.io/a%              | q.io/a%
C q.io > m.io                               | q.io/a%              | m.io/a% q.io/a%
C q.io > m.io                               | q.io/a:t             | q.io/a:t
D q.io > m.io                               | q.io/a:t%            | m.io/a:t% q.io/a:t%
T q.io > m.io                               | q.io/a:t%            | q.io/a:t%
D q.io > m.io; T q.io > n.io                | q.io/a%              | m.io/a% q.io/a%
D q.io > m.io; T q.io > n.io                | q.io/a:t             | n.io/a:t q.io/a:t
D q.io > m.io; D q.io/a > n.io/a            | q.io/a/b%            | n.io/a/b% q.io/a/b%
D q.io/a > n.io/a; D q.io > m.io            | q.io/a/b%            | n.io/a/b% q.io/a/b%
D q.io > m.io; D q.io/a > n.io/a            | q.io/c%              | m.io/c% q.io/c%
D q.io > m.io; T q.io/a > n.io/a            | q.io/a/b%            | q.io/a/b%
D q.io > m.io; D q.io > n.io                | q.io/a%              | m.io/a% n.io/a% q.io/a%
D q.io > m.io; C q.io > n.io                | q.io/a%              | m.io/a% n.io/a% q.io/a%
D q.io > b.io c.io; D q.io > a.io b.io      | q.io/a%              | a.io/a% b.io/a% c.io/a% q.io/a%
D q.io > a.io b.io; D q.io > b.io a.io      | q.io/a%              | a.io/a% b.io/a% q.io/a%
D q.io > q.io m.io                          | q.io/a%              | q.io/a% m.io/a%
D q.io > m.io q.io n.io                     | q.io/a%              | m.io/a% q.io/a% n.io/a%
D q.io > q.io                               | q.io/a%              | q.io/a%
D! q.io > q.io                              | q.io/a%              | q.io/a%
D! q.io >                                   | q.io/a%              | q.io/a%
D q.io/a > ; D q.io > m.io                  | q.io/a/b%            | m.io/a/b% q.io/a/b%
D! q.io > m.io                              | q.io/a%              | m.io/a%
D! q.io > m.io                              | q.io/a:t             |
T! q.io > m.io                              | q.io/a:t             | m.io/a:t
T! q.io > m.io                              | q.io/a%              |
D! q.io > m.io; T q.io > n.io               | q.io/a:t             | n.io/a:t
D! q.io > m.io; D q.io/a > n.io/a           | q.io/a/b%            | n.io/a/b% q.io/a/b%
D! q.io/a > m.io/a; D q.io > n.io           | q.io/b%              | n.io/b% q.io/b%
C! q.io > m.io                              | q.io/a%              | m.io/a% q.io/a%
D! q.io > q.io m.io                         | q.io/a%              | m.io/a%
D *.q.io > m.io                             | a.q.io/b%            | m.io/b% a.q.io/b%
D *.q.io > m.io/x                           | a.b.q.io/c/d%        | m.io/x/c/d% a.b.q.io/c/d%
D *.q.io > m.io                             | q.io/b%              | q.io/b%
D *.q.io > m.io                             | aq.io/b%             | aq.io/b%
D *.q.io > m.io                             | a.q.io.org/b%        | a.q.io.org/b%
D *.q.io > m.io                             | a.q.io:5000/b%       | m.io:5000/b% a.q.io:5000/b%
D *.q.io > m.io; D a.q.io > n.io            | a.q.io/b%            | n.io/b% a.q.io/b%
D *.q.io > m.io; D *.a.q.io > n.io          | b.a.q.io/c%          | n.io/c% b.a.q.io/c%
D! *.q.io > m.io                            | a.q.io/b:t           |
D docker.io > m.io                          | busybox%             | m.io/library/busybox% docker.io/library/busybox%
D docker.io/library > m.io/hub              | busybox%             | m.io/hub/busybox% docker.io/library/busybox%
D docker.io/library/busybox > m.io/bb       | docker.io/busybox%   | m.io/bb% docker.io/library/busybox%
D docker.io/busybox > m.io/bb               | busybox%             | docker.io/library/busybox%
D docker.io > m.io                          | index.docker.io/a/b% | m.io/a/b% docker.io/a/b%
D q.io > localhost:5000/x                   | q.io/a%              | localhost:5000/x/a% q.io/a%
D q.io/a/ > m.io/x/                         | q.io/a/b%            | m.io/x/b% q.io/a/b%
"""
_KIND = {"D": IDMS, "T": ITMS, "C": ICSP}


def _rows() -> list[tuple[str, str, str]]:
    rows = [line.split("|") for line in ROWS.strip("\n").splitlines()]
    return [(sets.strip(), name.strip(), sources.strip()) for sets, name, sources in rows]


def _parse_set(text: str) -> dict[str, Any]:
    head, _, mirrors = text.partition(">")
    kind, source = head.split()
    return mirror_set(_KIND[kind[0]], (source, mirrors.split()), never=kind.endswith("!"))


def _reference(text: str) -> Reference:
    return Reference.parse(text.replace("%", DIGEST))


@pytest.mark.parametrize(("sets", "name", "expected"), _rows())
def test_pull_sources(sets: str, name: str, expected: str) -> None:
    mirrors = mirrors_of(*(_parse_set(text) for text in sets.split(";") if text.strip()))
    reference = _reference(name)
    sources = mirrors.pull_sources(reference)
    assert [str(source.reference).replace(DIGEST, "%") for source in sources] == expected.split()
    assert [source.reference for source in sources if not source.mirror] in ([], [reference])


def test_enough_rows() -> None:
    assert len(_rows()) > 40


@pytest.mark.parametrize(
    ("mirror", "name"), [("m.io", "q.io/a/b"), ("mirror/x", "q.io/a/b"), ("m.io/UPPER", "q.io/a/b")]
)
def test_mirror_that_makes_an_invalid_name(mirror: str, name: str) -> None:
    with pytest.raises(Blocked, match=r"its mirror|got mirror"):
        mirrors_of(mirror_set(IDMS, ("q.io/a/b", [mirror]))).pull_sources(_reference(f"{name}%"))


@pytest.mark.parametrize(
    ("lists", "out"),
    [
        ([], ""),
        (["abc"], "abc"),
        (["ab", "bc"], "abc"),
        (["bc", "ab"], "abc"),
        (["ad", "bd", "cd"], "abcd"),
        (["ac", "b"], "acb"),
        (["ab", "ba"], "ab"),
        (["abc", "acb"], "abc"),
        (["abc", "cab"], "abc"),
        (["aa"], "a"),
    ],
)
def test_merged(lists: list[str], out: str) -> None:
    assert "".join(merged(tuple(names) for names in lists)) == out


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"mirrors": ["m.io"]}, "spec.imageDigestMirrors[0].source: missing"),
        ({"source": "*", "mirrors": ["m.io"]}, "source: got text '*'"),
        ({"source": "*.q.io/a", "mirrors": ["m.io"]}, "source: got text"),
        ({"source": "a.*.io", "mirrors": ["m.io"]}, "source: got text"),
        ({"source": "/a", "mirrors": ["m.io"]}, "source: got text"),
        ({"source": "q.io", "mirrors": ["*.m.io"]}, "mirrors[0]: got text"),
        ({"source": "q.io", "mirrors": "m.io"}, "mirrors: got text 'm.io', expected a list"),
        ({"source": "q.io", "mirrors": ["m.io"], "mirrorSourcePolicy": 5}, "mirrorSourcePolicy: got number 5"),
    ],
)
def test_invalid_mirror_set(entry: Mapping[str, object], words: str) -> None:
    manifest = {"kind": IDMS, "metadata": {"name": "bad"}, "spec": {"imageDigestMirrors": [entry]}}
    with pytest.raises(Malformed) as caught:
        parse_mirrors(manifest)
    assert words in caught.value.message
    with pytest.raises(UsageProblem, match=r"ImageDigestMirrorSet bad: spec\.imageDigestMirrors"):
        parse_registries([manifest], None, {})


@pytest.mark.parametrize(
    ("manifests", "contradict"),
    [
        ([mirror_set(IDMS, ("q.io", ["m.io"]))], False),
        ([mirror_set(IDMS, ("q.io", ["m.io"]), never=True)], False),
        ([mirror_set(IDMS, ("q.io", ["m.io"]), never=True), mirror_set(ITMS, ("q.io", ["m.io"]), never=True)], False),
        ([mirror_set(IDMS, ("q.io", ["m.io"]), never=True), mirror_set(ITMS, ("q.io", ["m.io"]))], True),
        ([mirror_set(IDMS, ("q.io", ["m.io"]), never=True), mirror_set(ICSP, ("q.io", ["m.io"]))], True),
        ([mirror_set(IDMS, ("q.io", ["q.io", "m.io"]), never=True)], True),
        ([mirror_set(IDMS, ("q.io", ["m.io"]), never=True), mirror_set(IDMS, ("q.io/a", ["m.io"]))], False),
    ],
)
def test_contradictions(manifests: list[dict[str, Any]], contradict: bool) -> None:
    assert bool(mirrors_of(*manifests).contradictions()) is contradict


def _registries(mirrors: Mirrors | None = None, **sources: list[str]) -> Registries:
    parsed = parse_registries((), {"kind": "Image", "spec": {"registrySources": sources}}, {})
    return Registries(mirrors or Mirrors(), parsed.allowed, parsed.blocked, parsed.insecure)


@pytest.mark.parametrize(
    ("scope", "name", "inside"),
    [
        ("q.io", "q.io/a:t", True),
        ("q.io:5000", "q.io:5000/a", True),
        ("q.io/a", "q.io/a/b", True),
        ("q.io/a", "q.io/a:t", True),
        ("q.io/a", "q.io/a%", True),
        ("q.io/a", "q.io/ab", False),
        ("q.io/a:t", "q.io/a:t", True),
        ("q.io/a:t", "q.io/a:tt", False),
        ("*.q.io", "a.b.q.io/c", True),
        ("*.q.io", "a.q.io:5000/c", True),
        ("*.q.io", "q.io/c", False),
        ("docker.io/library", "busybox", True),
        ("127.0.0.1:5000", "127.0.0.1:5000/a", True),
    ],
)
def test_scopes(scope: str, name: str, inside: bool) -> None:
    reference = _reference(name)
    assert bool(_registries(blockedRegistries=[scope]).refusal(reference)) is inside
    assert bool(_registries(allowedRegistries=[scope]).refusal(reference)) is not inside
    tls = _registries(insecureRegistries=[scope]).tls(PullSource(reference, mirror=False), VERIFIED_HTTPS)
    assert tls == (RegistryTLS(True, True) if inside else VERIFIED_HTTPS)


def test_scope_without_a_port_blocks_every_port_and_allows_only_the_default() -> None:
    other_port = _reference("q.io:5000/a")
    assert _registries(blockedRegistries=["q.io"]).refusal(other_port)
    assert _registries(allowedRegistries=["q.io"]).refusal(other_port)
    assert _registries(allowedRegistries=["q.io", "q.io:5000"]).refusal(other_port) is None


def test_no_settings_refuse_nothing() -> None:
    assert Registries().refusal(_reference("q.io/a")) is None
    assert parse_registries((), {"kind": "Image", "spec": {}}, {}) == Registries()
    assert _registries(allowedRegistries=[]).refusal(_reference("q.io/a")) is None


def test_tls_settings_of_an_image_are_not_for_mirrors() -> None:
    own, place = RegistryTLS(insecure=True), _reference("m.io/a")
    assert Registries().tls(PullSource(place, mirror=False), own) == own
    assert Registries().tls(PullSource(place, mirror=True), own) == VERIFIED_HTTPS


REFUSED = "image m.io/a:latest: the mirror is in m.io, from which nodes do not pull"


@pytest.mark.parametrize(
    ("mirrors", "sources", "refusal"),
    [
        (Mirrors(), {}, None),
        (Mirrors(), {"blockedRegistries": ["m.io"]}, REFUSED),
        (mirrors_of(mirror_set(IDMS, ("m.io", ["n.io"]), never=True)), {}, REFUSED),
        (mirrors_of(mirror_set(IDMS, ("m.io", ["n.io"]))), {}, None),
        (
            mirrors_of(mirror_set(IDMS, ("m.io", ["n.io"]), never=True), mirror_set(IDMS, ("m.io/a", ["n.io/a"]))),
            {},
            None,
        ),
    ],
)
def test_mirror_refusal(mirrors: Mirrors, sources: dict[str, list[str]], refusal: str | None) -> None:
    registries, place = _registries(mirrors, **sources), _reference("m.io/a")
    assert registries.mirror_refusal(PullSource(place, mirror=True)) == refusal
    assert registries.mirror_refusal(PullSource(place, mirror=False)) is None


SOURCE, MIRROR, OTHER = (_reference(name) for name in ("q.io/a:t", "m.io/a:t", "n.io/a:t"))


@pytest.mark.parametrize(
    ("failures", "kind", "words"),
    [
        ([(SOURCE, NotFound("no"))], NotFound, "no"),
        ([(MIRROR, NotFound("m")), (SOURCE, NotFound("s"))], NotFound, "s; its mirrors failed too: m"),
        ([(MIRROR, Unreachable("m")), (SOURCE, NotFound("s"))], Unreachable, "s; its mirrors failed too: m"),
        ([(MIRROR, NotFound("m")), (SOURCE, Unreachable("s"))], Unreachable, "s; its mirrors failed too: m"),
        (
            [(MIRROR, AccessUndecided("m")), (SOURCE, AccessDenied("s"))],
            AccessUndecided,
            "s; its mirrors failed too: m",
        ),
        ([(SOURCE, AccessDenied("s")), (MIRROR, NotFound("m"))], AccessDenied, "s; its mirrors failed too: m"),
        (
            [(MIRROR, NotFound("m")), (OTHER, AccessDenied("n"))],
            AccessDenied,
            "n; its mirrors failed too: m; nodes never contact q.io/a itself (NeverContactSource)",
        ),
        ([(MIRROR, Blocked("m"))], Blocked, "m; nodes never contact q.io/a itself (NeverContactSource)"),
        (
            [],
            Blocked,
            "image q.io/a:t: its mirror set says NeverContactSource, and no mirror serves tags",
        ),
    ],
)
def test_error_of_several_sources(
    failures: list[tuple[Reference, PreflightError]], kind: type[PreflightError], words: str
) -> None:
    error = combined_error(SOURCE, [(PullSource(place, mirror=place != SOURCE), exc) for place, exc in failures])
    assert (type(error), error.message) == (kind, words)


def test_authorities(tmp_path: Path) -> None:
    pem = Authority(tmp_path).ca.read_text()
    encoded = base64.b64encode(pem.encode()).decode()
    config = {"kind": "Image", "spec": {"additionalTrustedCA": {"name": "cas"}}}
    config_map = {
        "data": {"a.io": pem, "b.io..5000": pem, "c.io": encoded, "bad.io": "no certificate", "worse.io": 5},
        "binaryData": {"d.io": encoded, "worst.io": "!"},
    }
    authorities = parse_registries((), config, {("openshift-config", "cas"): config_map}).authorities
    assert authorities == {"a.io": pem, "b.io:5000": pem, "c.io": pem, "d.io": pem}
    assert parse_registries((), config, {("other", "cas"): config_map}).authorities == {}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"registrySources": {"blockedRegistries": ["*"]}}, "Image cluster: spec.registrySources.blockedRegistries[0]"),
        ({"registrySources": {"allowedRegistries": "q.io"}}, "Image cluster: spec.registrySources.allowedRegistries"),
        ({"additionalTrustedCA": "cas"}, "Image cluster: spec.additionalTrustedCA: got text 'cas', expected a mapping"),
    ],
)
def test_invalid_image_config(spec: Mapping[str, object], words: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_registries((), {"kind": "Image", "metadata": {"name": "cluster"}, "spec": spec}, {})
    assert caught.value.message.startswith(words)
