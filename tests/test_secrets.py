"""Credentials stay where they were given: a whole run, and every byte that it leaves or shows while it goes on."""

from __future__ import annotations

import base64
import json
import os
import pickle
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fixtures.run import RunFolder
from fixtures.work import Work
from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.oci.auth import Credential, Keychain
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials

from .real.push import push
from .real.registry import Registry
from .runs import module, run_preflight, secret, write_manifests
from .shapes import VERIFIED, Parts, refuted
from .test_credentials import helper
from .test_mirrors import IDMS, mirror_set

TOKEN, WRONG, PLAIN = "id3ntityT0ken-7f2c9a", "wr0ngPassw0rd-51be77", "pla1nT3xt-in-stringData-c0ffee"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Watch:
    """Looks at every process and at the run's folder, again and again while a run goes on."""

    def __init__(self, needles: list[bytes], temporary: Path) -> None:
        self._needles = needles
        self._temporary = temporary
        self.found: set[str] = set()
        self.modes: set[tuple[str, int]] = set()
        self.processes: set[int] = set()

    def look(self) -> None:
        """One round."""
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    shown = (process / name).read_bytes()
                except OSError:
                    continue
                self.processes |= {int(process.name)} if str(self._temporary).encode() in shown else set()
                self.found |= {f"{process.name} {name}" for needle in self._needles if needle in shown}
        # os.walk passes over what goes while it looks; rglob stumbles.
        for folder, folders, files in os.walk(self._temporary):
            for name in (*folders, *files):
                with suppress(OSError):
                    mode = (Path(folder) / name).lstat().st_mode
                    kind = "folder" if stat.S_ISDIR(mode) else "file"
                    self.modes.add((f"{kind} {name.partition('-')[0]}", stat.S_IMODE(mode)))


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Watches until the block ends."""
    end = threading.Event()

    def rounds() -> None:
        while not end.wait(0.05):
            watch.look()

    thread = threading.Thread(target=rounds)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.fixture(scope="module")
def parts(kernels: tuple[str, str], kmods: Mapping[str, bytes]) -> Parts:
    """A real kmod for a real kernel."""
    old, new = kernels
    return Parts(new, old, kmods[new], kmods[old])


def _manifests(login: Registry, token: Registry) -> list[dict[str, Any]]:
    def config(*entries: tuple[str, dict[str, str]]) -> str:
        return json.dumps({"auths": dict(entries)})

    right = {one: {"auth": _base64(f"{one.user}:{one.password}")} for one in (login, token)}
    refresh = {"auth": _base64("u:p"), "identitytoken": TOKEN}
    in_clear = secret("in-clear", "dockerconfigjson", {})
    in_clear["stringData"] = {".dockerconfigjson": config((login.host, {"username": "u", "password": PLAIN}))}
    bodies = {
        "own": config((login.host, right[login])),
        "wrong": config((login.host, {"auth": _base64(f"u:{WRONG}")})),
        "refresh": config((token.host, refresh)),
        "broken": config((login.host, {"auth": _base64(WRONG)})),
        "no-json": f"no JSON {PLAIN}",
    }
    secrets = [secret(name, "dockerconfigjson", {".dockerconfigjson": _base64(body)}) for name, body in bodies.items()]
    hosts = {"refresh": token.host}
    return [
        *(module(name, f"{hosts.get(name, login.host)}/secret/kmod:v1", imageRepoSecret=name) for name in bodies),
        module("in-clear", f"{login.host}/secret/kmod:v1", imageRepoSecret="in-clear"),
        module("authfile", f"{login.host}/secret/kmod:v1"),
        module("helped", f"{token.host}/secret/kmod:v1"),
        module("down", "127.0.0.1:1/secret/kmod:v1"),
        *secrets,
        in_clear,
        mirror_set(IDMS, ("127.0.0.1:1", [login.host])),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_credential_leaves_its_place(
    tmp_path: Path, login_registry: Registry, token_registry: Registry, parts: Parts, workers: int
) -> None:
    login, token = login_registry, token_registry
    for registry in (login, token):
        push(registry, "secret/kmod", "v1", parts.image(parts.good))
    given, left, temporary = tmp_path / "given", tmp_path / "left", tmp_path / "left" / "tmp"
    temporary.mkdir(parents=True)
    manifests = write_manifests(given / "manifests", _manifests(login, token))
    (given / "answer").write_text(json.dumps({"Username": token.user, "Secret": token.password}))
    helper(given / "bin", "test", [f"cat > {given / 'asked'}", f"cat {given / 'answer'}"])
    auths = {login.host: {"auth": _base64(f"{login.user}:{login.password}")}}
    (given / "auth.json").write_text(json.dumps({"auths": auths, "credHelpers": {token.host: "test"}}))
    (given / "ca.pem").write_text("".join(one.ca.read_text() for one in (login, token) if one.ca))
    values = [login.password, token.password, TOKEN, WRONG, PLAIN]
    encoded = [_base64(f"{one.user}:{one.password}") for one in (login, token)]
    encoded += [_base64(f"u:{WRONG}"), _base64(WRONG)]
    needles = [text.encode() for text in (*values, *encoded)]
    watch = Watch(needles, temporary)
    with watching(watch):
        run = run_preflight(
            left,
            f"--kernel={parts.kernel}",
            f"--manifests={manifests}",
            f"--authfile={given / 'auth.json'}",
            f"--registry-ca={given / 'ca.pem'}",
            f"-n{workers}",
            "-vv",
            "--showlocals",
            "--log-level=DEBUG",
            "-olog_cli=true",
            env={"TMPDIR": str(temporary), "PATH": f"{given / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        )
    unknown, invalid = ("undecided", "image-login-unknown"), refuted("credentials-invalid")
    assert run.verdicts() == {
        "own": VERIFIED,
        "wrong": unknown,
        "refresh": ("undecided", "registry-unreachable"),  # this token server takes no refresh tokens
        "broken": invalid,
        "no-json": invalid,
        "in-clear": unknown,
        "authfile": VERIFIED,
        "helped": VERIFIED,
        "down": ("undecided", "registry-unreachable"),
    }, run.output
    assert (given / "asked").read_text() == token.host
    assert len(watch.processes) > 1 + workers, "the run was not watched"
    assert watch.found == set()
    assert {mode for kind, mode in watch.modes if kind == "folder kmm"} == {PRIVATE_FOLDER}
    assert {mode for kind, mode in watch.modes if kind == "file work"} == {PRIVATE_FILE}
    assert [path for path in temporary.rglob("*") if "kmm-preflight" in path.name] == []
    printed = run.output.encode()
    assert [needle for needle in needles if needle in printed] == []
    files = [path for path in left.rglob("*") if path.is_file()]
    assert len(files) > len(VERIFIED)
    assert [path for path in files if any(needle in path.read_bytes() for needle in needles)] == []


def test_the_run_s_folder_is_this_user_s_alone_and_goes() -> None:
    keychain = Keychain("a test", {"r.io": Credential("u", WRONG, TOKEN)})
    credentials = {"ns/m@k": Credentials(PullCredentials((keychain,), (keychain,)))}
    work = Work((), Network(), Path("cache"), 0, None, credentials)
    assert not any(value in repr(each) for value in (WRONG, TOKEN) for each in (work, credentials, keychain))
    folder = RunFolder.create()
    try:
        folder.give(work)
        assert folder.take() == work
        assert stat.S_IMODE((folder.path / "work").stat().st_mode) == PRIVATE_FILE
        assert stat.S_IMODE(folder.path.stat().st_mode) == PRIVATE_FOLDER
        assert WRONG.encode() in pickle.dumps(work)
    finally:
        folder.remove()
    assert not folder.path.exists()
