"""The image stage with real registries: each shape of an image, each way of access, and the requests to a registry."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from .real.build import BUSYBOX, buildah_image, buildah_works, busybox
from .real.faults import BLOBS, MANIFESTS
from .real.layout import Image, Member, image, layer
from .real.push import push
from .real.registry import Registry, Request
from .runs import module, run_preflight, secret, write_manifests
from .shapes import BASE, VERIFIED, Parts, Shape, every_shape, refuted, shape_names


@pytest.fixture(scope="module")
def parts(kernels: tuple[str, str], kmods: Mapping[str, bytes]) -> Parts:
    """Real kmods for real kernels. The upgrade is to the newest kernel."""
    old, new = kernels
    return Parts(new, old, kmods[new], kmods[old])


@pytest.fixture(scope="module")
def shapes(login_registry: Registry, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Shape]:
    """Every shape, pushed to the registry. If buildah works, also the shapes that it builds."""
    shapes = every_shape(parts)
    for shape in shapes:
        if shape.made:
            push(login_registry, f"shapes/{shape.name}", parts.kernel, shape.made)
    built = [] if buildah_works() else _built(login_registry, parts, tmp_path_factory.mktemp("built"))
    return [*shapes, *built]


def _built(registry: Registry, parts: Parts, scratch: Path) -> list[Shape]:
    at = f"/{parts.folder}"
    copy = f"COPY probe.ko {at}/probe.ko\n"
    files = {"probe.ko": parts.kmod, "busybox": busybox()}
    steps: dict[str, tuple[str, bool, bool, tuple[str, ...]]] = {
        "built": (copy, True, False, VERIFIED),
        "built-moved": (f"{copy}RUN mv {at}/probe.ko {at}/a.ko\n", False, False, refuted("kmod-absent")),
        "built-removed": (f"{copy}RUN rm -r {at}\n", True, True, refuted("kmod-removed")),
        "built-linked": (f"COPY probe.ko /kmod\nRUN mkdir -p {at} && ln /kmod {at}/probe.ko\n", True, False, VERIFIED),
    }
    shapes = []
    for name, (recipe, layers, docker, want) in steps.items():
        repository = f"shapes/{name}"
        buildah_image(
            scratch, BUSYBOX + recipe, files, registry, repository, parts.kernel, docker=docker, layers=layers
        )
        shapes.append(Shape(name, None, want))
    return shapes


@pytest.fixture(scope="module")
def manifests(login_registry: Registry, shapes: Sequence[Shape], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests of a Module for each shape."""
    modules = []
    for shape in shapes:
        repository = f"{login_registry.host}/shapes/{shape.name}"
        name = shape.reference.format(repository=repository, digest=shape.made.digest if shape.made else "")
        modules.append(module(shape.name, name, shape.kmod, **shape.more))
    return write_manifests(tmp_path_factory.mktemp("manifests"), modules)


def _trusted(registry: Registry) -> str:
    return f"--registry-ca={registry.ca}"


def _login(registry: Registry, folder: Path, password: str | None = None) -> str:
    return f"--authfile={registry.authfile(folder / 'auth.json', password)}"


@pytest.mark.parametrize("workers", [0, 4])
def test_every_shape_has_its_verdict(
    tmp_path: Path, login_registry: Registry, shapes: Sequence[Shape], manifests: Path, parts: Parts, workers: int
) -> None:
    options = [f"--kernel={parts.kernel}", f"--manifests={manifests}", f"--numprocesses={workers}"]
    run = run_preflight(tmp_path, *options, _trusted(login_registry), _login(login_registry, tmp_path))
    assert run.verdicts() == {shape.name: shape.want for shape in shapes}, run.output
    sentences = run.sentences()
    wrong = [(shape.words, sentences[shape.name]) for shape in shapes if shape.words not in sentences[shape.name]]
    assert wrong == []
    assert shape_names(shapes) == set(sentences)
    assert run.returncode == 1
    assert "Traceback" not in run.output
    assert len(run.junit.findall(".//testcase")) == 3 * len(shapes)


DENIED, UNDECIDED = refuted("image-access-denied"), ("undecided", "image-access-undecided")
UNKNOWN = ("undecided", "image-login-unknown")
NOT_GIVEN = "secret-not-given"
UNTRUSTED = ("undecided", "registry-untrusted")
ACCESS: dict[str, tuple[list[str], dict[str, tuple[str, ...]]]] = {
    "login": (
        ["ca", "login"],
        {
            "plain": VERIFIED,
            "own": VERIFIED,
            "own-dockercfg": VERIFIED,
            "own-wrong": UNKNOWN,
            "own-for-another": UNKNOWN,
            "own-malformed": refuted("credentials-invalid"),
            "own-not-given": ("verified", NOT_GIVEN),
            "missing": refuted("image-not-found"),
        },
    ),
    "no login": (
        ["ca"],
        {
            "plain": UNKNOWN,
            "own": VERIFIED,
            "own-dockercfg": VERIFIED,
            "own-wrong": DENIED,
            "own-for-another": DENIED,
            "own-malformed": refuted("credentials-invalid"),
            "own-not-given": (*UNKNOWN, NOT_GIVEN),
            "missing": UNKNOWN,
        },
    ),
    "wrong password": (
        ["ca", "wrong"],
        {
            "plain": UNDECIDED,
            "own": VERIFIED,
            "own-dockercfg": VERIFIED,
            "own-wrong": UNKNOWN,
            "own-for-another": UNKNOWN,
            "own-malformed": refuted("credentials-invalid"),
            "own-not-given": (*UNDECIDED, NOT_GIVEN),
            "missing": UNDECIDED,
        },
    ),
    "no authority": (
        ["login"],
        {
            "plain": UNTRUSTED,
            "own": UNTRUSTED,
            "own-dockercfg": UNTRUSTED,
            "own-wrong": UNTRUSTED,
            "own-for-another": UNTRUSTED,
            "own-malformed": refuted("credentials-invalid"),
            "own-not-given": (*UNTRUSTED, NOT_GIVEN),
            "missing": UNTRUSTED,
        },
    ),
}
SENTENCES = {
    ("login", "own-wrong"): "(with imageRepoSecret shapes/own-wrong)",
    ("login", "own-malformed"): "imageRepoSecret shapes/own-malformed: not JSON",
    ("login", "own-not-given"): "own-not-given is not among the manifests, so the image was requested with --authfile ",
    ("login", "missing"): "got 404, the registry does not have it",
    ("no login", "plain"): "(with no credentials); nodes add logins of their own",
    ("wrong password", "plain"): "(with --authfile, which nodes do not use)",
    ("no authority", "plain"): "is not trusted (unable to get local issuer certificate)",
}


@pytest.mark.parametrize("kind", ["login_registry", "token_registry"])
@pytest.mark.parametrize("access", ACCESS)
def test_access(request: pytest.FixtureRequest, tmp_path: Path, parts: Parts, kind: str, access: str) -> None:
    registry: Registry = request.getfixturevalue(kind)
    push(registry, "team/access", "v1", parts.image(parts.good))
    manifests = write_manifests(tmp_path / "manifests", _access_manifests(registry))
    options_by_name = {"ca": _trusted(registry), "login": _login(registry, tmp_path / "right"),
             "wrong": _login(registry, tmp_path / "wrong", "wrong")}  # fmt: skip
    names, want = ACCESS[access]
    options = [f"--kernel={parts.kernel}", f"--manifests={manifests}", *(options_by_name[name] for name in names)]
    run = run_preflight(tmp_path, *options, "--numprocesses=0")
    assert run.verdicts() == want, run.output
    sentences = run.sentences()
    words = {name: text for (where, name), text in SENTENCES.items() if where == access}
    assert {name: sentences[name] for name, text in words.items() if text not in sentences[name]} == {}
    assert registry.password not in run.output + json.dumps(run.document)


def _access_manifests(registry: Registry) -> list[dict[str, Any]]:
    image = f"{registry.host}/team/access:v1"
    entry = {"auth": _base64(f"{registry.user}:{registry.password}")}
    auths = {registry.host: entry}
    secrets = {
        "own": ("dockerconfigjson", {"auths": auths}),
        "own-dockercfg": ("dockercfg", auths),
        "own-wrong": ("dockerconfigjson", {"auths": {registry.host: {"auth": _base64(f"{registry.user}:wrong")}}}),
        "own-for-another": ("dockerconfigjson", {"auths": {"registry.example": entry}}),
        "own-malformed": ("dockerconfigjson", None),
    }
    modules = [module("plain", image), module("missing", image.replace(":v1", ":v2"))]
    modules += [module(name, image, imageRepoSecret=name) for name in (*secrets, "own-not-given")]
    return modules + [
        secret(name, kind, {f".{kind}": _base64(json.dumps(body) if body else "no JSON")})
        for name, (kind, body) in secrets.items()
    ]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_public_image_of_a_token_registry_needs_no_login(
    tmp_path: Path, token_registry: Registry, parts: Parts
) -> None:
    push(token_registry, "public/kmod", "v1", parts.image(parts.good))
    manifests = write_manifests(tmp_path / "manifests", [module("public", f"{token_registry.host}/public/kmod:v1")])
    options = [f"--kernel={parts.kernel}", f"--manifests={manifests}", _trusted(token_registry)]
    run = run_preflight(tmp_path, *options, "-n", "0")
    assert (run.returncode, run.verdicts()) == (0, {"public": VERIFIED}), run.output


@pytest.fixture
def team(plain_registry: Registry, parts: Parts, tmp_path: Path) -> dict[str, Image]:
    """Six images that share layers. Five have the kmod, in a shared layer or in their own. One has no kmod."""
    shared = layer([parts.good, Member("usr/filler", random.Random(7).randbytes(200_000))])
    empty = layer([Member("etc/nothing", b"here")])
    made = {f"shared-{number}": image([shared, layer([Member("etc/n", bytes([number]))])]) for number in range(3)}
    made |= {f"own-{number}": image([BASE, shared, layer([parts.good])]) for number in range(2)}
    made["none"] = image([BASE, empty])
    for name, pushed in made.items():
        push(plain_registry, f"team/{name}", "v1", pushed)
    plain_registry.forget()
    write_manifests(tmp_path / "manifests", [module(name, f"{plain_registry.host}/team/{name}:v1") for name in made])
    return made


def test_each_blob_is_fetched_once_and_a_second_run_fetches_none(
    tmp_path: Path, plain_registry: Registry, parts: Parts, team: Mapping[str, Image]
) -> None:
    options = [f"--kernel={parts.kernel}", f"--manifests={tmp_path / 'manifests'}", "-n", "4"]
    want = {name: refuted("kmod-absent") if name == "none" else VERIFIED for name in team}
    first = run_preflight(tmp_path, *options)
    assert first.verdicts() == want, first.output
    fetched = Counter(
        _digest(sent) for sent in plain_registry.requests() if sent.method == "GET" and BLOBS in sent.path
    )
    assert fetched
    assert set(fetched.values()) == {1}
    plain_registry.forget()
    second = run_preflight(tmp_path, *options)
    assert second.verdicts() == want, second.output
    requests = plain_registry.requests()
    assert [sent for sent in requests if sent.method == "GET" and BLOBS in sent.path] == []
    assert Counter(sent.path for sent in requests if sent.method == "GET" and MANIFESTS in sent.path) == {
        f"/v2/team/{name}/manifests/v1": 1 for name in team
    }
    checked = {sent.path for sent in requests if sent.method == "HEAD"}
    assert checked >= {
        f"/v2/team/{name}/blobs/{blob.digest}" for name in team if name != "none" for blob in team[name].blobs
    }


def test_blob_that_the_registry_lost_refutes_even_if_it_is_cached(
    tmp_path: Path, plain_registry: Registry, parts: Parts, team: Mapping[str, Image]
) -> None:
    lost = layer([parts.good, Member("usr/lost", random.Random(8).randbytes(1000))])
    push(plain_registry, "team/lost", "v1", image([BASE, lost]))
    push(plain_registry, "team/lost-config", "v1", image([BASE, layer([parts.good])], labels={"lost": "soon"}))
    names = ["lost", "lost-config"]
    modules = [module(name, f"{plain_registry.host}/team/{name}:v1") for name in names]
    manifests = write_manifests(tmp_path / "two", modules)
    options = [f"--kernel={parts.kernel}", f"--manifests={manifests}", "-n", "0"]
    assert run_preflight(tmp_path, *options).verdicts() == dict.fromkeys(names, VERIFIED)
    config = image([BASE, layer([parts.good])], labels={"lost": "soon"}).blobs[0]
    for blob in (lost, config):
        digest = blob.digest.removeprefix("sha256:")
        (plain_registry.storage / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data").unlink()
    with_cache = run_preflight(tmp_path, *options)
    without = run_preflight(tmp_path / "fresh", *options)
    assert with_cache.verdicts() == without.verdicts() == dict.fromkeys(names, refuted("image-unreadable"))
    assert f"layer {lost.digest} of image " in with_cache.sentences()["lost"]
    assert with_cache.sentences()["lost"].endswith(" is missing from its repository")


def _digest(request: Request) -> str:
    return request.path.rpartition("/")[2]
