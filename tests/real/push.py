"""Upload images to a registry, with the distribution API or with skopeo."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import urllib3

from .skopeo import access, skopeo

if TYPE_CHECKING:
    from .layout import Blob, Image
    from .registry import Registry

_FIRST_REFUSAL = 300


def push(registry: Registry, repository: str, tag: str, image: Image) -> str:
    """Upload an image or index. Return its digest in the registry."""
    with urllib3.PoolManager(ca_certs=str(registry.ca) if registry.ca else None, retries=False, timeout=60) as http:
        upload = _Upload(http, f"{registry.url}/v2/{repository}/", _authorization(http, registry, repository))
        return upload.image(image, tag)


def push_layout_with_skopeo(registry: Registry, layout_dir: Path, name: str, repository: str, tag: str) -> str:
    """Upload an image of an OCI layout with all its platforms. Return its digest."""
    with tempfile.TemporaryDirectory() as scratch:
        digest = Path(scratch, "digest")
        options = ["--quiet", "--all", "--preserve-digests", "--digestfile", str(digest)]
        options += access(registry, registry.authfile(Path(scratch, "auth.json")), "dest-")
        done = skopeo("copy", *options, f"oci:{layout_dir}:{name}", f"docker://{registry.host}/{repository}:{tag}")
        if done.returncode:
            raise RuntimeError(f"skopeo copy ended {done.returncode}: {done.stderr}")
        return digest.read_text().strip()


class _Upload:
    """An upload to a repository."""

    def __init__(self, http: urllib3.PoolManager, base: str, authorization: Mapping[str, str]) -> None:
        self._http = http
        self._base = base
        self._authorization = authorization

    def image(self, image: Image, reference: str) -> str:
        """Upload children and blobs first: a registry refuses a manifest if a part of the image is missing."""
        for child in image.children:
            self.image(child, child.digest)
        for blob in image.blobs:
            self._blob(blob)
        headers = {"Content-Type": image.manifest.media_type}
        answer = self._send("PUT", f"{self._base}manifests/{reference}", image.manifest.data, headers)
        return answer.headers["Docker-Content-Digest"]

    def _blob(self, blob: Blob) -> None:
        session = self._send("POST", f"{self._base}blobs/uploads/").headers["Location"]
        where = urljoin(self._base, session)
        joiner = "&" if "?" in where else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._send("PUT", f"{where}{joiner}digest={blob.digest}", blob.data, headers)

    def _send(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        answer = self._http.request(method, url, body=body, headers={**self._authorization, **(headers or {})})
        if answer.status >= _FIRST_REFUSAL:
            raise RuntimeError(f"{method} {url} answered {answer.status}: {answer.data.decode(errors='replace')}")
        return answer


def _authorization(http: urllib3.PoolManager, registry: Registry, repository: str) -> dict[str, str]:
    """Return the headers for the registry's challenge: no header, the password, or a token."""
    challenge = http.request("GET", f"{registry.url}/v2/").headers.get("WWW-Authenticate", "")
    if not challenge:
        return {}
    basic = {"Authorization": urllib3.make_headers(basic_auth=f"{registry.user}:{registry.password}")["authorization"]}
    if not challenge.startswith("Bearer "):
        return basic
    challenged = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    fields = {"service": challenged["service"], "scope": f"repository:{repository}:pull,push"}
    token = http.request("GET", challenged["realm"], fields=fields, headers=basic).json()["token"]
    return {"Authorization": f"Bearer {token}"}
