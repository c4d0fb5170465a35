"""Dockerfile of a build section: images that it uses, and commands that use the running kernel."""

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
    """Instruction with continued lines and here-documents joined."""

    name: str
    """Name in capitals."""
    rest: str
    """Text after the name."""
    lines: range = range(0)
    """Its lines in the text, counted from 0."""


@dataclass(frozen=True)
class Dockerfile:
    """Facts about a Dockerfile."""

    images: tuple[str, ...]
    """Names of the images that are pulled, each once, in order."""
    unresolved: tuple[str, ...]
    """FROM instructions whose image name has an argument without a value."""
    running_kernel: tuple[str, ...]
    """Pieces of text that read the version of the running kernel."""
    depmod: tuple[str, ...]
    """Calls of depmod without a kernel version."""
    platforms: Mapping[str, str]
    """Architectures, in Go's spelling, of images with --platform, by image name."""
    stages: int
    """Number of stages."""


def read_dockerfile(text: str, arguments: Mapping[str, str], arch: str = "amd64") -> Dockerfile:
    """Read the text as it is built with these arguments for linux/arch."""
    instructions = read_instructions(text)
    images, unresolved, platforms = _images(instructions, global_arguments(instructions, arguments, arch))
    runs = [instruction.rest for instruction in instructions if instruction.name == "RUN"]
    return Dockerfile(
        images=tuple(dict.fromkeys(images)),
        unresolved=tuple(dict.fromkeys(unresolved)),
        running_kernel=tuple(dict.fromkeys(hit[0] for run in runs for hit in _RUNNING_KERNEL.finditer(run))),
        depmod=tuple(dict.fromkeys(call for run in runs for call in _depmod_without_kernel(run))),
        platforms=platforms,
        stages=sum(instruction.name == "FROM" for instruction in instructions),
    )


def global_arguments(instructions: list[Instruction], arguments: Mapping[str, str], arch: str) -> dict[str, str]:
    """Return the arguments that FROM can use: those of platforms, and those that ARG declares before the first FROM."""
    target = {"TARGETPLATFORM": f"linux/{arch}", "TARGETOS": "linux", "TARGETARCH": arch}
    given = {**_build_platform(), **target, **arguments}
    known = {name: value for name, value in given.items() if name.startswith(("TARGET", "BUILD"))}
    for instruction in instructions:
        if instruction.name == "FROM":
            break
        if instruction.name == "ARG":
            known |= _declared(instruction.rest, known, given)
    return known


def _build_platform() -> dict[str, str]:
    """Return the arguments that describe the machine that builds. Assume that it is this machine."""
    arch = architecture(platform.machine()) or "amd64"
    return {"BUILDPLATFORM": f"linux/{arch}", "BUILDOS": "linux", "BUILDARCH": arch}


def read_instructions(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile, in order."""
    return list(_instructions(text.removeprefix("\ufeff")))


def text_lines(text: str) -> list[str]:
    """Return the lines of a Dockerfile, as instructions count them."""
    return text.replace("\r\n", "\n").split("\n")


def _instructions(text: str) -> Iterator[Instruction]:
    escape = _escape_character(text)
    lines = deque(text_lines(text))
    count = len(lines)
    while lines:
        first = count - len(lines)
        hit = _INSTRUCTION.fullmatch(_joined(lines, escape).strip())
        if hit is None:
            continue
        name, rest = hit["name"].upper(), hit["rest"]
        if name in ("RUN", "COPY", "ADD"):
            rest += "".join(f"\n{line}" for here in HEREDOC.finditer(rest) for line in _until(lines, here["end"]))
        yield Instruction(name, rest, range(first, count - len(lines)))


def _escape_character(text: str) -> str:
    """Return the character that continues a line. A directive in the first lines may change it."""
    for line in text.splitlines():
        if hit := _ESCAPE.fullmatch(line.strip()):
            return hit["char"]
        if not _DIRECTIVE.fullmatch(line.strip()):
            break
    return "\\"


def _joined(lines: deque[str], escape: str) -> str:
    """Return the next line with the lines that continue it. Skip comments and empty lines between them."""
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
    """Remove and return the lines of a here-document. If no line ends it, it is not one: return no lines."""
    stripped = [line.strip() for line in lines]
    if end not in stripped:
        return []
    taken = [lines.popleft() for _ in range(stripped.index(end) + 1)]
    return taken[:-1]


def _images(instructions: list[Instruction], known: Mapping[str, str]) -> tuple[list[str], list[str], dict[str, str]]:
    stages: list[str] = []  # every builder uses buildah, which matches exact names
    images: list[str] = []
    unresolved: list[str] = []
    platforms: dict[str, str] = {}
    for instruction in instructions:
        if instruction.name == "FROM":
            base = base_of(instruction.rest, known)
            if base.image is None:
                unresolved.append(f"FROM {instruction.rest.strip()}")
            elif base.image not in stages and base.image != "scratch":
                images.append(base.image)
            if base.image and base.arch:
                platforms[base.image] = base.arch
            stages.append(base.stage or "")
        elif instruction.name in ("COPY", "ADD", "RUN"):
            # Only some builders replace arguments in the name of a source.
            sources = [name for name in sources_of(instruction) if "$" not in name]
            images += [name for name in sources if name not in stages and not name.isdecimal()]
    return images, unresolved, platforms


def _declared(rest: str, known: Mapping[str, str], arguments: Mapping[str, str]) -> dict[str, str]:
    declared: dict[str, str] = {}
    for word in _words(rest):
        name, _, default = word.partition("=")
        declared[name] = arguments.get(name, _expanded(default, {**known, **declared}) or "")
    return declared


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


@dataclass(frozen=True)
class StageBase:
    """Content of a FROM instruction."""

    image: str | None
    """Name of the image or stage; None if an argument has no value."""
    stage: str | None
    """Name of the stage that begins."""
    arch: str | None
    """Architecture of --platform."""


def base_of(rest: str, known: Mapping[str, str]) -> StageBase:
    """Return the content of a FROM instruction. known has the arguments that it can use."""
    arch: str | None = None
    while hit := _FLAG.match(rest):
        rest = rest[hit.end() :]
        if hit["name"] == "platform":
            platform_name = _expanded((hit["value"] or "").strip("\"'"), known) or ""
            arch = platform_name.partition("/")[2].partition("/")[0] or None
    name, *more = rest.split() or [""]
    stage = more[1] if len(more) == 2 and more[0].lower() == "as" else None
    return StageBase(_expanded(name.strip("\"'"), known), stage, arch)


def _expanded(text: str, known: Mapping[str, str]) -> str | None:
    """Return the text with arguments replaced, or None if nothing is left or an argument is unknown."""
    try:
        return substitute(text, known) or None
    except Malformed:
        return None


def sources_of(instruction: Instruction) -> list[str]:
    """Return stages and images that files are copied or mounted from."""
    rest, sources = instruction.rest, list[str]()
    if instruction.name == "RUN":
        sources = [hit["image"] for hit in _MOUNT_FROM.finditer(rest)]
        rest = ""
    while hit := _FLAG.match(rest):
        rest = rest[hit.end() :]
        if hit["name"] == "from" and hit["value"]:
            sources.append(hit["value"].strip("\"'"))
    return sources


def _depmod_without_kernel(run: str) -> Iterator[str]:
    """Yield calls without a kernel version: depmod then uses the running kernel."""
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
