"""Tags of a payload that may be OS images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kmm_preflight.base.manifest_fields import Field
from kmm_preflight.release.os_image import Tag, os_image_tags

from .os_images import references


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("rhel-coreos", "", True),
        ("rhel-coreos-8-extensions", "", True),
        ("stream-coreos", "", True),
        ("rhel-9.6-coreos-x", "", True),
        ("machine-os-content", "", True),
        ("fedora-coreos", "", False),
        ("rhel-core", "", False),
        ("ironic-machine-os-downloader", "https://github.com/openshift/ironic-rhcos-downloader", False),
        ("node", "https://github.com/openshift/os", True),
        ("node", "git@github.com:openshift/os.git", True),
        ("node", "https://github.com/openshift/oslo", False),
        ("node", "https://github.com/notopenshift/os", False),
    ],
)
def test_tags_that_may_be_of_the_os(name: str, source: str, expected: bool) -> None:
    document = Field(json.loads(references({name: "spec"}, {name: source})))
    assert os_image_tags(document) == ((Tag(name, "spec"),) if expected else ())


def test_a_real_payload() -> None:
    """Read image-references of a public 4.10 release. $PREFLIGHT_REAL_DATA names the folder with its data."""
    given = os.environ.get("PREFLIGHT_REAL_DATA")
    if not given:
        pytest.skip("PREFLIGHT_REAL_DATA names no folder with release/image-references-4.10.json")
    document = Field(json.loads((Path(given) / "release" / "image-references-4.10.json").read_bytes()))
    (tag,) = os_image_tags(document)
    assert tag.name == "machine-os-content"
    assert tag.reference
    assert "@sha256:" in tag.reference
