"""The cases of a run: each Module on each of its target kernels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kmm_preflight.model import ModuleName
from kmm_preflight.nodes.target import Target
from kmm_preflight.planning.loaded import make_loaded_plan
from kmm_preflight.planning.module import Module, RefusedModule
from kmm_preflight.planning.plan import Case, Unresolved
from kmm_preflight.planning.source import KmodSource

# Characters that no label's value has: the version is part of an id.
_VERSION = re.compile(r"[^A-Za-z0-9._-]")
_CHARACTERS = 63


def make_cases(modules: Iterable[KmodSource], targets: Mapping[ModuleName, tuple[Target, ...]]) -> tuple[Case, ...]:
    """Return the cases, by Module and then by target kernel. All objects must bring kmods."""
    return tuple(case for module in modules for case in _cases(module, targets[module.name]))


def _cases(source: KmodSource, targets: tuple[Target, ...]) -> list[Case]:
    """Return the cases of an object. Number versions of one name whose NodeModulesConfigs differ."""
    cases, seen = list[Case](), Counter[tuple[str, str]]()
    for target in targets:
        version = _VERSION.sub("-", target.version.value)[:_CHARACTERS] if target.version else None
        if version is not None:
            key = target.kernel.version, version
            seen[key] += 1
            version += f"-{seen[key]}" if seen[key] > 1 else ""
        cases.append(_on_nodes(_case(source, target), target, version))
    return cases


def _on_nodes(case: Case, target: Target, version: str | None) -> Case:
    """Return the case with the nodes of its target."""
    case = replace(case, notes=target.notes, nodes=target.nodes, version=version)
    if isinstance(case, Unresolved):
        return case
    return replace(case, node_names=target.node_names, boot_arguments=target.boot_arguments)


def _case(source: KmodSource, target: Target) -> Case:
    if target.unresolved and not isinstance(source, RefusedModule):
        return Unresolved(source.name, target.kernel, target.unresolved, secret=source.secret)
    if target.version and target.version.loaded and isinstance(source, Module):
        return make_loaded_plan(source, target.version.loaded, target.kernel, target.kernels_today)
    return source.case_on(target.kernel, target.kernels_today)
