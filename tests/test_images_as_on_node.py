"""Images as containers/image and containers/storage take them: our verdict is that of skopeo, which uses both."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.real.faults import FaultyRegistry
from tests.real.layout import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Blob,
    Image,
)
from tests.real.requirement import need, need_tool
from tests.runs import module, run_preflight, write_manifests

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KERNEL = "5.14.0-570.19.1.el9_6.x86_64"
GZIP_LAYER = f"{OCI_LAYER}+gzip"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
AMD64 = {"platform": {"architecture": "amd64", "os": "linux"}}

Entry = tuple[str, bytes] | tarfile.TarInfo
KMOD_PATH, KMOD_BYTES = f"opt/lib/modules/{KERNEL}/probe.ko", b"\x7fELF\2\1\1" + bytes(9) + b"\1\0\x3e\0" + bytes(44)
KMOD: Entry = (KMOD_PATH, KMOD_BYTES)


def tar(*entries: Entry) -> bytes:
    """Return a tar of files with content, and of entries of other types."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def of_type(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """Return an entry without content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def folder(name: str) -> tarfile.TarInfo:
    """Return a folder."""
    return of_type(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    """Return a symbolic link."""
    return of_type(name, tarfile.SYMTYPE, target)


def hard(name: str, target: str) -> tarfile.TarInfo:
    """Return a hard link."""
    return of_type(name, tarfile.LNKTYPE, target)


def layer(*entries: Entry, media_type: str = GZIP_LAYER) -> Blob:
    """Return a gzipped layer."""
    return Blob(gzip.compress(tar(*entries)), media_type)


GOOD, EMPTY = layer(KMOD), layer(("x", b"y"))
DOCKER_GOOD = Blob(GOOD.data, DOCKER_LAYER)


def image(
    *layers: Blob,
    kind: str = OCI_MANIFEST,
    config: str = OCI_CONFIG,
    body: Mapping[str, object] | None = None,
    manifest: Mapping[str, object] | None = None,
) -> Image:
    """Return an image for amd64, with more fields in its config and its manifest."""
    diffs = [f"sha256:{hashlib.sha256(plain(blob.data)).hexdigest()}" for blob in layers]
    made = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    blob = Blob(json.dumps({**made, **(body or {})}).encode(), config)
    listed = {"config": blob.descriptor(), "layers": [layer.descriptor() for layer in layers]}
    text = json.dumps({"schemaVersion": 2, "mediaType": kind, **listed, **(manifest or {})})
    return Image(Blob(text.encode(), kind), [blob, *layers])


def plain(data: bytes) -> bytes:
    """Return the tar of a layer. Damaged data stays as it is."""
    try:
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError):
        return data


def docker(*layers: Blob, **more: Any) -> Image:
    """Return a docker image of schema 2."""
    return image(*layers, kind=DOCKER_MANIFEST, config=more.pop("config", DOCKER_CONFIG), **more)


def served_as(made: Image, media_type: str) -> Image:
    """Return the image with another Content-Type."""
    return Image(Blob(made.manifest.data, media_type), made.blobs, made.children)


def index(*entries: tuple[Image, Mapping[str, object]], kind: str = OCI_INDEX) -> Image:
    """Return an index of images, with more fields in each entry."""
    listed = [{**made.manifest.descriptor(), **more} for made, more in entries]
    body = {"schemaVersion": 2, "mediaType": kind, "manifests": listed}
    return Image(Blob(json.dumps(body).encode(), kind), [], [made for made, _ in entries])


def variant(name: str) -> dict[str, object]:
    """Return the platform of a variant of amd64."""
    return {"platform": {"architecture": "amd64", "os": "linux", "variant": name}}


def schema_1(*layers: Blob, throwaway: Iterable[int] = (), media_type: str = SCHEMA_1) -> Image:
    """Return an image of docker's schema 1. Layers are given base first, and listed from the top."""
    entries = []
    for number in reversed(range(len(layers))):
        entry: dict[str, object] = {"id": f"{number + 1:064x}", "created": "2020-01-01T00:00:00Z"}
        entry |= {"container_config": {"Cmd": ["x"]}, "throwaway": number in throwaway}
        entry |= {"parent": f"{number:064x}"} if number else {}
        entry |= {"architecture": "amd64", "os": "linux", "config": {}} if number == len(layers) - 1 else {}
        entries.append({"v1Compatibility": json.dumps(entry)})
    body = {"schemaVersion": 1, "name": "x/y", "tag": "v1", "architecture": "amd64", "history": entries}
    body["fsLayers"] = [{"blobSum": blob.digest} for blob in reversed(layers)]
    return Image(Blob(json.dumps(body).encode(), media_type), list(layers))


PACKED = {
    "gzip": GOOD,
    "zstd": Blob(zstd.compress(tar(KMOD)), f"{OCI_LAYER}+zstd"),
    "zstd-as-gzip": Blob(zstd.compress(tar(KMOD)), GZIP_LAYER),
    "gzip-as-tar": Blob(GOOD.data, OCI_LAYER),
    "tar-as-gzip": Blob(tar(KMOD), GZIP_LAYER),
    "xz": Blob(lzma.compress(tar(KMOD)), GZIP_LAYER),
    "bzip2": Blob(bz2.compress(tar(KMOD)), GZIP_LAYER),
    "two-members": Blob(gzip.compress(tar(KMOD)[:1000]) + gzip.compress(tar(KMOD)[1000:]), GZIP_LAYER),
    "other-type": Blob(GOOD.data, "application/octet-stream"),
    "foreign": Blob(GOOD.data, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    "wrong-checksum": Blob(GOOD.data[:-8] + bytes(8), GZIP_LAYER),
    "cut": Blob(GOOD.data[:-8], GZIP_LAYER),
    "garbage-behind": Blob(GOOD.data + b"garbage", GZIP_LAYER),
    "zeros-behind": Blob(GOOD.data + bytes(100), GZIP_LAYER),
    "zstd-cut": Blob(zstd.compress(tar(KMOD))[:-1], f"{OCI_LAYER}+zstd"),
    "zstd-then-skippable": Blob(zstd.compress(tar(KMOD)) + b"\x50\x2a\x4d\x18\x04\0\0\0abcd", f"{OCI_LAYER}+zstd"),
    "zstd-two-frames": Blob(zstd.compress(tar(KMOD)[:900]) + zstd.compress(tar(KMOD)[900:]), f"{OCI_LAYER}+zstd"),
    "empty-blob": Blob(b"", GZIP_LAYER),
    "without-padding": Blob(gzip.compress(tar(KMOD)[:600]), GZIP_LAYER),
}
UNPACKED: dict[str, tuple[Entry, ...]] = {
    "hard-link-to-nothing": (KMOD, hard("a", "nothing")),
    "hard-link-to-a-later-file": (KMOD, hard("a", "b"), ("b", b"x")),
    "hard-link-to-a-folder": (KMOD, folder("d"), hard("a", "d")),
    "hard-link-to-an-implied-folder": (KMOD, ("d/f", b""), hard("a", "d")),
    "hard-link-to-itself": (KMOD, hard("a", "a")),
    "hard-link-to-a-link": (KMOD, symlink("s", "x"), hard("a", "s")),
    "hard-link-through-a-link": (KMOD, ("d/f", b""), symlink("s", "d"), hard("a", "s/f")),
    "hard-link": (KMOD, ("f", b""), hard("a", "/f")),
    "whiteout-after-its-file": (KMOD, ("d/f", b"x"), ("d/.wh.f", b"")),
    "whiteout-before-its-file": (KMOD, ("d/.wh.f", b""), ("d/f", b"x")),
    "whiteout-of-an-implied-folder": (KMOD, ("d/f/g", b""), ("d/.wh.f", b"")),
    "whiteout-and-files-below": (KMOD, ("d/.wh.f", b""), ("d/f/g", b"")),
    "whiteout-of-nothing": (KMOD, ("d/.wh.f", b"")),
    "opaque": (KMOD, ("d/.wh..wh..opq", b""), ("d/g", b"")),
    "whiteout-through-a-link-to-nothing": (KMOD, symlink("s", "d"), ("s/.wh.x", b"")),
    "type-7": (KMOD, of_type("q", b"7")),
    "type-q": (KMOD, of_type("q", b"Q")),
    "fifo": (KMOD, of_type("q", tarfile.FIFOTYPE)),
    "device": (KMOD, of_type("q", tarfile.CHRTYPE)),
    "link-out": (KMOD, symlink("s", "../../../etc")),
    "below-a-link-to-nothing": (KMOD, symlink("s", "d"), ("s/x", b"y")),
    "below-a-link-out": (KMOD, symlink("s", "/etc"), ("s/x", b"y")),
    "far-below-a-link-to-nothing": (KMOD, symlink("s", "d"), ("s/q/x", b"y")),
    "below-a-link": (KMOD, ("d/f", b""), symlink("s", "d"), ("s/x", b"y")),
    "below-a-file": (KMOD, ("p", b"x"), ("p/q", b"x")),
    "folder-below-a-file": (KMOD, ("p", b"x"), folder("p/q")),
    "below-a-fifo": (KMOD, of_type("p", tarfile.FIFOTYPE), ("p/q", b"x")),
    "file-twice": (KMOD, ("a", b"x"), ("a", b"y")),
    "folder-twice": (folder("opt"), folder("opt"), KMOD),
    "folder-and-file": (KMOD, folder("a"), ("a", b"y")),
    "dots": (KMOD, ("a/../b", b"x"), ("b", b"y")),
    "hard-link-above-the-root-to-nothing": (KMOD, hard("a", "../../etc/passwd")),
    "dot": (KMOD, ("./a", b"x"), ("a", b"y")),
    "slash": (KMOD, ("/a", b"x"), ("a", b"y")),
}
TYPES = ("text/plain", "application/json", "application/octet-stream", "", OCI_INDEX, DOCKER_LIST, SCHEMA_1)


def rows() -> dict[str, Image]:
    """Return the images by name."""
    good, docker_good, bad = image(GOOD), docker(DOCKER_GOOD), image(EMPTY)
    zstd_in_docker = Blob(PACKED["zstd"].data, "application/vnd.docker.image.rootfs.diff.tar.zstd")
    without_config_type = json.loads(good.manifest.data)
    del without_config_type["config"]["mediaType"]
    return {
        **{f"packed-{name}": packed(blob) for name, blob in PACKED.items()},
        **{f"unpacked-{name}": image(layer(*entries)) for name, entries in UNPACKED.items()},
        **{f"oci-as-{number}": served_as(good, media_type) for number, media_type in enumerate(TYPES)},
        **{f"docker-as-{number}": served_as(docker_good, media_type) for number, media_type in enumerate(TYPES)},
        "oci-as-oci-with-charset": served_as(good, f"{OCI_MANIFEST}; charset=utf-8"),
        "oci-as-docker": served_as(good, DOCKER_MANIFEST),
        "docker-as-oci": served_as(docker_good, OCI_MANIFEST),
        "docker": docker_good,
        "docker-zstd": docker(zstd_in_docker),
        "docker-zstd-as-gzip": docker(Blob(PACKED["zstd"].data, DOCKER_LAYER)),
        "docker-oci-layer": docker(GOOD),
        "docker-oci-config": docker(DOCKER_GOOD, config=OCI_CONFIG),
        "docker-no-layer-type": docker(Blob(GOOD.data, "")),
        "docker-no-type": docker(DOCKER_GOOD, manifest={"mediaType": None}),
        "oci-no-type": image(GOOD, manifest={"mediaType": None}),
        "oci-docker-type": image(GOOD, manifest={"mediaType": DOCKER_MANIFEST}),
        "oci-docker-layer": image(DOCKER_GOOD),
        "oci-docker-config": image(GOOD, config=DOCKER_CONFIG),
        "artifact-helm": image(GOOD, config="application/vnd.cncf.helm.config.v1+json"),
        "artifact-empty": image(GOOD, config="application/vnd.oci.empty.v1+json"),
        "artifact-no-type": Image(Blob(json.dumps(without_config_type).encode(), OCI_MANIFEST), good.blobs),
        "artifact-type": image(GOOD, manifest={"artifactType": "application/vnd.x"}),
        "ambiguous-manifests": image(GOOD, manifest={"manifests": []}),
        "ambiguous-layers": image(GOOD, manifest={"fsLayers": []}),
        "config-of-arm64": image(GOOD, body={"architecture": "arm64"}),
        "config-of-windows": image(GOOD, body={"os": "windows"}),
        "config-of-nothing": image(GOOD, body={"architecture": ""}),
        "hard-link-to-a-lower-layer": image(layer(("b", b"x")), layer(KMOD, hard("a", "b"))),
        "below-a-link-of-a-lower-layer": image(layer(symlink("lib", "usr/lib")), layer(KMOD, ("lib/x", b""))),
        "index": index((good, AMD64)),
        "index-second": index((bad, AMD64), (good, AMD64)),
        "index-first": index((good, AMD64), (bad, AMD64)),
        **{f"index-{name}": index((good, variant(name))) for name in ("v1", "v2", "v3")},
        "index-v2-and-plain": index((bad, variant("v2")), (good, AMD64)),
        "index-plain-and-v2": index((good, AMD64), (bad, variant("v2"))),
        "index-no-os": index((good, {"platform": {"architecture": "amd64"}})),
        "index-no-platform": index((good, {})),
        "index-arm64": index((good, {"platform": {"architecture": "arm64", "os": "linux"}})),
        "list": index((docker_good, AMD64), kind=DOCKER_LIST),
        "list-no-platform": index((docker_good, {}), kind=DOCKER_LIST),
        "schema-1": schema_1(GOOD),
        "schema-1-as-json": schema_1(GOOD, media_type="application/json"),
        "schema-1-two": schema_1(EMPTY, GOOD),
        "schema-1-throwaway": schema_1(GOOD, EMPTY, throwaway=[1]),
        "schema-1-throwaway-kmod": schema_1(EMPTY, GOOD, throwaway=[1]),
    }  # fmt: skip


def packed(blob: Blob) -> Image:
    """Return an image of the layer. Its config names the digest of the whole tar."""
    digest = hashlib.sha256(tar(KMOD)).hexdigest()
    return image(blob, body={"rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}})


@pytest.fixture(scope="module")
def registry() -> Iterable[FaultyRegistry]:
    """Return a registry with all images: a real one would refuse half of them."""
    need("a root user", os.geteuid() == 0, "root, for storage on overlay")
    need_tool("skopeo", "apt-get install skopeo")
    with FaultyRegistry({f"team/{name}:v1": made for name, made in rows().items()}) as running:
        yield running


def on_node(registry: FaultyRegistry, name: str, scratch: Path) -> bool:
    """True if skopeo unpacks the image as CRI-O does, and the kmod is in it."""
    scratch.mkdir(parents=True)
    storage = f"containers-storage:[overlay@{scratch / 'r'}+{scratch / 'rr'}]x/image:v1"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
               f"docker://{registry.host}/team/{name}:v1", storage]  # fmt: skip
    done = subprocess.run(command, capture_output=True, env={**os.environ, "HOME": str(scratch)}, timeout=120)
    found = bool(list(scratch.glob(f"r/overlay/*/diff/opt/lib/modules/{KERNEL}/probe.ko")))
    subprocess.run(["umount", "--lazy", str(scratch / "r/overlay")], capture_output=True, check=False)
    return done.returncode == 0 and found


def test_our_verdict_on_each_image_is_the_node_s(registry: FaultyRegistry, tmp_path: Path) -> None:
    names = sorted(rows())
    folder = write_manifests(tmp_path / "m", [module(name, f"{registry.host}/team/{name}:v1") for name in names])
    run = run_preflight(tmp_path, f"--kernel={KERNEL}", "--proof=path", f"--manifests={folder}")
    ours = {name: verdict[0] for name, verdict in run.verdicts().items()}
    theirs = {name: on_node(registry, name, tmp_path / "storage" / name) for name in names}
    assert ours == {name: "verified" if good else "refuted" for name, good in theirs.items()}, run.output


@pytest.mark.parametrize("first", [True, False])
def test_of_two_images_for_one_platform_the_one_with_zstd_wins(tmp_path: Path, first: bool) -> None:
    annotated = {**AMD64, "annotations": {"io.github.containers.compression.zstd": "true"}}
    entries = [(image(GOOD), annotated), (image(EMPTY), AMD64)]
    with FaultyRegistry({"team/one:v1": index(*(entries if first else entries[::-1]))}) as registry:
        folder = write_manifests(tmp_path / "m", [module("one", f"{registry.host}/team/one:v1")])
        run = run_preflight(tmp_path, f"--kernel={KERNEL}", "--proof=path", f"--manifests={folder}")
    assert run.verdicts()["one"][0] == "verified", run.output
