"""The real parts themselves: a test that leans on a broken one would prove nothing."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING, Literal

import pytest
import urllib3

from .real.authority import Authority
from .real.build import BUSYBOX, buildah_image, busybox, need_buildah
from .real.faults import BLOBS, FOREVER_S, MANIFESTS, Fault, FaultyRegistry
from .real.kmod import debian_headers, headers
from .real.layout import OCI_INDEX, OCI_MANIFEST, Image, image, index, layer, write_layout
from .real.push import push, push_layout_with_skopeo
from .real.registry import Registry, Request
from .real.requirement import need, need_tool
from .real.skopeo import access, skopeo
from .real.tokens import Grant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SMALL = image([layer([("opt/a.ko", random.Random(1).randbytes(20_000))])])
BLOB = SMALL.blobs[1]
BOTH = index([SMALL, image([layer([("opt/a.ko", b"arm")])], architecture="arm64")])
BLOB_PATH = f"/v2/team/kmod{BLOBS}{BLOB.digest}"


@pytest.fixture(params=["plain_registry", "login_registry", "token_registry"])
def registry(request: pytest.FixtureRequest) -> Registry:
    """Each kind of registry in turn."""
    found: Registry = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    """A client that tries once and waits two seconds at most."""
    with urllib3.PoolManager(retries=False, timeout=2) as pool:
        yield pool


def test_need_skips_or_fails_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFLIGHT_REAL_PARTS", raising=False)
    need("a thing", True, "nothing")
    with pytest.raises(pytest.skip.Exception, match=r"^a thing is not here; enable it with: apt-get install thing$"):
        need("a thing", False, "apt-get install thing")
    monkeypatch.setenv("PREFLIGHT_REAL_PARTS", "required")
    with pytest.raises(pytest.fail.Exception, match=r"^no-such-tool is not here; enable it with: magic$"):
        need_tool("no-such-tool", "magic")


@pytest.mark.parametrize("one", [SMALL, BOTH], ids=["image", "index"])
def test_pushed_image_is_what_skopeo_pulls(registry: Registry, tmp_path: Path, one: Image) -> None:
    assert push(registry, "team/kmod", "pushed", one) == one.digest
    copy = ["copy", "--all", *access(registry, registry.authfile(tmp_path / "auth.json"), "src-")]
    done = skopeo(*copy, f"docker://{registry.host}/team/kmod:pushed", f"oci:{tmp_path}/layout:pushed")
    assert done.returncode == 0, done.stderr
    for blob in [one.manifest, *one.blobs]:
        assert (tmp_path / "layout/blobs/sha256" / blob.digest.removeprefix("sha256:")).read_bytes() == blob.data


def test_layout_goes_to_a_registry_by_skopeo(registry: Registry, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"both": BOTH})
    assert push_layout_with_skopeo(registry, layout, "both", "team/layout", "v1") == BOTH.digest


@pytest.mark.parametrize("kind", ["login_registry", "token_registry"])
def test_wrong_password_is_refused(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    registry: Registry = request.getfixturevalue(kind)
    push(registry, "team/kmod", "secret", SMALL)
    wrong = registry.authfile(tmp_path / "auth.json", "not the password")
    done = skopeo("inspect", *access(registry, wrong), f"docker://{registry.host}/team/kmod:secret")
    assert done.returncode
    assert "unauthorized" in done.stderr


def test_access_log_tells_every_request(plain_registry: Registry, http: urllib3.PoolManager) -> None:
    push(plain_registry, "team/counted", "v1", SMALL)
    plain_registry.forget()
    paths = [f"/v2/team/counted{BLOBS}{BLOB.digest}", f"/v2/team/counted{MANIFESTS}none"] * 5
    statuses = [http.request("GET", plain_registry.url + path).status for path in paths]
    assert plain_registry.requests() == [Request("GET", *one) for one in zip(paths, statuses, strict=True)]
    assert statuses == [200, 404] * 5
    plain_registry.forget()
    assert plain_registry.requests() == []


def test_token_grants_are_told(token_registry: Registry, tmp_path: Path) -> None:
    push(token_registry, "public/kmod", "v1", SMALL)
    push(token_registry, "team/kmod", "v1", SMALL)
    token_registry.forget()
    nobody = tmp_path / "auth.json"
    nobody.write_text("{}")
    options = ["inspect", "--raw", *access(token_registry, nobody)]
    assert skopeo(*options, f"docker://{token_registry.host}/public/kmod:v1").returncode == 0
    assert skopeo(*options, f"docker://{token_registry.host}/team/kmod:v1").returncode != 0
    assert token_registry.tokens is not None
    # Skopeo asks once more after the token that grants nothing.
    first, second, *_ = token_registry.tokens.grants
    assert first == Grant("", ("repository:public/kmod:pull",), 200)
    assert second == Grant("", ("repository:team/kmod:pull",), 200)


def test_registry_comes_back_on_the_same_port_with_its_images(tmp_path: Path) -> None:
    with Registry.with_token(tmp_path / "registry") as registry:
        host, _ = registry.host, push(registry, "team/kmod", "v1", SMALL)
        options = ["inspect", "--raw", *access(registry, registry.authfile(tmp_path / "auth.json"))]
        registry.stop()
        assert "connection refused" in skopeo(*options, f"docker://{host}/team/kmod:v1").stderr
        registry.restart()
        assert skopeo(*options, f"docker://{host}/team/kmod:v1").stdout.encode() == SMALL.manifest.data


def test_kmods_are_for_their_kernels(kmods: Mapping[str, bytes], kernels: tuple[str, str], tmp_path: Path) -> None:
    assert (debian_headers()[0], debian_headers()[-1]) == kernels
    tables = []
    for kernel in kernels:
        path = tmp_path / f"{kernel}.ko"
        path.write_bytes(kmods[kernel])
        assert kmods[kernel].startswith(b"\x7fELF")
        assert _words(["modinfo", "-F", "vermagic", str(path)])[0] == kernel
        assert _words(["modinfo", "-F", "license", str(path)]) == ["GPL"]
        assert (headers(kernel) / "Module.symvers").is_file()
        tables.append(_words(["modprobe", "--dump-modversions", str(path)]))
    assert tables[0][1::2] == tables[1][1::2], "the same symbols"
    assert tables[0] != tables[1], "in other versions"


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_buildah_pushes_an_image_with_a_whiteout(login_registry: Registry, tmp_path: Path, docker: bool) -> None:
    need_buildah()
    steps = BUSYBOX + "COPY a.ko /opt/a.ko\nRUN rm /opt/a.ko\n"
    files = {"busybox": busybox(), "a.ko": b"real"}
    digest = buildah_image(tmp_path / "build", steps, files, login_registry, "team/built", "v1", docker=docker)
    options = access(login_registry, login_registry.authfile(tmp_path / "auth.json"), "src-")
    done = skopeo("copy", *options, f"docker://{login_registry.host}/team/built@{digest}", f"dir:{tmp_path}/pulled")
    assert done.returncode == 0, done.stderr
    raw = (tmp_path / "pulled/manifest.json").read_bytes()
    assert "sha256:" + hashlib.sha256(raw).hexdigest() == digest
    manifest = json.loads(raw)
    assert ("docker" in manifest["mediaType"]) == docker
    last = (tmp_path / "pulled" / manifest["layers"][-1]["digest"].removeprefix("sha256:")).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(last)) as archive:
        assert "opt/.wh.a.ko" in archive.getnames()
    assert not list((tmp_path / "build").iterdir())


@pytest.mark.parametrize(
    ("fault", "path", "status"),
    [
        (Fault(MANIFESTS, status=500), f"/v2/team/kmod{MANIFESTS}v1", 500),
        (Fault(MANIFESTS, status=429, headers={"Retry-After": "7"}), f"/v2/team/kmod{MANIFESTS}{SMALL.digest}", 429),
        (Fault(BLOBS, status=403), BLOB_PATH, 403),
        (Fault(MANIFESTS, status=503), BLOB_PATH, 200),
        (Fault(BLOBS, status=503), f"/v2/team/kmod{MANIFESTS}none", 404),
    ],
    ids=["any manifest", "with a header", "any blob", "blob beside a fault", "nothing there"],
)
def test_faulty_registry_answers_the_status(http: urllib3.PoolManager, fault: Fault, path: str, status: int) -> None:
    with FaultyRegistry({"team/kmod:v1": SMALL}, fault) as faulty:
        answer = http.request("GET", faulty.url + path)
        assert (answer.status, answer.headers.get("Retry-After")) == (status, fault.headers.get("Retry-After"))
        assert [(seen.method, seen.path) for seen in faulty.requests()] == [("GET", path)]


def test_faulty_registry_cuts_once_and_resumes(http: urllib3.PoolManager) -> None:
    with FaultyRegistry({"team/kmod:v1": SMALL}, Fault(BLOBS, times=1, cut_after=1000)) as faulty:
        with pytest.raises(urllib3.exceptions.ProtocolError, match=r"IncompleteRead\(1000 bytes read"):
            http.request("GET", faulty.url + BLOB_PATH)
        rest = http.request("GET", faulty.url + BLOB_PATH, headers={"Range": "bytes=1000-"})
        size = len(BLOB.data)
        assert (rest.status, rest.headers["Content-Range"]) == (206, f"bytes 1000-{size - 1}/{size}")
        assert rest.data == BLOB.data[1000:]
        assert [seen.headers.get("range") for seen in faulty.requests()] == [None, "bytes=1000-"]


@pytest.mark.parametrize(("ranges", "status"), [("ignored", 200), ("refused", 416)])
def test_faulty_registry_gives_no_ranges(
    http: urllib3.PoolManager, ranges: Literal["ignored", "refused"], status: int
) -> None:
    with FaultyRegistry({"team/kmod:v1": SMALL}, ranges=ranges) as faulty:
        assert http.request("GET", faulty.url + BLOB_PATH, headers={"Range": "bytes=5-"}).status == status


@pytest.mark.parametrize("path", [BLOB_PATH, f"/v2/team/kmod{MANIFESTS}v1"], ids=["blob", "manifest"])
def test_faulty_registry_gives_wrong_bytes(http: urllib3.PoolManager, path: str) -> None:
    with FaultyRegistry({"team/kmod:v1": SMALL}) as faulty:
        right = http.request("GET", faulty.url + path)
        faulty.set_faults(Fault("/v2/", wrong_bytes=True))
        wrong = http.request("GET", faulty.url + path)
        assert wrong.headers["Docker-Content-Digest"] == "sha256:" + hashlib.sha256(right.data).hexdigest()
        assert (len(wrong.data), wrong.data == right.data) == (len(right.data), False)
        if MANIFESTS in path:
            assert wrong.json() == right.json()
        faulty.set_faults(Fault("/v2/", wrong_digest=True))
        lie = http.request("GET", faulty.url + path)
        assert (lie.data, lie.headers["Docker-Content-Digest"]) == (right.data, "sha256:" + "0" * 64)


def test_faulty_registry_never_ends_a_blob(http: urllib3.PoolManager) -> None:
    with FaultyRegistry({"team/kmod:v1": SMALL}, Fault(BLOBS, endless=True)) as faulty:
        answer = http.request("GET", faulty.url + BLOB_PATH, preload_content=False)
        assert answer.read(len(BLOB.data) + 10_000_000) == BLOB.data + bytes(10_000_000)
        answer.close()


def test_faulty_registry_drips_and_hangs_but_stops_at_once(http: urllib3.PoolManager) -> None:
    with FaultyRegistry({"team/kmod:v1": SMALL}, Fault(BLOBS, bytes_per_s=1000)) as faulty:
        answer = http.request("GET", faulty.url + BLOB_PATH, preload_content=False)
        begun = time.monotonic()
        assert answer.read(300) == BLOB.data[:300]
        assert 0.2 < time.monotonic() - begun < 2
        faulty.set_faults(Fault(MANIFESTS, hang_s=FOREVER_S))
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            http.request("GET", f"{faulty.url}/v2/team/kmod{MANIFESTS}v1", timeout=0.2)
        begun = time.monotonic()
        faulty.stop()
        assert time.monotonic() - begun < 1
        answer.close()


def test_faulty_registry_redirects_and_tells_what_arrives_there(tmp_path: Path) -> None:
    authority, images = Authority(tmp_path), {"team/kmod:v1": SMALL}
    with (
        FaultyRegistry(images) as storage,
        FaultyRegistry(
            images, Fault(BLOBS, redirect_to=storage.url), login=("user", "secret"), authority=authority
        ) as front,
        urllib3.PoolManager(ca_certs=str(authority.ca), timeout=2) as http,
    ):
        assert http.request("GET", front.url + BLOB_PATH).status == 401
        login = urllib3.make_headers(basic_auth="user:secret")
        assert http.request("GET", front.url + BLOB_PATH, headers=login).data == BLOB.data
        assert [seen.headers.get("Authorization") for seen in front.requests()] == [None, login["authorization"]]
        assert [seen.headers.get("Authorization") for seen in storage.requests()] == [None]


def test_skopeo_takes_the_faulty_registry_for_a_real_one(tmp_path: Path) -> None:
    with FaultyRegistry({"team/kmod:v1": BOTH}) as faulty:
        source = ["copy", "--all", "--src-tls-verify=false", f"docker://{faulty.host}/team/kmod:v1"]
        done = skopeo(*source, f"oci:{tmp_path}/layout:v1")
        assert done.returncode == 0, done.stderr
        # One header for each type: get() would tell the first only.
        accepted = faulty.requests()[1].headers.get_all("Accept", [])
    assert {OCI_INDEX, OCI_MANIFEST} <= set(accepted)


def _words(command: list[str]) -> list[str]:
    program = need_tool(command[0], "apt-get install kmod")
    return subprocess.run([program, *command[1:]], check=True, capture_output=True, text=True).stdout.split()
