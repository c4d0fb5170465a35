"""What modprobe loads on the node: whole images, copied by their own shell, before kmod's own modprobe and us."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.names import module_key, wanted_key
from kmm_preflight.model import Flavour, ModuleName, Severity, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.worker.folder import NodeFolder
from kmm_preflight.worker.kind import Worker
from kmm_preflight.worker.program import ImageFiles
from kmm_preflight.worker.sequence import LoadSequence, load_sequence

from .layers import image_files
from .objects import ABSOLUTE, Object, Symbol
from .real.build import busybox
from .real.layout import Member, folder, hardlink, symlink
from .real.worker import Root, copied, unpack

KERNEL = "5.14.0-1.el9.x86_64"
OTHER = "5.14.0-2.el9.x86_64"
AT = f"opt/lib/modules/{KERNEL}"
TREE = f"lib/modules/{KERNEL}"
NAMES = (
    "takes",
    "gives",
    "plain",
    "my-kmod",
    "my_kmod",
    "deep",
    "softly",
    "none",
    "other-name",
    "a:1x",
    "symbol:given",
)
TAGS = ("license=GPL", f"vermagic={KERNEL} SMP preempt mod_unload modversions ")


def kmod(name: str, *tags: str, gives: str = "", takes: str = "") -> bytes:
    symbols = [Symbol(f"__crc_{gives}", ABSOLUTE, 0x77)] if gives else []
    symbols += [Symbol(takes)] if takes else []
    versions = [("module_layout", 0x1111), *([(takes, 0x77)] if takes else [])]
    return Object(name=name, modinfo=(*TAGS, *tags), symbols=symbols, versions=versions).packed()


KMODS = {
    "extra/gives.ko": kmod("gives", "alias=other-name", "alias=a:[0-9]*", gives="given"),
    "extra/takes.ko": kmod("takes", "alias=a:1*", takes="given"),
    "plain.ko": kmod("plain"),
    "updates/my-kmod.ko": kmod("my_kmod"),
    "deep.ko": kmod("deep", takes="lowly"),
    "softly.ko": kmod("softly", "softdep=pre: plain"),
}
IN_TREE = {"kernel/low.ko": kmod("low", gives="lowly"), "kernel/plain.ko": kmod("plain")}
SHELL = [
    Member("bin/busybox", busybox(), mode=0o755),
    *(symlink(f"bin/{one}", "busybox") for one in ("sh", "mkdir", "cp")),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The worker's root: kmod, the node's own modules, and in /built an image's folder with its index made there."""
    root = Root(tmp_path_factory.mktemp("root"))
    root.write(TREE, IN_TREE)
    root.depmod("/", KERNEL)
    (root.folder / "usr/lib").mkdir(parents=True, exist_ok=True)
    (root.folder / "usr/lib/modules").symlink_to("../../lib/modules")
    root.write(f"built/{TREE}", KMODS)
    (root.folder / f"built/{TREE}/host").symlink_to(f"/{TREE}")
    root.depmod("/built", KERNEL)
    return root


@pytest.fixture(scope="module")
def files(root: Root) -> Mapping[str, bytes]:
    """What a Dockerfile makes of the folder, by path: kmods and indexes."""
    built = root.folder / "built" / TREE
    names = [*KMODS, *(path.name for path in built.glob("modules.*"))]
    return {name: (built / name).read_bytes() for name in names}


@dataclass(frozen=True)
class Files:
    """The folder's parts, to be put into layers."""

    files: Mapping[str, bytes]
    at: str = AT

    def __call__(self, *but: str, **more: bytes) -> list[Member]:
        """Members of all, without those that begin so, and with others in their place."""
        named = {**{name: data for name, data in self.files.items() if not name.startswith(but or ("\0",))}, **more}
        return [Member(f"{self.at}/{name}", data) for name, data in named.items()]

    def changed(self, name: str, change: Callable[[bytes], bytes]) -> list[Member]:
        return self(**{name: change(self.files[name])})


Layers = list[list[Member]]
HOST = symlink(f"{AT}/host", f"/{TREE}")
IMAGES: dict[str, Callable[[Files], Layers]] = {
    "whole": lambda f: [f()],
    "with the link host": lambda f: [[*f(), HOST]],
    "host through usr": lambda f: [[*f(), symlink(f"{AT}/host", f"/usr/{TREE}")]],
    "host upwards": lambda f: [[*f(), symlink(f"{AT}/host", f"../../../../../{TREE}")]],
    "host of another kernel": lambda f: [[*f(), symlink(f"{AT}/host", f"/lib/modules/{OTHER}")]],
    "host and a link to it": lambda f: [[*f(), symlink(f"{AT}/host", "tree"), symlink(f"{AT}/tree", f"/{TREE}")]],
    "no index": lambda f: [f("modules.")],
    "only modules.dep.bin": lambda f: [
        [*f("modules."), Member(f"{AT}/modules.dep.bin", f.files["modules.dep.bin"])]],
    "only the text": lambda f: [[*f("modules."), Member(f"{AT}/modules.dep", f.files["modules.dep"])]],
    "index in a lower layer": lambda f: [f(), [Member(f"{AT}/readme", b"x")]],
    "index taken away": lambda f: [f(), [Member(f"{AT}/.wh.modules.dep.bin")]],
    "an empty index above": lambda f: [f(), [Member(f"{AT}/modules.dep.bin")]],
    "an index cut above": lambda f: [f(), [Member(f"{AT}/modules.dep.bin", f.files["modules.dep.bin"][:11])]],
    "another magic": lambda f: [f.changed("modules.dep.bin", lambda data: b"\0" + data[1:])],
    "a stale path": lambda f: [f.changed("modules.dep.bin", lambda data: data.replace(b"extra/gives", b"extra/given"))],
    "a kmod taken away": lambda f: [f(), [Member(f"{AT}/.wh.plain.ko")]],
    "a dependency taken away": lambda f: [f(), [Member(f"{AT}/extra/.wh.gives.ko")]],
    "a folder taken away": lambda f: [f(), [Member(f"{AT}/.wh.extra")]],
    "a folder made opaque": lambda f: [f(), [Member(f"{AT}/extra/.wh..wh..opq"), f("extra/takes")[0]]],
    "a kmod moved": lambda f: [f("plain"), [Member(f"{AT}/extra/plain.ko", KMODS["plain.ko"])]],
    "a kmod packed": lambda f: [f("plain"), [Member(f"{AT}/plain.ko.xz", KMODS["plain.ko"])]],
    "a kmod behind a link inside": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", "real/plain"), Member(f"{AT}/real/plain", KMODS["plain.ko"])]],
    "a link that begins at the root": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", f"/{AT}/real"), Member(f"{AT}/real", KMODS["plain.ko"])]],
    "a link that leaves the folder": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", "../../../kmods/plain.ko"),
                     Member("opt/kmods/plain.ko", KMODS["plain.ko"])]],
    "a link out and in again": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", f"../{KERNEL}/real"), Member(f"{AT}/real", KMODS["plain.ko"])]],
    "a link to the node's own": lambda f: [f("plain"), [symlink(f"{AT}/plain.ko", f"/{TREE}/kernel/plain.ko")]],
    "a link to the node's own folder": lambda f: [
        f("updates"), [symlink(f"{AT}/updates/my-kmod.ko", f"/{TREE}")]],
    "a dependency behind a link to the node's own folder": lambda f: [
        f("extra/gives"), [symlink(f"{AT}/extra/gives.ko", f"/{TREE}/kernel")]],
    "a link to where the copy is": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", f"/tmp/{AT}/real"), Member(f"{AT}/real", KMODS["plain.ko"])]],
    "a dangling link": lambda f: [f("plain"), [symlink(f"{AT}/plain.ko", "nowhere")]],
    "a link to a kmod, taken for a folder": lambda f: [
        f("plain"), [symlink(f"{AT}/plain.ko", "real/"), Member(f"{AT}/real", KMODS["plain.ko"])],
        [symlink(f"{AT}/updates/my-kmod.ko", "../real/"), symlink(f"{AT}/deep.ko", "updates/.")]],
    "a folder behind a link with a slash": lambda f: [
        f("extra"), [symlink(f"{AT}/extra", "mine/"), Member(f"{AT}/mine/gives.ko", KMODS["extra/gives.ko"]),
                     Member(f"{AT}/mine/takes.ko", KMODS["extra/takes.ko"])]],
    "a link to itself": lambda f: [f("plain"), [symlink(f"{AT}/plain.ko", "plain.ko")]],
    "a dependency behind a link out": lambda f: [
        f("extra/gives"), [symlink(f"{AT}/extra/gives.ko", "/srv/gives.ko"),
                           Member("srv/gives.ko", KMODS["extra/gives.ko"])]],
    "a folder behind a link inside": lambda f: [
        f("extra"), [symlink(f"{AT}/extra", "mine"), Member(f"{AT}/mine/gives.ko", KMODS["extra/gives.ko"]),
                     Member(f"{AT}/mine/takes.ko", KMODS["extra/takes.ko"])]],
    "a folder behind a link out": lambda f: [
        f("extra"), [symlink(f"{AT}/extra", "/srv"), Member("srv/gives.ko", KMODS["extra/gives.ko"])]],
    "the index behind a link": lambda f: [
        f("modules.dep.bin"), [symlink(f"{AT}/modules.dep.bin", "index"),
                               Member(f"{AT}/index", f.files["modules.dep.bin"])]],
    "the index behind a link out": lambda f: [
        f("modules.dep.bin"), [symlink(f"{AT}/modules.dep.bin", "/srv/index"),
                               Member("srv/index", f.files["modules.dep.bin"])]],
    "a hard link": lambda f: [
        f("plain"), [Member("srv/plain", KMODS["plain.ko"]), hardlink(f"{AT}/plain.ko", "srv/plain")]],
    "the kernel's folder is a link": lambda f: [[*Files(f.files, "srv/kmods")(), symlink(AT, "/srv/kmods")]],
    "the kernel's folder is a link beside it": lambda f: [
        [*Files(f.files, "opt/lib/modules/real")(), symlink(AT, "real")]],
    "usr merge": lambda f: [[*Files(f.files, f"usr/lib/modules/{KERNEL}")(), symlink("opt/lib", "../usr/lib")]],
    "usr merge from the root": lambda f: [
        [*Files(f.files, f"usr/{TREE}")(), symlink("opt/lib", "/usr/lib"), symlink(f"usr/{TREE}/host", f"/{TREE}")]],
    "a folder in the place of a kmod": lambda f: [f("plain"), [folder(f"{AT}/plain.ko")]],
    "an empty kmod": lambda f: [f(**{"plain.ko": b""})],
    "no aliases": lambda f: [f("modules.alias.bin")],
    "damaged aliases": lambda f: [f.changed("modules.alias.bin", lambda data: b"\0" + data[1:])],
    "no symbols": lambda f: [f("modules.symbols.bin")],
}  # fmt: skip


NODE = KernelFiles(KERNEL, "amd64", None, None, in_tree=frozenset({"low", "plain"}), in_tree_whole=True)
Loads = tuple[list[str], list[str]] | None


def plan(name: str, order: tuple[str, ...] = (), directory: str = "/opt") -> Plan:
    kernel = TargetKernel(KERNEL, "amd64", "rhel-9", Flavour.STANDARD, None, "")
    return Plan(
        ModuleName("ns", "m"),
        kernel,
        Reference.parse("r/i:t"),
        kmod=name,
        modules_loading_order=order,
        directory=directory,
    )


def ours(
    image: ImageFiles, name: str, order: tuple[str, ...] = (), worker: Worker = Worker.COPIED, node: KernelFiles = NODE
) -> LoadSequence:
    where = NodeFolder(plan(name, order), image, worker, node)
    problem = where.problem()
    return LoadSequence(findings=(problem,)) if problem else load_sequence(where, name, order)


def shown(sequence: LoadSequence) -> Loads:
    """Paths of the image and names of in-tree kmods; None where something speaks against it."""
    if any(one.severity is Severity.REFUTES for one in sequence.findings):
        return None
    return [_short(one.path) for one in sequence.files], list(sequence.in_tree)


def theirs(root: Root, names: Iterable[str], image: str = "/tmp/") -> dict[str, Loads]:
    """The same of each name by modprobe in the worker's root, where the image's files are below a folder."""
    said = root.show_depends(f"{image}opt", KERNEL, tuple(names))
    # What the image's own softdeps name is none of ours: modprobe does without it where it cannot have it.
    return {name: _loads(one.paths[-1:] if name == "softly" else one.paths, image) for name, one in said.items()}


def _loads(paths: tuple[str, ...], image: str) -> Loads:
    if not paths or "" in paths:
        return None
    tree = [path for path in paths if path.startswith((f"/{TREE}/", f"/usr/{TREE}/"))]
    mine = [_short(path.removeprefix(image)) for path in paths if path not in tree]
    return list(dict.fromkeys(mine)), [module_key(path.rpartition("/")[2]) for path in dict.fromkeys(tree)]


def _short(path: str) -> str:
    """A path below the kernel's folder, wherever that is in the image; others as they are."""
    return path.rpartition(f"{KERNEL}/")[2]


@pytest.fixture
def node(root: Root, tmp_path: Path) -> Callable[[Layers], Root]:
    """The node after the image's own shell has copied what KMM copies."""

    def prepare(layers: Layers) -> Root:
        unpack([SHELL, *layers], tmp_path / "image")
        done = copied(tmp_path / "image", "/opt", KERNEL)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(root.folder / "tmp", ignore_errors=True)
        (tmp_path / "image/tmp").rename(root.folder / "tmp")
        return root

    return prepare


@pytest.mark.parametrize("label", IMAGES)
def test_modprobe_and_the_suite_agree_on_what_is_copied(
    label: str, files: Mapping[str, bytes], node: Callable[[Layers], Root], tmp_path: Path
) -> None:
    layers = IMAGES[label](Files(files))
    worker, image = node(layers), image_files(layers, tmp_path / "cache")
    assert {name: shown(ours(image, name)) for name in NAMES} == theirs(worker, NAMES)


LINKS = [label for label in IMAGES if " link" in label or "host" in label]


@pytest.mark.parametrize("label", LINKS)
def test_modprobe_and_the_suite_agree_on_a_whole_image(
    label: str, root: Root, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    layers = IMAGES[label](Files(files))
    image = image_files(layers, tmp_path / "cache")
    shutil.rmtree(root.folder / "unpacked", ignore_errors=True)
    unpack(layers, root.folder / "unpacked")
    unpack(layers, tmp_path / "pod")
    pod = Root(tmp_path / "pod", like=root)
    pod.write(TREE, IN_TREE)
    pod.depmod("/", KERNEL)
    pod.write(f"usr/{TREE}", IN_TREE)
    got = {how: {name: shown(ours(image, name, worker=how)) for name in NAMES} for how in (Worker.UNPACKED, Worker.POD)}
    assert got[Worker.UNPACKED] == theirs(root, NAMES, "/unpacked/")
    assert got[Worker.POD] == theirs(pod, NAMES, "/")


def test_the_images_are_not_all_alike(files: Mapping[str, bytes], tmp_path: Path) -> None:
    image = image_files(IMAGES["with the link host"](Files(files)), tmp_path)
    assert shown(ours(image, "a:1x")) == (["extra/gives.ko", "extra/takes.ko"], [])
    assert shown(ours(image, "deep")) == (["deep.ko"], ["low"])
    assert shown(ours(image, "none")) is None


ORDERS: dict[tuple[str, ...], str | None] = {
    ("takes", "plain", "my-kmod"): None,
    ("takes", "gives", "deep"): None,
    ("takes", "softly", "gives"): None,
    ("my_kmod", "deep", "takes"): None,
    ("plain", "other-name"): None,
    ("plain", "a:1x"): None,
    ("softly", "plain"): None,
    ("takes", "none"): "loading-order-absent",
    ("takes", "none", "plain"): "loading-order-absent",
    ("softly", "gives"): "loading-order-overruled",
    ("deep", "softly", "gives"): "loading-order-overruled",
    ("other-name", "plain"): "loading-order-overruled",
    ("my-kmod", "my_kmod", "plain"): "loading-order-overruled",
    ("takes", "my_kmod", "plain", "my-kmod", "deep"): "loading-order-overruled",
}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(order))
def test_the_loading_order(
    order: tuple[str, ...], files: Mapping[str, bytes], node: Callable[[Layers], Root], tmp_path: Path
) -> None:
    layers = [[*Files(files)(), HOST]]
    worker = node(layers)
    lines = [f"softdep {one} pre: {following}\n" for one, following in pairwise(order)]
    worker.write("etc/modprobe.d", {"softdep.conf": "".join(lines).encode()})
    found = ours(image_files(layers, tmp_path / "cache"), order[0], order)
    told = _loads(worker.show_depends("/tmp/opt", KERNEL, [order[0]])[order[0]].paths, "/tmp/")
    worker.write("etc/modprobe.d", {"softdep.conf": b""})
    assert told
    finding = ORDERS[order]
    assert [one.id for one in found.findings] == ([finding] if finding else [])
    loaded = {module_key(path.rpartition("/")[2]) for path in told[0]} | set(told[1])
    aliases = {"other_name", "a:1x"}
    # modprobe says nothing of names that it leaves out.
    assert bool({wanted_key(one) for one in order} - loaded - aliases) == bool(finding)
    if finding is None:
        softly = [] if "plain" in order else ["plain"]  # which the image's own line has loaded, if it can be
        assert shown(found) == (told[0], [name for name in told[1] if name not in softly])
