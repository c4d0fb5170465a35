"""Registries that fail: repeated requests, undecided results, and answers that are refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from kmm_preflight.cluster.credentials import Credentials
from kmm_preflight.model import Flavour, ModuleName, Outcome, RegistryTLS, StageResult, TargetKernel
from kmm_preflight.oci.auth import Credential, Keychain
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network, Patience
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.reference import Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.image_check import judge_image
from kmm_preflight.stages.kept_files import keep_rules

from .real.authority import Authority
from .real.faults import BLOBS, FOREVER_S, MANIFESTS, Fault, FaultyRegistry
from .real.layout import Image, Member, image, index, layer, symlink
from .runs import module, run_preflight, write_manifests

KERNEL = "5.14.0-570.19.1.el9_6.x86_64"
KMOD = b"\x7fELF" + bytes(96)
LAYER = layer([Member(f"opt/lib/modules/{KERNEL}/probe.ko", KMOD), Member("data", random.Random(1).randbytes(300_000))])
CUT = 100_000
GOOD = image([LAYER])
CONFIG = GOOD.blobs[0]
INDEX = index([image([LAYER], architecture="arm64"), GOOD])
QUICK = Patience(
    connect_seconds=2, read_seconds=0.4, backoff_seconds=0.01, retry_after_seconds=1, grace_seconds=0.4, resumes=2
)
KEEP = keep_rules(kmods=frozenset({"probe"}))
LOGIN = ("someone", "the-password")

Judge = Callable[..., StageResult]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of all registries. They use TLS because a plain server in Python may not answer a TLS handshake."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def faulty(authority: Authority) -> Iterator[FaultyRegistry]:
    """A registry with the image and the index; set_faults() makes it fail."""
    with FaultyRegistry({"team/kmod:v1": GOOD, "team/kmod:both": INDEX}, authority=authority) as registry:
        yield registry


@pytest.fixture
def judge(authority: Authority, tmp_path: Path) -> Judge:
    """A function that runs the image stage for an image name."""

    def judge(
        name: str, login: tuple[str, str] | None = None, tls: RegistryTLS | None = None, kmod: str | None = "probe"
    ) -> StageResult:
        kernel = TargetKernel(KERNEL, "amd64", None, Flavour.STANDARD, None, "a test")
        plan = Plan(ModuleName("ns", "a"), kernel, Reference.parse(name), kmod, tls=tls or RegistryTLS())
        images = ImageResolver(Network(ca=authority.ca, patience=QUICK), Cache(tmp_path / "cache"), None, KEEP)
        keychain = Keychain("a test", {name.partition("/")[0]: Credential(*login)}) if login else None
        return judge_image(plan, images, Credentials(PullCredentials((keychain,) if keychain else ())))

    return judge


def _conclusion(result: StageResult) -> tuple[Outcome, str]:
    return result.outcome, result.findings[0].id if result.findings else ""


GREEN = (Outcome.VERIFIED, "")
UNREACHABLE = (Outcome.UNDECIDED, "registry-unreachable")
TRUNCATED = (Outcome.UNDECIDED, "transfer-truncated")
MISMATCH = (Outcome.UNDECIDED, "digest-mismatch")
PLATFORM = (Outcome.FAILED, "image-platform-missing")


@dataclass(frozen=True)
class Case:
    """A registry with faults, and the result of the image stage."""

    faults: tuple[Fault, ...]
    """The faults of the registry."""
    want: tuple[Outcome, str]
    """The outcome, and the id of the first finding."""
    words: str = ""
    """A part of the finding's sentence."""
    requests: int | None = None
    """The number of GET requests for the path of the first fault."""
    name: str = "v1"
    """The tag or @digest of the image."""


def _case(
    *faults: Fault, want: tuple[Outcome, str], words: str = "", requests: int | None = None, name: str = "v1"
) -> Case:
    return Case(faults, want, words, requests, name)


BY_DIGEST = f"@{GOOD.digest}"
CASES = {
    "nothing": _case(want=GREEN),
    "503 always": _case(Fault(MANIFESTS, status=503), want=UNREACHABLE, words="got 503", requests=4),
    "503 twice": _case(Fault(MANIFESTS, times=2, status=503), want=GREEN, requests=3),
    "500 always": _case(Fault(MANIFESTS, status=500), want=UNREACHABLE, words="got 500", requests=4),
    "502 of a blob": _case(Fault(LAYER.digest, status=502), want=UNREACHABLE, words="got 502", requests=4),
    "503 of a blob twice": _case(Fault(LAYER.digest, times=2, status=503), want=GREEN, requests=3),
    "429 always": _case(Fault(MANIFESTS, status=429), want=UNREACHABLE, words="got 429", requests=4),
    "405": _case(Fault(MANIFESTS, status=405), want=UNREACHABLE, words="got status 405", requests=1),
    "403": _case(Fault(MANIFESTS, status=403), want=(Outcome.FAILED, "image-access-denied"), words="got 403"),
    "403 of a blob": _case(Fault(LAYER.digest, status=403), want=(Outcome.FAILED, "image-access-denied")),
    "404": _case(Fault(MANIFESTS, status=404), want=(Outcome.FAILED, "image-not-found"), requests=1),
    "404 of a blob": _case(Fault(LAYER.digest, status=404), want=(Outcome.FAILED, "image-unreadable")),
    "404 of the config": _case(Fault(CONFIG.digest, status=404), want=(Outcome.FAILED, "image-unreadable")),
    "404 of a child": _case(Fault(GOOD.digest, status=404), want=PLATFORM, words="its index names", name="both"),
    "503 of a child": _case(Fault(GOOD.digest, status=503), want=UNREACHABLE, name="both"),
    "blob cut once": _case(Fault(LAYER.digest, times=1, cut_after=CUT), want=GREEN, requests=2),
    "blob cut at once": _case(Fault(LAYER.digest, times=1, cut_after=0), want=GREEN, requests=2),
    "blob cut always": _case(Fault(LAYER.digest, cut_after=10), want=TRUNCATED, words="breaks off", requests=3),
    "config cut once": _case(Fault(CONFIG.digest, times=1, cut_after=10), want=GREEN, requests=2),
    "manifest cut once": _case(Fault(MANIFESTS, times=1, cut_after=10), want=GREEN, requests=2),
    "manifest cut always": _case(Fault(MANIFESTS, cut_after=10), want=TRUNCATED, words="breaks off", requests=3),
    "wrong layer": _case(Fault(LAYER.digest, wrong_bytes=True), want=MISMATCH, words=f"expected {LAYER.digest}"),
    "wrong config": _case(Fault(CONFIG.digest, wrong_bytes=True), want=MISMATCH, words=f"expected {CONFIG.digest}"),
    "wrong manifest": _case(Fault(MANIFESTS, wrong_bytes=True), want=MISMATCH, words=f"expected {GOOD.digest}"),
    "wrong manifest by digest": _case(Fault(MANIFESTS, wrong_bytes=True), want=MISMATCH, name=BY_DIGEST),
    "wrong child": _case(Fault(GOOD.digest, wrong_bytes=True), want=MISMATCH, name="both"),
    "wrong digest header": _case(Fault(MANIFESTS, wrong_digest=True), want=MISMATCH),
    "wrong digest header for a request by digest": _case(Fault("/v2/", wrong_digest=True), want=GREEN, name=BY_DIGEST),
    "silence": _case(Fault(MANIFESTS, hang_s=FOREVER_S), want=UNREACHABLE, words="no answer from", requests=2),
    "silence once": _case(Fault(MANIFESTS, times=1, hang_s=1), want=GREEN, requests=2),
    "silent blob": _case(Fault(LAYER.digest, hang_s=FOREVER_S), want=UNREACHABLE, words="no answer from"),
    "dripping blob": _case(Fault(LAYER.digest, bytes_per_s=100), want=UNREACHABLE, words="bytes in 0 s"),
    "dripping manifest": _case(Fault(MANIFESTS, bytes_per_s=100), want=UNREACHABLE, words="bytes in 0 s"),
    "endless blob": _case(Fault(LAYER.digest, endless=True), want=MISMATCH, words="got more than"),
    "endless config": _case(Fault(CONFIG.digest, endless=True), want=MISMATCH, words="got more than"),
    "endless manifest": _case(
        Fault(MANIFESTS, endless=True), want=(Outcome.UNDECIDED, "bound-exceeded"), words="more than 4194304 bytes"
    ),
    "an HTML page": _case(
        Fault(MANIFESTS, status=200, headers={"Content-Type": "text/html"}),
        want=UNREACHABLE,
        words="is this a registry?",
    ),
    "another document": _case(Fault(MANIFESTS, status=200), want=(Outcome.FAILED, "image-unreadable")),
    "redirect to nowhere": _case(
        Fault(LAYER.digest, status=307, headers={"Location": "https://[::1/x"}),
        want=UNREACHABLE,
        words="Invalid IPv6 URL",
    ),
    "redirect to a file": _case(
        Fault(LAYER.digest, status=307, headers={"Location": "file:///etc/passwd"}), want=UNREACHABLE
    ),
    "redirect in circles": _case(
        Fault(LAYER.digest, status=307, headers={"Location": f"/v2/team/kmod/blobs/{LAYER.digest}"}), want=UNREACHABLE
    ),
    "login at an invalid address": _case(
        Fault(MANIFESTS, status=401, headers={"WWW-Authenticate": 'Bearer realm="https://[::1"'}),
        want=(Outcome.FAILED, "image-access-denied"),
        words="an invalid address as its token server",
    ),
    "login over plain HTTP": _case(
        Fault(MANIFESTS, status=401, headers={"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/"'}),
        want=(Outcome.FAILED, "image-access-denied"),
        words="expected an https address",
    ),
    "token server that is missing": _case(
        Fault(MANIFESTS, status=401, headers={"WWW-Authenticate": 'Bearer realm="/token"'}),
        want=UNREACHABLE,
        words="got status 404 from its token server",
    ),
    "login of an unknown kind": _case(
        Fault(MANIFESTS, status=401, headers={"WWW-Authenticate": "Negotiate"}),
        want=(Outcome.FAILED, "image-access-denied"),
        words="offers no known way to log in",
    ),
    "token server that is busy": _case(
        Fault(MANIFESTS, status=401, headers={"WWW-Authenticate": 'Bearer realm="/token"'}),
        Fault("/token", status=503),
        want=UNREACHABLE,
        words="got status 503 from its token server",
    ),
    "token server without a token": _case(
        Fault(MANIFESTS, status=401, headers={"WWW-Authenticate": 'Bearer realm="/v2/team/kmod/blobs/none"'}),
        Fault("/blobs/none", status=200),
        want=(Outcome.FAILED, "image-access-denied"),
        words="returned no token",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fault(faulty: FaultyRegistry, judge: Judge, name: str) -> None:
    case = CASES[name]
    faulty.set_faults(*case.faults)
    start = time.monotonic()
    result = judge(f"{faulty.host}/team/kmod{'' if case.name.startswith('@') else ':'}{case.name}")
    assert _conclusion(result) == case.want, result
    assert time.monotonic() - start < 5
    if case.words:
        assert case.words in result.findings[0].sentence
    if case.requests is not None:
        path = case.faults[0].path
        sent = [request for request in faulty.requests() if path in request.path and request.method == "GET"]
        assert len(sent) == case.requests


@pytest.mark.parametrize("ranges", ["honoured", "ignored", "refused"])
def test_rest_of_a_blob_is_requested_after_it_broke_off(
    authority: Authority, judge: Judge, ranges: Literal["honoured", "ignored", "refused"]
) -> None:
    cut = Fault(LAYER.digest, times=1, cut_after=CUT)
    with FaultyRegistry({"team/kmod:v1": GOOD}, cut, authority=authority, ranges=ranges) as registry:
        assert _conclusion(judge(f"{registry.host}/team/kmod:v1")) == GREEN
        ranges_sent = [seen.headers.get("Range") for seen in registry.requests() if LAYER.digest in seen.path]
    assert ranges_sent == [None, f"bytes={CUT}-", *([None] if ranges == "refused" else [])]


def test_layer_is_read_again_once_for_all_kmods_behind_a_link(authority: Authority, judge: Judge) -> None:
    kmods = [Member(f"usr/lib/modules/{KERNEL}/extra/{number}.ko", KMOD) for number in range(20)]
    linked = layer([symlink("opt/lib", "../usr/lib"), *kmods])
    with FaultyRegistry({"team/kmod:v1": image([linked])}, authority=authority) as registry:
        result = judge(f"{registry.host}/team/kmod:v1", kmod=None)
        assert _conclusion(result) == (Outcome.VERIFIED, "modprobe-arguments-unchecked")
        fetched = [seen for seen in registry.requests() if linked.digest in seen.path and seen.method == "GET"]
        assert len(fetched) == 2


def test_retry_after_is_honoured(faulty: FaultyRegistry, judge: Judge) -> None:
    faulty.set_faults(Fault(MANIFESTS, times=1, status=429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    assert _conclusion(judge(f"{faulty.host}/team/kmod:v1")) == GREEN
    assert 1 <= time.monotonic() - start < 3


def test_retry_after_is_bounded(faulty: FaultyRegistry, judge: Judge) -> None:
    faulty.set_faults(Fault(MANIFESTS, times=1, status=503, headers={"Retry-After": "86400"}))
    start = time.monotonic()
    assert _conclusion(judge(f"{faulty.host}/team/kmod:v1")) == GREEN
    assert time.monotonic() - start < 3


def test_refused_connection(faulty: FaultyRegistry, judge: Judge) -> None:
    name = f"{faulty.host}/team/kmod:v1"
    faulty.stop()
    result = judge(name)
    assert _conclusion(result) == UNREACHABLE
    assert "Connection refused" in result.findings[0].sentence


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 70}.invalid", "[::1]:9", "127.0.0.1:9"])
def test_unreachable_host(judge: Judge, host: str) -> None:
    assert _conclusion(judge(f"{host}/team/kmod:v1")) == UNREACHABLE


def test_wrong_size_in_the_manifest_refutes_the_image(authority: Authority, judge: Judge) -> None:
    body = GOOD.manifest.data.replace(f'"size": {len(LAYER.data)}'.encode(), f'"size": {len(LAYER.data) + 7}'.encode())
    wrong = Image(type(LAYER)(body, GOOD.manifest.media_type), GOOD.blobs)
    with FaultyRegistry({"team/kmod:v1": wrong}, authority=authority) as registry:
        result = judge(f"{registry.host}/team/kmod:v1")
    assert _conclusion(result) == (Outcome.FAILED, "image-unreadable")
    assert "the manifest has a wrong size" in result.findings[0].sentence


def test_login_is_not_sent_to_the_host_of_a_redirect(authority: Authority, judge: Judge) -> None:
    images = {"team/kmod:v1": GOOD}
    with (
        FaultyRegistry(images, authority=authority) as storage,
        FaultyRegistry(images, Fault(BLOBS, redirect_to=storage.url), login=LOGIN, authority=authority) as front,
    ):
        assert _conclusion(judge(f"{front.host}/team/kmod:v1", LOGIN)) == GREEN
        assert [seen.headers.get("Authorization") for seen in storage.requests() if seen.method == "GET"] == [None] * 2
        # The first request, to /v2/, finds the challenge.
        assert [bool(seen.headers.get("Authorization")) for seen in front.requests()][:2] == [False, True]
        assert all(seen.headers.get("Authorization") for seen in front.requests()[1:])


def test_login_is_sent_only_after_a_challenge(faulty: FaultyRegistry, judge: Judge) -> None:
    assert _conclusion(judge(f"{faulty.host}/team/kmod:v1", LOGIN)) == GREEN
    assert {seen.headers.get("Authorization") for seen in faulty.requests()} == {None}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_untrusted_certificate_with_skip_tls_verify(judge: Judge, tmp_path: Path) -> None:
    with FaultyRegistry({"team/kmod:v1": GOOD}, authority=Authority(tmp_path / "other")) as stranger:
        name = f"{stranger.host}/team/kmod:v1"
        assert _conclusion(judge(name)) == (Outcome.UNDECIDED, "registry-untrusted")
        assert _conclusion(judge(name, tls=RegistryTLS(insecure=True))) == (Outcome.UNDECIDED, "registry-untrusted")
        assert _conclusion(judge(name, tls=RegistryTLS(insecure_skip_tls_verify=True))) == GREEN


def test_no_plain_http_after_an_answer_by_https(faulty: FaultyRegistry, judge: Judge) -> None:
    faulty.set_faults(Fault(BLOBS, hang_s=FOREVER_S))
    result = judge(f"{faulty.host}/team/kmod:v1", LOGIN, RegistryTLS(insecure=True))
    assert _conclusion(result) == UNREACHABLE
    assert "Read timed out" in result.findings[0].sentence


BUILD = {"dockerfileConfigMap": {"name": "dockerfile"}}


def test_undecided_image_is_not_built(faulty: FaultyRegistry, authority: Authority, tmp_path: Path) -> None:
    faulty.set_faults(Fault("team/kmod/manifests/v1", status=503))
    image_name = f"{faulty.host}/team/kmod"
    modules = [
        module("busy", f"{image_name}:v1", build=BUILD),
        module("fine", f"{image_name}@{GOOD.digest}", build=BUILD),
        module("gone", f"{image_name}:none", build=BUILD),
    ]
    manifests = write_manifests(tmp_path / "manifests", modules)
    options = [f"--kernel={KERNEL}", f"--manifests={manifests}", f"--registry-ca={authority.ca}", "-n", "0"]
    run = run_preflight(tmp_path, *options)
    assert run.verdicts() == {
        "busy": ("undecided", "registry-unreachable"),
        "fine": ("verified",),
        "gone": ("refuted", "image-not-found", "dockerfile-absent"),
    }, run.output
    modules_of_run = run.document["modules"]
    stages = {judged["name"]: [stage["outcome"] for stage in judged["stages"]] for judged in modules_of_run}
    assert stages["busy"] == ["undecided", "not needed", "not needed"]
    assert run.returncode == 1
    (tmp_path / "manifests/module-gone.json").unlink()
    assert run_preflight(tmp_path, *options).returncode == 10
