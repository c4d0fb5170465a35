"""Kmods of several Modules on one node: conflicts, and symbols that another Module exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kmm_preflight.kmod.kernel_files import KernelFiles
from kmm_preflight.kmod.loader import absent_symbols, judge_chain
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding, Flavour, ModuleName, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.plan import Plan
from kmm_preflight.stages.neighbours import Neighbours, Shared, shared_nodes
from kmm_preflight.stages.node_set import LoadedKmod, LoadedSet, Neighbour, judge_together

from .loader_cases import LAYOUT, exporting, make_symvers, read, rhel9, using
from .objects import Object
from .real.drivers import small_kmods
from .real.qemu import LoadTrial, answers
from .test_boot_arguments import newest

OTHER, THIRD = ModuleName("demo", "other"), ModuleName("demo", "third")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> KernelFiles:
    return rhel9(make_symvers(tmp_path_factory.mktemp("symvers")))


def loaded(name: str, kmod: Object, kernel: KernelFiles, digest: str = "", depends: str = "") -> LoadedSet:
    """Return the set of one kmod. Kmods of one name are equal unless they have another digest."""
    of = LoadedKmod(f"/{name}.ko", digest or name, replace(read(kmod), name=name))
    absent = absent_symbols([(of.path, of.kmod)], kernel)
    foreign = {of.path: frozenset(depends.split())} if depends else {}
    return LoadedSet((of,), absent=absent, depends=foreign)


def judged(own: LoadedSet, kernel: KernelFiles, *others: Neighbour) -> list[str]:
    """Return the ids of the findings about a set next to others."""

    def resolve(of: LoadedSet, before: tuple[KernelObject, ...]) -> tuple[Finding, ...]:
        return judge_chain([(kmod.path, kmod.kmod) for kmod in of.kmods], kernel, (), of.in_tree, of.removed, before)

    return [finding.id for finding in judge_together(own, resolve(own, ()), others, resolve)]


def test_kmods_that_exclude_each_other(kernel: KernelFiles) -> None:
    plain, gives = using(versions=[LAYOUT]), exporting("given", versions=[LAYOUT])
    own, same = loaded("a", gives, kernel), loaded("a", gives, kernel)
    other_version = loaded("a", gives, kernel, "other")
    twin, plain_set = loaded("b", gives, kernel), loaded("b", plain, kernel)
    assert judged(own, kernel, Neighbour(OTHER, same)) == []
    assert judged(own, kernel, Neighbour(OTHER, plain_set)) == []
    assert judged(own, kernel, Neighbour(OTHER, other_version)) == ["node-name-clash"]
    assert judged(own, kernel, Neighbour(OTHER, twin)) == ["node-exports-clash"]
    assert judged(own, kernel, Neighbour(OTHER, twin), Neighbour(THIRD, other_version)) == [
        "node-exports-clash",
        "node-name-clash",
    ]
    assert judged(own, kernel, Neighbour(OTHER, twin, certain=False)) == ["node-clash-open"]
    assert judged(own, kernel, Neighbour(OTHER, other_version, certain=False)) == ["node-clash-open"]
    assert judged(own, kernel, Neighbour(OTHER, replace(twin, refuted=True))) == []


def test_symbols_that_another_module_exports(kernel: KernelFiles) -> None:
    gives = loaded("gives", exporting("given", versions=[LAYOUT]), kernel)
    crc = gives.kmods[0].kmod.exports["given"].crc
    assert crc is not None
    takes = loaded("takes", using("given", versions=[LAYOUT, ("given", crc)]), kernel)
    wrong = loaded("takes", using("given", versions=[LAYOUT, ("given", crc ^ 1)]), kernel)
    assert takes.all_absent == ("given",)
    assert judged(takes, kernel) == ["kmod-symbols-absent"]
    assert judged(takes, kernel, Neighbour(OTHER, gives)) == ["node-symbols-provided"]
    assert judged(takes, kernel, Neighbour(OTHER, gives, covers=False)) == ["node-symbols-elsewhere"]
    assert judged(wrong, kernel, Neighbour(OTHER, gives))[0] == "kmod-symbols-differ"
    assert judged(takes, kernel, Neighbour(OTHER, replace(gives, refuted=True))) == ["kmod-symbols-absent"]
    assert judged(takes, kernel, Neighbour(OTHER, LoadedSet(unknown="not built"))) == ["node-symbols-open"]
    assert judged(gives, kernel, Neighbour(OTHER, takes)) == []


def test_symbols_over_two_modules(kernel: KernelFiles) -> None:
    base = loaded("base", exporting("given", versions=[LAYOUT]), kernel)
    crc = base.kmods[0].kmod.exports["given"].crc
    assert crc is not None
    middle_kmod = exporting("middle", versions=[LAYOUT, ("given", crc)])
    middle_kmod = replace(middle_kmod, symbols=(*middle_kmod.symbols, *using("given").symbols))
    middle = loaded("middle", middle_kmod, kernel)
    crc_of_middle = middle.kmods[0].kmod.exports["middle"].crc
    top = loaded("top", using("middle", versions=[LAYOUT, ("middle", crc_of_middle or 0)]), kernel)
    both = (Neighbour(OTHER, middle), Neighbour(THIRD, base))
    assert middle.all_absent == ("given",)
    assert judged(top, kernel, *both) == ["node-symbols-provided"]
    assert judged(top, kernel, both[0]) == ["kmod-symbols-absent"]


def test_symbols_of_kmods_that_the_run_does_not_know(kernel: KernelFiles) -> None:
    takes = using("given", versions=[LAYOUT, ("given", 1)])
    assert judged(loaded("takes", takes, kernel, depends="gives"), kernel) == ["node-symbols-open"]
    without = Neighbour(OTHER, loaded("gives", exporting("another", versions=[LAYOUT]), kernel))
    assert judged(loaded("takes", takes, kernel, depends="gives"), kernel, without) == ["kmod-symbols-absent"]
    assert judged(loaded("takes", takes, kernel), kernel) == ["kmod-symbols-absent"]


def plan(
    name: str, selector: dict[str, str], *nodes: str, kernel: str = "6.1.0", kind: str = "Module", arch: str = "amd64"
) -> Plan:
    target = TargetKernel(kernel, arch, None, Flavour.STANDARD, None, "the test")
    image = Reference.parse("registry.example/kmods:1")
    module = ModuleName("demo", name, kind)
    return Plan(module, target, image, "m", selector=tuple(selector.items()), node_names=nodes)


A, AB, B = {"a": "1"}, {"a": "1", "b": "1"}, {"b": "1"}


@pytest.mark.parametrize(
    ("own", "other", "shared"),
    [
        (plan("a", A), plan("b", A), Shared(True, True)),
        (plan("a", A), plan("a", A), None),
        (plan("a", A), plan("b", A, kernel="6.2.0"), None),
        (plan("a", A), plan("b", A, arch="arm64"), None),
        (plan("a", A), plan("b", {"a": "2"}), None),
        (plan("a", A), plan("b", AB), Shared(True, False)),
        (plan("a", AB), plan("b", A), Shared(True, True)),
        (plan("a", A), plan("b", B), Shared(False, False)),
        (plan("a", {}), plan("b", B), Shared(True, False)),
        (plan("a", A, "n1", "n2"), plan("b", B, "n2"), Shared(True, False)),
        (plan("a", A, "n1"), plan("b", B, "n1", "n2"), Shared(True, True)),
        (plan("a", A, "n1"), plan("b", A, "n2"), None),
        (plan("a", A, "n1"), plan("b", A), Shared(True, True)),
        (plan("a", A), plan("b", {}, kind="BootModuleConfig"), Shared(False, False)),
        (plan("a", A, "n"), plan("b", {}, "n", kind="BootModuleConfig"), Shared(True, True)),
    ],
)
def test_the_nodes_that_two_modules_share(own: Plan, other: Plan, shared: Shared | None) -> None:
    assert shared_nodes(own, other) == shared


def test_each_neighbour_is_read_once_whatever_the_order() -> None:
    plans = [plan(name, A) for name in "abc"]
    asked = []

    def read_set(of: Plan) -> LoadedSet:
        asked.append(of.module.name)
        return LoadedSet(unknown=of.module.name)

    neighbours = Neighbours(plans, read_set)
    names = {of.module.name: [str(other.module) for other in neighbours.of(of)] for of in reversed(plans)}
    assert names == {"a": ["demo/b", "demo/c"], "b": ["demo/a", "demo/c"], "c": ["demo/a", "demo/b"]}
    assert sorted(asked) == ["a", "b", "c"]


@pytest.mark.slow
def test_the_kernel_agrees(tmp_path: Path) -> None:
    release = newest()
    kmods = small_kmods(release)
    gives, plain = kmods["pf_gives"], kmods["pf_plain"]
    twin = gives.replace(b"pf_gives", b"pf_givex")
    version = plain.replace(b"license=GPL\0", b"license=GPX\0")
    second, again, alone, after = answers(
        release,
        [
            LoadTrial(twin, (gives,)),
            LoadTrial(version, (plain,)),
            LoadTrial(kmods["pf_takes"]),
            LoadTrial(kmods["pf_takes"], (gives,)),
        ],
    )
    assert "exports duplicate symbol" in second.log
    assert (second.errno, again.errno, alone.errno, after.errno) == ("ENOEXEC", "EEXIST", "ENOENT", None)
