"""Debian's docker-registry as a part of a test: plain, behind a password, or behind bearer tokens."""

from __future__ import annotations

import base64
import json
import re
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import bcrypt
import urllib3

from .authority import Authority
from .requirement import need_tool
from .tokens import ISSUER, SERVICE, TokenServer

START_S = 60
SETTLE_S = 0.03
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_ACCESS = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3}) ')
_MARKER = "/v2/?everything-before="


@dataclass(frozen=True)
class Request:
    """One answered request as the registry's own access log tells it; path includes the query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Login:
    """The one user of a registry; "" and "" where nobody logs in."""

    user: str = ""
    password: str = ""


class Registry:
    """A running registry on a free port of 127.0.0.1 with its storage, configuration and logs in one folder."""

    def __init__(
        self,
        folder: Path,
        login: Login,
        auth: Mapping[str, object],
        authority: Authority | None = None,
        tokens: TokenServer | None = None,
    ) -> None:
        """Use plain, with_htpasswd or with_token instead."""
        self._program = need_tool("docker-registry", "apt-get install docker-registry")
        self._folder = folder
        self._auth = auth
        self._authority = authority
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._forgotten = 0
        self._access_log = folder / "access.log"
        self.tokens = tokens
        self.user, self.password = login.user, login.password
        self.storage = folder / "storage"
        self.storage.mkdir(parents=True, exist_ok=True)
        self._access_log.touch()
        self.restart()

    @classmethod
    def plain(cls, folder: Path) -> Self:
        """HTTP without any login, as on an air-gapped bench."""
        return cls(folder, Login(), {})

    @classmethod
    def with_htpasswd(cls, folder: Path) -> Self:
        """HTTPS by a private CA; each request needs the user and the password."""
        authority, login = Authority(folder), _new_login()
        # The registry checks the hash at each request: the cheapest one that bcrypt has is right for a test.
        digest = bcrypt.hashpw(login.password.encode(), bcrypt.gensalt(4)).decode()
        users = folder / "htpasswd"
        users.write_text(f"{login.user}:{digest}\n")
        return cls(folder, login, {"htpasswd": {"realm": "preflight", "path": str(users)}}, authority)

    @classmethod
    def with_token(cls, folder: Path) -> Self:
        """HTTPS by a private CA; bearer tokens from a token server, as quay.io and registry.redhat.io have them."""
        authority, login = Authority(folder), _new_login()
        tokens = TokenServer(authority, login.user, login.password)
        tokens.start()  # Its address is part of the registry's configuration.
        auth = {"realm": f"{tokens.url}/token", "service": SERVICE, "issuer": ISSUER}
        try:
            return cls(folder, login, {"token": auth | {"rootcertbundle": str(authority.ca)}}, authority, tokens)
        except BaseException:
            tokens.stop()
            raise

    @property
    def host(self) -> str:
        """127.0.0.1:PORT, as it stands at the front of an image reference."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The address with its scheme, without a slash at the end."""
        return f"{'https' if self._authority else 'http'}://{self.host}"

    @property
    def ca(self) -> Path | None:
        """The CA's certificate in PEM, None for plain HTTP."""
        return self._authority.ca if self._authority else None

    @property
    def cert_dir(self) -> Path | None:
        """A folder that holds ca.crt and nothing else, for --cert-dir; None for plain HTTP."""
        return self._authority.cert_dir if self._authority else None

    def authfile(self, path: Path, password: str | None = None) -> Path:
        """Write a containers auth.json for this host, with another password when one is given."""
        auths = {}
        if self.user:
            pair = f"{self.user}:{self.password if password is None else password}"
            auths[self.host] = {"auth": base64.b64encode(pair.encode()).decode()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": auths}))
        path.chmod(0o600)
        return path

    def requests(self) -> list[Request]:
        """Everything answered since the start or the last forget(), oldest first; refused requests are in it too."""
        self._settle()
        lines = self._access_log.read_bytes()[self._forgotten :].decode().splitlines()
        found = [_ACCESS.search(line) for line in lines if _MARKER not in line]
        return [Request(one["method"], one["path"], int(one["status"])) for one in found if one]

    def forget(self) -> None:
        """Start counting anew, token grants included."""
        self._settle()
        self._forgotten = self._access_log.stat().st_size
        if self.tokens:
            self.tokens.grants.clear()

    def stop(self) -> None:
        """End the registry and its token server; connections to it are refused from here on."""
        if self.tokens:
            self.tokens.stop()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Start again on the same port with the same images."""
        self.stop()
        if self.tokens:
            self.tokens.start()
        config, log = self._folder / "config.json", self._folder / "registry.log"
        config.write_text(json.dumps(self._configuration()))
        with self._access_log.open("ab") as access, log.open("wb") as rest:
            # The access log is what it writes to stdout, its own messages go to stderr.
            self._process = subprocess.Popen(
                [self._program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=access, stderr=rest
            )
        try:
            self._port = _port_in(log, self._process)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        """The registry runs already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Stop, whatever happened."""
        self.stop()

    def _configuration(self) -> dict[str, object]:
        # No blob descriptor cache: a test that damages a file of the storage must see its damage.
        http: dict[str, object] = {"addr": f"127.0.0.1:{self._port}", "secret": secrets.token_hex(8)}
        if self._authority:
            http["tls"] = {"certificate": str(self._authority.server_cert), "key": str(self._authority.server_key)}
        storage = {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}}
        log = {"level": "info", "formatter": "json"}
        auth = {"auth": self._auth} if self._auth else {}
        return {"version": "0.1", "log": log, "storage": storage, "http": http, **auth}

    def _settle(self) -> None:
        """Wait until the log has all that was answered: a line may follow its answer a little later."""
        if self._process is None:
            return
        marker = f"{_MARKER}{secrets.token_hex(8)}"
        with urllib3.PoolManager(ca_certs=str(self.ca) if self.ca else None, retries=False, timeout=10) as http:
            http.request("GET", self.url + marker)
        deadline = time.monotonic() + 10
        before = b""
        while marker.encode() not in before or self._access_log.read_bytes() != before:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._access_log} never settled")
            before = self._access_log.read_bytes()
            time.sleep(SETTLE_S)


def _new_login() -> Login:
    return Login(f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(18))


def _port_in(log: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait for the line by which the registry tells its port: port 0 lets the system choose, without a race."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := _LISTENING.search(log.read_text()):
            return int(found[1])
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"docker-registry did not start:\n{log.read_text()}")
