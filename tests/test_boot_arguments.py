"""Kernel arguments that refuse kmods: the suite's verdict, and the answer of a kernel that boots with them."""

from __future__ import annotations

import pytest

from kmm_preflight.kmod.command_line import CommandLine, read_command_line
from kmm_preflight.kmod.configuration import KernelConfiguration
from kmm_preflight.kmod.loader import judge_kmod, read_kmod
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.signature import judge_signature
from kmm_preflight.kmod.signed_file import cut_signature
from kmm_preflight.model import BootArguments, Finding
from kmm_preflight.stages.boot_check import BootedKernel, judge_boot

from .debian_kernels import in_tree_bytes, kernel_files
from .loader_cases import configuration
from .real.drivers import small_kmods
from .real.kernels import upgrade_kernels
from .real.qemu import LoadTrial, answers
from .signing_desk import Desk
from .signing_desk import desk as desk  # a fixture

ENFORCE, CRYPTO = "module.sig_enforce=1", "md4"


def line(*arguments: str, fips: bool = False, kernel: KernelConfiguration | None = None) -> CommandLine:
    """Return the command line of a group of nodes."""
    return read_command_line(BootArguments("pool p", arguments, fips), kernel)


@pytest.mark.parametrize(
    ("arguments", "enforcing"),
    [
        (("quiet",), None),
        ((ENFORCE,), ENFORCE),
        (("module.sig_enforce",), ENFORCE),
        (("module.sig-enforce=y",), "module.sig_enforce=y"),
        (("module.sig_enforce=on",), "module.sig_enforce=on"),
        (("module.sig_enforce=0",), None),
        (("module.sig_enforce=n",), None),
        (("module.sig_enforce=1", "module.sig_enforce=0"), ENFORCE),
        (("sig_enforce=1",), None),
        (("--", ENFORCE), None),
        (("lockdown=integrity",), "lockdown=integrity"),
        (("lockdown=confidentiality",), "lockdown=confidentiality"),
        (("lockdown=none",), None),
        (("lockdown=1",), None),
        (("lockdown",), None),
    ],
)
def test_arguments_that_enforce_signatures(arguments: tuple[str, ...], enforcing: str | None) -> None:
    assert line(*arguments).enforcing == enforcing


def test_a_kernel_without_the_option_ignores_the_argument() -> None:
    kernel = configuration("MODULE_SIG")
    assert line(ENFORCE, kernel=kernel).enforcing == ENFORCE
    assert line(ENFORCE, kernel=configuration()).enforcing is None
    assert line("lockdown=integrity", kernel=kernel).enforcing is None
    assert line("fips=1", kernel=kernel).fips is None


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (("module_blacklist=a,b",), {"a", "b"}),
        (("module_blacklist=a", "module_blacklist=b"), {"b"}),
        (("module-blacklist=a",), {"a"}),
        (("module_blacklist=a-b",), {"a-b"}),
        (("module_blacklist=",), set()),
        (("modprobe.blacklist=a", "blacklist=a", "rd.driver.blacklist=a"), set()),
    ],
)
def test_names_that_the_kernel_forbids(arguments: tuple[str, ...], forbidden: set[str]) -> None:
    assert line(*arguments).forbidden == forbidden


def test_other_arguments_about_kmods() -> None:
    found = line("modprobe.blacklist=a-b,c", "modprobe.blacklist=d", "my-kmod.size=4", "my_kmod.on", "a=b.c=d")
    assert found.skipped == {"a_b", "c", "d"}
    assert found.parameters["my_kmod"] == ("size=4", "on=1")
    assert [line(*words).fips for words in (("fips=1",), ("fips=0",), ("fips=1", "fips=0"))] == ["fips=1", None, None]
    assert line(fips=True).fips == "fips=1"
    assert line("sysctl.kernel.modules_disabled=1").closed == "sysctl.kernel.modules_disabled=1"
    assert line("sysctl.kernel.modules_disabled=0").closed is None
    assert line("ima_policy=tcb|secure_boot", "ima_policy=tcb").unjudged == ("ima_policy=tcb|secure_boot",)


def newest() -> str:
    """Return the newest 6.1 kernel of Debian."""
    return next(one for one in reversed(upgrade_kernels()) if one.startswith("6.1.") and one.count("-") == 2)


def judged(kernel: str, kmod: bytes, *arguments: str) -> list[Finding]:
    """Return the suite's findings about the boot arguments."""
    files = kernel_files(kernel)
    read = read_kmod("m", kmod, files)
    assert isinstance(read, KernelObject)
    booted = BootedKernel(files, (BootArguments("pool p", arguments), BootArguments("pool q")))
    return list(judge_boot(booted, [("/m", read)], (), lambda path: judge_signature(path, kmod, None)))


def test_the_blacklist_of_modprobe_stops_an_alias() -> None:
    kernel = kernel_files(newest())
    read = read_kmod("m", small_kmods(newest())["pf_plain"], kernel)
    assert isinstance(read, KernelObject)
    booted = BootedKernel(kernel, (BootArguments("pool p", ("modprobe.blacklist=pf-plain",)),))
    for wanted, ids in (("other", ["boot-alias-skipped"]), ("pf-plain", []), ("pf_plain", [])):
        found = judge_boot(booted, [("/x/pf_plain.ko", read)], (), None, wanted)
        assert [finding.id for finding in found] == ids


def test_a_copy_of_an_in_tree_kmod_is_not_to_be_removed() -> None:
    kernel, other = kernel_files(newest()), kernel_files(upgrade_kernels()[0])
    for content, ids in (
        (in_tree_bytes(newest(), "dummy"), ["kmod-copy-in-tree"]),
        (in_tree_bytes(newest(), "dummy").replace(b"intree=Y", b"intree=N"), ["kmod-name-in-tree"]),
    ):
        read = read_kmod("m", content, kernel)
        assert isinstance(read, KernelObject)
        assert [finding.id for finding in judge_kmod("m", read, kernel)] == ids
        assert "kmod-copy-in-tree" not in [finding.id for finding in judge_kmod("m", read, other)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "unsigned", "stranger"),
    [
        ("quiet", "", ""),
        (ENFORCE, "boot-signature", "boot-key-unknown"),
        ("module.sig-enforce", "boot-signature", "boot-key-unknown"),
        ("module.sig_enforce=1 module.sig_enforce=0", "boot-signature", "boot-key-unknown"),
        ("module.sig_enforce=0", "", ""),
        ("lockdown=integrity", "boot-signature", "boot-key-unknown"),
        ("lockdown=none", "", ""),
        ("module_blacklist=pf_plain", "boot-blacklisted", "boot-blacklisted"),
        ("module_blacklist=other,pf_plain", "boot-blacklisted", "boot-blacklisted"),
        ("module_blacklist=pf_plain module_blacklist=other", "", ""),
        ("module_blacklist=pf-plain", "", ""),
        ("modprobe.blacklist=pf_plain", "", ""),
        ("fips=1", "", ""),
    ],
)
def test_the_kernel_agrees(desk: Desk, arguments: str, unsigned: str, stranger: str) -> None:
    kernel = newest()
    kmod = small_kmods(kernel)["pf_plain"]
    signed = desk.sign(pair=desk.stranger, data=kmod)
    trials = [LoadTrial(kmod), LoadTrial(signed), LoadTrial(in_tree_bytes(kernel, "dummy"))]
    first, second, own = answers(kernel, trials, arguments=arguments)
    assert own.loaded
    for answer, content, want in ((first, kmod, unsigned), (second, signed, stranger)):
        found = [finding.id for finding in judged(kernel, content, *arguments.split())]
        assert (found, answer.loaded) == ([want] if want else [], not want), answer


@pytest.mark.slow
def test_in_fips_mode_the_kernel_stops_at_an_unsigned_algorithm() -> None:
    kernel = newest()
    signed = in_tree_bytes(kernel, CRYPTO)
    unsigned = bytes(cut_signature(signed)[0])
    (answer,) = answers(kernel, [LoadTrial(signed)], arguments="fips=1")
    assert [finding.id for finding in judged(kernel, unsigned, "fips=1")] == ["boot-signature"]
    assert answer.loaded
    with pytest.raises(RuntimeError, match="crypto_check_alg"):
        answers(kernel, [LoadTrial(unsigned)], arguments="fips=1")
