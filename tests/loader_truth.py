"""Pairs of a kmod and a kernel, each with our verdict and the kernel's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kmm_preflight.kmod.configuration import parse_release
from kmm_preflight.kmod.kernel_files import KernelFiles, RawFiles, read_kernel_files
from kmm_preflight.kmod.loader import judge_chain, read_kmod
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.kmod.packed import unpacked
from kmm_preflight.kmod.symvers import Symvers, SymversStore
from kmm_preflight.model import Finding, Severity

from .real import foreign, kernels
from .real.cache import cache_folder
from .real.defects import DEFECTS
from .real.drivers import drivers, singles
from .real.kernels import in_tree, in_tree_dependencies
from .real.kmod import headers
from .real.qemu import Answer, Trial, answers
from .runs import ROOT

IN_TREE = 60
HEAD = """\
# Loader truth: our verdicts beside the answers of real kernels

For each pair of a kmod and a kernel, this page shows two results:

- *verdict*: the result of kmm-preflight, from files alone.
- *the kernel*: the answer of that kernel, when a virtual machine boots it and loads the kmod.

Both must agree on each pair.

- If a kmod needs other kmods, these are loaded first.
- Pairs that the suite leaves undecided are not counted. They need an in-tree kmod that is missing.
- *built for* is the kernel whose headers the kmod was compiled against, or the kernel that ships the kmod.
- The drivers are those of Debian's -dkms packages that compile.
- Labels such as `no symbol table` are small kmods with one defect. `tests/real/defects.py` makes them.

[The rules of the loader](reference/loader.md) are on another page.

To write this page anew, run:

```sh
python -m tests.loader_truth
```

`tests/test_kmod_loader_truth.py` fails if a pair disagrees. The page has the kernels that Debian's mirror
had when it was written.

## Kernels and numbers of pairs

| kernel | pairs | the kernel loads | both agree |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Pair:
    """A kmod that was built for one kernel, before another. before: the kmods of its build that it depends on."""

    kernel: str
    build: str
    label: str
    kmod: bytes
    before: tuple[bytes, ...]
    in_tree: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.label} for {self.build} on {self.kernel}"


@dataclass(frozen=True)
class Judged:
    """What both say of a pair."""

    pair: Pair
    findings: tuple[Finding, ...]
    answer: Answer

    @property
    def loads(self) -> bool | None:
        """Our verdict; None is undecided."""
        weights = {finding.severity for finding in self.findings}
        if Severity.REFUTES in weights:
            return False
        return None if Severity.UNDECIDED in weights else True

    @property
    def verdict(self) -> str:
        """Ours in a word: the first finding that refutes, or that it loads."""
        finding = refuting(self.findings)
        return finding.id if finding else "loads"

    @property
    def own(self) -> str:
        """The kernel's in a word."""
        return "loads" if self.answer.loaded else f"refuses: {self.answer.errno}"

    @property
    def words(self) -> str:
        """The first line of the kernel's log, as far as it is about the refusal."""
        line = "" if self.answer.loaded else self.answer.said.partition("\n")[0]
        return f"`{line[:100].replace('|', '/')}`" if line else ""


@cache
def known(release: str) -> KernelFiles:
    """A kernel of Debian as its packages tell it."""
    folder, tree = headers(release), in_tree(release)
    symvers = table_of(folder)
    release_itself = parse_release((folder / "include/generated/utsrelease.h").read_bytes())
    raw = RawFiles(
        configuration=(folder / ".config").read_bytes(),
        in_tree=in_tree_bytes(release, "dummy"),
        order=(tree / "modules.order").read_bytes(),
        built_in=(tree / "modules.builtin").read_bytes(),
        built_in_tags=(tree / "modules.builtin.modinfo").read_bytes(),
    )
    return read_kernel_files(release_itself, "amd64", symvers, raw)


@cache
def in_tree_bytes(release: str, key: str) -> bytes:
    """The object of an in-tree kmod, unpacked."""
    with unpacked(in_tree_dependencies(release)[key][0]) as data:
        return data[:]


@cache
def known_arm64() -> KernelFiles:
    """The newest kernel for arm64."""
    folder, tree = foreign.headers("arm64"), foreign.in_tree("arm64")
    with unpacked(sorted(tree.rglob("*.ko"))[0]) as own:
        raw = RawFiles(
            configuration=(folder / ".config").read_bytes(),
            in_tree=own[:],
            order=(tree / "modules.order").read_bytes(),
            built_in_tags=(tree / "modules.builtin.modinfo").read_bytes(),
        )
    return read_kernel_files(foreign.release("arm64"), "arm64", table_of(folder), raw)


def table_of(folder: Path) -> Symvers:
    """The kernel's symbols, parsed once."""
    text = (folder / "Module.symvers").read_bytes()
    store, digest = SymversStore(cache_folder() / "symvers"), f"sha256:{hashlib.sha256(text).hexdigest()}"
    return store.find(digest) or store.keep(digest, [text])


def arm64_pairs() -> Iterator[Pair]:
    """The small kmods for arm64, those with one defect that they can have, and some in-tree ones."""
    release, built = foreign.release("arm64"), foreign.singles()
    for name, kmod in built.items():
        yield pair(release, release, name, kmod, built)
    for label, (name, change) in DEFECTS.items():
        with suppress(AssertionError, ValueError, KeyError):  # not every defect can be had here
            yield pair(release, release, label, change(built[name]), built)
    for path in sorted(foreign.in_tree("arm64").glob("kernel/fs/nls/*.ko"))[:20]:
        yield Pair(release, release, path.stem, path.read_bytes(), (), ())


def pair(kernel: str, build: str, label: str, kmod: bytes, others: Mapping[str, bytes]) -> Pair:
    """The pair, with what the kmod says that it depends on: kmods of the same build, and in-tree ones."""
    found = re.search(rb"\0depends=([^\0]*)\0", kmod)
    mine: list[bytes] = []
    names: list[str] = []
    for name in found[1].decode().split(",") if found else ():
        other = next((content for key, content in others.items() if module_key(key) == module_key(name)), None)
        if other is not None:
            nested = pair(kernel, build, name, other, others)
            mine += [*nested.before, other]
            names += nested.in_tree
        elif not is_arm64(kernel) and module_key(name) in in_tree_dependencies(kernel):
            names += [*in_tree_dependencies(kernel)[module_key(name)][1], module_key(name)]
    if "libcrc32c" in names and "crc32c_generic" in in_tree_dependencies(kernel):
        # Its init wants the algorithm, which no index names.
        names.insert(0, "crc32c_generic")
    return Pair(kernel, build, label, kmod, tuple(dict.fromkeys(mine)), tuple(dict.fromkeys(names)))


def builds() -> tuple[str, ...]:
    """The kernels that the drivers are built for: before and after an upgrade, real-time, and another major one."""
    chosen = kernels.chosen()
    newest = next(release for release in reversed(chosen) if release.startswith("6.1.") and release.count("-") == 2)
    others = [release for release in chosen if "-rt-" in release or release.startswith("6.12")]
    return (chosen[0], chosen[1], newest, *others)


def pairs(kernel: str) -> Iterator[Pair]:
    """All pairs of a kernel: kmods with one defect each, small ones, in-tree ones, and the drivers of each build."""
    yield from defect_pairs(kernel)
    for build in dict.fromkeys((kernel, builds()[0], builds()[-2])):
        built = singles(build)
        yield from (pair(kernel, build, name, kmod, built) for name, kmod in built.items())
    yield from in_tree_pairs(kernel)
    for build in builds():
        built = drivers(build)
        yield from (pair(kernel, build, name, kmod, built) for name, kmod in built.items())


def in_tree_pairs(kernel: str) -> Iterator[Pair]:
    """Some of the kernel's own kmods that need no other, which it takes."""
    names = sorted(name for name, (_, before) in in_tree_dependencies(kernel).items() if not before)
    for name in names[:: max(1, len(names) // IN_TREE)][:IN_TREE]:
        yield Pair(kernel, kernel, name, in_tree_bytes(kernel, name), (), ())


def defect_pairs(kernel: str) -> Iterator[Pair]:
    """Kmods of the kernel's own build with one defect each."""
    built = singles(kernel)
    for label, (name, change) in DEFECTS.items():
        yield pair(kernel, kernel, label, change(built[name]), built)
    yield from neighbour_pairs(kernel, built)


def neighbour_pairs(kernel: str, built: Mapping[str, bytes]) -> Iterator[Pair]:
    """Good kmods after others that do them no good."""
    proprietary = built["pf_gives"].replace(b"license=GPL\0", b"license=GPX\0")
    for name in ("pf_takes", "pf_takes_gpl", "pf_takes_both", "pf_takes_namespace"):
        yield Pair(kernel, kernel, f"{name} after a proprietary owner", built[name], (proprietary,), ())
    lacking = built["pf_gives"].replace(b"pf_given_in_namespace", b"pf_given_in_namespacX")
    yield Pair(kernel, kernel, "an owner without the symbol", built["pf_takes_namespace"], (lacking,), ())
    twice = built["pf_clash"].replace(b"misc_registeX", b"pf_given\0isteX")
    yield Pair(kernel, kernel, "exports what a kmod before it has", twice, (built["pf_gives"],), ())


def judge(one: Pair) -> tuple[Finding, ...]:
    """Our verdict on a pair."""
    kernel = known_arm64() if is_arm64(one.kernel) else known(one.kernel)
    chain: list[tuple[str, KernelObject]] = []
    for content in (*one.before, one.kmod):
        kmod = read_kmod(one.label, content, kernel)
        if isinstance(kmod, Finding):
            return (kmod,)
        chain.append((kmod.name if content != one.kmod else one.label, kmod))
    return judge_chain(chain, kernel, in_tree=frozenset(one.in_tree))


def judged(kernel: str, asked: list[Pair]) -> list[Judged]:
    """What both say of the pairs of a kernel; the kernel in one boot."""
    trials = [Trial(one.kmod, (*(in_tree_bytes(kernel, name) for name in one.in_tree), *one.before)) for one in asked]
    told = answers(kernel, trials, "arm64" if is_arm64(kernel) else "amd64")
    return [Judged(one, judge(one), answer) for one, answer in zip(asked, told, strict=True)]


def is_arm64(kernel: str) -> bool:
    """Whether the release is that of the kernel for arm64."""
    return kernel.endswith("-arm64")


def table() -> Iterator[str]:
    """docs/loader-truth.md, line by line: what came of each kernel, and all pairs of one."""
    yield from HEAD.splitlines()
    for kernel in (*kernels.chosen(), foreign.release("arm64")):
        asked = arm64_pairs() if is_arm64(kernel) else pairs(kernel)
        decided = [one for one in judged(kernel, list(asked)) if one.loads is not None]
        agreed = sum(one.loads is one.answer.loaded for one in decided)
        yield f"| {kernel} | {len(decided)} | {sum(one.answer.loaded for one in decided)} | {agreed} |"
    shown = builds()[2]
    yield from (
        "",
        f"## All pairs on {shown}",
        "",
        "| kmod | built for | verdict | the kernel | its words |",
        "|---|---|---|---|---|",
    )
    for one in judged(shown, list(pairs(shown))):
        if one.loads is not None:
            yield f"| {one.pair.label} | {one.pair.build} | {one.verdict} | {one.own} | {one.words} |"


def refuting(findings: tuple[Finding, ...]) -> Finding | None:
    """The first finding that refutes."""
    return next((finding for finding in findings if finding.severity is Severity.REFUTES), None)


if __name__ == "__main__":
    (ROOT / "docs" / "loader-truth.md").write_text("\n".join(table()) + "\n")
