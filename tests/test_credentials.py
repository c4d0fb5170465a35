"""Credentials of a pull by a node, by a build and for the release image: a row for each source."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kmm_preflight.cluster import findings
from kmm_preflight.cluster.credentials import (
    Credentials,
    builder_secrets,
    image_credentials,
    node_secrets,
    release_credentials,
)
from kmm_preflight.cluster.inventory import Inventory, Key
from kmm_preflight.errors import AccessDenied, Malformed
from kmm_preflight.model import Flavour, Manifest, ModuleName, TargetKernel
from kmm_preflight.oci.auth import Credential, Helper, Keychain, parse_auth_file, parse_pull_secret
from kmm_preflight.oci.credential_helper import run_credential_helper
from kmm_preflight.oci.credentials import PullCredentials, candidates
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


TYPE = "kubernetes.io/dockerconfigjson"


def _secret(user: str = "u") -> Manifest:
    body = json.dumps({"auths": {"quay.io": {"auth": _encoded(f"{user}:p")}}})
    return {"type": TYPE, "data": {".dockerconfigjson": _encoded(body)}}


def _keychain(source: str, user: str = "u") -> Keychain:
    return Keychain(source, {"quay.io": Credential(user, "p")}, kubelet=True)


PLAIN = Plan(
    ModuleName("ns", "m"), TargetKernel("k", "amd64", None, Flavour.STANDARD, None, ""), Reference.parse("quay.io/a/b")
)
PLAN = replace(PLAIN, secret="s")
FILE = parse_auth_file(json.dumps({"auths": {"quay.io": {"auth": _encoded("file:p")}}}), "the file")
STAND_IN = replace(FILE, stand_in=True)
SECRET, ELIDED, EMPTY = _secret(), {"data": {".dockerconfigjson": "1234 bytes long"}}, {"data": {"other": "eA=="}}
BROKEN: Manifest = {"type": TYPE, "data": {".dockerconfigjson": _encoded("no JSON")}}
OPAQUE, UNTYPED = {**SECRET, "type": "Opaque"}, {"data": SECRET["data"]}
OLD_TYPE = {**SECRET, "type": "kubernetes.io/dockercfg"}
NO_LOGINS = {"stringData": {".dockerconfigjson": '{"auths": {}}'}}
UNTYPED_BROKEN = {"data": BROKEN["data"]}
OWN = _keychain("imageRepoSecret ns/s")
GLOBAL_KEY = ("openshift-config", "pull-secret")
GLOBAL = _keychain("pull secret openshift-config/pull-secret", "g")
ACCOUNT: Mapping[Key, Manifest] = {("ns", "default"): {"imagePullSecrets": [{"name": "one"}, {"name": "two"}, {}]}}
ONE, TWO = (_keychain(f"imagePullSecret ns/{name} of ServiceAccount default", name) for name in ("one", "two"))
OF_ACCOUNT: Mapping[Key, Manifest] = {("ns", "one"): _secret("one"), ("ns", "two"): _secret("two")}
NODE: Mapping[Key, Manifest] = {GLOBAL_KEY: _secret("g")}


def _absent(used: str) -> Credentials:
    note = findings.MAPPING_SECRET_ABSENT(secret="s", used=used)
    return Credentials(PullCredentials((STAND_IN,), (STAND_IN,)), note=note, login_unknown=True)


def _stand_in(**more: Any) -> Credentials:
    return Credentials(PullCredentials((STAND_IN,), (STAND_IN,)), login_unknown=True, **more)


def _unused(problem: str, pull: PullCredentials, source: str = "imageRepoSecret ns/s") -> Credentials:
    return Credentials(pull, unused=(findings.PULL_SECRET_UNUSED(source=source, problem=problem),))


def _problem(problem: str) -> Credentials:
    return Credentials(problem=findings.CREDENTIALS_INVALID(problem=problem))


NO_LOGIN = "it has neither the key .dockerconfigjson nor .dockercfg"
NO_TYPE = "its type is Opaque, and a kubelet reads .dockerconfigjson of a Secret of type kubernetes.io/dockerconfigjson"
ONLY_MIRRORS = PullCredentials((), (STAND_IN,), mirrors_only=True)
BROKEN_WORDS = "not JSON, expected an auth.json"
NO_SECRET = "the cluster has no such Secret"
AS_NODE: dict[str, tuple[Plan, bool, Mapping[Key, Manifest], Mapping[Key, Manifest], Credentials]] = {
    "own": (
        PLAN,
        False,
        {("ns", "s"): SECRET},
        {},
        Credentials(PullCredentials((OWN,), (STAND_IN,), mirrors_only=True)),
    ),
    "own and the node's": (
        PLAN,
        False,
        {("ns", "s"): SECRET, **NODE},
        {},
        Credentials(PullCredentials((OWN,), (GLOBAL,))),
    ),
    "not given": (PLAN, False, {}, {}, _absent("the file")),
    "another namespace's": (PLAN, False, {("other", "s"): SECRET}, {}, _absent("the file")),
    "elided by must-gather": (PLAN, False, {("ns", "s"): ELIDED}, {}, _absent("the file")),
    "own without login": (PLAN, False, {("ns", "s"): EMPTY}, {}, _unused(NO_LOGIN, ONLY_MIRRORS)),
    "own opaque": (PLAN, False, {("ns", "s"): OPAQUE}, {}, _unused(NO_TYPE, ONLY_MIRRORS)),
    "own without a type": (PLAN, False, {("ns", "s"): UNTYPED}, {}, _unused(NO_TYPE, ONLY_MIRRORS)),
    "own of the other type": (
        PLAN,
        False,
        {("ns", "s"): OLD_TYPE},
        {},
        _unused(NO_TYPE.replace("Opaque", "kubernetes.io/dockercfg"), ONLY_MIRRORS),
    ),
    "own opaque and the node's": (
        PLAN,
        False,
        {("ns", "s"): OPAQUE, **NODE},
        {},
        _unused(NO_TYPE, PullCredentials((), (GLOBAL,))),
    ),
    "own without a type, broken": (
        PLAN,
        False,
        {("ns", "s"): UNTYPED_BROKEN},
        {},
        _problem(f"imageRepoSecret ns/s: {BROKEN_WORDS}"),
    ),
    "account's opaque": (
        PLAIN,
        False,
        {("ns", "one"): OPAQUE, ("ns", "two"): EMPTY},
        ACCOUNT,
        _unused(NO_TYPE, ONLY_MIRRORS, "imagePullSecret ns/one of ServiceAccount default"),
    ),
    "node's of any type": (
        PLAIN,
        False,
        {GLOBAL_KEY: {**NODE[GLOBAL_KEY], "type": "Opaque"}},
        {},
        Credentials(PullCredentials((STAND_IN,), (GLOBAL,))),
    ),
    "cluster: own opaque": (
        PLAN,
        True,
        {("ns", "s"): OPAQUE, **NODE},
        {},
        _unused(NO_TYPE, PullCredentials((), (GLOBAL,))),
    ),
    "own broken": (PLAN, False, {("ns", "s"): BROKEN}, {}, _problem(f"imageRepoSecret ns/s: {BROKEN_WORDS}")),
    "own, not the account's": (
        PLAN,
        False,
        {("ns", "s"): SECRET, **OF_ACCOUNT, **NODE},
        ACCOUNT,
        Credentials(PullCredentials((OWN,), (GLOBAL,))),
    ),
    "none": (PLAIN, False, {}, {}, _stand_in()),
    "none but the node's": (PLAIN, False, NODE, {}, Credentials(PullCredentials((STAND_IN,), (GLOBAL,)))),
    "account's": (
        PLAIN,
        False,
        OF_ACCOUNT,
        ACCOUNT,
        Credentials(PullCredentials((ONE, TWO), (STAND_IN,), mirrors_only=True)),
    ),
    "account's not given": (PLAIN, False, {}, ACCOUNT, _stand_in()),
    "node's elided": (PLAIN, False, {GLOBAL_KEY: ELIDED}, {}, _stand_in()),
    "node's broken": (
        PLAIN,
        False,
        {GLOBAL_KEY: BROKEN},
        {},
        _problem(f"pull secret openshift-config/pull-secret: {BROKEN_WORDS}"),
    ),
    "cluster: own": (PLAN, True, {("ns", "s"): SECRET, **NODE}, {}, Credentials(PullCredentials((OWN,), (GLOBAL,)))),
    "cluster: own missing": (PLAN, True, NODE, {}, _unused(NO_SECRET, PullCredentials((), (GLOBAL,)))),
    "cluster: none": (PLAIN, True, NODE, {}, Credentials(PullCredentials((), (GLOBAL,)))),
    "cluster: nothing at all": (PLAIN, True, {}, {}, Credentials()),
    "cluster: account's": (
        PLAIN,
        True,
        {**OF_ACCOUNT, **NODE},
        ACCOUNT,
        Credentials(PullCredentials((ONE, TWO), (GLOBAL,))),
    ),
    "cluster: one of the account's": (
        PLAIN,
        True,
        {("ns", "two"): OF_ACCOUNT["ns", "two"], ("ns", "one"): EMPTY},
        ACCOUNT,
        Credentials(PullCredentials((TWO,), ())),
    ),
    "cluster: account's broken": (
        PLAIN,
        True,
        {("ns", "one"): BROKEN},
        ACCOUNT,
        _problem(f"imagePullSecret ns/one of ServiceAccount default: {BROKEN_WORDS}"),
    ),
}


@pytest.mark.parametrize(("plan", "live", "secrets", "accounts", "want"), AS_NODE.values(), ids=AS_NODE)
def test_image_credentials(
    plan: Plan, live: bool, secrets: Mapping[Key, Manifest], accounts: Mapping[Key, Manifest], want: Credentials
) -> None:
    inventory = Inventory(secrets=secrets, service_accounts=accounts, live=live)
    assert image_credentials(plan, inventory, FILE) == replace(want, registry_tls=False)


@pytest.mark.parametrize(
    ("version", "obeys"), [(None, False), ("2.7", False), ("2.2", False), ("2.1", True), ("2.0", True)]
)
def test_registry_tls_is_for_kmm_s_own_client(version: str | None, obeys: bool) -> None:
    assert image_credentials(PLAIN, Inventory(), None, version).registry_tls is obeys


def test_settings_of_nodes_are_known_from_their_object() -> None:
    assert image_credentials(PLAIN, Inventory(image_config={}), None).trust_known
    assert not image_credentials(PLAIN, Inventory(live=True), None).trust_known


ACCOUNTS: dict[str, tuple[Plan, Mapping[Key, Manifest], str]] = {
    "the default": (PLAIN, {}, "default"),
    "the Module's": (replace(PLAIN, account="mine"), {}, "mine"),
    "the operator's namespace": (
        replace(PLAIN, module=ModuleName("openshift-kmm", "m")),
        {},
        "kmm-operator-module-loader",
    ),
    "a namespace with the operator's account": (
        PLAIN,
        {("ns", "kmm-operator-module-loader"): {}},
        "kmm-operator-module-loader",
    ),
    "the Module's in the operator's namespace": (
        replace(PLAIN, module=ModuleName("openshift-kmm", "m"), account="mine"),
        {},
        "mine",
    ),
}


@pytest.mark.parametrize(("plan", "accounts", "account"), ACCOUNTS.values(), ids=ACCOUNTS)
def test_account_of_the_pod(plan: Plan, accounts: Mapping[Key, Manifest], account: str) -> None:
    namespace = plan.module.namespace
    names = ("default", "mine", "kmm-operator-module-loader", "builder")
    every = {(namespace, name): {"imagePullSecrets": [{"name": f"of-{name}"}]} for name in names}
    given = {key: every[key] for key in every if key[1] == account or key[1] == "default"}
    inventory = Inventory(service_accounts={**given, **{key: every[key] for key in accounts}})
    assert [named.key for named in node_secrets(plan, inventory)] == [(namespace, f"of-{account}")]
    own = replace(plan, secret="s")
    assert [named.key for named in node_secrets(own, inventory)] == [(namespace, "s")]


def test_a_boot_time_image_is_pulled_with_the_login_of_the_node_alone() -> None:
    plan = replace(PLAIN, module=ModuleName("ns", "m", "BootModuleConfig"))
    inventory = Inventory(service_accounts=ACCOUNT, secrets={**OF_ACCOUNT, **NODE})
    assert image_credentials(plan, inventory, None).pull == PullCredentials((), (GLOBAL,))


def test_image_credentials_without_an_authfile() -> None:
    nothing = image_credentials(PLAIN, Inventory(), None)
    assert (nothing.pull, nothing.login_unknown) == (PullCredentials(), True)
    own = image_credentials(PLAN, Inventory(secrets={("ns", "s"): SECRET}), None)
    assert (own.pull, own.login_unknown) == (PullCredentials((OWN,)), False)
    node = image_credentials(PLAIN, Inventory(secrets=NODE), None)
    assert (node.pull, node.login_unknown) == (PullCredentials((), (GLOBAL,)), False)


BUILDERS: Mapping[Key, Manifest] = {
    **ACCOUNT,
    ("ns", "builder"): {"imagePullSecrets": [{"name": "push"}], "secrets": [{"name": "token"}]},
    ("other", "builder"): {"imagePullSecrets": [{"name": "theirs"}]},
}


@pytest.mark.parametrize(
    ("plan", "node", "builder"),
    [
        (PLAN, ["s"], ["s"]),
        (PLAIN, ["one", "two"], ["push", "token"]),
        (replace(PLAIN, module=ModuleName("other", "m")), [], ["theirs"]),
        (replace(PLAIN, module=ModuleName("none", "m")), [], []),
    ],
    ids=["own Secret", "accounts", "no default account", "no accounts"],
)
def test_secrets_of_node_and_builder(plan: Plan, node: list[str], builder: list[str]) -> None:
    inventory = Inventory(service_accounts=BUILDERS)
    namespace = plan.module.namespace
    assert [named.key for named in node_secrets(plan, inventory)] == [(namespace, name) for name in node]
    assert [named.key for named in builder_secrets(plan, inventory)] == [(namespace, name) for name in builder]


@pytest.mark.parametrize(
    ("secrets", "file", "pull"),
    [
        (NODE, FILE, PullCredentials(node=(GLOBAL,))),
        ({}, FILE, PullCredentials(node=(FILE,))),
        ({GLOBAL_KEY: ELIDED}, FILE, PullCredentials(node=(FILE,))),
        ({}, None, PullCredentials()),
    ],
)
def test_release_credentials(secrets: Mapping[Key, Manifest], file: Keychain | None, pull: PullCredentials) -> None:
    assert release_credentials(Inventory(secrets=secrets), file) == pull


def test_release_credentials_with_a_broken_pull_secret() -> None:
    with pytest.raises(Malformed, match=r"pull secret openshift-config/pull-secret: not JSON"):
        release_credentials(Inventory(secrets={GLOBAL_KEY: BROKEN}), FILE)


def _of_secret(*keys: str) -> Keychain:
    auths = {key: {"auth": _encoded(f"{key.replace(':', '+')}:p")} for key in keys}
    return parse_pull_secret(
        {"type": TYPE, "stringData": {".dockerconfigjson": json.dumps({"auths": auths})}}, "a Secret"
    )


@pytest.mark.parametrize(
    ("keys", "host", "repository", "users"),
    [
        (["quay.io"], "quay.io", "a", ["quay.io"]),
        (["quay.io", "quay.io/a"], "quay.io", "a/b", ["quay.io/a", "quay.io"]),
        (["*.quay.io"], "x.quay.io", "a", ["*.quay.io"]),
        (["*.quay.io"], "quay.io", "a", []),
        (["*.quay.io"], "x.y.quay.io", "a", []),
        (["*.*.quay.io"], "x.y.quay.io", "a", ["*.*.quay.io"]),
        (["*.quay.io"], "x.quay.io:5000", "a", []),
        (["*.quay.io:5000"], "x.quay.io:5000", "a", ["*.quay.io:5000"]),
        (["*.quay.io/a"], "x.quay.io", "a/b", ["*.quay.io/a"]),
        (["*.quay.io/a"], "x.quay.io", "b", []),
        (["*.quay.io", "x.quay.io"], "x.quay.io", "a", ["x.quay.io", "*.quay.io"]),
        (["pre*.quay.io"], "prefix.quay.io", "a", ["pre*.quay.io"]),
        (["quay.io"], "docker.io", "a", []),
    ],
)
def test_kubelet_tries_all_matching_keys(keys: list[str], host: str, repository: str, users: list[str]) -> None:
    logins = _of_secret(*keys).every(host, repository)
    assert logins == tuple(Credential(user.replace(":", "+"), "p") for user in users)
    pull = PullCredentials(node=(_of_secret(*keys),))
    at_a_mirror = candidates(pull.keychains(on_other_host=True), host, repository)
    assert not [login for login in at_a_mirror if isinstance(login, Credential) and "*" in login.username]


def test_candidates_are_in_order_and_unique() -> None:
    pull = PullCredentials(
        (_keychain("a", "one"), _keychain("b", "two")), (_keychain("c", "one"), _keychain("d", "three"))
    )
    here = candidates(pull.keychains(on_other_host=False), "quay.io", "a")
    assert here == tuple(Credential(user, "p") for user in ("one", "two", "three"))
    there = candidates(pull.keychains(on_other_host=True), "quay.io", "a")
    assert there == tuple(Credential(user, "p") for user in ("one", "three"))
    assert candidates(pull.keychains(on_other_host=False), "r.io", "a") == (None,)
    assert str(pull) == "a, then b, then c, then d"


@pytest.mark.parametrize(
    ("document", "host", "login"),
    [
        ({"credHelpers": {"r.io": "one"}}, "r.io", Helper("one", "r.io")),
        ({"credHelpers": {"r.io": "one"}}, "s.io", None),
        ({"credHelpers": {"https://r.io/v1/": "one"}}, "r.io", Helper("one", "r.io")),
        ({"credsStore": "all"}, "r.io", Helper("all", "r.io")),
        ({"credsStore": "all"}, "docker.io", Helper("all", "https://index.docker.io/v1/")),
        ({"credHelpers": {"docker.io": "one"}}, "docker.io", Helper("one", "https://index.docker.io/v1/")),
        ({"credsStore": "all", "credHelpers": {"r.io": "one"}}, "r.io", Helper("one", "r.io")),
        ({"credHelpers": {"r.io": "one"}, "auths": {"r.io/a": {"auth": "dTpw"}}}, "r.io", Helper("one", "r.io")),
        ({"credsStore": "all", "auths": {"r.io": {"auth": "dTpw"}}}, "r.io", Credential("u", "p")),
        ({"credsStore": "all", "auths": {"r.io": {}}}, "r.io", Helper("all", "r.io")),
    ],
)
def test_helpers_in_an_auth_file(document: dict[str, Any], host: str, login: Credential | Helper | None) -> None:
    assert parse_auth_file(json.dumps(document), "a file").find(host, "a/b") == login


@pytest.mark.parametrize(
    "document", [{}, {"credHelpers": ["one"]}, {"credHelpers": {"r.io": 5}}, {"credsStore": 5}, {"credsStore": ""}]
)
def test_auth_file_without_a_login(document: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"^a file: "):
        parse_auth_file(json.dumps(document), "a file")


def helper(folder: Path, name: str, lines: Sequence[str]) -> None:
    """Write a credential helper as a script into a folder of the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o700)


ANSWERS: dict[str, tuple[list[str], Credential | str | None]] = {
    "login": (
        [
            '[ "$1" = get ] || exit 3',
            "read -r server || :",
            'echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"u\\",\\"Secret\\":\\"for $server\\"}"',
        ],
        Credential("u", "for r.io"),
    ),
    "token": (['echo \'{"Username":"<token>","Secret":"t0ken"}\''], Credential("", "", "t0ken")),
    "none": (["echo credentials not found in native keychain", "exit 1"], None),
    "fails": (["echo hunter2", "echo hunter2 >&2", "exit 1"], "exit status 1, expected a login"),
    "empty": (["exit 0"], "its output is not a login"),
    "no-secret": (['echo \'{"Username":"hunter2"}\''], "its output is not a login"),
    "no-json": (["echo hunter2"], "its output is not a login"),
    "slow": (["exec sleep 30"], "no answer within"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_a_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lines, want = ANSWERS[name]
    helper(tmp_path, name, lines)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if not isinstance(want, str):
        assert run_credential_helper(Helper(name, "r.io")) == want
        return
    with pytest.raises(AccessDenied) as caught:
        run_credential_helper(Helper(name, "r.io"), 1 if name == "slow" else 30)
    assert want in caught.value.message
    assert caught.value.message.startswith(f"credential helper docker-credential-{name} for r.io: ")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("name", ["not-there", "../evil", "", "a b"])
def test_helper_that_cannot_run(name: str) -> None:
    with pytest.raises(AccessDenied, match=r"cannot be run|invalid name"):
        run_credential_helper(Helper(name, "r.io"))
