"""A Module and a kernel become a plan: choice of the mapping, inheritance, merging, substitution, names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.model import Flavour, ModuleName, RegistryTLS, TargetKernel
from kmm_preflight.oci.reference import Reference
from kmm_preflight.planning.container import Container, KernelMapping
from kmm_preflight.planning.image_name import append_to_tag, intermediate_image
from kmm_preflight.planning.mapping import (
    NoMapping,
    choose_mapping,
    injected_args,
    merge,
    merge_build,
    merge_sign,
    override_args,
)
from kmm_preflight.planning.module import Module
from kmm_preflight.planning.plan import Build, Case, Plan, Sign, Unresolved
from kmm_preflight.planning.planner import make_plan, substituted_sign

KERNEL = "5.14.0-570.19.1.el9_6.x86_64"
TARGET = TargetKernel(KERNEL, "amd64", "rhel-9", Flavour.STANDARD, None, "the table")
NAME = ModuleName("ns", "m")
EQUAL = KernelMapping(literal=KERNEL)
FOUND = KernelMapping(regexp="el9")
OTHER = KernelMapping(literal="5.14.0-1.el9.x86_64")
MISSED = KernelMapping(regexp="el8")
BROKEN = KernelMapping(regexp="bad(")


@pytest.mark.parametrize(
    ("mappings", "index"),
    [
        pytest.param([EQUAL], 0, id="literal"),
        pytest.param([FOUND], 0, id="regexp"),
        pytest.param([OTHER, MISSED, FOUND], 2, id="third"),
        pytest.param([FOUND, EQUAL], 0, id="order beats literal"),
        pytest.param([EQUAL, BROKEN], 0, id="behind the hit nothing is looked at"),
        pytest.param([KernelMapping(), FOUND], 1, id="empty mapping"),
        pytest.param([KernelMapping(literal=KERNEL, regexp="bad(")], 0, id="both: literal first"),
        pytest.param([KernelMapping(literal="x", regexp="el9")], 0, id="both: then regexp"),
    ],
)
def test_choose_mapping(mappings: list[KernelMapping], index: int) -> None:
    assert choose_mapping(tuple(mappings), KERNEL) == index


@pytest.mark.parametrize(
    ("mappings", "tried"),
    [
        pytest.param([], (), id="none"),
        pytest.param(
            [OTHER, MISSED],
            ("literal 5.14.0-1.el9.x86_64 is another kernel", "regexp el8 does not match"),
            id="none fits",
        ),
        pytest.param(
            [KernelMapping(literal=KERNEL[:-1])], (f"literal {KERNEL[:-1]} is another kernel",), id="literal is whole"
        ),
    ],
)
def test_no_mapping(mappings: list[KernelMapping], tried: tuple[str, ...]) -> None:
    with pytest.raises(NoMapping) as caught:
        choose_mapping(tuple(mappings), KERNEL)
    assert caught.value.tried == tried


def test_an_invalid_regexp_before_the_match_is_an_error() -> None:
    with pytest.raises(Malformed, match=r"regexp 'bad\('"):
        choose_mapping((BROKEN, EQUAL), KERNEL)


INSECURE, UNCHECKED = RegistryTLS(insecure=True), RegistryTLS(insecure_skip_tls_verify=True)
ONE, TWO = Build("one"), Build("two")


@pytest.mark.parametrize(
    ("container", "mapping", "merged"),
    [
        pytest.param(
            Container((), "c", INSECURE, ONE, Sign("u"), None, ("a",)),
            KernelMapping("l"),
            KernelMapping("l", None, "c", INSECURE, ONE, Sign("u"), None, ("a",)),
            id="everything is inherited",
        ),
        pytest.param(
            Container((), "c", INSECURE, None, None, None, ("a",)),
            KernelMapping("l", None, "m", UNCHECKED, TWO, Sign("v"), None, ("b", "c")),
            KernelMapping("l", None, "m", UNCHECKED, TWO, Sign("v"), None, ("b", "c")),
            id="the mapping's own",
        ),
        pytest.param(
            Container((), "c", INSECURE),
            KernelMapping(registry_tls=RegistryTLS()),
            KernelMapping(None, None, "c", RegistryTLS(), None, None, None, ()),
            id="empty registryTLS is secure",
        ),
        pytest.param(
            Container((), in_tree_modules_to_remove=("a",)),
            KernelMapping(in_tree_modules_to_remove=()),
            KernelMapping(None, None, None, RegistryTLS(), None, None, None, ()),
            id="empty list overrides",
        ),
        pytest.param(
            Container((), in_tree_module_to_remove="a"),
            KernelMapping(in_tree_module_to_remove="b"),
            KernelMapping(None, None, None, RegistryTLS(), None, None, "b", ("b",)),
            id="singular overrides singular",
        ),
        pytest.param(
            Container((), in_tree_module_to_remove="a"),
            KernelMapping(in_tree_modules_to_remove=("b", "c")),
            KernelMapping(None, None, None, RegistryTLS(), None, None, "a", ("a",)),
            id="any singular replaces the list",
        ),
    ],
)
def test_merge(container: Container, mapping: KernelMapping, merged: KernelMapping) -> None:
    assert merge(container, mapping) == merged


FULL_BUILD = Build("c", (("a", "1"), ("b", "2")), ("s1",), (("k", "v"),), INSECURE)


@pytest.mark.parametrize(
    ("container", "mapping", "merged"),
    [
        pytest.param(None, None, None, id="neither"),
        pytest.param(FULL_BUILD, None, FULL_BUILD, id="container's"),
        pytest.param(None, FULL_BUILD, FULL_BUILD, id="mapping's"),
        pytest.param(FULL_BUILD, Build(), FULL_BUILD, id="empty mapping section switches nothing off"),
        pytest.param(
            FULL_BUILD,
            Build("m", (("b", "3"), ("z", "5"), ("c", "4")), ("s1", "s2"), (("x", "y"),), UNCHECKED),
            Build(
                "m", (("a", "1"), ("b", "3"), ("c", "4"), ("z", "5")), ("s1", "s1", "s2"), (("k", "v"),), INSECURE
            ),
            id="both",
        ),
        pytest.param(FULL_BUILD, Build(""), replace(FULL_BUILD, dockerfile_config_map=""), id="a nameless ConfigMap"),
    ],
)  # fmt: skip
def test_merge_build(container: Build | None, mapping: Build | None, merged: Build | None) -> None:
    assert merge_build(container, mapping) == merged


@pytest.mark.parametrize(
    ("args", "overrides", "merged"),
    [
        pytest.param("", "", "", id="none"),
        pytest.param("a=1 b=2", "", "a=1 b=2", id="no overrides"),
        pytest.param("", "b=2 a=1", "a=1 b=2", id="appended by name"),
        pytest.param("b=1 a=2", "b=3", "b=3 a=2", id="in place"),
        pytest.param("a=1 b=2 a=3", "a=4", "a=4 b=2 a=4", id="every argument of the name"),
        pytest.param("a=1", "a=2 a=3 c=1 c=2", "a=3 c=2", id="last override wins"),
    ],
)
def test_override_args(args: str, overrides: str, merged: str) -> None:
    assert override_args(_args(args), _args(overrides)) == _args(merged)


def _args(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, _, value in (arg.partition("=") for arg in text.split()))


def test_injected_args_have_the_raw_kernel_and_override() -> None:
    kernel = f"{KERNEL}+rt"
    assert injected_args((("MOD_NAME", "mine"), ("x", "1")), kernel, NAME) == (
        ("MOD_NAME", "m"),
        ("x", "1"),
        ("KERNEL_FULL_VERSION", kernel),
        ("KERNEL_VERSION", kernel),
        ("MOD_NAMESPACE", "ns"),
    )


FULL_SIGN = Sign("u", "k", "c", ("/a.ko",), INSECURE)


@pytest.mark.parametrize(
    ("container", "mapping", "merged"),
    [
        pytest.param(None, None, None, id="neither"),
        pytest.param(FULL_SIGN, None, FULL_SIGN, id="container's"),
        pytest.param(None, FULL_SIGN, FULL_SIGN, id="mapping's"),
        pytest.param(FULL_SIGN, Sign(), FULL_SIGN, id="empty mapping section"),
        pytest.param(
            FULL_SIGN,
            Sign("v", "l", "d", ("/a.ko", "/b.ko"), UNCHECKED),
            Sign("v", "l", "d", ("/a.ko", "/a.ko", "/b.ko"), INSECURE),
            id="both",
        ),
    ],
)
def test_merge_sign(container: Sign | None, mapping: Sign | None, merged: Sign | None) -> None:
    assert merge_sign(container, mapping) == merged


def test_substituted_sign_replaces_only_variables_of_the_kernel() -> None:
    sign = Sign("r/$MOD_NAME:$KERNEL_VERSION", "$KERNEL_X", "$KERNEL_X", ("/opt/$KERNEL_XYZ/$MOD_NAMESPACE/a.ko",))
    expected = Sign(f"r/:{KERNEL}", "$KERNEL_X", "$KERNEL_X", ("/opt/5.14.0//a.ko",))
    assert substituted_sign(sign, KERNEL) == expected
    assert substituted_sign(None, KERNEL) is None


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("r/i", "r/i:x"),
        ("r/i:t", "r/i:t_x"),
        ("i", "i:x"),
        ("host:5000/i", "host:5000/i:x"),
        ("host:5000/i:t", "host:5000/i:t_x"),
        ("r/i@sha256:d", "r/i:x"),
        ("host:5000/i:t@sha256:d", "host:5000/i:t_x"),
    ],
)
def test_append_to_tag(image: str, name: str) -> None:
    assert append_to_tag(image, "x") == name


def test_intermediate_image() -> None:
    assert intermediate_image("host:5000/i:t", NAME) == "host:5000/i:t_ns_m_kmm_unsigned"


def _case(container: Container, kernel: TargetKernel = TARGET) -> Case:
    return make_plan(Module(NAME, container, secret="s"), container, kernel)


def _plan(container: Container, kernel: TargetKernel = TARGET) -> Plan:
    case = _case(container, kernel)
    assert isinstance(case, Plan)
    return case


def test_make_plan() -> None:
    mapping = KernelMapping(
        regexp="^.+$",
        build=Build("d", (("K", "${KERNEL_FULL_VERSION}"),)),
        sign=Sign("r/u:$KERNEL_X", "k", "c", ("/a/$KERNEL_Y.ko",)),
        in_tree_module_to_remove="old",
    )
    container = Container((OTHER, mapping), "r:5000/$MOD_NAMESPACE/$MOD_NAME:${KERNEL_XYZ}", INSECURE,
                          module_name="kmod", directory="/usr", modules_loading_order=("kmod", "b"),
                          firmware_path="/fw")  # fmt: skip
    plan = _plan(container)
    assert plan == Plan(
        NAME, TARGET, Reference.parse("r:5000/ns/m:5.14.0"), "kmod", "/usr", INSECURE, "s",
        Build("d", (("K", "${KERNEL_FULL_VERSION}"),)), Sign("r/u:5", "k", "c", ("/a/14.ko",)), ("old",),
        ("kmod", "b"), "/fw",
    )  # fmt: skip
    assert (plan.id, plan.folder) == (f"ns/m@{KERNEL}", f"usr/lib/modules/{KERNEL}")


@pytest.mark.parametrize(
    ("directory", "folder"),
    [("/opt", "opt/lib/modules/"), ("/opt/", "opt/lib/modules/"), ("/", "lib/modules/"), ("/a/b", "a/b/lib/modules/")],
)
def test_folder(directory: str, folder: str) -> None:
    container = Container((KernelMapping(literal=KERNEL, container_image="r/i"),), directory=directory)
    assert _plan(container).folder == f"{folder}{KERNEL}"


def test_raw_args_name_no_kmod() -> None:
    assert _plan(Container((KernelMapping(literal=KERNEL, container_image="r/i"),))).kmod is None


@pytest.mark.parametrize(
    ("mapping", "finding", "words"),
    [
        pytest.param(
            MISSED,
            "no-mapping",
            f"no kernel mapping matches {KERNEL} (1 tried: regexp el8 does not match)",
            id="no mapping",
        ),
        pytest.param(
            KernelMapping(literal=KERNEL, container_image="r/i:${KERNEL"),
            "name-unresolved",
            "template 'r/i:${KERNEL'",
            id="template without an end",
        ),
        pytest.param(
            KernelMapping(literal=KERNEL, container_image="$NOPE"),
            "name-unresolved",
            "containerImage $NOPE becomes empty",
            id="template that leaves nothing",
        ),
        pytest.param(
            KernelMapping(literal=KERNEL, container_image="r/i", sign=Sign("${")),
            "name-unresolved",
            "template '${'",
            id="unsignedImage without an end",
        ),
        pytest.param(
            KernelMapping(literal=KERNEL, container_image="quay.io/I:x"),
            "image-name-invalid",
            "image name 'quay.io/I:x': got repository 'I'",
            id="no image name",
        ),
    ],
)
def test_unresolved(mapping: KernelMapping, finding: str, words: str) -> None:
    case = _case(Container((mapping,)))
    assert isinstance(case, Unresolved)
    assert (case.finding.id, case.secret) == (finding, "s")
    assert words in case.finding.sentence
    assert case.image_name == ("quay.io/I:x" if finding == "image-name-invalid" else None)


def test_a_kernel_of_two_fields_gives_no_name() -> None:
    container = Container((KernelMapping(regexp=".", container_image="r/i:$KERNEL_VERSION"),))
    case = _case(container, replace(TARGET, version="5.14"))
    assert isinstance(case, Unresolved)
    assert "got '5.14', expected at least three fields" in case.finding.sentence


def test_a_kernel_with_a_plus_gives_a_valid_tag() -> None:
    container = Container((KernelMapping(regexp=".", container_image="r/i:$KERNEL_VERSION"),))
    plan = _plan(container, replace(TARGET, version=f"{KERNEL}+rt"))
    assert (plan.image.tag, plan.image_name) == (f"{KERNEL}_rt", f"r/i:{KERNEL}_rt")
    assert plan.folder == f"opt/lib/modules/{KERNEL}+rt"
