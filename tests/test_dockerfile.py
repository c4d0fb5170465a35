"""Dockerfiles: images that they use, and commands that use the running kernel."""

from __future__ import annotations

import pytest

from kmm_preflight.build.dockerfile import read_dockerfile
from kmm_preflight.build.dockerfile_stages import without_unneeded_stages

TOOLKIT = {"DTK_AUTO": "quay.io/dtk@sha256:1", "KERNEL_FULL_VERSION": "5.14.0-570.el9.x86_64"}


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM a/b:1", ("a/b:1",)),
        ("from a/b:1 as Builder\nfrom Builder", ("a/b:1",)),
        ("FROM a/b:1 AS Builder\nFROM builder\nCOPY --from=Builder x y", ("a/b:1", "builder")),
        ("FROM scratch", ()),
        ("", ()),
        ("# FROM a/b\nFROM --platform=linux/amd64 c/d AS x", ("c/d",)),
        ("ARG DTK_AUTO\nFROM ${DTK_AUTO} AS builder\nFROM ubi9/ubi-minimal", (TOOLKIT["DTK_AUTO"], "ubi9/ubi-minimal")),
        ("ARG BASE=a/b\nARG TAG=1\nFROM $BASE:${TAG}", ("a/b:1",)),
        ('ARG BASE="a/b" TAG=2\nFROM ${BASE}:${TAG:-9}', ("a/b:2",)),
        ("FROM ${BASE:-a/b}", ("a/b",)),
        ("FROM a/b\nARG C=d\nFROM ${C:-e/f}", ("a/b", "e/f")),
        ("FROM a/b\nFROM a/b", ("a/b",)),
        ("FROM a \\\n  AS one\n# between\nFROM \\\n\n# and here\n  b", ("a", "b")),
        ("# escape=`\nFROM a `\n AS x\nRUN dir \\\nFROM b", ("a", "b")),
        (
            "FROM a AS one\nCOPY --from=one /x /y\nCOPY --from=0 /x /y\nCOPY --from=c/d:1 --chown=1 /x /y",
            ("a", "c/d:1"),
        ),
        ("ARG TARGETARCH\nFROM a:${TARGETARCH}", ("a:amd64",)),
        ("\ufeffFROM a", ("a",)),
        ("FROM a\n# a\u2028FROM b", ("a",)),
        ("FROM a\nRUN --mount=type=bind,from=${B},target=/x ls", ("a",)),
        ("FROM a\nRUN --mount=type=bind,from=c/d,target=/x ls", ("a", "c/d")),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\nFROM c", ("a", "c")),
        ("FROM a\nRUN cat <<< FROM\nFROM b", ("a", "b")),
        ("FROM a\nRUN echo $((1<<3))\nFROM b", ("a", "b")),
        ("FROM a\nCOPY <<-'END' /x\nFROM b\n  END\nFROM c", ("a", "c")),
    ],
)
def test_the_images_of_a_dockerfile(text: str, images: tuple[str, ...]) -> None:
    assert read_dockerfile(text, TOOLKIT).images == images
    assert read_dockerfile(text, TOOLKIT).unresolved == ()


@pytest.mark.parametrize(
    ("text", "unresolved"),
    [
        ("ARG BASE\nFROM ${BASE}", ("FROM ${BASE}",)),
        ("FROM a AS x\nARG B=c\nFROM $B", ("FROM $B",)),
        ("FROM ${BASE", ("FROM ${BASE",)),
    ],
)
def test_a_from_without_an_image_name_is_unresolved(text: str, unresolved: tuple[str, ...]) -> None:
    assert read_dockerfile(text, {}).unresolved == unresolved


@pytest.mark.parametrize(
    ("run", "running", "depmod"),
    [
        ("make KVER=${KERNEL_FULL_VERSION}", (), ()),
        ("make -C /lib/modules/$(uname -r)/build", ("uname -r",), ()),
        ("make -C /lib/modules/`uname  -r`/build && uname -m", ("uname  -r",), ()),
        ("cat /proc/version", ("/proc/version",), ()),
        ("depmod -b /opt ${KERNEL_FULL_VERSION}", (), ()),
        ("depmod -b /opt", (), ("depmod -b /opt",)),
        ("depmod -a && ls", (), ("depmod -a",)),
        ("cp x /opt; /sbin/depmod --basedir /opt; true", (), ("depmod --basedir /opt",)),
        ("depmod --basedir=/opt 5.14.0", (), ()),
        ("depmod -b /opt -F /boot/System.map 5.14", (), ()),
        ("echo depmodule", (), ()),
    ],
)
def test_commands_that_use_the_running_kernel_are_found(
    run: str, running: tuple[str, ...], depmod: tuple[str, ...]
) -> None:
    dockerfile = read_dockerfile(f"FROM a\nRUN {run}\n", {})
    assert (dockerfile.running_kernel, dockerfile.depmod) == (running, depmod)


def test_comments_are_ignored() -> None:
    dockerfile = read_dockerfile("FROM a\n# RUN uname -r\nRUN ls \\\n# uname -r\n && true", {})
    assert (dockerfile.running_kernel, dockerfile.depmod) == ((), ())


def test_platforms_of_images_are_read() -> None:
    dockerfile = read_dockerfile(
        "FROM --platform=linux/arm64 a AS x\nFROM --platform=$TARGETPLATFORM b\nFROM c", {}, "s390x"
    )
    assert (dockerfile.images, dict(dockerfile.platforms), dockerfile.stages) == (
        ("a", "b", "c"),
        {"a": "arm64", "b": "s390x"},
        3,
    )


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM gone/test AS test\nRUN make test\nFROM a", ("a",)),
        ("FROM gone AS one\nFROM one AS two\nFROM a AS last\nRUN true", ("a",)),
        ("FROM a AS one\nFROM one AS two\nFROM gone\nFROM b\nCOPY --from=two /x /y", ("a", "b")),
        ("FROM gone\nFROM a\nFROM b\nCOPY --from=1 /x /y", ("a", "b")),
        ("FROM gone AS x\nFROM a\nRUN --mount=type=bind,from=c/d,target=/x ls", ("a", "c/d")),
        ("FROM a AS x\nFROM b\nRUN --mount=type=bind,from=x,target=/x ls", ("a", "b")),
        ("ARG B=one\nFROM a AS one\nFROM gone AS two\nFROM ${B}", ("a",)),
        ("FROM a AS x\nFROM gone AS x\nFROM b AS x\nFROM x", ("b",)),
        ("FROM ${GONE} AS x\nFROM a", ("a",)),
        ("FROM a AS x\nFROM b AS y\nFROM c\nCOPY --from=${X} /x /y", ("a", "b", "c")),
        ("# first\nFROM gone AS x\nRUN <<EOF\nFROM z\nEOF\nFROM a", ("a",)),
    ],
)
def test_only_the_stages_that_the_result_needs_count(text: str, images: tuple[str, ...]) -> None:
    needed = without_unneeded_stages(text, TOOLKIT, "amd64")
    assert read_dockerfile(needed, TOOLKIT).images == images
    assert read_dockerfile(needed, TOOLKIT).stages == read_dockerfile(text, TOOLKIT).stages
    assert without_unneeded_stages(needed, TOOLKIT, "amd64") == needed


def test_a_dockerfile_without_unneeded_stages_stays_as_it_is() -> None:
    text = "\ufeff# x\r\nFROM a AS b\r\nRUN ls \\\r\n  -l\r\nFROM b\r\n"
    assert without_unneeded_stages(text, {}, "amd64") == text
