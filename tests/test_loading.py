"""What lies beyond the kmod's path, as whole runs: real kmods and indexes, the real kernel's files in a toolkit."""

from __future__ import annotations

import base64
import json
import lzma
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .demo import GOOD_IMAGE, demo_images, manifests, module
from .real.drivers import small_kmods
from .real.faults import BLOBS, FaultyRegistry
from .real.kernels import upgrade_kernels
from .real.kmod import headers, run_checked
from .real.layout import Image, Member, folder, image, layer, write_layout
from .real.requirement import need_tool
from .runs import Run, run_preflight
from .signing_desk import Desk, append, parts
from .signing_desk import desk as desk  # a fixture

FILES = ("Module.symvers", ".config")
TOOLKIT = "toolkit.example/driver-toolkit:1"
VERIFIED = ("verified", "kmod-unsigned")
EMPTY_INDEX = struct.pack(">III", 0xB007F457, 0x20001, 12)
SIGNING = """          sign:
            keySecret: {name: k}
            certSecret: {name: c}
            filesToSign: ["/opt/lib/modules/${KERNEL_FULL_VERSION}/m.ko"]"""


@dataclass(frozen=True)
class Case:
    """An image and what the suite must say; files are below the kernel's folder, after depmod has seen only indexed."""

    want: tuple[str, ...]
    files: Mapping[str, bytes]
    kmod: str = "m"
    later: Mapping[str, bytes | None] = field(default_factory=dict)
    """What is written, or removed, after the index was made."""
    sections: str = ""
    shell: bool = True


@dataclass(frozen=True)
class Kernels:
    """The target kernel and another one, with small kmods that were compiled for each."""

    target: str
    other: str
    own: Mapping[str, bytes]
    foreign: Mapping[str, bytes]


@pytest.fixture(scope="module")
def of() -> Kernels:
    target = next(one for one in reversed(upgrade_kernels()) if one.startswith("6.1.") and one.count("-") == 2)
    other = next(one for one in upgrade_kernels() if "-rt-" in one)
    return Kernels(target, other, small_kmods(target), small_kmods(other))


def cases(of: Kernels) -> dict[str, Case]:
    """What a node makes of each, from the loader's reference; `verified` only where it loads."""
    plain, gives, takes = of.own["pf_plain"], of.own["pf_gives"], of.own["pf_takes"]
    unimported = of.own["pf_namespace"].replace(b"import_ns=", b"import_nx=")
    proprietary = of.own["pf_gpl"].replace(b"license=GPL\0", b"license=GPX\0")
    return {
        "good": Case(VERIFIED, {"m.ko": plain}),
        "packed": Case(VERIFIED, {"extra/m.ko.xz": lzma.compress(plain, check=lzma.CHECK_CRC32)}),
        "dash": Case(VERIFIED, {"a-b.ko": plain}, "a_b"),
        "alias": Case(VERIFIED, {"m.ko": plain.replace(b"retpoline=Y\0", b"alias=other\0")}, "other"),
        "together": Case((*VERIFIED, "kmod-unsigned"), {"m.ko": takes, "pf_gives.ko": gives}),
        "other-kernel": Case(("refuted", "kmod-other-kernel"), {"m.ko": of.foreign["pf_plain"]}),
        "architecture": Case(("refuted", "kmod-architecture"), {"m.ko": plain[:18] + b"\xb7\0" + plain[20:]}),
        "flipped": Case(("refuted", "kmod-not-loadable"), {"m.ko": plain}, later={"m.ko": _unnamed(plain)}),
        "alone": Case(("undecided", "node-symbols-open"), {"m.ko": takes}),
        "unordered": Case(("refuted", "kmod-order"), {"m.ko": takes}, later={"other/pf_gives.ko": gives}),
        "gpl": Case(("refuted", "kmod-symbols-gpl"), {"m.ko": proprietary}),
        "namespace": Case(("refuted", "kmod-namespace"), {"m.ko": unimported}),
        "in-tree": Case(("undecided", "kmod-needs-in-tree"), {"m.ko": of.own["pf_in_tree"]}),
        "no-index": Case(("refuted", "index-absent"), {"m.ko": plain}, later={"modules.dep.bin": None}),
        "damaged": Case(("refuted", "index-damaged"), {"m.ko": plain}, later={"modules.dep.bin": b"no index"}),
        "stale": Case(("refuted", "index-stale"), {"m.ko": plain}, later={"m.ko": None, "extra/m.ko": plain}),
        "empty-index": Case(("refuted", "index-lacks-kmod"), {"m.ko": plain}, later={"modules.dep.bin": EMPTY_INDEX}),
        "suffix": Case(("refuted", "kmod-name-suffix"), {"m.ko": plain}, "m.ko"),
        "before": Case(("refuted", "index-lacks-kmod"), {"x.ko": plain}, later={"m.ko": plain}),
    }  # fmt: skip


def _unnamed(kmod: bytes) -> bytes:
    """An object whose header names no table of section names."""
    return kmod[:62] + struct.pack("<H", 0) + kmod[64:]


def made(case: Case, kernel: str, scratch: Path) -> Image:
    """The image: a shell, then the kernel's folder as depmod has left it, then what came later."""
    shell = next(blob for blob in demo_images()[GOOD_IMAGE].blobs if "layer" in blob.media_type)
    place = scratch / "opt/lib/modules" / kernel
    for name, content in case.files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    run_checked([need_tool("depmod", "apt-get install kmod"), "-b", str(scratch / "opt"), kernel], scratch)
    for name, changed in case.later.items():
        (place / name).unlink(missing_ok=True)
        if changed is not None:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(changed)
    paths = sorted(path for path in (scratch / "opt").rglob("*") if path.is_file())
    base = [shell] if case.shell else []
    return image([*base, layer([(str(path.relative_to(scratch)), path.read_bytes()) for path in paths])])


def toolkit(kernel: str, *names: str) -> Image:
    """A driver toolkit of the kernel, laid out as OpenShift's, with these of its files."""
    source = headers(kernel)
    files = [Member(f"usr/src/kernels/{kernel}/{name}", (source / name).read_bytes()) for name in names]
    return image([layer([folder("usr"), *files]), layer([("etc/driver-toolkit-release.json", b"{}")])])


def run(
    tmp_path: Path,
    of: Kernels,
    table: Mapping[str, Case],
    *options: str,
    files: tuple[str, ...] = FILES,
    documents: list[str] | None = None,
    made_toolkit: Image | None = None,
) -> Run:
    """One run over the table, each image with a Module of its own unless documents say otherwise."""
    images = {f"registry.example/kmods/{name}:1": made(case, of.target, tmp_path / "made" / name)
              for name, case in table.items()}  # fmt: skip
    write_layout(tmp_path / "layout", {TOOLKIT: made_toolkit or toolkit(of.target, *files), **images})
    documents = documents or [
        apart(name, module(name, f"registry.example/kmods/{name}:1", case.kmod, sections=case.sections))
        for name, case in table.items()
    ]
    ours = (f"--kernel={of.target}", f"--driver-toolkit={TOOLKIT}", f"--image-layout={tmp_path / 'layout'}")
    return run_preflight(tmp_path, *ours, manifests(tmp_path, *documents), "--proof=kernel", *options)


def apart(name: str, document: str) -> str:
    """The Module with nodes of its own, so that the kmods of other Modules do not count."""
    assert "selector: {}" in document
    return document.replace("selector: {}", f"selector: {{only: {name}}}")


def test_each_image_has_the_verdict_of_the_node(tmp_path: Path, of: Kernels) -> None:
    table = cases(of)
    found = run(tmp_path, of, table, "-n", "2")
    told = {name: tuple(one for one in ids if one != "kmod-unsigned" or table[name].want[0] == "verified")
            for name, ids in found.verdicts().items()}  # fmt: skip
    assert told == {name: case.want for name, case in table.items()}, found.output
    assert found.returncode == 1


def raw(name: str, arguments: list[str]) -> str:
    """A Module that gives modprobe all its arguments itself."""
    told = json.dumps({"load": arguments, "unload": ["-r"]})
    return apart(
        name, module(name, f"registry.example/kmods/{name}:1").replace("{moduleName: hello}", f"{{rawArgs: {told}}}")
    )


def test_raw_arguments_are_looked_up_as_modprobe_does(tmp_path: Path, of: Kernels) -> None:
    plain, foreign, only_text = of.own["pf_plain"], of.foreign["pf_plain"], {"readme": b"nothing"}
    both = {"m.ko": plain, "n.ko": of.own["pf_weak"]}
    table = {
        "one": ("-vd /tmp/opt m", Case(("verified",), {"m.ko": plain, "n.ko": foreign})),
        "bad": ("-vd /tmp/opt n", Case(("refuted", "kmod-other-kernel"), {"m.ko": plain, "n.ko": foreign})),
        "all": ("-vad /tmp/opt m n", Case(("verified",), both)),
        "all-bad": ("-a m n -d /tmp/opt", Case(("refuted", "kmod-other-kernel"), {"m.ko": plain, "n.ko": foreign})),
        "other": ("-d /tmp/opt x", Case(("refuted", "index-lacks-kmod"), both)),
        "older": ("-d /opt m", Case(("verified", "modprobe-folder-moved"), {"m.ko": plain})),
        "nowhere": ("-d /somewhere m", Case(("refuted", "modprobe-other-folder"), {"m.ko": plain})),
        "node": ("-v m", Case(("undecided", "node-in-tree-unknown"), {"m.ko": plain})),
        "nothing": ("-nd /tmp/opt m", Case(("refuted", "modprobe-loads-nothing"), {"m.ko": plain})),
        "forced": ("-fd /tmp/opt m", Case(("undecided", "modprobe-options-open"), {"m.ko": plain})),
        "valued": ("-d /tmp/opt pf_weak x=1", Case(("verified", "kmod-parameter-unknown"), {"pf_weak.ko": plain})),
        "empty": ("-d /tmp/opt m", Case(("refuted", "index-lacks-kmod"), only_text)),
        "no-index": ("-d /tmp/opt m", Case(("refuted", "index-absent"), both, later={"modules.dep.bin": None})),
    }
    documents = [raw(name, arguments.split()) for name, (arguments, _) in table.items()]
    found = run(tmp_path, of, {name: case for name, (_, case) in table.items()}, documents=documents)
    told = {
        name: tuple(one for one in ids if one != "kmod-unsigned")[: len(table[name][1].want)]
        for name, ids in found.verdicts().items()
    }
    assert told == {name: case.want for name, (_, case) in table.items()}, found.output


def test_options_that_change_modprobe_withhold_green(tmp_path: Path, of: Kernels) -> None:
    given = {
        "harmless": ("moduleName: m, args: {load: [-v], unload: [-v]}", ("verified",)),
        "forced": ("moduleName: m, args: {load: [--force], unload: [-v]}", ("undecided", "modprobe-options-open")),
        "dry": ("moduleName: m, parameters: [--dry-run]", ("refuted", "modprobe-loads-nothing")),
        "elsewhere": ("moduleName: m, parameters: [-d/x]", ("refuted", "modprobe-other-folder")),
        "once": ("moduleName: m, parameters: [--first-time]", ("undecided", "modprobe-options-open")),
        "unknown": ("moduleName: m, parameters: [size=4]", ("verified", "kmod-parameter-unknown")),
    }
    table = {name: Case((), {"m.ko": of.own["pf_plain"]}) for name in given}
    documents = [
        module(name, f"registry.example/kmods/{name}:1").replace("moduleName: hello", modprobe)
        for name, (modprobe, _) in given.items()
    ]
    found = run(tmp_path, of, table, documents=documents)
    told = {name: found.verdicts()[name][: len(want)] for name, (_, want) in given.items()}
    assert told == {name: want for name, (_, want) in given.items()}, found.output


def test_a_lower_depth_says_what_it_leaves_out(tmp_path: Path, of: Kernels) -> None:
    table = {name: cases(of)[name] for name in ("good", "other-kernel", "no-index")}
    for depth, want in (("path", ["verified"] * 3), ("node", ["verified", "verified", "refuted"])):
        found = run(tmp_path / depth, of, table, f"--proof={depth}")
        assert [found.verdicts()[name][0] for name in table] == want, found.output
        assert found.document["proof"]["depth"] == depth
        assert any("vermagic" in words for words in found.document["proof"]["notChecked"])


def test_what_the_image_must_bring_depends_on_the_version_of_kmm(tmp_path: Path, of: Kernels) -> None:
    files = {"m.ko": of.own["pf_plain"]}
    table = {"with-shell": Case((), files), "from-scratch": Case((), files, shell=False)}
    newest = run(tmp_path / "newest", of, table, "--proof=node").verdicts()
    assert newest == {"with-shell": ("verified",), "from-scratch": ("refuted", *["node-program-absent"] * 3)}
    old = run(tmp_path / "old", of, table, "--proof=node", "--kmm-version=2.0").verdicts()
    assert old == dict.fromkeys(table, ("verified",))


def test_an_in_tree_kmod_may_be_said_to_be_loaded(tmp_path: Path, of: Kernels) -> None:
    table = {"in-tree": cases(of)["in-tree"]}
    undecided = run(tmp_path, of, table)
    assert undecided.returncode == 10, undecided.output
    (finding,) = (one for one in undecided.document["modules"][0]["findings"] if one["id"] == "kmod-needs-in-tree")
    name = finding["sentence"].partition(" needs the in-tree kmods ")[2].partition(",")[0]
    found = run(tmp_path / "again", of, table, f"--assume-loaded={name}")
    assert found.returncode == 0, found.output
    assert found.document["proof"]["assumeLoaded"] == [name]


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ((".config",), ("undecided", "kernel-input-missing")),
        (("Module.symvers",), ("undecided", "kernel-input-missing")),
        ((), ("undecided", "kernel-input-missing")),
    ],
)
def test_what_is_missing_of_the_kernel_withholds_green(
    tmp_path: Path, of: Kernels, files: tuple[str, ...], want: tuple[str, ...]
) -> None:
    found = run(tmp_path, of, {"good": cases(of)["good"]}, files=files)
    assert found.verdicts()["good"][:2] == want, found.output
    assert found.returncode == 10


def symvers_made(change: Callable[[list[bytes]], list[bytes]], kernel: str) -> Image:
    """A toolkit whose Module.symvers has other lines."""
    source, place = headers(kernel), f"usr/src/kernels/{kernel}"
    lines = change((source / "Module.symvers").read_bytes().splitlines(keepends=True))
    files = [Member(f"{place}/Module.symvers", b"".join(lines)), Member(f"{place}/.config", _config(kernel))]
    return image([layer(files), layer([("etc/driver-toolkit-release.json", b"{}")])])


def _config(kernel: str) -> bytes:
    return (headers(kernel) / ".config").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [],
        lambda lines: [line for line in lines if b"\tmodule_layout\t" not in line],
        lambda lines: [b"0x00000000" + line[10:] for line in lines],
    ],
    ids=["empty", "no module_layout", "no versions"],
)
def test_symbols_that_are_not_those_of_the_kernel_withhold_green(
    tmp_path: Path, of: Kernels, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    found = run(tmp_path, of, {"good": cases(of)["good"]}, made_toolkit=symvers_made(change, of.target))
    assert found.verdicts()["good"][:2] == ("undecided", "kernel-input-missing"), found.output


def test_a_toolkit_that_has_the_symbols_packed_below_usr(tmp_path: Path, of: Kernels) -> None:
    folder_ = f"usr/lib/modules/{of.target}"
    packed = lzma.compress((headers(of.target) / "Module.symvers").read_bytes())
    files = [Member(f"{folder_}/symvers.xz", packed), Member(f"{folder_}/config", _config(of.target))]
    found = run(tmp_path, of, {"good": cases(of)["good"]}, made_toolkit=image([layer(files)]))
    assert found.returncode == 0, found.output


def test_a_toolkit_that_cannot_be_had_withholds_green(tmp_path: Path, of: Kernels) -> None:
    found = run(tmp_path, of, {"good": cases(of)["good"]}, "--driver-toolkit=toolkit.example/nowhere:1")
    assert found.verdicts()["good"][:2] == ("undecided", "toolkit-unread"), found.output
    assert found.returncode == 10


def test_a_second_run_fetches_no_byte(tmp_path: Path, of: Kernels) -> None:
    """Of the toolkit no more than of the image, and each blob of both once."""
    image = made(Case((), {"m.ko": of.own["pf_plain"]}), of.target, tmp_path / "made")
    images = {"dtk/toolkit:1": toolkit(of.target, "Module.symvers", ".config"), "kmods/m:1": image}
    with FaultyRegistry(images) as registry:
        options = (f"--kernel={of.target}", f"--driver-toolkit={registry.host}/dtk/toolkit:1", "--proof=kernel")
        modules = manifests(tmp_path, module("a", f"{registry.host}/kmods/m:1", "m"))
        first = run_preflight(tmp_path, *options, modules, "-n0")
        assert first.returncode == 0, first.output
        fetched = [seen.path for seen in registry.requests() if BLOBS in seen.path and seen.method == "GET"]
        assert len(fetched) == len(set(fetched))
        registry.forget()
        again = run_preflight(tmp_path, *options, modules, "-n0")
        assert again.returncode == 0, again.output
        assert [seen.path for seen in registry.requests() if BLOBS in seen.path and seen.method == "GET"] == []


def signatures(desk: Desk, of: Kernels) -> dict[str, tuple[tuple[str, ...], bytes]]:
    """Name → what must be said beside the verdict of the sign stage, and the kmod."""
    plain = of.own["pf_plain"]
    signed = desk.sign(data=plain)
    body, message = parts(signed)
    return {
        "right": ((), signed),
        "wrong-certificate": (("signature-foreign",), desk.sign(pair=desk.stranger, data=plain)),
        "twice": (("signature-twice",), desk.sign(data=desk.sign(pair=desk.stranger, data=plain))),
        "cut": (("signature-broken",), append(body, message[:-9])),
        "none": (("signature-missing",), plain),
        "changed": (("signature-wrong",), append(body[:-1] + b"!", message)),
    }


def test_signatures_of_a_sign_section_one_finding_each(tmp_path: Path, of: Kernels, desk: Desk) -> None:
    made = signatures(desk, of)
    packed = desk.sign(data=lzma.compress(of.own["pf_plain"], check=lzma.CHECK_CRC32))
    table = {name: Case((), {"m.ko": kmod}, sections=SIGNING) for name, (_, kmod) in made.items()}
    table["packed"] = Case((), {"m.ko": packed}, sections=SIGNING)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "namespace": "demo"},
              "data": {"cert": base64.b64encode(desk.rsa.cert.read_bytes()).decode()}}  # fmt: skip
    (tmp_path / "secret.yaml").write_text(json.dumps(secret))
    found = run(tmp_path, of, table, f"--manifests={tmp_path / 'secret.yaml'}", "--builder=none")
    told = {name: tuple(one for one in ids if "signature-" in one) for name, ids in found.verdicts().items()}
    want = {name: ids for name, (ids, _) in made.items()} | {"packed": ("signature-compressed",)}
    assert told == want, found.output
    good = [name for name, ids in found.verdicts().items() if ids[0] == "verified"]
    assert good == ["right", "twice"]
    without = run(tmp_path / "without", of, {"right": table["right"], "none": table["none"]}, "--builder=none")
    assert without.verdicts()["right"] == ("verified", "signature-signer"), without.output
    assert "serial 00:B1:15:FD:DE:D0" in without.sentences()["right"]
    assert without.verdicts()["none"][0] == "undecided"  # no builder runs the sign section


def test_signatures_may_be_required(tmp_path: Path, of: Kernels, desk: Desk) -> None:
    made = {name: Case((), {"m.ko": kmod}) for name, (_, kmod) in signatures(desk, of).items()}
    found = run(tmp_path, of, made, "--require-signature")
    assert found.verdicts() == {
        "right": ("verified", "signature-signer"),
        "wrong-certificate": ("verified", "signature-signer"),
        "twice": ("verified", "signature-twice"),
        "cut": ("refuted", "signature-broken"),
        "none": ("refuted", "signature-missing"),
        "changed": ("verified", "signature-signer"),
    }, found.output
    unasked = run(tmp_path / "unasked", of, made)
    assert [name for name, ids in unasked.verdicts().items() if ids[0] == "refuted"] == ["cut"], unasked.output


def test_signatures_of_what_is_loaded_before(tmp_path: Path, of: Kernels, desk: Desk) -> None:
    """A section says nothing of a dependency; a kernel may stumble over its signature all the same."""
    own, dependency = desk.sign(data=of.own["pf_takes"]), of.own["pf_gives"]
    body, message = parts(desk.sign(data=dependency))
    table = {
        "unsigned": Case((), {"m.ko": own, "pf_gives.ko": dependency}, sections=SIGNING),
        "cut": Case((), {"m.ko": own, "pf_gives.ko": append(body, message[:-9])}, sections=SIGNING),
    }
    found = run(tmp_path, of, table, "--builder=none")
    assert found.verdicts()["unsigned"] == ("verified", "signature-signer", "kmod-unsigned"), found.output
    assert found.verdicts()["cut"][:2] == ("undecided", "signature-broken")  # no builder runs the sign section
    required = run(tmp_path / "required", of, table, "--builder=none", "--require-signature")
    assert required.verdicts()["unsigned"][:2] == ("undecided", "signature-missing"), required.output


POOLS = """\
---
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfigPool
metadata: {{name: worker}}
spec:
  machineConfigSelector: {{matchLabels: {{machineconfiguration.openshift.io/role: worker}}}}
  nodeSelector: {{matchLabels: {{node-role.kubernetes.io/worker: ""}}}}
  configuration: {{name: rendered-worker-1}}
---
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfig
metadata: {{name: rendered-worker-1}}
spec: {{kernelArguments: {arguments}, osImageURL: ""}}
---
apiVersion: v1
kind: Node
metadata: {{name: w1, labels: {{node-role.kubernetes.io/worker: "", kubernetes.io/arch: amd64}}}}
status: {{nodeInfo: {{architecture: amd64, operatingSystem: linux, kernelVersion: 6.1.0}}}}
"""


def signing_secrets(desk: Desk) -> str:
    """The Secrets that SIGNING names."""
    return "".join(
        f"---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: demo}}\n"
        f"data: {{{key}: {base64.b64encode(content).decode()}}}\n"
        for name, key, content in (
            ("k", "key", desk.rsa.key.read_bytes()),
            ("c", "cert", desk.rsa.cert.read_bytes()),
        )
    )


def test_kernel_arguments_of_the_nodes_count(tmp_path: Path, of: Kernels, desk: Desk) -> None:
    secrets = signing_secrets(desk)
    plain = of.own["pf_weak"]
    table = {
        "unsigned": Case(("refuted", "boot-signature"), {"m.ko": plain}),
        "foreign": Case(("undecided", "boot-key-unknown"), {"m.ko": desk.sign(pair=desk.stranger, data=plain)}),
        "signed": Case(("verified", "boot-key-needed"), {"m.ko": desk.sign(data=plain)}, sections=SIGNING),
        "listed": Case(("refuted", "boot-blacklisted"), {"m.ko": of.own["pf_plain"]}),
    }
    modules = [
        module(name, f"registry.example/kmods/{name}:1", case.kmod, sections=case.sections)
        for name, case in table.items()
    ]
    for arguments, names in (
        ("[quiet module.sig_enforce=1]", ("unsigned", "foreign", "signed")),
        ("[module_blacklist=pf_plain]", ("listed",)),
        ("[quiet]", ()),
    ):
        documents = [*modules, POOLS.format(arguments=arguments), secrets]
        found = run(tmp_path / str(len(names)), of, table, documents=documents)
        assert found.verdicts(), found.output
        told = {name: found.verdicts()[name][:2] for name in names}
        assert told == {name: table[name].want for name in names}, found.output
        others = {name: found.verdicts()[name][0] for name in table if name not in names and len(names) != 3}
        assert set(others.values()) <= {"verified"}, found.output
    assert "pool worker boots with" not in found.output


def test_modules_on_the_same_nodes_are_one_set(tmp_path: Path, of: Kernels) -> None:
    gives, plain = of.own["pf_gives"], of.own["pf_plain"]
    renamed = gives.replace(b"pf_gives", b"pf_givex")
    table = {
        "first": Case(("refuted", "node-exports-clash"), {"m.ko": gives}),
        "second": Case(("refuted", "node-exports-clash"), {"m.ko": renamed}),
        "old": Case(("refuted", "node-name-clash"), {"m.ko": plain}),
        "new": Case(("refuted", "node-name-clash"), {"m.ko": plain.replace(b"license=GPL\0", b"license=GPX\0")}),
        "same": Case(("verified",), {"m.ko": of.own["pf_weak"]}),
        "same-packed": Case(("verified",), {"m.ko.xz": lzma.compress(of.own["pf_weak"], check=lzma.CHECK_CRC32)}),
    }
    documents = [module(name, f"registry.example/kmods/{name}:1", "m") for name in table]
    found = run(tmp_path, of, table, documents=documents)
    told = {name: ids[: len(table[name].want)] for name, ids in found.verdicts().items()}
    assert told == {name: case.want for name, case in table.items()}, found.output
    others = {"first": "demo/second", "second": "demo/first", "old": "demo/new", "new": "demo/old"}
    assert all(other in found.sentences()[name] for name, other in others.items())
    again = run(tmp_path, of, table, "-n", "2", documents=documents)
    assert again.verdicts() == found.verdicts()


def test_a_symbol_of_another_module(tmp_path: Path, of: Kernels) -> None:
    table = {
        "gives": Case(("verified",), {"m.ko": of.own["pf_gives"]}),
        "takes": Case(("verified", "kmod-unsigned", "node-symbols-provided"), {"m.ko": of.own["pf_takes"]}),
    }
    documents = [module(name, f"registry.example/kmods/{name}:1", "m") for name in table]
    found = run(tmp_path / "both", of, table, documents=documents)
    assert {name: ids[: len(table[name].want)] for name, ids in found.verdicts().items()} == {
        name: case.want for name, case in table.items()
    }, found.output
    alone = run(tmp_path / "alone", of, {"takes": table["takes"]})
    assert alone.verdicts()["takes"][:2] == ("undecided", "node-symbols-open")
    assert "kmod pf_gives" in alone.sentences()["takes"]


def test_users_of_an_in_tree_kmod_to_remove_are_reported(tmp_path: Path, of: Kernels) -> None:
    lists = {"modules.order": b"kernel/ice.ko\nkernel/irdma.ko\n", "modules.dep": b"kernel/irdma.ko: kernel/ice.ko\n"}
    folder_of_kernel = f"usr/lib/modules/{of.target}"
    more = layer([(f"{folder_of_kernel}/{name}", content) for name, content in lists.items()])
    base = toolkit(of.target, *FILES)
    made_toolkit = image([*(blob for blob in base.blobs if "layer" in blob.media_type), more])
    table = {"m": Case((), {"m.ko": of.own["pf_plain"]})}
    document = module("m", "registry.example/kmods/m:1", "m").replace(
        "    container:\n", "    container:\n      inTreeModulesToRemove: [ice]\n"
    )
    assert "[ice]" in document
    found = run(tmp_path, of, table, documents=[document], made_toolkit=made_toolkit)
    assert found.verdicts()["m"][:2] == ("verified", "in-tree-used"), found.output
