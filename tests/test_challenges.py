"""Challenges of WWW-Authenticate headers, as parseValueAndParams of containers/image reads them."""

from __future__ import annotations

import pytest

from kmm_preflight.oci.auth_session import Challenge, parse_challenges

REALM = {"realm": "https://it/token"}
CASES: list[tuple[list[str], list[tuple[str, dict[str, str]]]]] = [
    ([], []),
    ([""], []),
    (['Bearer realm="https://it/token"'], [("bearer", REALM)]),
    (['BEARER Realm="https://it/token",SERVICE="it",'], [("bearer", REALM | {"service": "it"})]),
    (['Bearer  realm="https://it/token" , service="it"'], [("bearer", REALM | {"service": "it"})]),
    (['Bearer realm="https://it/token",service=""'], [("bearer", REALM)]),
    (['Bearer service="",realm="https://it/token"'], [("bearer", {})]),
    (["Bearer realm=https://it/token"], [("bearer", {"realm": "https"})]),
    (['Bearer realm ="https://it/token"'], [("bearer", {})]),
    (['Bearer realm="https://it/token'], [("bearer", {})]),
    (['Bearer realm="https://it/token",realm="two"'], [("bearer", {"realm": "two"})]),
    (['Bearer realm="https://it/token" service="it"'], [("bearer", REALM)]),
    (['Basic realm="a \\"b\\", c",charset=UTF-8'], [("basic", {"realm": 'a "b", c', "charset": "UTF-8"})]),
    (['Digest realm="x", Basic realm="y"'], [("digest", {"realm": "x"})]),
    (['Basic realm="y", Digest realm="x"'], [("basic", {"realm": "y"})]),
    (["Negotiate", 'Bearer realm="https://it/token"'], [("negotiate", {}), ("bearer", REALM)]),
    (["Negotiate abc=="], [("negotiate", {})]),
    (["Basic"], [("basic", {})]),
    (['=x, Basic realm="y"'], []),
]


@pytest.mark.parametrize(("headers", "want"), CASES)
def test_challenges(headers: list[str], want: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(*one) for one in want]


def test_a_long_header_is_parsed_in_linear_time() -> None:
    names = [f"a{number}" for number in range(20_000)]
    [challenge] = parse_challenges(["Bearer " + ",".join(f'{name}="{name}"' for name in names) + " " * 100_000])
    assert list(challenge.parameters) == names
