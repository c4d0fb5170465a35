"""The kmods that modprobe loads on a node: kmod's own modprobe and the suite agree on whole images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
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
from .real.worker import Root, run_copy, unpack_layers
from .worker_images import HOST, IMAGES, IN_TREE, KERNEL, KMODS, SHELL, TREE, FolderFiles, Layers

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
NODE = KernelFiles(KERNEL, "amd64", None, None, in_tree=frozenset({"low", "plain"}), in_tree_whole=True)
Loads = tuple[list[str], list[str]] | None
"""Paths of the image and names of in-tree kmods in the order of loading, or None if modprobe fails."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Return the worker's root: kmod, the node's own modules, and in /built the folder of an image with its indexes."""
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
    """Return the folder of an image by path: kmods, and the indexes that depmod makes in a Dockerfile."""
    built = root.folder / "built" / TREE
    names = [*KMODS, *(path.name for path in built.glob("modules.*"))]
    return {name: (built / name).read_bytes() for name in names}


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


def suite_sequence(
    image: ImageFiles, name: str, order: tuple[str, ...] = (), worker: Worker = Worker.COPIED
) -> LoadSequence:
    """Return the sequence that the suite finds for a name."""
    where = NodeFolder(plan(name, order), image, worker, NODE)
    problem = where.problem()
    return LoadSequence(findings=(problem,)) if problem else load_sequence(where, name, order)


def suite_loads(image: ImageFiles, name: str, worker: Worker = Worker.COPIED) -> Loads:
    return loads_of(suite_sequence(image, name, worker=worker))


def loads_of(sequence: LoadSequence) -> Loads:
    if any(finding.severity is Severity.REFUTES for finding in sequence.findings):
        return None
    return [_short(located.path) for located in sequence.files], list(sequence.in_tree)


def modprobe_loads(root: Root, names: Iterable[str], image: str = "/tmp/") -> dict[str, Loads]:
    """Return the loads of modprobe by name. image: the folder in the worker's root that has the image's files."""
    outputs = root.show_depends(f"{image}opt", KERNEL, tuple(names))
    # The suite does not follow softdeps of the image: modprobe loads the kmod also without them.
    return {
        name: _loads(output.paths[-1:] if name == "softly" else output.paths, image) for name, output in outputs.items()
    }


def _loads(paths: tuple[str | None, ...], image: str) -> Loads:
    files = [path for path in paths if path is not None]
    if not paths or len(files) < len(paths):
        return None
    tree = [path for path in files if path.startswith((f"/{TREE}/", f"/usr/{TREE}/"))]
    own = [_short(path.removeprefix(image)) for path in files if path not in tree]
    return list(dict.fromkeys(own)), [module_key(path.rpartition("/")[2]) for path in dict.fromkeys(tree)]


def _short(path: str) -> str:
    """Return the part of the path below the kernel's folder. A path outside stays as it is."""
    return path.rpartition(f"{KERNEL}/")[2]


@pytest.fixture
def node(root: Root, tmp_path: Path) -> Callable[[Layers], Root]:
    """Return a function that runs KMM's copy with the image's own shell and returns the worker's root."""

    def prepare(layers: Layers) -> Root:
        unpack_layers([SHELL, *layers], tmp_path / "image")
        done = run_copy(tmp_path / "image", "/opt", KERNEL)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(root.folder / "tmp", ignore_errors=True)
        (tmp_path / "image/tmp").rename(root.folder / "tmp")
        return root

    return prepare


@pytest.mark.parametrize("label", IMAGES)
def test_modprobe_and_the_suite_agree_on_a_copied_folder(
    label: str, files: Mapping[str, bytes], node: Callable[[Layers], Root], tmp_path: Path
) -> None:
    layers = IMAGES[label](FolderFiles(files))
    worker, image = node(layers), image_files(layers, tmp_path / "cache")
    assert {name: suite_loads(image, name) for name in NAMES} == modprobe_loads(worker, NAMES)


LINKS = [label for label in IMAGES if " link" in label or "host" in label]


@pytest.mark.parametrize("label", LINKS)
def test_modprobe_and_the_suite_agree_on_a_whole_image(
    label: str, root: Root, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    layers = IMAGES[label](FolderFiles(files))
    image = image_files(layers, tmp_path / "cache")
    shutil.rmtree(root.folder / "unpacked", ignore_errors=True)
    unpack_layers(layers, root.folder / "unpacked")
    unpack_layers(layers, tmp_path / "pod")
    pod = Root(tmp_path / "pod", like=root)
    pod.write(TREE, IN_TREE)
    pod.depmod("/", KERNEL)
    pod.write(f"usr/{TREE}", IN_TREE)
    unpacked = {name: suite_loads(image, name, Worker.UNPACKED) for name in NAMES}
    in_pod = {name: suite_loads(image, name, Worker.POD) for name in NAMES}
    assert unpacked == modprobe_loads(root, NAMES, "/unpacked/")
    assert in_pod == modprobe_loads(pod, NAMES, "/")


def test_the_images_differ(files: Mapping[str, bytes], tmp_path: Path) -> None:
    image = image_files(IMAGES["with the link host"](FolderFiles(files)), tmp_path)
    assert suite_loads(image, "a:1x") == (["extra/gives.ko", "extra/takes.ko"], [])
    assert suite_loads(image, "deep") == (["deep.ko"], ["low"])
    assert suite_loads(image, "none") is None


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
    layers = [[*FolderFiles(files)(), HOST]]
    worker = node(layers)
    lines = [f"softdep {name} pre: {following}\n" for name, following in pairwise(order)]
    worker.write("etc/modprobe.d", {"softdep.conf": "".join(lines).encode()})
    sequence = suite_sequence(image_files(layers, tmp_path / "cache"), order[0], order)
    loads = _loads(worker.show_depends("/tmp/opt", KERNEL, [order[0]])[order[0]].paths, "/tmp/")
    worker.write("etc/modprobe.d", {"softdep.conf": b""})
    assert loads
    finding = ORDERS[order]
    assert [result.id for result in sequence.findings] == ([finding] if finding else [])
    loaded = {module_key(path.rpartition("/")[2]) for path in loads[0]} | set(loads[1])
    aliases = {"other_name", "a:1x"}
    # modprobe prints no message about names that it leaves out.
    assert bool({wanted_key(name) for name in order} - loaded - aliases) == bool(finding)
    if finding is None:
        softly = [] if "plain" in order else ["plain"]  # loaded by the image's own softdep line
        assert loads_of(sequence) == (loads[0], [name for name in loads[1] if name not in softly])
