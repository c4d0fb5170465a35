"""Trial loads: in real virtual machines, from recorded consoles, and with something missing."""

from __future__ import annotations

import io
import lzma
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kmm_preflight.errors import Malformed
from kmm_preflight.model import VERIFIED_HTTPS, Finding, Flavour, TargetKernel
from kmm_preflight.oci.cache import Cache
from kmm_preflight.oci.connections import Network
from kmm_preflight.oci.credentials import PullCredentials
from kmm_preflight.oci.reference import parse_name
from kmm_preflight.oci.resolver import ImageResolver
from kmm_preflight.stages.kept_files import keep_rules
from kmm_preflight.trial.boot import Boot, BootEnd, Console, VirtualMachine
from kmm_preflight.trial.console import ModprobeResult, read_console
from kmm_preflight.trial.environment import TrialEnvironment
from kmm_preflight.trial.image_folder import image_tree
from kmm_preflight.trial.initramfs import Entry, File, Folder, Link, write_initramfs
from kmm_preflight.trial.linked import read_linked
from kmm_preflight.trial.load import try_load
from kmm_preflight.trial.programs import MissingTool, own_root, programs
from kmm_preflight.trial.qemu import CONSOLE_BYTES, Qemu, find_qemu
from kmm_preflight.trial.script import Step, init_script
from kmm_preflight.trial.staging import StagedTrial, Trial, stage_trial
from kmm_preflight.trial.verdict import Subject, conclude
from kmm_preflight.trial.vmlinuz import chosen_vmlinuz, find_vmlinuz

from .real.layout import Member, image, layer, symlink, write_layout
from .real.requirement import need, need_tool

_QEMU, _KMOD = "apt-get install qemu-system-x86", "apt-get install kmod"
RELEASE = "6.1.0-1-amd64"
MC = "kernel/drivers/media/mc/mc.ko"
SUBJECT = Subject("pf", RELEASE)


def target(release: str, arch: str = "amd64") -> TargetKernel:
    return TargetKernel(release, arch, None, Flavour.STANDARD, None, "the test")


def no_in_tree(path: str) -> None:
    """Find no in-tree kmod."""


@pytest.fixture(scope="module")
def release() -> str:
    """Return the newest kernel 6.1 of Debian."""
    from .real.kmod import oldest_and_newest

    return oldest_and_newest()[1]


@pytest.fixture
def environment(tmp_path: Path, release: str) -> Callable[..., TrialEnvironment]:
    """Return a function that makes an environment: QEMU without KVM, and the vmlinuz of a real kernel."""
    from .real import kernels

    need_amd64()
    need_tool("modprobe", _KMOD)
    qemu = need_tool("qemu-system-x86_64", _QEMU)

    def make(seconds: float = 300, enforced: bool = False) -> TrialEnvironment:
        return TrialEnvironment(
            vmlinuz=lambda: kernels.vmlinuz(release),
            machine=lambda: find_qemu("amd64", str(Path(qemu).parent), seconds, kvm=False),
            programs=lambda: programs("amd64", own_root),
            in_tree=lambda path: file if (file := kernels.in_tree(release) / path).is_file() else None,
            folder=tmp_path,
            enforced=enforced,
        )

    return make


def image_folder(root: Path, release: str, files: Mapping[str, bytes], host: Path | None = None) -> dict[str, Entry]:
    """Return a kernel's folder of an image below opt, with depmod's index. A link leads to host."""
    folder = root / "opt/lib/modules" / release
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (folder / name).touch()
    if host:
        (folder / "host").symlink_to(host)
    subprocess.run([need_tool("depmod", _KMOD), "-b", str(root / "opt"), release], check=True, timeout=60)
    tree: dict[str, Entry] = {str(path.relative_to(root)): File(path) for path in folder.rglob("*") if path.is_file()}
    if host:
        link = f"opt/lib/modules/{release}/host"
        tree = {path: entry for path, entry in tree.items() if not path.startswith(link)}
        tree[link] = Link(f"/lib/modules/{release}")
    return tree


def ids(findings: Mapping[str, tuple[Finding, ...]]) -> dict[str, list[str]]:
    return {name: [finding.id for finding in of_trial] for name, of_trial in findings.items()}


def test_a_real_kernel_loads_and_refuses_kmods_in_one_boot(
    environment: Callable[..., TrialEnvironment], release: str, tmp_path: Path
) -> None:
    from .real import kernels
    from .real.behaviour import behaving
    from .real.drivers import small_kmods
    from .real.kmod import compile_kmod, oldest_and_newest

    probe, own = compile_kmod(release), small_kmods(release)
    good = image_folder(
        tmp_path / "good",
        release,
        {
            "extra/preflight_probe.ko.xz": lzma.compress(probe, check=lzma.CHECK_CRC64),
            "pf_plain.ko": own["pf_plain"],
            "pf_in_tree.ko": own["pf_in_tree"],
            "pf_no_device.ko": behaving(release)["pf_no_device"],
            "pf_alias.ko": behaving(release)["pf_alias"],
        },
        kernels.in_tree(release),
    )
    old = image_folder(tmp_path / "old", release, {"preflight_probe.ko": compile_kmod(oldest_and_newest()[0])})
    bare = image_folder(tmp_path / "bare", release, {"pf_in_tree.ko": own["pf_in_tree"]})
    signed = image_folder(tmp_path / "signed", release, {"mc.ko": (kernels.in_tree(release) / MC).read_bytes()})
    media = (MC, "kernel/drivers/media/v4l2-core/videodev.ko")
    trials = [
        Trial("good", "preflight-probe", "/opt", good, parameters=("delay_ms=7",)),
        Trial("old", "preflight_probe", "/opt", old),
        Trial("ordered", "preflight_probe", "opt/", good, order=("preflight_probe", "pf_plain")),
        Trial("in tree", "pf_in_tree", "/opt", good),
        Trial("alias", "pf-by-alias-7", "/opt", good),
        Trial("not there", "pf_in_tree", "/opt", bare),
        Trial("assumed", "pf_in_tree", "/opt", bare, loaded=media),
        Trial("signed by the kernel's own key", "mc", "/opt", signed),
        Trial("not to be assumed", "pf_in_tree", "/opt", bare, loaded=media[1:]),
        Trial("no device", "pf_no_device", "/opt", good),
        Trial("other errno", "pf_no_device", "/opt", good, parameters=("answer=-22",)),
        Trial("no such parameter value", "preflight_probe", "/opt", good, parameters=("delay_ms=often",)),
        Trial("absent", "pf_nowhere", "/opt", good),
    ]
    found = try_load(trials, target(release), environment(enforced=True))
    assert ids(found) == {
        "good": ["trial-loaded", "trial-refused"],
        "old": ["trial-refused"],
        "ordered": ["trial-loaded", "trial-refused"],
        "in tree": ["trial-loaded", "trial-refused"],
        "alias": ["trial-loaded", "trial-refused"],
        "not there": ["trial-refused"],
        "assumed": ["trial-loaded", "trial-refused"],
        "signed by the kernel's own key": ["trial-loaded", "trial-loaded"],
        "not to be assumed": ["trial-undecided"],
        "no device": ["trial-no-device", "trial-refused"],
        "other errno": ["trial-undecided"],
        "no such parameter value": ["trial-refused"],
        "absent": ["trial-refused"],
    }
    place = f"/tmp/opt/lib/modules/{release}"
    assert found["good"][0].lines[0] == f"insmod {place}/extra/preflight_probe.ko.xz delay_ms=7"
    assert "preflight_probe: loading out-of-tree module taints kernel." in found["good"][0].lines
    assert found["good"][1].lines[-1] == "Loading of unsigned module is rejected"
    assert found["old"][0].lines[-1] == "preflight_probe: disagrees about version of symbol module_layout"
    assert "with module.sig_enforce=1" in found["ordered"][1].sentence
    assert "modprobe loaded preflight_probe, pf_plain" in found["ordered"][0].sentence
    assert "modprobe loaded pf_in_tree, videodev, mc" in found["in tree"][0].sentence
    assert "pf-by-alias-7 loads on" in found["alias"][0].sentence
    assert "modprobe loaded pf_alias, videodev, mc" in found["alias"][0].sentence
    assert "pf_in_tree: Unknown symbol video_devdata (err -2)" in found["not there"][0].lines
    assert "modprobe loaded pf_in_tree, videodev, mc" in found["assumed"][0].sentence
    assert (
        f"the kernel refused /lib/modules/{release}/{media[1]}, which is loaded first"
        in found["not to be assumed"][0].sentence
    )
    assert "the init of pf_no_device returned -19 (ENODEV)" in found["no device"][0].sentence
    assert "the init of pf_no_device returned -22 (EINVAL)" in found["other errno"][0].sentence
    assert "Module pf_nowhere not found in directory" in found["absent"][0].sentence
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("trial-")] == []


def test_a_kmod_that_cannot_be_unloaded_or_that_panics_ends_its_boot(
    environment: Callable[..., TrialEnvironment], release: str, tmp_path: Path
) -> None:
    from .real.behaviour import behaving

    kmods = behaving(release)
    tree = image_folder(tmp_path / "image", release, {f"{name}.ko": kmod for name, kmod in kmods.items()})
    trials = [Trial(name, name, "/opt", tree) for name in ("pf_stays", "pf_panics")]
    found = try_load(trials, target(release), environment())
    assert ids(found) == {"pf_stays": ["trial-loaded"], "pf_panics": ["trial-refused"]}
    assert {"begin 0", "code 0"} <= set(found["pf_stays"][0].lines)
    assert ": Kernel panic - not syncing: Fatal exception" in found["pf_panics"][0].sentence
    assert any("pf_panics_init" in line for line in found["pf_panics"][0].lines)


def test_a_boot_has_a_time_limit(environment: Callable[..., TrialEnvironment], release: str, tmp_path: Path) -> None:
    trial = Trial("a", "pf", "/opt", {"opt/x": File(b"")})
    (finding,) = try_load([trial], target(release), environment(seconds=1))["a"]
    assert finding.id == "trial-undecided"
    assert "the time ran out (1 s) before the kernel had booted" in finding.sentence


def test_a_vmlinuz_of_another_kernel_is_not_booted(environment: Callable[..., TrialEnvironment], release: str) -> None:
    trial = Trial("a", "pf", "/opt", {})
    (finding,) = try_load([trial], target("6.1.0-1-amd64"), environment())["a"]
    assert finding.id == "trial-unable"
    assert f"the vmlinuz is for {release}" in finding.sentence
    assert finding.remedy == "Name the vmlinuz of 6.1.0-1-amd64 with --vmlinuz."


@pytest.mark.parametrize("arch", ["amd64", "arm64", "ppc64le", "s390x"])
def test_a_missing_qemu_is_reported(tmp_path: Path, arch: str) -> None:
    missing = find_qemu(arch, str(tmp_path), 60)
    if isinstance(missing, MissingTool):  # RHEL has QEMU outside of PATH
        assert missing.what.startswith("no qemu-system-")
        assert missing.remedy.startswith(f"Install QEMU for {arch}: `apt-get install qemu-system-")


def test_programs_of_another_architecture_are_missing() -> None:
    need_tool("modprobe", _KMOD)
    missing = programs("s390x", own_root)
    assert isinstance(missing, MissingTool)
    assert missing.what.startswith("no sh for s390x here (")
    assert missing.remedy == "Install dash or bash for s390x on the machine that runs the suite."


def need_amd64() -> None:
    need("a machine for amd64", os.uname().machine == "x86_64", "one of these")


def test_a_modprobe_that_is_not_kmod_s_is_missing(tmp_path: Path) -> None:
    need_amd64()
    busybox = tmp_path / "busybox"
    busybox.write_bytes(Path("/bin/sh").read_bytes())
    places = {"/bin/sh": Path("/bin/sh"), "/bin/mount": Path("/bin/sh"), "/bin/modprobe": busybox}
    missing = programs("amd64", lambda path: places.get(path) or own_root(path), ["/bin"])
    assert isinstance(missing, MissingTool)
    assert missing.what == f"{busybox} is not kmod's modprobe"


def test_programs_come_with_the_libraries_that_ldd_prints() -> None:
    need_amd64()
    need_tool("modprobe", _KMOD)
    entries = programs("amd64", own_root)
    assert isinstance(entries, dict)
    for name in ("sh", "mount", "modprobe"):
        program = entries[f"bin/{name}"]
        assert isinstance(program, File)
        printed = subprocess.run(["ldd", str(program.content)], capture_output=True, text=True, check=True).stdout
        needed = {line.split()[0] for line in printed.splitlines() if "=>" in line and "vdso" not in line}
        assert needed
        assert {f"lib/preflight/{library}" for library in needed} <= set(entries)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 10, b"\x7fELF\x01" + bytes(80)])
def test_data_that_is_not_a_program_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_linked(data)


def test_a_program_that_is_cut_off_anywhere_is_malformed_or_read() -> None:
    whole = Path("/bin/sh").read_bytes()
    for size in range(0, len(whole), 997):
        try:
            read_linked(whole[:size])
        except Malformed:
            continue


def test_cpio_unpacks_the_archive(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"12345")
    out = io.BytesIO()
    entries: dict[str, Entry] = {
        "b/c/file": File(tmp_path / "from"),
        "a": Link("b/c"),
        "b/empty": Folder(),
        "z": File(b"odd"),
    }
    write_initramfs(out, entries)
    folder = tmp_path / "to"
    folder.mkdir()
    command = [need_tool("busybox", "apt-get install busybox-static"), "cpio", "-id"]
    subprocess.run(command, input=out.getvalue(), cwd=folder, capture_output=True, check=True, timeout=60)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_symlink()) == [
        "b", "b/c", "b/c/file", "b/empty", "z",
    ]  # fmt: skip
    assert ((folder / "a").readlink(), (folder / "a/file").read_bytes()) == (Path("b/c"), b"12345")


@pytest.mark.parametrize(
    "paths", [("../x",), ("/x",), ("x/",), ("",), ("a//b",), ("a\0b",), ("x" * 5000,), ("link/bin/modprobe",)]
)
def test_a_path_that_leads_to_another_place_is_refused(paths: tuple[str, ...], tmp_path: Path) -> None:
    entries: dict[str, Entry] = {"link": Link("/bin"), **{path: File(b"") for path in paths}}
    with pytest.raises(Malformed):
        write_initramfs(io.BytesIO(), entries)
    staged = stage_trial(Trial("a", "pf", "/opt", entries), 0, RELEASE, no_in_tree, tmp_path)
    assert isinstance(staged, MissingTool)


@pytest.mark.parametrize(
    ("kmod", "order"), [("a b", ()), ("a\ninstall a /bin/true", ()), ("a", ("a", "b\ninstall x y")), ("", ())]
)
def test_a_trial_with_an_invalid_kmod_name_is_refused(tmp_path: Path, kmod: str, order: tuple[str, ...]) -> None:
    assert isinstance(
        stage_trial(Trial("a", kmod, "/opt", {}, order=order), 0, RELEASE, no_in_tree, tmp_path), MissingTool
    )


def test_a_missing_in_tree_kmod_is_named(tmp_path: Path) -> None:
    from .real import kernels
    from .real.drivers import small_kmods
    from .real.kmod import oldest_and_newest

    release = oldest_and_newest()[1]
    files = {"pf_in_tree.ko": small_kmods(release)["pf_in_tree"]}
    tree = image_folder(tmp_path, release, files, kernels.in_tree(release))
    staged = stage_trial(Trial("a", "pf_in_tree", "/opt", tree), 0, release, no_in_tree, tmp_path)
    assert staged == MissingTool(
        "no in-tree kmod kernel/drivers/media/mc/mc.ko",
        f"Name a driver toolkit or a kernel package that has the in-tree kmods of {release}.",
    )


def test_words_are_quoted_for_the_shell(tmp_path: Path) -> None:
    staged = stage_trial(
        Trial("a", "pf", "/opt/a b;reboot", {}, parameters=("x=$(reboot)'",)), 3, RELEASE, no_in_tree, tmp_path
    )
    assert isinstance(staged, StagedTrial)
    script = init_script("token", [staged.step])
    assert "modprobe -v -d '/tmp/opt/a b;reboot' pf 'x=$(reboot)'\"'\"''" in script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=60)


def test_steps_with_enforced_signatures_are_last() -> None:
    script = init_script("t", [Step(0, "/a", ("x",), enforced=True), Step(1, "/b", ("y",))])
    assert script.index("modprobe -v y") < script.index("\nenforce\n") < script.index("modprobe -v x")


CONSOLE = f"""\
[    0.1] something early
[    1.234567][    T1] T kernel {RELEASE}
T begin 0
T printed insmod /tmp/opt/x.ko
calling  x_init+0x0/0x1000 [x] @ 80
x: hello
initcall x_init+0x0/0x1000 [x] returned 0 after 5 usecs
x: T code 0
T loaded x
T end
T begin 2\r
T printed modprobe: ERROR: could not insert 'y': Exec format error
T code 1
"""


def test_the_token_marks_the_lines_of_the_script() -> None:
    log = read_console(CONSOLE, "T")
    assert (log.kernel, sorted(log.results)) == (RELEASE, [0, 2])
    first = log.results[0]
    assert (first.code, first.loaded, first.files) == (0, ("x",), ("/tmp/opt/x.ko",))
    assert first.lines == ("insmod /tmp/opt/x.ko", "x: hello", "x: ")
    assert log.results[2].code == 1


def test_lines_without_the_token_are_not_results() -> None:
    log = read_console(CONSOLE.replace("x: hello", "begin 5\nU begin 6\nU code 0\nU end"), "T")
    assert sorted(log.results) == [0, 2]


def result(printed: str = "", kernel: str = "", code: int | None = 1, loaded: str = "") -> ModprobeResult:
    return ModprobeResult(code, tuple(printed.splitlines()), tuple(loaded.split()), tuple(kernel.splitlines()))


INSMOD = "insmod /tmp/opt/lib/modules/1/pf.ko"
INIT = "initcall pf_init+0x0/0x10 [pf] returned {} after 9 usecs"


@pytest.mark.parametrize(
    ("given", "id", "got"),
    [
        (result(INSMOD, code=0, loaded="pf"), "trial-loaded", "modprobe loaded pf"),
        (result("insmod /a/renamed.ko", code=0, loaded="inner"), "trial-loaded", "modprobe loaded inner"),
        (result(code=0), "trial-refused", "modprobe ended with 0, but the kmod is not loaded"),
        (result(INSMOD, code=0, loaded=""), "trial-refused", "modprobe ended with 0, but the kmod is not loaded"),
        (result(f"{INSMOD}\nmodprobe: ERROR: no", "pf: bad"), "trial-refused", "modprobe ended with exit code 1: no"),
        (result(INSMOD, "Kernel panic - not syncing: x", None), "trial-refused", "Kernel panic - not syncing: x"),
        (result(INSMOD, INIT.format(-19)), "trial-no-device", "the init of pf returned -19 (ENODEV)"),
        (result(INSMOD, INIT.format(-6)), "trial-no-device", "-6 (ENXIO)"),
        (result(INSMOD, INIT.format(-12)), "trial-undecided", "-12 (ENOMEM)"),
        (result("insmod /a/dep.ko", INIT.format(-19)), "trial-undecided", "-19 (ENODEV)"),
        (result(INSMOD, INIT.format(0)), "trial-refused", "exit code 1"),
        (result("modprobe: ERROR: Cannot allocate memory"), "trial-undecided", "there is not enough memory for it"),
        (result("sh: not found", code=127), "trial-undecided", "modprobe ended with exit code 127"),
        (result(code=None), "trial-undecided", "the time ran out (60 s) while the kmod was loaded"),
        (
            ModprobeResult(1, refused_before=("/lib/modules/1/a.ko",)),
            "trial-undecided",
            "the kernel refused /lib/modules/1/a.ko, which is loaded first",
        ),
        (result(INSMOD, "Loading of module with unavailable key is rejected"), "trial-refused", "exit code 1"),
    ],
)
def test_the_result_decides_the_finding(given: ModprobeResult, id: str, got: str) -> None:
    finding = conclude(SUBJECT, given, BootEnd.TIMEOUT, 60)
    assert (finding.id, f" {got}" in finding.sentence) == (id, True), finding.sentence


def test_a_key_that_the_kernel_does_not_have_is_undecided() -> None:
    refused = result(INSMOD, "Loading of module with unavailable key is rejected")
    assert conclude(Subject("pf", RELEASE, enforced=True), refused, BootEnd.COMPLETE, 60).id == "trial-key-unknown"


def test_lines_are_limited_and_safe_to_print() -> None:
    kernel = "\n".join(f"\x1b[31m::error::{number}{'x' * 5000}" for number in range(1000))
    lines = conclude(SUBJECT, result(INSMOD, kernel, 0, "pf"), BootEnd.COMPLETE, 60).lines
    assert len(lines) == 41
    assert lines[20] == "… 961 lines left out …"
    assert all(len(line) < 320 and "\x1b" not in line and "::error" not in line for line in lines)


@dataclass
class ReplayedMachine:
    """Virtual machine that prints recorded consoles, one for each boot. T stands for the boot's token."""

    consoles: list[Console]
    boots: list[str] = field(default_factory=list)
    seconds: float = 60

    def boot(self, boot: Boot) -> Console:
        self.boots.append(boot.initramfs.read_bytes().decode("latin-1"))
        console = self.consoles.pop(0)
        return Console(console.text.replace("T ", f"{boot.ready.split()[0]} "), console.end)


def replay(tmp_path: Path, machine: VirtualMachine, trials: int = 2, enforced: bool = False) -> dict[str, list[str]]:
    vmlinuz = tmp_path / "vmlinuz"
    vmlinuz.write_bytes(b"compressed")
    environment = TrialEnvironment(lambda: vmlinuz, lambda: machine, dict, no_in_tree, tmp_path, enforced)
    loads = [Trial(f"t{number}", "pf", "/opt", {}) for number in range(trials)]
    return ids(try_load(loads, target(RELEASE), environment))


def booted(*steps: str) -> str:
    return f"T kernel {RELEASE}\n" + "".join(steps)


def loaded(step: int) -> str:
    return f"T begin {step}\nT printed {INSMOD}\nT code 0\nT loaded pf\nT end\n"


PANIC = "Kernel panic - not syncing: x\n"


@pytest.mark.parametrize(
    ("consoles", "findings"),
    [
        ([Console(booted(loaded(0), loaded(2)), BootEnd.COMPLETE)], ["trial-loaded", "trial-loaded"]),
        # A step that does not end, and is not the first, is tried again.
        (
            [
                Console(booted(loaded(0), "T begin 2\n", PANIC), BootEnd.MACHINE_ENDED),
                Console(booted(loaded(2)), BootEnd.COMPLETE),
            ],
            ["trial-loaded", "trial-loaded"],
        ),
        (
            [
                Console(booted("T begin 0\n"), BootEnd.TIMEOUT),
                Console(booted("T begin 2\n", PANIC), BootEnd.MACHINE_ENDED),
            ],
            ["trial-undecided", "trial-refused"],
        ),
        ([Console("nothing", BootEnd.MACHINE_ENDED)], ["trial-undecided", "trial-undecided"]),
        ([Console("x" * 100, BootEnd.TOO_MUCH_OUTPUT)], ["trial-undecided", "trial-undecided"]),
        ([Console("T kernel 6.1.0-2-amd64\n" + loaded(0), BootEnd.COMPLETE)], ["trial-unable", "trial-unable"]),
    ],
)
def test_each_boot_settles_steps(tmp_path: Path, consoles: list[Console], findings: list[str]) -> None:
    machine = ReplayedMachine(consoles)
    assert replay(tmp_path, machine) == {f"t{number}": [id] for number, id in enumerate(findings)}
    assert machine.consoles == [], "all boots were needed"
    assert len({script.partition("token=")[2][:32] for script in machine.boots}) == len(machine.boots), "a new token"


def test_a_kernel_that_does_not_enforce_signatures_leaves_them_undecided(tmp_path: Path) -> None:
    machine = ReplayedMachine([Console(booted(loaded(0), "T enforced N\n", loaded(1)), BootEnd.COMPLETE)])
    assert replay(tmp_path, machine, 1, enforced=True) == {"t0": ["trial-loaded", "trial-undecided"]}
    machine = ReplayedMachine([Console(booted(loaded(0), "T enforced Y\n", loaded(1)), BootEnd.COMPLETE)])
    assert replay(tmp_path, machine, 1, enforced=True) == {"t0": ["trial-loaded", "trial-loaded"]}


def bzimage(release: str) -> bytes:
    """Return the part of a bzImage that names its release."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x100).to_bytes(2, "little")
    return bytes(head[:0x300]) + f"{release} (build@host) #1".encode() + bytes(0x100)


@pytest.fixture
def kernels_here(tmp_path: Path) -> dict[str, Path]:
    """Return files that name their release in two formats, and one that names none."""
    contents = {
        "one": bzimage("6.1.0-1-amd64"),
        "two": b"\x7fELF" + bytes(2000) + b"Linux version 6.1.0-2-ppc64le (builder) #1",
        "silent": b"\x1f\x8b" + bytes(100),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_the_vmlinuz_that_names_the_kernel_is_chosen(kernels_here: dict[str, Path]) -> None:
    one, two, silent = kernels_here.values()
    assert chosen_vmlinuz([silent, one, two], "6.1.0-1-amd64") == one
    assert chosen_vmlinuz([one, two, silent], "6.1.0-2-ppc64le") == two
    assert chosen_vmlinuz([one, two, silent], "6.1.0-3-amd64") == silent
    other = chosen_vmlinuz([one, two], "6.1.0-3-amd64")
    assert isinstance(other, MissingTool)
    assert other.what == "the vmlinuz is for 6.1.0-1-amd64, 6.1.0-2-ppc64le"


BOOT = Boot(Path("/dev/null"), Path("/tmp/initramfs"), 512, "quiet", "T kernel ", ("T all", "T stuck"))
COMPLETE = "echo T kernel 1; echo T all; exec sleep 600"


def fake_qemu(folder: Path, script: str, seconds: float, kvm: bool = False) -> VirtualMachine:
    """Return a virtual machine whose QEMU is a shell script. It writes its arguments to `calls`."""
    program = folder / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\necho "$*" >>{folder}/calls\necho $$ >{folder}/pid\n{script}\n')
    program.chmod(0o755)
    assert isinstance(find_qemu("amd64", str(folder), seconds), Qemu)
    return Qemu(str(program), "amd64", seconds, kvm)


@pytest.mark.parametrize(
    ("script", "end"),
    [
        (COMPLETE, BootEnd.COMPLETE),
        ("exec sleep 600", BootEnd.TIMEOUT),
        ("echo T kernel 1; exec sleep 600", BootEnd.TIMEOUT),
        ("exec yes", BootEnd.TOO_MUCH_OUTPUT),
        ("echo broken; exit 1", BootEnd.MACHINE_ENDED),
        ("trap '' TERM INT HUP; while :; do sleep 600 & wait; done", BootEnd.TIMEOUT),
    ],
)
def test_every_boot_ends(tmp_path: Path, script: str, end: BootEnd) -> None:
    console = fake_qemu(tmp_path, script, 0.5 if end is BootEnd.TIMEOUT else 60).boot(BOOT)
    assert console.end is end
    assert len(console.text) <= CONSOLE_BYTES
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_boot_is_tried_again_without_kvm_and_sandbox(tmp_path: Path) -> None:
    script = (
        f"case $* in *sandbox*) echo sandbox: not supported; exit 1;; *kvm*) echo no kvm; exit 1;; esac; {COMPLETE}"
    )
    machine = fake_qemu(tmp_path, script, 30, kvm=True)
    assert [machine.boot(BOOT).end, machine.boot(BOOT).end] == [BootEnd.COMPLETE, BootEnd.COMPLETE]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [("sandbox" in call, "-accel kvm" in call) for call in calls] == [
        (True, True),
        (False, True),
        (False, False),
        (False, False),
    ]
    assert all("-nic none" in call and "-m 512M" in call for call in calls)


def test_a_qemu_that_cannot_be_run_is_reported(tmp_path: Path) -> None:
    console = Qemu(str(tmp_path), "amd64", 5, kvm=False).boot(BOOT)
    assert console == Console(f"{tmp_path}: Permission denied", BootEnd.MACHINE_ENDED)


def test_links_of_an_image_folder_are_kept(tmp_path: Path) -> None:
    folder = f"opt/lib/modules/{RELEASE}"
    entries: list[Member | tuple[str, bytes]] = [
        (f"{folder}/extra/a.ko.xz", b"a"),
        symlink(f"{folder}/host", "/lib/modules/x"),
        (f"{folder}/modules.dep.bin", b"index"),
        (f"{folder}/README", b"not modprobe's"),
        symlink("opt/lib/modules/linked", RELEASE),
        symlink("srv", "opt"),
        ("etc/passwd", b"root"),
    ]
    write_layout(tmp_path / "layout", {"v1": image([layer(entries)])})
    rules = keep_rules(folders=frozenset([folder]), paths=frozenset([f"{folder}/modules.dep.bin"]))
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), None, rules)
    read = images.image(parse_name(f"oci:{tmp_path}/layout:v1"), "amd64", PullCredentials(), VERIFIED_HTTPS)
    tree = image_tree(read, folder)
    contents = {path: entry.content for path, entry in tree.items() if isinstance(entry, File)}
    files = {path: content.read_bytes() for path, content in contents.items() if isinstance(content, Path)}
    assert files == {f"{folder}/extra/a.ko.xz": b"a", f"{folder}/modules.dep.bin": b"index"}
    assert tree[f"{folder}/host"] == Link("/lib/modules/x")
    assert image_tree(read, "opt/lib/modules/linked") == {"opt/lib/modules/linked": Link(RELEASE)}
    assert image_tree(read, "opt/lib/modules/none") == {}
    assert set(image_tree(read, f"srv/lib/modules/{RELEASE}")) == {path.replace("opt/", "srv/", 1) for path in tree}


def test_kmods_that_nodes_have_loaded_come_after_their_dependencies(tmp_path: Path, release: str) -> None:
    from .real import kernels

    videodev = "kernel/drivers/media/v4l2-core/videodev.ko"
    index = tmp_path / f"lib/modules/{release}"
    index.mkdir(parents=True)
    for path in kernels.in_tree(release).iterdir():
        (index / path.name).symlink_to(path)
    subprocess.run([need_tool("depmod", _KMOD), "-b", str(tmp_path), release], check=True, timeout=60)
    trial = Trial("a", "pf", "/opt", {}, loaded=(videodev, MC))

    def insmod(in_tree: Callable[[str], Path | None]) -> tuple[str, ...]:
        staged = stage_trial(trial, 0, release, in_tree, tmp_path)
        assert isinstance(staged, StagedTrial)
        return tuple(path.removeprefix(f"/lib/modules/{release}/") for path in staged.step.insmod)

    assert insmod(lambda path: index / path) == (MC, videodev)
    assert insmod(lambda path: None if path.startswith("modules") else index / path) == (videodev, MC)
    (index / "modules.dep.bin").write_bytes(b"damaged")
    assert insmod(lambda path: index / path) == (videodev, MC)


def test_the_kernel_s_own_file_is_booted_if_no_given_file_matches(tmp_path: Path) -> None:
    own, given = tmp_path / "own", tmp_path / "given"
    given.write_bytes(b"Linux version 6.1.0-1-amd64 (builder) #1")
    first, second = (
        TargetKernel(name, "amd64", None, Flavour.STANDARD, None, "") for name in ("6.1.0-1-amd64", "6.1.0-2")
    )
    assert [find_vmlinuz([given], kernel, lambda: own) for kernel in (first, second)] == [given, own]
    assert find_vmlinuz([], first, lambda: own) == own
    assert find_vmlinuz([], first, lambda: None) == MissingTool(
        "no vmlinuz", f"Name the vmlinuz of {first.version} with --vmlinuz."
    )
    other = MissingTool(f"the vmlinuz is for {first.version}", f"Name the vmlinuz of {second.version} with --vmlinuz.")
    assert find_vmlinuz([given], second, lambda: None) == other
    searched = replace(second, driver_toolkit="dtk", os_image="os")
    words = f" lib/modules/{second.version} of the driver toolkit and the OS image has no vmlinuz."
    assert find_vmlinuz([given], searched, lambda: None) == replace(other, remedy=f"{other.remedy}{words}")
