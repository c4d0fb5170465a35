"""Logins as containers/image sends them: our verdict on each registry and login is that of skopeo."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.faults import Fault, FaultyRegistry, Seen
from tests.real.requirement import need_tool
from tests.real.skopeo import skopeo
from tests.runs import module, run_preflight, secret, write_manifests
from tests.test_images_as_on_node import GOOD, KERNEL, image

if TYPE_CHECKING:
    from tests.real.layout import Image

RIGHT = base64.b64encode(b"kmm:right:with:colons").decode()
ENTRIES = {
    "right": {"auth": RIGHT},
    "unpadded": {"auth": RIGHT.rstrip("=")},
    "wrong": {"auth": base64.b64encode(b"kmm:wrong").decode()},
    "empty": {},
    "none": None,
}


@dataclass(frozen=True)
class Rules:
    """The rules of a registry for logins."""

    challenge: str | None = None
    """The challenge of /v2/."""
    status: int = 0
    """The status of /v2/; 0: 401 with a challenge, else 200."""
    public: bool = True
    """True if images need no login. A wrong login is refused anyway."""


RULES = {
    "open": Rules(),
    "open-and-private": Rules(public=False),
    "basic": Rules('Basic realm="x"'),
    "basic-and-private": Rules('Basic realm="x"', public=False),
    "letters": Rules('bASIC REALM="x, y", CHARSET=UTF-8', public=False),
    "unknown": Rules('Negotiate realm="x"'),
    "unknown-and-private": Rules("Negotiate", public=False),
    "unknown-first": Rules('Digest realm="x, y", nonce=abc, Basic realm="x"', public=False),
    "greeting-404": Rules(status=404),
    "greeting-403": Rules(status=403),
    "greeting-500": Rules(status=500),
}


class RuledRegistry(FaultyRegistry):
    """A registry with these rules."""

    def __init__(self, images: dict[str, Image], rules: Rules) -> None:
        self._rules = rules
        super().__init__(images)

    def challenge(self) -> str | None:
        """Return the challenge of /v2/."""
        return self._rules.challenge

    def admits(self, seen: Seen) -> bool:
        """True if the login is right, or if there is none and none is required."""
        given = seen.headers.get("Authorization")
        return seen.path == "/v2/" or given == f"Basic {RIGHT}" or (given is None and self._rules.public)

    def fault(self, path: str) -> Fault:
        """Return the fault of the path: only /v2/ can have one."""
        return Fault("/v2/", status=self._rules.status) if path == "/v2/" and self._rules.status else Fault("")


def _login(host: str, name: str) -> str:
    entry = ENTRIES[name]
    return json.dumps({"auths": {} if entry is None else {host: entry}})


def _on_node(registry: FaultyRegistry, name: str, scratch: Path) -> bool:
    """True if skopeo reads the image with the login of this name."""
    authfile = scratch / f"{name}.json"
    authfile.write_text(_login(registry.host, name))
    source = f"docker://{registry.host}/team/one:v1"
    options = ["--src-tls-verify=false", "--src-authfile", str(authfile)]
    return skopeo("copy", "--quiet", *options, source, f"dir:{scratch / name}").returncode == 0


@pytest.mark.parametrize("name", RULES)
def test_our_verdict_on_each_login_is_the_node_s(tmp_path: Path, name: str) -> None:
    need_tool("skopeo", "apt-get install skopeo")
    with RuledRegistry({"team/one:v1": image(GOOD)}, RULES[name]) as registry:
        manifests = [
            part
            for login in ENTRIES
            for part in (
                module(login, f"{registry.host}/team/one:v1", imageRepoSecret=f"of-{login}"),
                secret(f"of-{login}", "dockerconfigjson",
                       {".dockerconfigjson": base64.b64encode(_login(registry.host, login).encode()).decode()}),
            )
        ]  # fmt: skip
        folder = write_manifests(tmp_path / "m", manifests)
        run = run_preflight(tmp_path, f"--kernel={KERNEL}", "--proof=path", f"--manifests={folder}")
        theirs = {login: _on_node(registry, login, tmp_path) for login in ENTRIES}
    ours = {login: verdict[0] == "verified" for login, verdict in run.verdicts().items()}
    assert ours == theirs, run.output


def test_a_registry_is_greeted_once(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(5)]
    with FaultyRegistry({f"team/{name}:v1": image(GOOD) for name in names}) as registry:
        folder = write_manifests(tmp_path / "m", [module(name, f"{registry.host}/team/{name}:v1") for name in names])
        run = run_preflight(tmp_path, f"--kernel={KERNEL}", "--proof=path", f"--manifests={folder}")
        assert run.returncode == 0, run.output
        assert [seen.path for seen in registry.requests()].count("/v2/") == 1
        assert registry.requests()[0].path == "/v2/"
