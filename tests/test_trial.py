"""Trial loads: in real virtual machines, from consoles as they were printed, and where something is lacking."""

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
from kmm_preflight.trial.console import TrialAnswer, read_console
from kmm_preflight.trial.environment import TrialEnvironment, chosen_vmlinuz, find_vmlinuz
from kmm_preflight.trial.folder import image_tree
from kmm_preflight.trial.initramfs import Entry, File, Folder, Link, write_initramfs
from kmm_preflight.trial.linked import read_linked
from kmm_preflight.trial.load import try_load
from kmm_preflight.trial.machine import CONSOLE_BYTES, Qemu, find_qemu
from kmm_preflight.trial.programs import MissingTool, own_root, programs
from kmm_preflight.trial.script import Step, init_script
from kmm_preflight.trial.staging import StagedTrial, Trial, lay_out
from kmm_preflight.trial.verdict import Subject, conclude

from .real.layout import Member, image, layer, symlink, write_layout
from .real.requirement import need, need_tool

_QEMU, _KMOD = "apt-get install qemu-system-x86", "apt-get install kmod"
RELEASE = "6.1.0-1-amd64"
MC = "kernel/drivers/media/mc/mc.ko"
TRIED = Subject("pf", RELEASE)


def target(release: str, arch: str = "amd64") -> TargetKernel:
    return TargetKernel(release, arch, None, Flavour.STANDARD, None, "the test")


def no_in_tree(path: str) -> None:
    """A driver toolkit without in-tree kmods."""


@pytest.fixture(scope="module")
def release() -> str:
    """The newest 6.1 of Debian."""
    from .real.kmod import oldest_and_newest

    return oldest_and_newest()[1]


@pytest.fixture
def bed(tmp_path: Path, release: str) -> Callable[..., TrialEnvironment]:
    """QEMU of this machine without KVM, as every machine has it, and a kernel's own vmlinuz."""
    from .real import kernels

    need_amd64()
    need_tool("modprobe", _KMOD)
    qemu = need_tool("qemu-system-x86_64", _QEMU)

    def make(seconds: float = 300, enforced: bool = False) -> TrialEnvironment:
        return TrialEnvironment(
            vmlinuz=lambda: kernels.vmlinuz(release),
            machine=lambda: find_qemu("amd64", str(Path(qemu).parent), seconds, kvm=False),
            programs=lambda: programs("amd64", own_root),
            in_tree=lambda path: found if (found := kernels.in_tree(release) / path).is_file() else None,
            folder=tmp_path,
            enforced=enforced,
        )

    return make


def image_folder(root: Path, release: str, files: Mapping[str, bytes], host: Path | None = None) -> dict[str, Entry]:
    """A kernel's folder of an image below opt, with depmod's index; host is what the documented link leads to."""
    folder = root / "opt/lib/modules" / release
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (folder / name).touch()
    if host:
        (folder / "host").symlink_to(host)
    subprocess.run([need_tool("depmod", _KMOD), "-b", str(root / "opt"), release], check=True, timeout=60)
    tree: dict[str, Entry] = {str(one.relative_to(root)): File(one) for one in folder.rglob("*") if one.is_file()}
    if host:
        place = f"opt/lib/modules/{release}/host"
        tree = {path: entry for path, entry in tree.items() if not path.startswith(place)}
        tree[place] = Link(f"/lib/modules/{release}")
    return tree


def ids(found: Mapping[str, tuple[Finding, ...]]) -> dict[str, list[str]]:
    return {name: [one.id for one in several] for name, several in found.items()}


def test_a_real_kernel_takes_and_refuses_in_one_boot(
    bed: Callable[..., TrialEnvironment], release: str, tmp_path: Path
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
    found = try_load(trials, target(release), bed(enforced=True))
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


def test_a_kmod_that_stays_and_one_that_brings_the_kernel_down_have_boots_of_their_own(
    bed: Callable[..., TrialEnvironment], release: str, tmp_path: Path
) -> None:
    from .real.behaviour import behaving

    made = behaving(release)
    tree = image_folder(tmp_path / "image", release, {f"{name}.ko": kmod for name, kmod in made.items()})
    trials = [Trial(name, name, "/opt", tree) for name in ("pf_stays", "pf_panics")]
    found = try_load(trials, target(release), bed())
    assert ids(found) == {"pf_stays": ["trial-loaded"], "pf_panics": ["trial-refused"]}
    assert {"begin 0", "code 0"} <= set(found["pf_stays"][0].lines)
    assert ": Kernel panic - not syncing: Fatal exception" in found["pf_panics"][0].sentence
    assert any("pf_panics_init" in line for line in found["pf_panics"][0].lines)


def test_a_boot_is_bounded_in_time(bed: Callable[..., TrialEnvironment], release: str, tmp_path: Path) -> None:
    trial = Trial("a", "pf", "/opt", {"opt/x": File(b"")})
    (finding,) = try_load([trial], target(release), bed(seconds=1))["a"]
    assert finding.id == "trial-undecided"
    assert "the time ran out (1 s) before the kernel had booted" in finding.sentence


def test_a_vmlinuz_of_another_kernel_is_not_booted(bed: Callable[..., TrialEnvironment], release: str) -> None:
    trial = Trial("a", "pf", "/opt", {})
    (finding,) = try_load([trial], target("6.1.0-1-amd64"), bed())["a"]
    assert finding.id == "trial-unable"
    assert f"the vmlinuz is for {release}" in finding.sentence
    assert finding.remedy == "Name the vmlinuz of 6.1.0-1-amd64 with --vmlinuz."


@pytest.mark.parametrize("arch", ["amd64", "arm64", "ppc64le", "s390x"])
def test_without_qemu_nothing_is_tried(tmp_path: Path, arch: str) -> None:
    lacking = find_qemu(arch, str(tmp_path), 60)
    if isinstance(lacking, MissingTool):  # RHEL has one outside of PATH
        assert lacking.what.startswith("no qemu-system-")
        assert lacking.remedy.startswith(f"Install QEMU for {arch}: `apt-get install qemu-system-")


def test_a_modprobe_of_another_architecture_is_of_no_use() -> None:
    need_tool("modprobe", _KMOD)
    lacking = programs("s390x", own_root)
    assert isinstance(lacking, MissingTool)
    assert lacking.what.startswith("no sh for s390x here (")
    assert lacking.remedy == "Install dash or bash for s390x on the machine that runs the suite."


def need_amd64() -> None:
    need("a machine for amd64", os.uname().machine == "x86_64", "one of these")


def test_a_modprobe_that_is_not_kmod_s_is_of_no_use(tmp_path: Path) -> None:
    need_amd64()
    busybox = tmp_path / "busybox"
    busybox.write_bytes(Path("/bin/sh").read_bytes())
    places = {"/bin/sh": Path("/bin/sh"), "/bin/mount": Path("/bin/sh"), "/bin/modprobe": busybox}
    lacking = programs("amd64", lambda path: places.get(path) or own_root(path), ["/bin"])
    assert isinstance(lacking, MissingTool)
    assert lacking.what == f"{busybox} is not kmod's modprobe"


def test_programs_come_with_what_ldd_says() -> None:
    need_amd64()
    need_tool("modprobe", _KMOD)
    found = programs("amd64", own_root)
    assert isinstance(found, dict)
    for name in ("sh", "mount", "modprobe"):
        program = found[f"bin/{name}"]
        assert isinstance(program, File)
        said = subprocess.run(["ldd", str(program.content)], capture_output=True, text=True, check=True).stdout
        needed = {line.split()[0] for line in said.splitlines() if "=>" in line and "vdso" not in line}
        assert needed
        assert {f"lib/preflight/{one}" for one in needed} <= set(found)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 10, b"\x7fELF\x01" + bytes(80)])
def test_what_is_no_program_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_linked(data)


def test_a_program_that_is_cut_anywhere_is_malformed_or_read() -> None:
    whole = Path("/bin/sh").read_bytes()
    for size in range(0, len(whole), 997):
        try:
            read_linked(whole[:size])
        except Malformed:
            continue


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
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
def test_no_path_leads_out_of_its_place(paths: tuple[str, ...], tmp_path: Path) -> None:
    entries: dict[str, Entry] = {"link": Link("/bin"), **{path: File(b"") for path in paths}}
    with pytest.raises(Malformed):
        write_initramfs(io.BytesIO(), entries)
    laid = lay_out(Trial("a", "pf", "/opt", entries), 0, RELEASE, no_in_tree, tmp_path)
    assert isinstance(laid, MissingTool)


@pytest.mark.parametrize(
    ("kmod", "order"), [("a b", ()), ("a\ninstall a /bin/true", ()), ("a", ("a", "b\ninstall x y")), ("", ())]
)
def test_a_name_that_is_none_is_not_tried(tmp_path: Path, kmod: str, order: tuple[str, ...]) -> None:
    assert isinstance(lay_out(Trial("a", kmod, "/opt", {}, order=order), 0, RELEASE, no_in_tree, tmp_path), MissingTool)


def test_an_in_tree_kmod_that_is_not_to_be_had_is_named(tmp_path: Path) -> None:
    from .real import kernels
    from .real.drivers import small_kmods
    from .real.kmod import oldest_and_newest

    release = oldest_and_newest()[1]
    files = {"pf_in_tree.ko": small_kmods(release)["pf_in_tree"]}
    tree = image_folder(tmp_path, release, files, kernels.in_tree(release))
    laid = lay_out(Trial("a", "pf_in_tree", "/opt", tree), 0, release, no_in_tree, tmp_path)
    assert laid == MissingTool(
        "no in-tree kmod kernel/drivers/media/mc/mc.ko",
        f"Name a driver toolkit or a kernel package that has the in-tree kmods of {release}.",
    )


def test_what_is_in_the_way_of_the_shell_is_quoted(tmp_path: Path) -> None:
    laid = lay_out(
        Trial("a", "pf", "/opt/a b;reboot", {}, parameters=("x=$(reboot)'",)), 3, RELEASE, no_in_tree, tmp_path
    )
    assert isinstance(laid, StagedTrial)
    script = init_script("token", [laid.step])
    assert "modprobe -v -d '/tmp/opt/a b;reboot' pf 'x=$(reboot)'\"'\"''" in script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=60)


def test_what_is_enforced_comes_last() -> None:
    script = init_script("t", [Step(0, "/a", ("x",), enforced=True), Step(1, "/b", ("y",))])
    assert script.index("modprobe -v y") < script.index("\nenforce\n") < script.index("modprobe -v x")


CONSOLE = f"""\
[    0.1] something early
[    1.234567][    T1] T kernel {RELEASE}
T begin 0
T told insmod /tmp/opt/x.ko
calling  x_init+0x0/0x1000 [x] @ 80
x: hello
initcall x_init+0x0/0x1000 [x] returned 0 after 5 usecs
x: T code 0
T live x
T end
T begin 2\r
T told modprobe: ERROR: could not insert 'y': Exec format error
T code 1
"""


def test_a_console_is_read_by_its_token() -> None:
    told = read_console(CONSOLE, "T")
    assert (told.kernel, told.open, sorted(told.answers)) == (RELEASE, 2, [0, 2])
    first = told.answers[0]
    assert (first.code, first.live, first.files) == (0, ("x",), ("/tmp/opt/x.ko",))
    assert first.words == ("insmod /tmp/opt/x.ko", "x: hello", "x: ")
    assert told.answers[2].code == 1


def test_a_kmod_that_does_not_know_the_token_answers_nothing() -> None:
    told = read_console(CONSOLE.replace("x: hello", "begin 5\nU begin 6\nU code 0\nU end"), "T")
    assert sorted(told.answers) == [0, 2]


def answer(told: str = "", said: str = "", code: int | None = 1, live: str = "") -> TrialAnswer:
    return TrialAnswer(code, tuple(told.splitlines()), tuple(live.split()), tuple(said.splitlines()))


INSMOD = "insmod /tmp/opt/lib/modules/1/pf.ko"
INIT = "initcall pf_init+0x0/0x10 [pf] returned {} after 9 usecs"


@pytest.mark.parametrize(
    ("given", "id", "got"),
    [
        (answer(INSMOD, code=0, live="pf"), "trial-loaded", "modprobe loaded pf"),
        (answer("insmod /a/renamed.ko", code=0, live="inner"), "trial-loaded", "modprobe loaded inner"),
        (answer(code=0), "trial-refused", "modprobe ended with 0, but the kmod is not loaded"),
        (answer(INSMOD, code=0, live=""), "trial-refused", "modprobe ended with 0, but the kmod is not loaded"),
        (answer(f"{INSMOD}\nmodprobe: ERROR: no", "pf: bad"), "trial-refused", "modprobe ended with exit code 1: no"),
        (answer(INSMOD, "Kernel panic - not syncing: x", None), "trial-refused", "Kernel panic - not syncing: x"),
        (answer(INSMOD, INIT.format(-19)), "trial-no-device", "the init of pf returned -19 (ENODEV)"),
        (answer(INSMOD, INIT.format(-6)), "trial-no-device", "-6 (ENXIO)"),
        (answer(INSMOD, INIT.format(-12)), "trial-undecided", "-12 (ENOMEM)"),
        (answer("insmod /a/dep.ko", INIT.format(-19)), "trial-undecided", "-19 (ENODEV)"),
        (answer(INSMOD, INIT.format(0)), "trial-refused", "exit code 1"),
        (answer("modprobe: ERROR: Cannot allocate memory"), "trial-undecided", "there is not enough memory for it"),
        (answer("sh: not found", code=127), "trial-undecided", "modprobe ended with exit code 127"),
        (answer(code=None), "trial-undecided", "the time ran out (60 s) while the kmod was loaded"),
        (
            TrialAnswer(1, lacking=("/lib/modules/1/a.ko",)),
            "trial-undecided",
            "the kernel refused /lib/modules/1/a.ko, which is loaded first",
        ),
        (answer(INSMOD, "Loading of module with unavailable key is rejected"), "trial-refused", "exit code 1"),
    ],
)
def test_what_an_answer_means(given: TrialAnswer, id: str, got: str) -> None:
    finding = conclude(TRIED, given, BootEnd.TIME, 60)
    assert (finding.id, f" {got}" in finding.sentence) == (id, True), finding.sentence


def test_a_key_that_only_the_virtual_machine_lacks_is_undecided() -> None:
    given = answer(INSMOD, "Loading of module with unavailable key is rejected")
    assert conclude(Subject("pf", RELEASE, enforced=True), given, BootEnd.TOLD, 60).id == "trial-key-unknown"


def test_lines_are_bounded_and_safe() -> None:
    said = "\n".join(f"\x1b[31m::error::{number}{'x' * 5000}" for number in range(1000))
    lines = conclude(TRIED, answer(INSMOD, said, 0, "pf"), BootEnd.TOLD, 60).lines
    assert len(lines) == 41
    assert lines[20] == "… 961 lines left out …"
    assert all(len(line) < 320 and "\x1b" not in line and "::error" not in line for line in lines)


@dataclass
class Replayed:
    """A machine that says what it was told to, boot after boot; T stands for the boot's token."""

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
    bed = TrialEnvironment(lambda: vmlinuz, lambda: machine, dict, no_in_tree, tmp_path, enforced)
    several = [Trial(f"t{number}", "pf", "/opt", {}) for number in range(trials)]
    return ids(try_load(several, target(RELEASE), bed))


def told(*answers: str) -> str:
    return f"T kernel {RELEASE}\n" + "".join(answers)


def loads(step: int) -> str:
    return f"T begin {step}\nT told {INSMOD}\nT code 0\nT live pf\nT end\n"


PANIC = "Kernel panic - not syncing: x\n"


@pytest.mark.parametrize(
    ("consoles", "findings"),
    [
        ([Console(told(loads(0), loads(2)), BootEnd.TOLD)], ["trial-loaded", "trial-loaded"]),
        # What came to no end behind another one is tried again by itself.
        (
            [Console(told(loads(0), "T begin 2\n", PANIC), BootEnd.BY_ITSELF), Console(told(loads(2)), BootEnd.TOLD)],
            ["trial-loaded", "trial-loaded"],
        ),
        (
            [Console(told("T begin 0\n"), BootEnd.TIME), Console(told("T begin 2\n", PANIC), BootEnd.BY_ITSELF)],
            ["trial-undecided", "trial-refused"],
        ),
        ([Console("nothing", BootEnd.BY_ITSELF)], ["trial-undecided", "trial-undecided"]),
        ([Console("x" * 100, BootEnd.MUCH)], ["trial-undecided", "trial-undecided"]),
        ([Console("T kernel 6.1.0-2-amd64\n" + loads(0), BootEnd.TOLD)], ["trial-unable", "trial-unable"]),
    ],
)
def test_boot_after_boot(tmp_path: Path, consoles: list[Console], findings: list[str]) -> None:
    machine = Replayed(consoles)
    assert replay(tmp_path, machine) == {f"t{number}": [one] for number, one in enumerate(findings)}
    assert machine.consoles == [], "all of them were needed"
    assert len({script.partition("token=")[2][:32] for script in machine.boots}) == len(machine.boots), "a new token"


def test_a_kernel_that_enforces_nothing_proves_nothing_of_signatures(tmp_path: Path) -> None:
    machine = Replayed([Console(told(loads(0), "T enforced N\n", loads(1)), BootEnd.TOLD)])
    assert replay(tmp_path, machine, 1, enforced=True) == {"t0": ["trial-loaded", "trial-undecided"]}
    machine = Replayed([Console(told(loads(0), "T enforced Y\n", loads(1)), BootEnd.TOLD)])
    assert replay(tmp_path, machine, 1, enforced=True) == {"t0": ["trial-loaded", "trial-loaded"]}


def bzimage(release: str) -> bytes:
    """As much of one as tells its release."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x100).to_bytes(2, "little")
    return bytes(head[:0x300]) + f"{release} (build@host) #1".encode() + bytes(0x100)


@pytest.fixture
def kernels_here(tmp_path: Path) -> dict[str, Path]:
    """Files that tell their release in their own ways, and one that tells none."""
    contents = {
        "one": bzimage("6.1.0-1-amd64"),
        "two": b"\x7fELF" + bytes(2000) + b"Linux version 6.1.0-2-ppc64le (builder) #1",
        "silent": b"\x1f\x8b" + bytes(100),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_the_vmlinuz_of_the_kernel_is_taken(kernels_here: dict[str, Path]) -> None:
    one, two, silent = kernels_here.values()
    assert chosen_vmlinuz([silent, one, two], "6.1.0-1-amd64") == one
    assert chosen_vmlinuz([one, two, silent], "6.1.0-2-ppc64le") == two
    assert chosen_vmlinuz([one, two, silent], "6.1.0-3-amd64") == silent
    other = chosen_vmlinuz([one, two], "6.1.0-3-amd64")
    assert isinstance(other, MissingTool)
    assert other.what == "the vmlinuz is for 6.1.0-1-amd64, 6.1.0-2-ppc64le"


BOOT = Boot(Path("/dev/null"), Path("/tmp/initramfs"), 512, "quiet", "T kernel ", ("T all", "T stays"))
SAYS = "echo T kernel 1; echo T all; exec sleep 600"


def ill_qemu(folder: Path, script: str, seconds: float, kvm: bool = False) -> VirtualMachine:
    """A program in the place of QEMU that behaves as some do; what it was called with stands in `calls`."""
    program = folder / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\necho "$*" >>{folder}/calls\necho $$ >{folder}/pid\n{script}\n')
    program.chmod(0o755)
    assert isinstance(find_qemu("amd64", str(folder), seconds), Qemu)
    return Qemu(str(program), "amd64", seconds, kvm)


@pytest.mark.parametrize(
    ("script", "end"),
    [
        (SAYS, BootEnd.TOLD),
        ("exec sleep 600", BootEnd.TIME),
        ("echo T kernel 1; exec sleep 600", BootEnd.TIME),
        ("exec yes", BootEnd.MUCH),
        ("echo broken; exit 1", BootEnd.BY_ITSELF),
        ("trap '' TERM INT HUP; while :; do sleep 600 & wait; done", BootEnd.TIME),
    ],
)
def test_whatever_qemu_does_it_has_an_end(tmp_path: Path, script: str, end: BootEnd) -> None:
    console = ill_qemu(tmp_path, script, 0.5).boot(BOOT)
    assert console.end is end
    assert len(console.text) <= CONSOLE_BYTES
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_kvm_and_the_sandbox_are_left_out_where_they_do_not_work(tmp_path: Path) -> None:
    script = f"case $* in *sandbox*) echo sandbox: not supported; exit 1;; *kvm*) echo no kvm; exit 1;; esac; {SAYS}"
    machine = ill_qemu(tmp_path, script, 30, kvm=True)
    assert [machine.boot(BOOT).end, machine.boot(BOOT).end] == [BootEnd.TOLD, BootEnd.TOLD]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [("sandbox" in call, "-accel kvm" in call) for call in calls] == [
        (True, True),
        (False, True),
        (False, False),
        (False, False),
    ]
    assert all("-nic none" in call and "-m 512M" in call for call in calls)


def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    console = Qemu(str(tmp_path), "amd64", 5, kvm=False).boot(BOOT)
    assert console == Console(f"{tmp_path}: Permission denied", BootEnd.BY_ITSELF)


def test_a_folder_of_an_image_is_laid_out_as_it_stands(tmp_path: Path) -> None:
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
    wanted = keep_rules(folders=frozenset([folder]), paths=frozenset([f"{folder}/modules.dep.bin"]))
    images = ImageResolver(Network(), Cache(tmp_path / "cache"), None, wanted)
    read = images.image(parse_name(f"oci:{tmp_path}/layout:v1"), "amd64", PullCredentials(), VERIFIED_HTTPS)
    tree = image_tree(read, folder)
    contents = {path: entry.content for path, entry in tree.items() if isinstance(entry, File)}
    files = {path: content.read_bytes() for path, content in contents.items() if isinstance(content, Path)}
    assert files == {f"{folder}/extra/a.ko.xz": b"a", f"{folder}/modules.dep.bin": b"index"}
    assert tree[f"{folder}/host"] == Link("/lib/modules/x")
    assert image_tree(read, "opt/lib/modules/linked") == {"opt/lib/modules/linked": Link(RELEASE)}
    assert image_tree(read, "opt/lib/modules/none") == {}
    assert set(image_tree(read, f"srv/lib/modules/{RELEASE}")) == {path.replace("opt/", "srv/", 1) for path in tree}


def test_what_nodes_have_loaded_comes_behind_its_dependencies(tmp_path: Path, release: str) -> None:
    from .real import kernels

    videodev = "kernel/drivers/media/v4l2-core/videodev.ko"
    index = tmp_path / f"lib/modules/{release}"
    index.mkdir(parents=True)
    for path in kernels.in_tree(release).iterdir():
        (index / path.name).symlink_to(path)
    subprocess.run([need_tool("depmod", _KMOD), "-b", str(tmp_path), release], check=True, timeout=60)
    trial = Trial("a", "pf", "/opt", {}, loaded=(videodev, MC))

    def insmod(places: Callable[[str], Path | None]) -> tuple[str, ...]:
        laid = lay_out(trial, 0, release, places, tmp_path)
        assert isinstance(laid, StagedTrial)
        return tuple(path.removeprefix(f"/lib/modules/{release}/") for path in laid.step.insmod)

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
