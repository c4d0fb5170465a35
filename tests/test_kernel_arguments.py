"""Kernel arguments and names of the nodes of a target kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kmm_preflight.model import BootArguments
from kmm_preflight.nodes.cases import make_cases
from kmm_preflight.nodes.demand import demand_of
from kmm_preflight.nodes.kernel_arguments import split_arguments
from kmm_preflight.nodes.prediction import Prediction
from kmm_preflight.nodes.targets import targets_of
from kmm_preflight.planning.module import parse_module
from kmm_preflight.planning.plan import Plan

from .fleets import AMD_9, AMD_10, ROLE, RT_9, Object, config, config_map, module, node, node_pool, pool, rendered
from .test_nodes import HOSTED, ONE, RT, TWO, fleet_of, kernel


def boots(objects: Sequence[Object], release: Any = ONE, selector: Mapping[str, str] = {}) -> dict[str, Plan]:
    """Return the plans of a Module by kernel."""
    parsed = parse_module(module("m", selector), "")
    demands = demand_of(parsed, Prediction(fleet_of(objects), release))
    kernels = (kernel(AMD_9), kernel(AMD_10, "rhel-10"), kernel(RT_9, flavour=RT))
    cases = make_cases([parsed], {parsed.name: targets_of(demands, kernels, release)})
    return {case.kernel.version: case for case in cases if isinstance(case, Plan)}


def told(name: str, *arguments: str, fips: bool = False, role: str = "", kind: str = "") -> Object:
    """Return a MachineConfig with kernel arguments."""
    manifest = config(name, kind, role=role)
    manifest["spec"] |= {"kernelArguments": list(arguments), "fips": fips}
    return manifest


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("", []),
        ("  ", []),
        ("a=b", ["a=b"]),
        (" a  b=c\td ", ["a", "b=c", "d"]),
        ('dyndbg="file x +p" quiet', ["dyndbg=file x +p", "quiet"]),
        ('"module_blacklist=a,b"', ["module_blacklist=a,b"]),
        ('module_blacklist="a,b"', ["module_blacklist=a,b"]),
        ('a="b c', ["a=b c"]),
        ('"', []),
        ('a=b"c d"e f', ['a=b"c d"e', "f"]),
    ],
)
def test_words_of_an_item(item: str, words: list[str]) -> None:
    assert split_arguments(item) == words


def test_names_and_arguments_of_nodes_by_kernel() -> None:
    rt = told("rendered-rt-1", "module.sig_enforce=1", "isolcpus=1 nohz", fips=True, kind="realtime")
    objects = [pool("worker"), pool("rt"), told("rendered-worker-1"), rt, node("w1", "worker"), node("w0", "worker"),
               node("r", "worker", "rt"), node("win", "worker", os="windows")]  # fmt: skip
    plans = boots(objects)
    assert plans[AMD_9].node_names == ("w0", "w1")
    assert plans[AMD_9].boot_arguments == (BootArguments("pool worker"),)
    assert plans[RT_9].node_names == ("r",)
    words = ("module.sig_enforce=1", "isolcpus=1", "nohz")
    assert plans[RT_9].boot_arguments == (BootArguments("pool rt", words, fips=True),)


def test_each_different_set_of_arguments_is_there_once() -> None:
    names = ("worker", "a", "b", "c")
    objects = [*(pool(name) for name in names), *(node(f"n-{name}", "worker", name) for name in names[1:]),
               told("rendered-worker-1"), told("rendered-a-1", "quiet"), told("rendered-b-1", "lockdown=integrity"),
               told("rendered-c-1", "quiet"), node("w", "worker")]  # fmt: skip
    plan = boots(objects)[AMD_9]
    assert plan.node_names == ("n-a", "n-b", "n-c", "w")
    assert sorted(plan.boot_arguments, key=lambda boot: boot.group) == [
        BootArguments("pool a, pool c", ("quiet",)),
        BootArguments("pool b", ("lockdown=integrity",)),
        BootArguments("pool worker"),
    ]


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        pytest.param([], (), id="no MachineConfig"),
        pytest.param([told("50-a", "x", role="other")], (), id="of another role"),
        pytest.param(
            [told("99-a", "c", "a", role="worker"), told("50-a", "b", "a", role="worker"), told("01-a", "d", role="rt"),
             told("98-f", fips=True, role="worker")],
            (BootArguments("pool rt", ("b", "a", "c", "d"), fips=True),),
            id="merged sources",
        ),
        pytest.param(
            [told("99-a", "c", role="worker"), told("rendered-rt-1", "r")],
            (BootArguments("pool rt", ("r",)),),
            id="the rendered one decides",
        ),
    ],
)  # fmt: skip
def test_arguments_of_a_pool(configs: list[Object], expected: tuple[BootArguments, ...]) -> None:
    objects = [pool("worker"), pool("rt"), node("r", "worker", "rt"), *configs]
    (plan,) = boots(objects, selector={f"{ROLE}/rt": ""}).values()
    assert plan.boot_arguments == expected


def test_nodes_without_pools_have_unknown_arguments() -> None:
    assert boots([node("n")])[AMD_9].boot_arguments == ()
    assert boots([pool("worker"), rendered("worker"), node("n", "byo")])[node("n")["status"]["nodeInfo"][
        "kernelVersion"]].boot_arguments == ()  # fmt: skip


@pytest.mark.parametrize(
    ("configs", "objects", "expected"),
    [
        ([], [], (BootArguments("NodePool np"),)),
        (["c"], [config_map("c", told("50", "quiet", fips=True))], (BootArguments("NodePool np", ("quiet",), True),)),
        (["c"], [], ()),
        (["c", "d"], [config_map("c", told("50", "quiet"))], (BootArguments("NodePool np", ("quiet",)),)),
    ],
)
def test_arguments_of_a_node_pool(
    configs: list[str], objects: list[Object], expected: tuple[BootArguments, ...]
) -> None:
    (plan,) = boots([node_pool("np", configs=configs), node("n", labels=HOSTED), *objects], TWO).values()
    assert (plan.node_names, plan.boot_arguments) == (("n",), expected)


def test_nodes_of_a_pool_by_name() -> None:
    objects = [pool("worker"), pool("rt"), node("b", "worker"), node("a", "worker"), node("r", "worker", "rt"),
               node("win", "worker", os="windows")]  # fmt: skip
    prediction = Prediction(fleet_of(objects), ONE)
    assert [[item.name for item in prediction.nodes_of_pool(name)] for name in ("worker", "rt", "none")] == [
        ["a", "b"], ["r"], []]  # fmt: skip
