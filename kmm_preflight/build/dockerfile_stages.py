"""Stages of a Dockerfile that its result needs. Builders leave out the other stages, with their base images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kmm_preflight.build.dockerfile import (
    Instruction,
    base_of,
    global_arguments,
    read_instructions,
    sources_of,
    text_lines,
)


@dataclass
class _BuildStage:
    """A stage of a Dockerfile."""

    name: str | None
    """Its name after AS, or None."""
    lines: range
    """Its lines, from FROM to the line before the next FROM."""
    needs: set[int] = field(default_factory=set)
    """Numbers of earlier stages that it takes something from."""
    unknown: bool = False
    """True if a source has an argument: nobody knows the stage that it names."""


def without_unneeded_stages(text: str, arguments: Mapping[str, str], arch: str) -> str:
    """Return the text as it is built with these arguments for linux/arch, without the stages that nothing uses.

    An unneeded stage becomes an empty stage, so the numbers of the other stages stay. If a needed stage has a source
    with an argument, all stages stay.
    """
    instructions = read_instructions(text)
    lines = text_lines(text)
    stages = _stages(instructions, global_arguments(instructions, arguments, arch), len(lines))
    needed = _needed(stages)
    if len(needed) == len(stages) or any(stages[number].unknown for number in needed):
        return text
    kept = lines[: stages[0].lines.start]
    for number, stage in enumerate(stages):
        empty = f"FROM scratch AS {stage.name}" if stage.name else "FROM scratch"
        kept += lines[stage.lines.start : stage.lines.stop] if number in needed else [empty]
    return "\n".join(kept)


def _stages(instructions: list[Instruction], known: Mapping[str, str], end: int) -> list[_BuildStage]:
    bounds = [*(instruction.lines.start for instruction in instructions if instruction.name == "FROM"), end]
    stages: list[_BuildStage] = []
    numbers: dict[str, int] = {}
    for instruction in instructions:
        if instruction.name == "FROM":
            base = base_of(instruction.rest, known)
            number = len(stages)
            stages.append(_BuildStage(base.stage, range(bounds[number], bounds[number + 1])))
            sources = [base.image or ""]
        elif stages and instruction.name in ("COPY", "ADD", "RUN"):
            sources = sources_of(instruction)
        else:
            continue
        stages[-1].needs |= {numbers[source] for source in sources if source in numbers}
        stages[-1].unknown |= any("$" in source for source in sources)
        if instruction.name == "FROM":
            numbers |= {str(number): number, **({base.stage: number} if base.stage else {})}
    return stages


def _needed(stages: list[_BuildStage]) -> set[int]:
    """Return the numbers of the last stage, and of all stages that it needs, by way of other stages too."""
    needed: set[int] = set()
    following = {len(stages) - 1} if stages else set()
    while following:
        needed |= following
        following = set().union(*(stages[number].needs for number in following)) - needed
    return needed
