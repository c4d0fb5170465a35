"""Pairs of a kmod and a kernel, each with the suite's verdict and the kernel's answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from kmm_preflight.kmod.loader import judge_chain, read_kmod
from kmm_preflight.kmod.names import module_key
from kmm_preflight.kmod.object import KernelObject
from kmm_preflight.model import Finding, Severity

from .debian_kernels import arm64_kernel_files, build_kernels, in_tree_bytes, kernel_files
from .real import foreign, kernels, unstable
from .real.defects import DEFECTS, NEWER_DEFECTS, OTHER_LICENCE, replaced
from .real.drivers import drivers, small_kmods
from .real.kernels import in_tree_dependencies
from .real.qemu import Answer, LoadTrial, answers
from .real.unstable import is_unstable
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
- The kernel that begins with 7 is the newest of Debian unstable. Unstable's own compiler compiles its kmods, with type
  data (BTF).

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
    """A kmod and a kernel that is to load it."""

    kernel: str
    """Release of the kernel that loads the kmod."""
    build: str
    """Release of the kernel that the kmod was built for."""
    label: str
    """Name of the kmod, or its defect."""
    kmod: bytes
    """The kmod."""
    before: tuple[bytes, ...]
    """Kmods of the same build that it depends on, in the order of loading."""
    in_tree: tuple[str, ...]
    """Names of the kernel's own kmods that it depends on, in the order of loading."""

    def __str__(self) -> str:
        return f"{self.label} for {self.build} on {self.kernel}"


@dataclass(frozen=True)
class JudgedPair:
    """A pair with the suite's findings and the kernel's answer."""

    pair: Pair
    """The kmod and the kernel."""
    findings: tuple[Finding, ...]
    """The suite's findings."""
    answer: Answer
    """The kernel's answer."""

    @property
    def loads(self) -> bool | None:
        """The suite's verdict, None if it is undecided."""
        weights = {finding.severity for finding in self.findings}
        if Severity.REFUTES in weights:
            return False
        return None if Severity.UNDECIDED in weights else True

    @property
    def verdict(self) -> str:
        """The id of the first finding that refutes, or "loads"."""
        finding = first_refuting(self.findings)
        return finding.id if finding else "loads"

    @property
    def kernel_result(self) -> str:
        """The kernel's answer in a word."""
        return "loads" if self.answer.loaded else f"refuses: {self.answer.errno}"

    @property
    def kernel_words(self) -> str | None:
        """The first line of the kernel's log about a refusal, or None."""
        line = None if self.answer.loaded else self.answer.log.partition("\n")[0]
        return f"`{line[:100].replace('|', '/')}`" if line else None


def arm64_pairs() -> Iterator[Pair]:
    """Yield the pairs on arm64: small kmods, those with one defect, and some in-tree kmods."""
    release, kmods = foreign.release("arm64"), foreign.small_kmods()
    for name, kmod in kmods.items():
        yield pair(release, release, name, kmod, kmods)
    for label, (name, change) in DEFECTS.items():
        with suppress(AssertionError, ValueError, KeyError):  # some defects are impossible on arm64
            yield pair(release, release, label, change(kmods[name]), kmods)
    for path in sorted(foreign.in_tree("arm64").glob("kernel/fs/nls/*.ko"))[:20]:
        yield Pair(release, release, path.stem, path.read_bytes(), (), ())


def pair(kernel: str, build: str, label: str, kmod: bytes, others: Mapping[str, bytes]) -> Pair:
    """Return the pair with the kmods on which the kmod depends: those of the same build, and in-tree kmods."""
    depends = re.search(rb"\0depends=([^\0]*)\0", kmod)
    before: list[bytes] = []
    names: list[str] = []
    for name in depends[1].decode().split(",") if depends else ():
        other = next((content for key, content in others.items() if module_key(key) == module_key(name)), None)
        if other is not None:
            nested = pair(kernel, build, name, other, others)
            before += [*nested.before, other]
            names += nested.in_tree
        elif not is_arm64(kernel) and module_key(name) in in_tree_dependencies(kernel):
            names += [*in_tree_dependencies(kernel)[module_key(name)][1], module_key(name)]
    if "libcrc32c" in names and "crc32c_generic" in in_tree_dependencies(kernel):
        # The init of libcrc32c needs this algorithm, which no index names.
        names.insert(0, "crc32c_generic")
    return Pair(kernel, build, label, kmod, tuple(dict.fromkeys(before)), tuple(dict.fromkeys(names)))


def pairs(kernel: str) -> Iterator[Pair]:
    """Yield all pairs of a kernel: kmods with one defect, small kmods, in-tree kmods, and the drivers of each build."""
    yield from defect_pairs(kernel)
    if is_unstable(kernel):
        yield from newer_pairs(kernel)
    for build in dict.fromkeys((kernel, build_kernels()[0], build_kernels()[-2])):
        kmods = small_kmods(build)
        yield from (pair(kernel, build, name, kmod, kmods) for name, kmod in kmods.items())
    yield from in_tree_pairs(kernel)
    for build in () if is_unstable(kernel) else build_kernels():
        kmods = drivers(build)
        yield from (pair(kernel, build, name, kmod, kmods) for name, kmod in kmods.items())


def in_tree_pairs(kernel: str) -> Iterator[Pair]:
    """Yield some of the kernel's own kmods that need no other kmod. The kernel accepts them."""
    names = sorted(name for name, (_, before) in in_tree_dependencies(kernel).items() if not before)
    for name in names[:: max(1, len(names) // IN_TREE)][:IN_TREE]:
        yield Pair(kernel, kernel, name, in_tree_bytes(kernel, name), (), ())


def defect_pairs(kernel: str) -> Iterator[Pair]:
    """Yield small kmods for the kernel with one defect each."""
    kmods = small_kmods(kernel)
    for label, (name, change) in DEFECTS.items():
        with suppress(*((AssertionError, ValueError) if is_unstable(kernel) else ())):  # it has no symbol versions
            yield pair(kernel, kernel, label, change(kmods[name]), kmods)
    yield from neighbour_pairs(kernel, kmods)


def neighbour_pairs(kernel: str, kmods: Mapping[str, bytes]) -> Iterator[Pair]:
    """Yield good kmods after a kmod that causes a conflict."""
    proprietary = kmods["pf_gives"].replace(b"license=GPL\0", b"license=GPX\0")
    for name in ("pf_takes", "pf_takes_gpl", "pf_takes_both", "pf_takes_namespace"):
        yield Pair(kernel, kernel, f"{name} after a proprietary owner", kmods[name], (proprietary,), ())
    lacking = kmods["pf_gives"].replace(b"pf_given_in_namespace", b"pf_given_in_namespacX")
    yield Pair(kernel, kernel, "an owner without the symbol", kmods["pf_takes_namespace"], (lacking,), ())
    twice = kmods["pf_clash"].replace(b"misc_registeX", b"pf_given\0isteX")
    yield Pair(kernel, kernel, "exports what a kmod before it has", twice, (kmods["pf_gives"],), ())


def newer_pairs(kernel: str) -> Iterator[Pair]:
    """Yield pairs about what only newer kernels have: flags of exports, and exports for kmods of some names."""
    kmods = small_kmods(kernel)
    for label, (name, owner, change) in NEWER_DEFECTS.items():
        before = (change(kmods[owner]),) if owner else ()
        kmod = kmods[name] if owner else change(kmods[name])
        if OTHER_LICENCE in label:
            kmod = replaced(b"license=GPL\0", b"license=GPX\0")(kmod)
        yield Pair(kernel, kernel, label, kmod, before, ())


def judge(pair: Pair) -> tuple[Finding, ...]:
    """Return the suite's findings about a pair."""
    kernel = arm64_kernel_files() if is_arm64(pair.kernel) else kernel_files(pair.kernel)
    chain: list[tuple[str, KernelObject]] = []
    for content in (*pair.before, pair.kmod):
        kmod = read_kmod(pair.label, content, kernel)
        if isinstance(kmod, Finding):
            return (kmod,)
        chain.append((kmod.name if content != pair.kmod else pair.label, kmod))
    return judge_chain(chain, kernel, in_tree=frozenset(pair.in_tree))


def judge_pairs(kernel: str, pairs: list[Pair]) -> list[JudgedPair]:
    """Return the pairs of a kernel with both verdicts. The kernel boots once."""
    trials = [
        LoadTrial(pair.kmod, (*(in_tree_bytes(kernel, name) for name in pair.in_tree), *pair.before)) for pair in pairs
    ]
    results = answers(kernel, trials, "arm64" if is_arm64(kernel) else "amd64")
    return [JudgedPair(pair, judge(pair), answer) for pair, answer in zip(pairs, results, strict=True)]


def is_arm64(kernel: str) -> bool:
    """True if the release is that of a kernel for arm64."""
    return kernel.endswith("-arm64")


def page() -> Iterator[str]:
    """Yield the lines of docs/loader-truth.md: numbers for each kernel, and all pairs of one kernel."""
    yield from HEAD.splitlines()
    for kernel in (*kernels.upgrade_kernels(), unstable.release(), foreign.release("arm64")):
        all_pairs = arm64_pairs() if is_arm64(kernel) else pairs(kernel)
        decided = [result for result in judge_pairs(kernel, list(all_pairs)) if result.loads is not None]
        agreed = sum(result.loads is result.answer.loaded for result in decided)
        yield f"| {kernel} | {len(decided)} | {sum(result.answer.loaded for result in decided)} | {agreed} |"
    shown, newest = build_kernels()[2], unstable.release()
    yield from table(f"All pairs on {shown}", shown, list(pairs(shown)))
    yield from table(f"What only newer kernels have, on {newest}", newest, list(newer_pairs(newest)))


def table(title: str, kernel: str, shown: list[Pair]) -> Iterator[str]:
    """Yield the lines of a table with these pairs of a kernel."""
    yield from (
        "",
        f"## {title}",
        "",
        "| kmod | built for | verdict | the kernel | its words |",
        "|---|---|---|---|---|",
    )
    for result in judge_pairs(kernel, shown):
        if result.loads is not None:
            label, build, words = result.pair.label, result.pair.build, result.kernel_words or ""
            yield f"| {label} | {build} | {result.verdict} | {result.kernel_result} | {words} |"


def first_refuting(findings: tuple[Finding, ...]) -> Finding | None:
    """Return the first finding that refutes, or None."""
    return next((finding for finding in findings if finding.severity is Severity.REFUTES), None)


if __name__ == "__main__":
    (ROOT / "docs" / "loader-truth.md").write_text("\n".join(page()) + "\n")
