"""Shapes of images as a table: the content of each image, and the verdict on a Module that uses it."""

from __future__ import annotations

import gzip
import lzma
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .real.layout import (
    OCI_LAYER,
    Blob,
    Image,
    Member,
    folder,
    hardlink,
    image,
    index,
    layer,
    symlink,
    tar,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERIFIED = ("verified",)
DIRECTORY = "opt"


@dataclass(frozen=True)
class Shape:
    """A Module and its image."""

    name: str
    """The name of the Module and of the repository."""
    made: Image | None
    """The image, or None if the test does not push one."""
    want: tuple[str, ...] = VERIFIED
    """The verdict and the ids of its findings."""
    words: str = ""
    """A part of the findings' sentences."""
    kmod: str = "probe"
    """The moduleName of the Module."""
    reference: str = "{repository}:${{KERNEL_FULL_VERSION}}"
    """The containerImage; {repository} is host and repository, {digest} the image's digest."""
    more: dict[str, Any] = field(default_factory=dict)
    """Other fields of the Module."""


def refuted(finding: str) -> tuple[str, ...]:
    """Return the verdict against an image."""
    return "refuted", finding


@dataclass(frozen=True)
class Parts:
    """Two kernels with a kmod for each."""

    kernel: str
    """The kernel of the upgrade."""
    other: str
    """Another kernel."""
    kmod: bytes
    """The kmod for the kernel of the upgrade."""
    other_kmod: bytes
    """The kmod for the other kernel."""

    @property
    def folder(self) -> str:
        """The folder of the kernel's modules in the image."""
        return f"{DIRECTORY}/lib/modules/{self.kernel}"

    @property
    def good(self) -> Member:
        """The kmod at the path where modprobe looks."""
        return self.at("probe.ko")

    def at(self, name: str) -> Member:
        """Return the kmod under this name in the kernel's folder."""
        return Member(f"{self.folder}/{name}", self.kmod)

    def image(self, *members: Member) -> Image:
        """Return an image of one layer on a base without kmods."""
        return image([BASE, layer(members)])


BASE = layer([folder("etc"), Member("etc/os-release", b"ID=test\n")])


def every_shape(parts: Parts) -> list[Shape]:
    """Return the table. Names are unique."""
    return [
        *_kmods(parts),
        *_compressed(parts),
        *_layers(parts),
        *_streams(parts),
        *_links(parts),
        *_documents(parts),
        *_names(parts),
        *_folders(parts),
    ]


def _kmods(parts: Parts) -> list[Shape]:
    at, one = parts.folder, parts.image
    old = f"{DIRECTORY}/lib/modules/{parts.other}"
    return [
        Shape("good", one(parts.good)),
        Shape("dash-for-underscore", one(parts.at("my-probe.ko")), kmod="my_probe"),
        Shape("underscore-for-dash", one(parts.at("my_probe.ko")), kmod="my-probe"),
        Shape(
            "other-kernel",
            one(Member(f"{old}/probe.ko", parts.other_kmod)),
            refuted("kmod-absent"),
            f"there is no such folder; the image has kernels {parts.other}",
        ),
        Shape(
            "near-name", one(parts.at("probe2.ko")), refuted("kmod-absent"), "the folder has similar names: probe2.ko"
        ),
        Shape("other-name", one(parts.at("else.ko")), refuted("kmod-absent"), "the folder has kmods else.ko"),
        Shape(
            "elsewhere",
            one(Member("usr/share/probe.ko", parts.kmod)),
            refuted("kmod-absent"),
            "the image has /usr/share/probe.ko instead",
        ),
        Shape("no-suffix", one(parts.at("probe.ko.bz2")), refuted("kmod-absent"), "the folder has no kmod"),
        Shape("no-layers", image([]), refuted("kmod-absent"), "the image has no such file"),
        Shape("folder-called-kmod", one(folder(f"{at}/probe.ko")), refuted("kmod-not-a-file"), "got a folder"),
        Shape(
            "device",
            one(Member(f"{at}/probe.ko", kind=tarfile.CHRTYPE)),
            refuted("kmod-not-a-file"),
            "got a device",
        ),
        Shape("text", one(Member(f"{at}/probe.ko", b"not here\n")), refuted("kmod-not-elf"), "text that starts"),
        Shape(
            "empty",
            one(Member(f"{at}/probe.ko")),
            refuted("kmod-not-elf"),
            "is not a complete ELF object but an empty file",
        ),
        Shape("cut", one(Member(f"{at}/probe.ko", parts.kmod[:40])), refuted("kmod-not-elf"), "after 40 bytes"),
        Shape("good-beside-bad", one(Member(f"{at}/extra/probe.ko", b"text"), parts.good)),
    ]


def _compressed(parts: Parts) -> list[Shape]:
    at, one = parts.folder, parts.image
    text = gzip.compress(b"no object at all", mtime=0)
    half = lzma.compress(parts.kmod)[:30]
    return [
        Shape("xz-in-extra", one(Member(f"{at}/extra/probe.ko.xz", lzma.compress(parts.kmod)))),
        Shape("zst", one(Member(f"{at}/updates/dkms/probe.ko.zst", zstd.compress(parts.kmod)))),
        Shape("gz", one(Member(f"{at}/probe.ko.gz", gzip.compress(parts.kmod, mtime=0)))),
        Shape("gz-of-text", one(Member(f"{at}/probe.ko.gz", text)), refuted("kmod-not-elf"), "gzip of text"),
        Shape("xz-cut", one(Member(f"{at}/probe.ko.xz", half)), refuted("kmod-not-elf"), "damaged xz data"),
    ]


def _layers(parts: Parts) -> list[Shape]:
    at, lower = parts.folder, layer([parts.good])
    above = layer([Member("opt/readme", b"more\n")])
    removed = layer([Member(f"{at}/.wh.probe.ko")])
    bad = layer([Member(f"{at}/probe.ko", b"text")])

    def over(*upper: Member) -> Image:
        return image([BASE, lower, layer(upper)])

    return [
        Shape("lower-layer", image([lower, above, above])),
        Shape("shared-base-1", image([lower, layer([Member("etc/one", b"1")])])),
        Shape("shared-base-2", image([lower, layer([Member("etc/two", b"2")])])),
        Shape(
            "removed",
            image([lower, removed]),
            refuted("kmod-removed"),
            f"/{at}/probe.ko is in layer 1 of 2, and a later layer",
        ),
        Shape("removed-folder", over(Member(f"{DIRECTORY}/lib/.wh.modules")), refuted("kmod-removed")),
        Shape("removed-root", over(Member(f".wh.{DIRECTORY}")), refuted("kmod-removed")),
        Shape("opaque", over(folder(at), Member(f"{at}/.wh..wh..opq")), refuted("kmod-removed")),
        Shape("opaque-above", over(folder("opt"), Member("opt/.wh..wh..opq"), folder(at)), refuted("kmod-removed")),
        Shape("opaque-and-again", over(Member(f"{at}/.wh..wh..opq"), parts.good)),
        Shape("removed-and-again", image([lower, removed, lower])),
        Shape("removed-in-the-same-layer", over(Member(f"{at}/.wh.probe.ko"), parts.good)),
        Shape("good-over-bad", image([bad, lower])),
        Shape("bad-over-good", image([lower, bad]), refuted("kmod-not-elf")),
        Shape(
            "folder-becomes-file",
            over(Member(at, b"a file\n")),
            refuted("kmod-not-a-file"),
            "got a regular file, expected a folder",
        ),
        Shape("folder-becomes-link", over(symlink(at, "../nothing")), refuted("kmod-link-broken"), "../nothing"),
        Shape("parent-becomes-file", over(Member("opt/lib", b"a file\n")), refuted("kmod-removed")),
        Shape("parent-becomes-link", over(symlink("opt/lib", "../usr/lib")), refuted("kmod-link-broken")),
    ]


def _streams(parts: Parts) -> list[Shape]:
    at = parts.folder
    plain = tar([folder(at), parts.good])
    skippable = b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + bytes(8)
    long_name = f"{at}/{'deep-' * 30}/{'deeper-' * 10}/probe.ko"

    def whole(data: bytes, kind: str = "+gzip") -> Image:
        return image([BASE, Blob(data, OCI_LAYER + kind)])

    members = [gzip.compress(plain[start : start + 700], mtime=0) for start in range(0, len(plain), 700)]
    return [
        Shape("dot-slash", parts.image(folder("./opt"), Member(f"./{at}/probe.ko", parts.kmod))),
        Shape("slash", parts.image(Member(f"/{at}/probe.ko", parts.kmod))),
        Shape("uncompressed-layer", whole(plain, "")),
        Shape("zstd-layer", whole(zstd.compress(plain), "+zstd")),
        Shape("zstd-chunked-layer", whole(zstd.compress(plain) + skippable, "+zstd")),
        Shape("zstd-skippable-first", whole(skippable + zstd.compress(plain), "+zstd")),
        Shape("many-gzip-members", whole(b"".join(members))),
        Shape("layer-without-its-type", whole(zstd.compress(plain), "+gzip")),
        Shape("ustar", whole(gzip.compress(tar([parts.good], tarfile.USTAR_FORMAT)))),
        Shape("gnu-long-name", whole(gzip.compress(tar([Member(long_name, parts.kmod)], tarfile.GNU_FORMAT)))),
        Shape("pax-long-name", whole(gzip.compress(tar([Member(long_name, parts.kmod)], tarfile.PAX_FORMAT)))),
        Shape("cut-layer", whole(gzip.compress(plain)[:-200]), refuted("image-unreadable"), "cut short"),
        Shape("cut-at-its-end", whole(gzip.compress(plain)[:-4]), refuted("image-unreadable"), "cut short"),
        Shape("no-tar", whole(b"this is no tar\n" * 100, ""), refuted("image-unreadable")),
    ]


def _links(parts: Parts) -> list[Shape]:
    at, one = parts.folder, parts.image
    elsewhere = Member("usr/share/probe/object", parts.kmod)
    usr = f"usr/lib/modules/{parts.kernel}"
    broken = refuted("kmod-link-broken")
    return [
        Shape("usr-merge", one(symlink("opt/lib", "../usr/lib"), Member(f"{usr}/probe.ko", parts.kmod))),
        Shape("usr-merge-absolute", one(symlink("opt/lib", "/usr/lib"), Member(f"{usr}/extra/probe.ko", parts.kmod))),
        Shape("kernel-folder-link", one(symlink(at, "../../../srv/kmods"), Member("srv/kmods/probe.ko", parts.kmod))),
        Shape("folder-behind-link", one(symlink(f"{at}/mine", "/srv"), Member("srv/probe.ko", parts.kmod))),
        Shape("symlinked-kmod", one(symlink(f"{at}/probe.ko", "/usr/share/probe/object"), elsewhere)),
        Shape("hardlinked-kmod", one(elsewhere, hardlink(f"{at}/probe.ko", elsewhere.name))),
        Shape("hardlink-with-dot-slash", one(elsewhere, hardlink(f"./{at}/probe.ko", f"./{elsewhere.name}"))),
        Shape(
            "hardlink-to-nothing",
            one(hardlink(f"{at}/probe.ko", "usr/gone")),
            broken,
            "the layer does not hold that file",
        ),
        Shape(
            "dangling",
            one(symlink(f"{at}/probe.ko", "object")),
            broken,
            f"/{at}/probe.ko is a link to object, which leads to no file",
        ),
        Shape("loop", one(symlink(f"{at}/probe.ko", "probe.ko")), broken, "links go in circles"),
        Shape("loop-of-two", one(symlink("opt/lib", "/opt/a"), symlink("opt/a", "/opt/lib")), broken, "in circles"),
        Shape(
            "escaping",
            one(symlink(f"{at}/probe.ko", "../" * 12 + "etc/passwd")),
            broken,
            "/etc/passwd is not in the image",
        ),
        Shape("escaping-folder", one(symlink(at, "../" * 12 + f"lib/modules/{parts.other}")), broken),
        Shape(
            "escaping-within",
            one(symlink(f"{at}/probe.ko", "../" * 12 + "etc/passwd"), Member("etc/passwd", b"root:x:0:0\n")),
            refuted("kmod-not-elf"),
        ),
        Shape("host-link", one(symlink(f"{at}/host", f"/lib/modules/{parts.kernel}"), parts.good)),
        Shape(
            "link-to-folder",
            one(symlink(f"{at}/probe.ko", "/etc")),
            refuted("kmod-not-a-file"),
            "got a folder",
        ),
        Shape("name-out-of-the-image", one(Member("../probe.ko", b"x"), parts.good), refuted("image-unreadable")),
    ]


def _documents(parts: Parts) -> list[Shape]:
    layers = [BASE, layer([parts.good])]
    docker_layers = [Blob(one.data, "application/vnd.docker.image.rootfs.diff.tar.gzip") for one in layers]
    good, docker = image(layers), image(docker_layers, docker=True)
    arm = image([BASE], architecture="arm64")
    docker_arm = image(docker_layers, architecture="arm64", docker=True)
    attestation = replace(arm, platform={"architecture": "unknown", "os": "unknown"})
    windows = replace(image([BASE]), platform={"architecture": "amd64", "os": "windows"})
    missing = refuted("image-platform-missing")
    return [
        Shape("index", index([arm, good])),
        Shape("index-in-index", index([replace(index([arm, good]), platform={})])),
        Shape("index-without-platforms", index([replace(good, platform={})])),
        Shape("docker", docker),
        Shape("docker-list", index([docker_arm, docker], docker=True)),
        Shape("no-media-type", image(layers, keep_media_type=False)),
        Shape("attestations", index([attestation, windows, good])),
        Shape("only-arm", arm, missing, "got an image for arm64, expected linux/amd64"),
        Shape("only-arm-in-index", index([arm]), missing, "got an index of linux/arm64, expected linux/amd64"),
        Shape("only-attestation", index([attestation]), missing, "got an index of nothing"),
    ]


def _names(parts: Parts) -> list[Shape]:
    good = parts.image(parts.good)
    bare = "{repository}"
    zeros = "sha256:" + "0" * 64
    return [
        Shape("by-digest", good, reference=bare + "@{digest}"),
        Shape("by-tag-and-digest", good, reference=bare + ":gone@{digest}"),
        Shape("missing-tag", None, refuted("image-not-found"), "got 404"),
        Shape("missing-digest", good, refuted("image-not-found"), reference=bare + "@" + zeros),
        Shape("invalid-name", None, refuted("image-name-invalid"), reference="{repository}/UPPER:1"),
        Shape("layout-name", None, refuted("image-name-invalid"), reference="oci:/tmp"),
        Shape("no-mapping", None, refuted("no-mapping"), more={"regexp": "^7[.]"}),
        Shape("name-unresolved", None, refuted("name-unresolved"), reference=bare + ":${{KERNEL_FULL_VERSION"),
    ]


def _folders(parts: Parts) -> list[Shape]:
    below = f"lib/modules/{parts.kernel}/probe.ko"
    raw: dict[str, Any] = {"rawArgs": {"load": ["-v", "probe"], "unload": ["-rv", "probe"]}}
    unchecked = ("verified", "modprobe-arguments-unchecked")

    def under(place: str) -> Image:
        return parts.image(Member(f"{place}{below}", parts.kmod))

    return [
        Shape("directory-root", under(""), more={"dirName": "/"}),
        Shape("directory-usr", under("usr/"), more={"dirName": "/usr"}),
        Shape("directory-nested", under("opt/vendor/kmods/"), more={"dirName": "/opt/vendor/kmods/"}),
        Shape("directory-other", under("usr/"), refuted("kmod-absent"), f"the image has /usr/{below} instead"),
        Shape("raw-arguments", parts.image(parts.good, parts.at("b.ko")), unchecked, " was checked (2)", more=raw),
        Shape("raw-arguments-empty", parts.image(folder(parts.folder)), refuted("kmod-absent"), more=raw),
        Shape(
            "raw-arguments-one-bad",
            parts.image(parts.good, Member(f"{parts.folder}/b.ko", b"text")),
            ("refuted", "kmod-not-elf", "modprobe-arguments-unchecked"),
            more=raw,
        ),
    ]


def shape_names(shapes: Sequence[Shape]) -> set[str]:
    """Return the names. Raise AssertionError if a name occurs twice."""
    names = {shape.name for shape in shapes}
    assert len(names) == len(shapes)
    return names
