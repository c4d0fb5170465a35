"""What a Dockerfile takes from elsewhere, and what in it is of the running kernel instead of the target's."""

from __future__ import annotations

import platform
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kmm_preflight.errors import Malformed
from kmm_preflight.kernel_version import architecture
from kmm_preflight.planning.template import substitute

_ESCAPE = re.compile(r"#\s*escape\s*=\s*(?P<char>[`\\])\s*", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#\s*\w+\s*=.*")
_INSTRUCTION = re.compile(r"(?P<name>[A-Za-z]+)\s+(?P<rest>.*)", re.DOTALL)
HEREDOC = re.compile(r"(?<![<\w)])<<-?[\"']?(?P<end>[A-Za-z_]\w*)[\"']?")
_FLAG = re.compile(r"--(?P<name>[a-z-]+)(?:=(?P<value>\S*))?\s+")
_MOUNT_FROM = re.compile(r"--mount=\S*\bfrom=(?P<image>[^,\s]+)")
_RUNNING_KERNEL = re.compile(r"\buname\s+(-r|--kernel-release|-a)\b|/proc/version\b|/proc/sys/kernel/osrelease\b")
_DEPMOD = re.compile(r"(?:^|[\s;&|(])(?:/\S*/)?depmod\b(?P<arguments>[^;&|)\n]*)")
_OPTIONS_WITH_VALUE = {"-b", "--basedir", "-C", "--config", "-E", "--symvers", "-F", "--filesyms", "-o", "--outdir",
                       "-P", "--symbol-prefix", "-m", "--moduledir"}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One instruction, its name in capitals, with continued lines and here-documents joined."""

    name: str
    rest: str


@dataclass(frozen=True)
class Dockerfile:
    """images are the names that are pulled, each once, in order; unresolved are texts that lead to no name.

    platforms has the architecture (Go's spelling) of images that are taken for one by name; stages is their number.
    running_kernel and depmod are pieces of text that speak of the running kernel, or of none.
    """

    images: tuple[str, ...]
    unresolved: tuple[str, ...]
    running_kernel: tuple[str, ...]
    depmod: tuple[str, ...]
    platforms: Mapping[str, str]
    stages: int


def read_dockerfile(text: str, arguments: Mapping[str, str], arch: str = "amd64") -> Dockerfile:
    """What the text takes from elsewhere when it is built with these arguments for linux/arch."""
    instructions = list(_instructions(text.removeprefix("\ufeff")))
    target = {"TARGETPLATFORM": f"linux/{arch}", "TARGETOS": "linux", "TARGETARCH": arch}
    images, unresolved, platforms = _images(instructions, {**_here(), **target, **arguments})
    runs = [one.rest for one in instructions if one.name == "RUN"]
    return Dockerfile(
        images=tuple(dict.fromkeys(images)),
        unresolved=tuple(dict.fromkeys(unresolved)),
        running_kernel=tuple(dict.fromkeys(hit[0] for run in runs for hit in _RUNNING_KERNEL.finditer(run))),
        depmod=tuple(dict.fromkeys(call for run in runs for call in _depmod_without_kernel(run))),
        platforms=platforms,
        stages=sum(one.name == "FROM" for one in instructions),
    )


def _here() -> dict[str, str]:
    """What builders show of the machine that builds: as far as is known, this one."""
    arch = architecture(platform.machine()) or "amd64"
    return {"BUILDPLATFORM": f"linux/{arch}", "BUILDOS": "linux", "BUILDARCH": arch}


def _instructions(text: str) -> Iterator[Instruction]:
    escape = _escape_character(text)
    lines = deque(text.replace("\r\n", "\n").split("\n"))
    while lines:
        hit = _INSTRUCTION.fullmatch(_joined(lines, escape).strip())
        if hit is None:
            continue
        name, rest = hit["name"].upper(), hit["rest"]
        if name in ("RUN", "COPY", "ADD"):
            rest += "".join(f"\n{line}" for here in HEREDOC.finditer(rest) for line in _until(lines, here["end"]))
        yield Instruction(name, rest)


def _escape_character(text: str) -> str:
    """The character that continues a line: a directive may say so before anything else."""
    for line in text.splitlines():
        if hit := _ESCAPE.fullmatch(line.strip()):
            return hit["char"]
        if not _DIRECTIVE.fullmatch(line.strip()):
            break
    return "\\"


def _joined(lines: deque[str], escape: str) -> str:
    """The next line with those that continue it; comments and empty lines among them are no part of it."""
    line = lines.popleft()
    if line.lstrip().startswith("#"):
        return ""
    parts = []
    while line.rstrip().endswith(escape):
        parts.append(line.rstrip()[:-1])
        while lines and (not lines[0].strip() or lines[0].lstrip().startswith("#")):
            lines.popleft()
        line = lines.popleft() if lines else ""
    return " ".join([*parts, line])


def _until(lines: deque[str], end: str) -> list[str]:
    """The lines of a here-document, taken away; none where no line ends it, for then it is none."""
    stripped = [line.strip() for line in lines]
    if end not in stripped:
        return []
    taken = [lines.popleft() for _ in range(stripped.index(end) + 1)]
    return taken[:-1]


def _images(
    instructions: list[Instruction], arguments: Mapping[str, str]
) -> tuple[list[str], list[str], dict[str, str]]:
    # Arguments before the first FROM are the only ones that a FROM sees, beside those that show of platforms.
    known = {name: value for name, value in arguments.items() if name.startswith(("TARGET", "BUILD"))}
    stages: list[str] = []  # buildah, which is in every builder, knows them by their exact names
    images: list[str] = []
    unresolved: list[str] = []
    platforms: dict[str, str] = {}
    for one in instructions:
        if one.name == "ARG" and not stages:
            known |= _declared(one.rest, known, arguments)
        elif one.name == "FROM":
            name, stage, wanted = _from(one.rest, known)
            if wanted:
                platforms[name] = wanted
            if not name:
                unresolved.append(f"FROM {one.rest.strip()}")
            elif name not in stages and name != "scratch":
                images.append(name)
            stages.append(stage)
        elif one.name in ("COPY", "ADD", "RUN"):
            images += [name for name in _taken(one) if name not in stages and not name.isdecimal()]
    return images, unresolved, platforms


def _declared(rest: str, known: Mapping[str, str], arguments: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in _words(rest):
        name, _, default = word.partition("=")
        found[name] = arguments.get(name, _expanded(default, {**known, **found}))
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _from(rest: str, known: Mapping[str, str]) -> tuple[str, str, str]:
    """The image, "" when its arguments leave nothing, the name of the stage that begins, and its own architecture."""
    wanted = ""
    while hit := _FLAG.match(rest):
        rest = rest[hit.end() :]
        if hit["name"] == "platform":
            wanted = _expanded((hit["value"] or "").strip("\"'"), known).partition("/")[2].partition("/")[0]
    name, *more = rest.split() or [""]
    stage = more[1] if len(more) == 2 and more[0].lower() == "as" else ""
    return _expanded(name.strip("\"'"), known), stage, wanted


def _expanded(text: str, known: Mapping[str, str]) -> str:
    """The text with arguments in place; "" where that cannot be."""
    try:
        return substitute(text, known)
    except Malformed:
        return ""


def _taken(one: Instruction) -> list[str]:
    """Stages or images from which files are copied or mounted."""
    rest, found = one.rest, list[str]()
    if one.name == "RUN":
        found = [hit["image"] for hit in _MOUNT_FROM.finditer(rest)]
        rest = ""
    while hit := _FLAG.match(rest):
        rest = rest[hit.end() :]
        if hit["name"] == "from" and hit["value"]:
            found.append(hit["value"].strip("\"'"))
    return [name for name in found if "$" not in name]  # arguments are not seen here, but by some builders


def _depmod_without_kernel(run: str) -> Iterator[str]:
    """Calls that name no kernel, so that depmod takes the one that is running."""
    for hit in _DEPMOD.finditer(run):
        words = iter(_words(hit["arguments"]))
        positional = []
        for word in words:
            if word in _OPTIONS_WITH_VALUE:
                next(words, None)
            elif not word.startswith("-"):
                positional.append(word)
        if not positional:
            yield f"depmod{hit['arguments'].rstrip()}"
