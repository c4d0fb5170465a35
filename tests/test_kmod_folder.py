"""Kmods of an image's folder, the signatures in the image, and the decision about both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kmm_preflight.cluster.inventory import Key
from kmm_preflight.kmod.findings import SIGNATURE_MISSING, SIGNATURE_SIGNER
from kmm_preflight.model import VERIFIED_HTTPS, Flavour, Manifest, ModuleName, Outcome, Severity, TargetKernel
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.filesystem import Located
from kmm_preflight.oci.image import Image
from kmm_preflight.oci.reference import LayoutReference, Reference
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.planning.plan import Plan, Sign
from kmm_preflight.stages import findings
from kmm_preflight.stages.decision import Decision
from kmm_preflight.stages.kept_files import keep_rules
from kmm_preflight.stages.kmod_folder import KmodFolder
from kmm_preflight.stages.signatures import ImageSignatures

from .real.layout import image, layer, write_layout

KERNEL = TargetKernel("5.14.0-570.el9.x86_64", "amd64", None, Flavour.STANDARD, None, "")
NAME = "registry.example/kmods/a:1"
FOLDER = f"opt/lib/modules/{KERNEL.version}"
ELF = b"\x7fELF" + bytes(60)


def _plan(kmod: str | None = "a", sign: Sign | None = None) -> Plan:
    return Plan(ModuleName("ns", "m"), KERNEL, Reference.parse(NAME), kmod, sign=sign)


def _image(tmp_path: Path, *files: str) -> Image:
    blobs = [layer([(file, ELF) for file in files])]
    layout = LayoutReference(write_layout(tmp_path / "layout", {NAME: image(blobs)}), "", archive=False)
    rules = keep_rules(folders=frozenset([FOLDER]))
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), layout, rules)
    return images.image(Reference.parse(NAME), "amd64", PullCredentials(), VERIFIED_HTTPS)


@pytest.mark.parametrize(
    ("kmod", "files", "paths"),
    [
        ("a-b", ["a_b.ko", "extra/a-b.ko.xz", "a-b.txt", "ab.ko"], ["a_b.ko", "extra/a-b.ko.xz"]),
        (None, ["a.ko", "extra/b.ko.gz", "modules.dep"], ["a.ko", "extra/b.ko.gz"]),
    ],
    ids=["by name", "rawArgs"],
)
def test_kmods_of_the_folder(tmp_path: Path, kmod: str | None, files: list[str], paths: list[str]) -> None:
    folder = KmodFolder(_plan(kmod), _image(tmp_path, *(f"{FOLDER}/{file}" for file in files)))
    assert sorted(located.path for located in folder.kmods()) == [f"{FOLDER}/{path}" for path in paths]


@pytest.mark.parametrize(
    ("file", "finding", "words"),
    [
        (f"{FOLDER}/b.ko", "kmod-absent", "the folder has kmods b.ko"),
        ("opt/lib/modules/5.14.0-1/a.ko", "kmod-absent", "the image has kernels 5.14.0-1"),
        ("usr/share/a.ko", "kmod-absent", "the image has /usr/share/a.ko instead"),
        ("etc/motd", "kmod-absent", "the image has no such file"),
        (FOLDER, "kmod-not-a-file", "got a regular file, expected a folder"),
    ],
)
def test_why_the_folder_has_no_such_kmod(tmp_path: Path, file: str, finding: str, words: str) -> None:
    folder = KmodFolder(_plan(), _image(tmp_path, file))
    assert list(folder.kmods()) == []
    reason = folder.why_none()
    assert reason.id == finding
    assert words in reason.sentence


class CountingSections:
    """Section objects without content that count each request."""

    def __init__(self) -> None:
        self.requests: Counter[Key] = Counter()

    def config_map(self, key: Key) -> Manifest | None:
        raise AssertionError(f"ConfigMap {key} was read")

    def secret(self, key: Key) -> Manifest | None:
        self.requests[key] += 1
        return None


class CountingImage(Image):
    """An image that counts each read of a file."""

    def __init__(self, opened: Image) -> None:
        self.__dict__.update(vars(opened))
        self.reads = Counter[str]()

    def content(self, located: Located) -> Path:
        self.reads[located.path] += 1
        return super().content(located)


def test_each_signature_is_checked_once_in_an_image(tmp_path: Path) -> None:
    paths = [f"{FOLDER}/{name}.ko" for name in ("a", "b", "shared")]
    sources = CountingSections()
    plan = _plan(None, Sign(cert_secret="c", files_to_sign=(f"/{paths[0]}",)))
    opened = CountingImage(_image(tmp_path, *paths))
    signatures = ImageSignatures(plan, opened, sources)
    missing = [
        SIGNATURE_MISSING(path=path, got="there is no signature at its end", expected="a signature") for path in paths
    ]
    unsigned = findings.KMOD_UNSIGNED(path=paths[2])
    assert signatures.judge_loaded("a", [paths[2], paths[0]]) == (missing[0], unsigned)
    assert signatures.judge_loaded("b", [paths[2], paths[1]]) == (missing[0], missing[1], unsigned)
    assert sources.requests == {("ns", "c"): 1}
    assert opened.reads == dict.fromkeys(paths, 1)


def test_a_plan_without_a_sign_section_promises_no_signature(tmp_path: Path) -> None:
    path = f"{FOLDER}/a.ko"
    signatures = ImageSignatures(_plan(), _image(tmp_path, path), CountingSections(), required=True)
    assert signatures.judge_section("a") == ()
    (finding,) = signatures.judge_loaded("a", [path])
    assert finding.id == "signature-missing"


def test_the_heaviest_finding_decides() -> None:
    note, warning = findings.KMOD_UNSIGNED(path="a"), SIGNATURE_SIGNER(path="a", got="x")
    open_, bad = findings.WORKER_LOST(), findings.KMOD_NOT_ELF(path="a", got="text")
    assert [finding.severity for finding in (note, warning, open_, bad)] == list(reversed(Severity))
    assert Decision.of([note, open_, bad, warning]) == Decision(bad, (open_, warning, note))
    assert Decision.of([note, warning]) == Decision(None, (warning, note))
    outcomes = [Decision(finding).outcome for finding in (bad, open_, None)]
    assert outcomes == [Outcome.FAILED, Outcome.UNDECIDED, Outcome.VERIFIED]
    assert Decision(bad, (note,)).with_notes(warning).findings == (bad, note, warning)
