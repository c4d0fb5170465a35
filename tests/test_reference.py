"""Image names: the grammar of the distribution project, and local layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.oci.reference import LayoutReference, Reference, parse_digest, parse_name

SHA256 = "sha256:" + "0a" * 32
SHA512 = "sha512:" + "0a" * 64


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("quay.io/a/b:c", "quay.io", "a/b", "c", None),
        ("quay.io/a/b", "quay.io", "a/b", "latest", None),
        (f"quay.io/a/b@{SHA256}", "quay.io", "a/b", None, SHA256),
        (f"quay.io/a/b:c@{SHA256}", "quay.io", "a/b", "c", SHA256),
        (f"quay.io/a/b@{SHA512}", "quay.io", "a/b", None, SHA512),
        ("registry:5000/a", "registry:5000", "a", "latest", None),
        ("registry:5000/a:b", "registry:5000", "a", "b", None),
        (f"registry:5000/a@{SHA256}", "registry:5000", "a", None, SHA256),
        (
            "image-registry.openshift-image-registry.svc:5000/ns/img:t",
            "image-registry.openshift-image-registry.svc:5000", "ns/img", "t", None,
        ),
        ("localhost/a", "localhost", "a", "latest", None),
        ("localhost:5000/a", "localhost:5000", "a", "latest", None),
        ("10.0.0.1/a", "10.0.0.1", "a", "latest", None),
        ("[::1]:5000/a:b", "[::1]:5000", "a", "b", None),
        ("[fe80::1]/a", "[fe80::1]", "a", "latest", None),
        ("HOST/a", "HOST", "a", "latest", None),
        ("busybox", "docker.io", "library/busybox", "latest", None),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", None),
        ("team/image", "docker.io", "team/image", "latest", None),
        ("docker.io/busybox", "docker.io", "library/busybox", "latest", None),
        ("docker.io/team/image", "docker.io", "team/image", "latest", None),
        ("index.docker.io/busybox", "docker.io", "library/busybox", "latest", None),
        ("a.b/c_d/e__f/g-h/i--j/k.l:T_-.9", "a.b", "c_d/e__f/g-h/i--j/k.l", "T_-.9", None),
        ("a.b/c:" + "x" * 128, "a.b", "c", "x" * 128, None),
    ],
)  # fmt: skip
def test_reference(text: str, host: str, repository: str, tag: str | None, digest: str | None) -> None:
    parsed = Reference.parse(text)
    assert parsed == Reference(host, repository, tag, digest)
    assert parsed.identifier == (digest or tag)
    assert Reference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "repository ''"),
        (":tag", "repository ''"),
        ("quay.io/", "repository ''"),
        ("/a", "repository '/a'"),
        ("quay.io//a", "repository '/a'"),
        ("quay.io/a//b", "repository 'a//b'"),
        ("quay.io/a/", "repository 'a/'"),
        ("quay.io/A/b", "repository 'A/b'"),
        ("Busybox", "repository 'Busybox'"),
        ("quay.io/a..b", "repository 'a..b'"),
        ("quay.io/a___b", "repository 'a___b'"),
        ("quay.io/_a", "repository '_a'"),
        ("quay.io/a_", "repository 'a_'"),
        ("quay.io/a/../b", "repository 'a/../b'"),
        ("quay.io/a b", "repository 'a b'"),
        ("quay.io/a\n", "repository 'a\\n'"),
        ("quay.io/é", "repository 'é'"),
        ("quay.io/" + "a" * 256, "repository"),
        ("quay.io/a:", "tag ''"),
        ("quay.io/a:-b", "tag '-b'"),
        ("quay.io/a:.b", "tag '.b'"),
        ("quay.io/a:b:c", "tag 'b:c'"),
        ("quay.io/a:5.14.0-1.x86_64+rt", "tag '5.14.0-1.x86_64+rt'"),
        ("quay.io/a:b/c", "tag 'b/c'"),
        ("quay.io/a:" + "x" * 129, "tag"),
        ("quay.io:0/a", "host 'quay.io:0'"),
        ("quay.io:65536/a", "host 'quay.io:65536'"),
        ("quay.io:port/a", "host 'quay.io:port'"),
        ("-quay.io/a", "host '-quay.io'"),
        ("quay..io/a", "host 'quay..io'"),
        ("user@quay.io/a", "digest"),
        ("https://quay.io/a", "host 'https:'"),
        ("quay.io/a@", "digest: got ''"),
        ("quay.io/a@sha256:abc", "digest: got 'sha256:abc'"),
        (f"quay.io/a@{SHA256.upper()}", "digest"),
        (f"quay.io/a@{SHA256}@{SHA256}", "digest"),
        ("quay.io/a@md5:" + "0" * 32, "digest"),
        ("quay.io/a:${KERNEL", "tag"),
    ],
)
def test_refused(text: str, part: str) -> None:
    with pytest.raises(Malformed) as caught:
        Reference.parse(text)
    assert Malformed(part).message in caught.value.message.replace("\\\\", "\\")
    assert "expected" in caught.value.message


@pytest.mark.parametrize("text", [SHA256, SHA512])
def test_digest(text: str) -> None:
    assert parse_digest(text) == text


@pytest.mark.parametrize(
    ("text", "path", "tag", "archive"),
    [
        ("oci:images", "images", None, False),
        ("oci:images:v1", "images", "v1", False),
        ("oci:/a/b:quay.io/c/d:e", "/a/b", "quay.io/c/d:e", False),
        (f"oci:/a:{SHA256}", "/a", SHA256, False),
        ("oci-archive:a.tar:v1", "a.tar", "v1", True),
    ],
)
def test_layout_name(text: str, path: str, tag: str | None, archive: bool) -> None:
    parsed = parse_name(text)
    assert parsed == LayoutReference(Path(path), tag, archive)
    assert str(parsed) == text


@pytest.mark.parametrize("text", ["oci:", "oci::tag", "oci-archive:", "oci:a\0b"])
def test_layout_name_refused(text: str) -> None:
    with pytest.raises(Malformed, match="the path is missing"):
        parse_name(text)


def test_unknown_transport_is_part_of_a_reference() -> None:
    assert parse_name("ocix/a:b") == Reference("docker.io", "ocix/a", "b", None)
