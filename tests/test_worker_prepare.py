"""The worker's steps on the node: folders that are not copied, firmware, modules that are removed, the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kmm_preflight.errors import BoundExceeded, UsageProblem
from kmm_preflight.kmod.kernel_files import KernelFiles, RawFiles, parse_users, read_kernel_files
from kmm_preflight.model import Finding, Flavour, ModuleName, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.worker import findings
from kmm_preflight.worker.firmware import judge_firmware
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.prepare import NodeContents, prepare_node

from .layers import image_files
from .objects import Object
from .real.build import busybox
from .real.layout import Member, folder, symlink
from .real.worker import Root, run_copy, unpack_layers

KERNEL = "5.14.0-1.el9.x86_64"
AT = f"opt/lib/modules/{KERNEL}"
PLAN = Plan(
    ModuleName("ns", "m"),
    TargetKernel(KERNEL, "amd64", "rhel-9", Flavour.STANDARD, None, ""),
    Reference.parse("r/i:t"),
    kmod="plain",
)
SHELL = [
    Member("bin/busybox", busybox(), mode=0o755),
    *(symlink(f"bin/{name}", "busybox") for name in ("sh", "mkdir", "cp")),
]
NODE = KernelFiles(
    KERNEL,
    "amd64",
    None,
    None,
    in_tree=frozenset({"low", "plain"}),
    built_in=frozenset({"loop", "a_b"}),
    in_tree_whole=True,
)
EXPORTING = replace(NODE, in_tree=frozenset({"other"}), in_tree_whole=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Return a root with kmod, which makes indexes."""
    return Root(tmp_path_factory.mktemp("root"))


def at(place: str) -> str:
    return f"{place}/lib/modules/{KERNEL}".lstrip("/")


@pytest.fixture(scope="module")
def built(root: Root) -> dict[str, bytes]:
    """Return the folder of one kmod with its indexes, by file name."""
    folder = root.write(
        at("built"), {"plain.ko": Object(name="plain").packed(), "modules.builtin": b"kernel/loop.ko\n"}
    )
    root.depmod("/built", KERNEL)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def placed(built: dict[str, bytes], place: str = "opt") -> list[Member]:
    return [Member(f"{at(place)}/{name}", data) for name, data in built.items()]


def prepared(
    members: Sequence[Member],
    scratch: Path,
    plan: Plan = PLAN,
    worker: Worker = Worker.COPIED,
    node: KernelFiles | None = NODE,
) -> NodeContents:
    return prepare_node(plan, image_files([[*SHELL, *members]], scratch), worker, node)


def test_a_good_image(built: dict[str, bytes], tmp_path: Path) -> None:
    node = prepared(placed(built), tmp_path, replace(PLAN, in_tree_modules_to_remove=("plain",)))
    assert (node.findings, node.in_tree, node.removed) == ((), frozenset(), frozenset({"plain"}))
    assert [located.path for located in node.sequence] == [f"{AT}/plain.ko"]


def test_with_raw_arguments_no_kmod_is_looked_up(built: dict[str, bytes], tmp_path: Path) -> None:
    assert prepared(placed(built), tmp_path, replace(PLAN, kmod=None)) == NodeContents()


def folder_finding(got: str, where: str = AT) -> Finding:
    return findings.NODE_FOLDER(folder=where, got=got)


@pytest.mark.parametrize(
    ("directory", "members", "worker", "want"),
    [
        ("/tmp/kmods", [], Worker.COPIED, "KMM mounts an empty volume over /tmp"),
        ("/tmp/kmods", [], Worker.UNPACKED, ""),
        ("/kmods", [symlink("kmods", "tmp/kmods")], Worker.COPIED, "KMM mounts an empty volume over /tmp"),
        ("/tmpkmods", [symlink("tmpkmods", "tmp/kmods")], Worker.UNPACKED, ""),
        ("/", [], Worker.COPIED, ""),
        ("/", [], Worker.UNPACKED, ""),
        ("/", [], Worker.POD, "this path leads to the node's own modules"),
        ("/usr", [], Worker.POD, "this path leads to the node's own modules"),
        ("/opt", [symlink(AT, f"/lib/modules/{KERNEL}")], Worker.COPIED,
         f"the link to /lib/modules/{KERNEL} leads to the node's own modules"),
        ("/opt", [symlink(AT, "/lib/modules/5.14.0-2")], Worker.COPIED,
         "the link to /lib/modules/5.14.0-2 leads to nothing"),
        ("/opt", [symlink(AT, "/srv")], Worker.UNPACKED, "the link to /srv leads to nothing"),
        ("/opt", [symlink(AT, "/srv")], Worker.POD, ""),
        ("/opt", [], Worker.COPIED, "this path leads to nothing"),
        ("/opt", [Member(AT, b"file")], Worker.COPIED, "this path does not lead to a folder"),
    ],
)  # fmt: skip
def test_folders_that_modprobe_does_not_find(
    built: dict[str, bytes], tmp_path: Path, directory: str, members: list[Member], worker: Worker, want: str
) -> None:
    places = ("tmp/kmods", "", "usr") if directory != "/opt" else ()
    files = [member for place in places for member in placed(built, place)]
    files += [Member(f"srv/{name}", data) for name, data in built.items()]
    node = prepared([*files, *members], tmp_path / "cache", replace(PLAN, directory=directory), worker)
    other = [finding for finding in node.findings if not finding.id.startswith("node-program")]
    assert other == ([folder_finding(want, at(directory))] if want else [])
    assert bool(node.sequence) == (not want)


def test_a_link_whose_target_is_not_copied_is_a_finding(built: dict[str, bytes], tmp_path: Path) -> None:
    out = [symlink(f"{AT}/plain.ko", f"/{AT}/real"), Member(f"{AT}/real", built["plain.ko"])]
    node = prepared([*placed({name: data for name, data in built.items() if name != "plain.ko"}), *out], tmp_path)
    want = findings.NODE_LINK(
        path=f"{AT}/plain.ko", target=f"/{AT}/real", kmod="plain", folder=AT, directory="/opt", kernel=KERNEL
    )
    assert node.findings == (want,)


@pytest.mark.parametrize("node", [None, EXPORTING, NODE])
def test_in_tree_kmods_behind_the_link_host(node: KernelFiles | None, root: Root, tmp_path: Path) -> None:
    root.write(f"lib/modules/{KERNEL}", {"kernel/low.ko": Object(name="low").packed()})
    hosted = root.write(at("hosted"), {"modules.order": b""})
    if not (hosted / "host").is_symlink():
        (hosted / "host").symlink_to(f"/lib/modules/{KERNEL}")
        root.depmod("/hosted", KERNEL)
    files = {path.name: path.read_bytes() for path in hosted.glob("modules.*")}
    members = [*placed(files), symlink(f"{AT}/host", f"/lib/modules/{KERNEL}")]
    contents = prepared(members, tmp_path, replace(PLAN, kmod="low"), node=node)
    assert (contents.sequence, contents.in_tree) == ((), frozenset({"low"}))
    unknown = findings.NODE_IN_TREE_UNKNOWN(kernel=KERNEL, names="low")
    assert contents.findings == ((unknown,) if node is EXPORTING else ())
    lacking = replace(NODE, in_tree=frozenset({"other"}))
    (finding,) = prepared(members, tmp_path / "b", replace(PLAN, kmod="low"), node=lacking).findings
    assert finding.id == "index-stale"


def test_a_built_in_module_is_not_loaded(built: dict[str, bytes], root: Root, tmp_path: Path) -> None:
    twice = root.write(at("twice"), {"plain.ko": built["plain.ko"], "modules.builtin": b"kernel/plain.ko\n"})
    root.depmod("/twice", KERNEL)
    output = root.show_depends("/twice", KERNEL, ["plain"], dry=True)["plain"]
    assert (output.paths, output.text) == ((), "")
    members = placed({path.name: path.read_bytes() for path in twice.iterdir()})
    assert prepared(members, tmp_path).findings == (findings.NODE_BUILT_IN(kmod="plain", folder=AT),)
    loop = prepared(placed(built), tmp_path / "b", replace(PLAN, kmod="loop"))
    assert loop.findings == (findings.NODE_BUILT_IN(kmod="loop", folder=AT),)


def test_paths_that_a_shell_splits(built: dict[str, bytes], tmp_path: Path) -> None:
    plan = replace(PLAN, directory="/my kmods", firmware_path="/fw;x")
    members = [*placed(built, "my kmods"), Member("fw;x/a", b"")]
    assert prepared(members, tmp_path / "a", plan).findings == (
        findings.NODE_PATH_UNQUOTED(path="/my kmods", got="' '"),
        findings.NODE_PATH_UNQUOTED(path="/fw;x", got="';'"),
    )
    assert prepared(members, tmp_path / "b", plan, Worker.UNPACKED).findings == ()
    unpack_layers([[*SHELL, *members]], tmp_path / "image")
    assert run_copy(tmp_path / "image", "/my kmods", KERNEL).returncode != 0


FIRMWARE: dict[str, tuple[list[Member], str]] = {
    "files": ([Member("fw/a.bin", b"1")], ""),
    "a folder in it": ([folder("fw/vendor")], ""),
    "a dangling link in it": ([symlink("fw/a.bin", "b.bin")], ""),
    "behind a link": ([symlink("fw", "srv/fw"), Member("srv/fw/a.bin", b"1")], ""),
    "not there": ([], "is not in the image"),
    "empty": ([folder("fw")], "is an empty folder"),
    "only hidden files": ([Member("fw/.keep", b"")], "is an empty folder"),
    "a file": ([Member("fw", b"1")], "is not a folder"),
    "a dangling link": ([symlink("fw", "srv/fw")], "is not in the image"),
    "in the volume": ([symlink("fw", "tmp/fw"), Member("tmp/fw/a.bin", b"1")],
                      "is empty, because KMM mounts an empty volume over /tmp"),
}  # fmt: skip


@pytest.mark.parametrize("label", FIRMWARE)
def test_the_copy_of_the_firmware(label: str, built: dict[str, bytes], tmp_path: Path) -> None:
    members, want = FIRMWARE[label]
    image = [*SHELL, *placed(built), *members]
    plan = replace(PLAN, firmware_path="/fw")
    results = prepare_node(plan, image_files([image], tmp_path / "cache"), Worker.COPIED, NODE).findings
    assert results == ((findings.FIRMWARE_EMPTY(path="/fw", got=want),) if want else ())
    unpack_layers([image], tmp_path / "image")
    assert (run_copy(tmp_path / "image", "/opt", KERNEL, "/fw").returncode == 0) == (not want)


def test_kmm_2_0_accepts_an_empty_folder_of_firmware(built: dict[str, bytes], tmp_path: Path) -> None:
    plan = replace(PLAN, firmware_path="/fw")
    assert prepared([*placed(built), folder("fw")], tmp_path / "a", plan, Worker.UNPACKED).findings == ()
    (finding,) = prepared(placed(built), tmp_path / "b", plan, Worker.UNPACKED).findings
    assert finding.id == "firmware-empty"


def test_firmware_that_a_kmod_requests(tmp_path: Path) -> None:
    members = [
        Member("fw/vendor/a.bin", b"1"),
        Member("fw/b.bin.xz", b"1"),
        symlink("fw/c.bin", "vendor/a.bin"),
        symlink("fw/d.bin", "/fw/vendor/a.bin"),
        folder("fw/e.bin"),
    ]
    files = image_files([members], tmp_path).files
    requested = ("vendor/a.bin", "b.bin", "c.bin", "d.bin", "e.bin", "f.bin", "g*.bin", "../fw/vendor/a.bin", "")
    plan = replace(PLAN, firmware_path="/fw")
    absent = "d.bin, e.bin, f.bin, ../fw/vendor/a.bin"
    assert list(judge_firmware(plan, files, "/k.ko", requested)) == [
        findings.FIRMWARE_ABSENT(kmod="/k.ko", names=absent, place="firmwarePath /fw")
    ]
    assert list(judge_firmware(plan, files, "/k.ko", requested[:3])) == []
    seven = tuple(f"{number}.bin" for number in range(7))
    absent, place = "0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 2 more", "the Module, which has no firmwarePath,"
    assert list(judge_firmware(PLAN, files, "/k.ko", seven)) == [
        findings.FIRMWARE_ABSENT(kmod="/k.ko", names=absent, place=place)
    ]


def test_in_tree_kmods_that_cannot_be_removed(built: dict[str, bytes], root: Root, tmp_path: Path) -> None:
    plan = replace(PLAN, in_tree_modules_to_remove=("plain", "loop", "a-b", "gone"))
    names = "loop, a-b, gone"
    new = prepared(placed(built), tmp_path / "a", plan)
    assert new.findings == (findings.IN_TREE_STAYS(names=names, kernel=KERNEL),)
    assert new.removed == frozenset({"plain"})
    some = prepared(placed(built), tmp_path / "c", plan, node=EXPORTING)
    assert some.findings == (findings.IN_TREE_STAYS(names="loop, a-b", kernel=KERNEL),)
    assert some.removed == frozenset({"plain", "gone"})
    old = prepared(placed(built), tmp_path / "b", plan, Worker.UNPACKED)
    assert old.findings == (findings.IN_TREE_STAYS_FAILS(names=names, kernel=KERNEL),)
    root.write(f"lib/modules/{KERNEL}", {"modules.builtin": b"kernel/loop.ko\n", "kernel/low.ko": built["plain.ko"]})
    root.depmod("/", KERNEL)
    codes = {name: root.run("/modprobe", "-S", KERNEL, "-r", name).returncode for name in ("loop", "gone", "low")}
    assert codes == {"loop": 1, "gone": 1, "low": 0}


@pytest.mark.parametrize(
    ("version", "worker"),
    [("1.0", Worker.POD), ("v1.1.2", Worker.POD), ("2.0", Worker.UNPACKED), ("2.1", Worker.UNPACKED),
     ("2.2", Worker.COPIED), ("2.10", Worker.COPIED), ("3.0", Worker.COPIED), (None, Worker.COPIED)],
)  # fmt: skip
def test_the_version_decides_on_the_worker(version: str | None, worker: Worker) -> None:
    assert Worker.of_version(version) is worker


def test_an_invalid_version_is_refused() -> None:
    with pytest.raises(UsageProblem):
        Worker.of_version("newest")


def test_an_order_of_more_than_256_names_is_not_read(built: dict[str, bytes], tmp_path: Path) -> None:
    order = tuple(f"a{number}" for number in range(257))
    with pytest.raises(BoundExceeded):
        prepared(placed(built), tmp_path, replace(PLAN, kmod="a0", modules_loading_order=order))


@pytest.mark.parametrize(
    ("line", "worker", "ids"),
    [
        ("options plain size=4", Worker.COPIED, ["modprobe-configuration-unseen"]),
        ("softdep plain pre: other", Worker.COPIED, ["modprobe-configuration-unseen"]),
        ("  install   pl*  /bin/true", Worker.UNPACKED, ["modprobe-configuration-unseen"]),
        ("alias somebody plain", Worker.COPIED, ["modprobe-configuration-unseen"]),
        ("options other size=4", Worker.COPIED, []),
        ("# options plain size=4", Worker.COPIED, []),
        ("options", Worker.COPIED, []),
        ("install plain /bin/true", Worker.POD, ["modprobe-configuration-open"]),
        ("options plain size=4", Worker.POD, []),
    ],
)
@pytest.mark.parametrize("place", ["etc/modprobe.d/a.conf", "usr/lib/modprobe.d/a.conf", "etc/modprobe.d/a.txt"])
def test_configuration_of_modprobe_in_the_image(
    line: str, worker: Worker, ids: list[str], place: str, built: dict[str, bytes], tmp_path: Path
) -> None:
    members = [*placed(built), Member(place, f"# a comment\n{line}\n".encode())]
    node = prepared(members, tmp_path, replace(PLAN, kmod="plain"), worker)
    found = [finding.id for finding in node.findings if "configuration" in finding.id]
    assert found == (ids if place.endswith(".conf") else [])


def test_in_tree_kmods_that_use_a_kmod_to_remove(built: dict[str, bytes], tmp_path: Path) -> None:
    dependencies = b"kernel/ice.ko:\nkernel/irdma.ko.xz: kernel/ice.ko\n"
    raw = RawFiles(order=b"kernel/ice.ko\nkernel/irdma.ko\n")
    node = replace(read_kernel_files(KERNEL, "amd64", None, raw), users=parse_users(dependencies))
    for names, ids in ((("ice",), ["in-tree-used"]), (("irdma", "ice"), []), (("ice", "irdma"), ["in-tree-used"])):
        of = replace(PLAN, in_tree_modules_to_remove=names)
        found = [finding for finding in prepared(placed(built), tmp_path, of, node=node).findings]
        assert [finding.id for finding in found] == ids
        assert all("use: irdma;" in finding.sentence for finding in found)
