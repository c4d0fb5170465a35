"""Debian's docker-registry for tests: without login, with a password, or with bearer tokens."""

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
    """A request in the registry's own access log."""

    method: str
    """The HTTP method."""
    path: str
    """The path with the query."""
    status: int
    """The status of the answer."""


@dataclass(frozen=True)
class Login:
    """The only user of a registry. Both fields are empty for a registry without login."""

    user: str = ""
    """The user name."""
    password: str = ""
    """The password."""


class Registry:
    """A running registry on a free port of 127.0.0.1. A folder has its storage, configuration and logs."""

    def __init__(
        self,
        folder: Path,
        login: Login,
        auth: Mapping[str, object],
        authority: Authority | None = None,
        tokens: TokenServer | None = None,
    ) -> None:
        """Start a registry. Tests call plain, with_htpasswd or with_token instead."""
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
        """Return a registry with HTTP and without login."""
        return cls(folder, Login(), {})

    @classmethod
    def with_htpasswd(cls, folder: Path) -> Self:
        """Return a registry with HTTPS by a private CA. Each request needs user and password."""
        authority, login = Authority(folder), _new_login()
        # The registry checks the hash for each request, so the test uses the cheapest hash of bcrypt.
        digest = bcrypt.hashpw(login.password.encode(), bcrypt.gensalt(4)).decode()
        users = folder / "htpasswd"
        users.write_text(f"{login.user}:{digest}\n")
        return cls(folder, login, {"htpasswd": {"realm": "preflight", "path": str(users)}}, authority)

    @classmethod
    def with_token(cls, folder: Path) -> Self:
        """Return a registry with HTTPS by a private CA and bearer tokens, like quay.io and registry.redhat.io."""
        authority, login = Authority(folder), _new_login()
        tokens = TokenServer(authority, login.user, login.password)
        tokens.start()  # The registry's configuration needs its address.
        auth = {"realm": f"{tokens.url}/token", "service": SERVICE, "issuer": ISSUER}
        try:
            return cls(folder, login, {"token": auth | {"rootcertbundle": str(authority.ca)}}, authority, tokens)
        except BaseException:
            tokens.stop()
            raise

    @property
    def host(self) -> str:
        """127.0.0.1:PORT, the host of image references."""
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
        """A folder with only ca.crt, for --cert-dir; None for plain HTTP."""
        return self._authority.cert_dir if self._authority else None

    def authfile(self, path: Path, password: str | None = None) -> Path:
        """Write an auth.json for this host, with the given password or the right one. Return its path."""
        auths = {}
        if self.user:
            pair = f"{self.user}:{self.password if password is None else password}"
            auths[self.host] = {"auth": base64.b64encode(pair.encode()).decode()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": auths}))
        path.chmod(0o600)
        return path

    def requests(self) -> list[Request]:
        """Return all requests since the start or the last forget(), oldest first, refused requests included."""
        self._settle()
        lines = self._access_log.read_bytes()[self._forgotten :].decode().splitlines()
        matches = [_ACCESS.search(line) for line in lines if _MARKER not in line]
        return [Request(match["method"], match["path"], int(match["status"])) for match in matches if match]

    def forget(self) -> None:
        """Forget all requests and token grants."""
        self._settle()
        self._forgotten = self._access_log.stat().st_size
        if self.tokens:
            self.tokens.grants.clear()

    def stop(self) -> None:
        """Stop the registry and its token server. Later connections are refused."""
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
            # The registry writes its access log to stdout, and its own messages to stderr.
            self._process = subprocess.Popen(
                [self._program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=access, stderr=rest
            )
        try:
            self._port = _port_in(log, self._process)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        """Return the registry, which already runs."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Stop the registry."""
        self.stop()

    def _configuration(self) -> dict[str, object]:
        # Without a blob descriptor cache, the registry notices when a test damages a file of the storage.
        http: dict[str, object] = {"addr": f"127.0.0.1:{self._port}", "secret": secrets.token_hex(8)}
        if self._authority:
            http["tls"] = {"certificate": str(self._authority.server_cert), "key": str(self._authority.server_key)}
        storage = {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}}
        log = {"level": "info", "formatter": "json"}
        auth = {"auth": self._auth} if self._auth else {}
        return {"version": "0.1", "log": log, "storage": storage, "http": http, **auth}

    def _settle(self) -> None:
        """Wait until the log has all answered requests: a line may follow its answer with a delay."""
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
    """Wait for the line with the registry's port. With port 0 the system chooses the port, without a race."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if match := _LISTENING.search(log.read_text()):
            return int(match[1])
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"docker-registry did not start:\n{log.read_text()}")
