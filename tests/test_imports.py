"""Borders between rooms: which room may import which, and what only an edge may use."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "kmm_preflight"

# Each room with the rooms that it may import, lowest first. A file at the package's top is a room of its own.
# An arrow leads down only: a room may import rooms that stand above it in this table.
ROOMS = {
    "entry": "",
    "text": "",
    "model": "",
    "errors": "text",
    "kernel_version": "model",
    "kmm_version": "errors",
    "depth": "",
    "catalogue": "text model",
    "base": "text errors",
    "oci": "text model errors catalogue base",
    "kmod": "text model errors catalogue base",
    "release": "text model errors kernel_version catalogue base oci kmod",
    "planning": "text model errors catalogue base oci",
    "nodes": "text model errors kernel_version catalogue base oci release planning",
    "cluster": "text model errors kmm_version catalogue base oci planning nodes",
    "worker": "text model errors kmm_version catalogue base oci kmod planning",
    "stages": "text model errors depth catalogue base oci kmod release planning cluster worker",
    "build": "text model errors kernel_version catalogue base oci kmod planning cluster stages",
    "trial": "text model errors kernel_version catalogue base oci kmod release planning worker",
    "status": "text model errors kernel_version kmm_version depth base oci planning cluster stages",
    "fixtures": "entry text model errors kernel_version depth catalogue base oci kmod release planning nodes cluster "
    "worker stages build trial status",
    "reports": "entry text model errors depth catalogue planning stages status fixtures",
    "preflight_tests": "model fixtures",
    "commands": "errors cluster stages status entry fixtures",
    "__main__": "entry",
}
# Files of fixtures that reports may import.
SEEN_BY_REPORTS = {"fixtures.run", "fixtures.artifacts"}

# Parts of oci that open images, layers and connections. Other rooms use oci.resolver.ImageResolver instead.
INSIDE_OCI = [
    "auth_session",
    "connections.Connections",
    "image.find_image",
    "layers.layer_index",
    "layers.scan",
    "layout",
    "registry",
]

# What only an edge may use, and the files that are edges for it. A name with a dot is an attribute or a call.
DOMAIN_EDGES = {
    "urllib3": "oci/registry.py oci/connections.py cluster/transport.py cluster/login.py",
    "kubernetes": "cluster/transport.py cluster/login.py",
    "websocket": "cluster/stream.py",
    "subprocess": "oci/credential_helper.py build/local.py build/cleanup.py build/driver.py trial/qemu.py",
    "socket": "",
    "pytest": "__main__.py entry/pytest_plugin.py entry/command_plugin.py",
    "_pytest": "",
    "time": "base/polling.py oci/registry.py build/driver.py trial/qemu.py",
    "datetime.now": "",
    "datetime.today": "",
    "date.today": "",
    "datetime.utcnow": "",
    "os.environ": "__main__.py entry/places.py entry/pytest_plugin.py",
    "os.environb": "",
    "os.getenv": "",
    "Path.home": "entry/places.py",
    "urllib.request.getproxies": "",
    "print": "__main__.py",
    "input": "",
    "sys.stdout": "__main__.py",
    "sys.stderr": "__main__.py",
}


def _files() -> list[Path]:
    folders = (PACKAGE, "fixtures", "reports", "preflight_tests", "commands")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _room(module: str) -> str:
    """The room of a dotted name; the package itself is "kmm_preflight"."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] or top if top == PACKAGE else top


def _imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports, with the names taken from each module."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)


def _arrows(path: Path) -> Iterator[tuple[str, str]]:
    """The room of a file, with each other room that it imports."""
    own = _room(_module(path))
    for name in _imported(ast.parse(path.read_text())):
        if name.partition(".")[0] in (PACKAGE, "fixtures", "reports", "preflight_tests", "commands"):
            other = _room(name)
            if other != own:
                yield own, other


def _used(tree: ast.AST) -> set[str]:
    """Which names of DOMAIN_EDGES a file uses: as an import, an attribute or a call."""
    used = set()
    for name in _imported(tree):
        used |= {edge for edge in DOMAIN_EDGES if name == edge or name.startswith(f"{edge}.")}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute():
                dotted = ast.unparse(node)
                used |= {edge for edge in DOMAIN_EDGES if "." in edge and f".{dotted}".endswith(f".{edge}")}
            case ast.Call(func=ast.Name(id=name)):
                used |= {name} & set(DOMAIN_EDGES)
    return used


def test_the_table_names_every_room() -> None:
    rooms = {_room(_module(path)) for path in _files()} - {PACKAGE}
    assert rooms == set(ROOMS)


def test_the_table_has_no_arrow_that_leads_up() -> None:
    order = list(ROOMS)
    up = [
        (room, other)
        for room, many in ROOMS.items()
        for other in many.split()
        if order.index(other) >= order.index(room)
    ]
    assert up == []


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_its_row_allows(path: Path) -> None:
    broken = {
        f"{room} may not import {other}" for room, other in _arrows(path) if other not in ROOMS.get(room, "").split()
    }
    assert broken == set()


def test_no_two_rooms_import_each_other() -> None:
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for path in _files():
        for room, other in _arrows(path):
            seen[room].add(other)
    assert {(room, other) for room, many in seen.items() for other in many if room in seen.get(other, set())} == set()


@pytest.mark.parametrize("path", [path for path in _files() if _room(_module(path)) != "oci"], ids=_module)
def test_other_rooms_open_images_only_through_the_resolver(path: Path) -> None:
    names = {f"{name.removeprefix(f'{PACKAGE}.oci.')}." for name in _imported(ast.parse(path.read_text()))}
    assert {name for name in names if name.startswith(tuple(f"{inside}." for inside in INSIDE_OCI))} == set()


@pytest.mark.parametrize("path", sorted((ROOT / PACKAGE).rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_an_edge_meets_the_world_outside(path: Path) -> None:
    name = str(path.relative_to(ROOT / PACKAGE))
    tree = ast.parse(path.read_text())
    assert {
        f"{edge} is for {DOMAIN_EDGES[edge]}" for edge in _used(tree) if name not in DOMAIN_EDGES[edge].split()
    } == set()


def test_an_edge_that_is_named_uses_what_it_is_named_for() -> None:
    named = [(edge, name) for edge, names in DOMAIN_EDGES.items() for name in names.split()]
    idle = [(edge, name) for edge, name in named if edge not in _used(ast.parse((ROOT / PACKAGE / name).read_text()))]
    assert idle == []


@pytest.mark.parametrize("path", sorted((ROOT / "reports").rglob("*.py")), ids=lambda path: path.name)
def test_a_report_sees_of_the_glue_only_the_run(path: Path) -> None:
    glue = {name.rpartition(".")[0] for name in _imported(ast.parse(path.read_text())) if name.startswith("fixtures.")}
    assert glue <= SEEN_BY_REPORTS


@pytest.mark.parametrize("path", sorted((ROOT / "preflight_tests").glob("*.py")), ids=lambda path: path.name)
def test_the_validation_has_no_rules_of_its_own(path: Path) -> None:
    ours = {name for name in _imported(ast.parse(path.read_text())) if name.startswith((PACKAGE, "reports"))}
    assert ours <= {"kmm_preflight.model.StageResult"}


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("import time", {"time"}),
        ("from time import sleep", {"time"}),
        ("from datetime import datetime\nnow = datetime.now()", {"datetime.now"}),
        ("import datetime\nnow = datetime.datetime.now()", {"datetime.now"}),
        ("import os\npath = os.environ['PATH']", {"os.environ"}),
        ("from os import environ", {"os.environ"}),
        ("import sys\nsys.stderr.write('')", {"sys.stderr"}),
        ("print('')", {"print"}),
        ("import timeit", set()),
        ("self.print('')", set()),
    ],
)
def test_what_counts_as_a_use(source: str, used: set[str]) -> None:
    assert _used(ast.parse(source)) == used


def test_the_kubernetes_library_is_loaded_only_for_a_cluster() -> None:
    plugins = ", ".join(
        _module(path) for path in _files() if not path.is_relative_to(ROOT / PACKAGE) and path.stem != "__init__"
    )
    program = f"import sys, {plugins}; print('kubernetes' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_only_the_settings_read_the_environment() -> None:
    glue = [path for path in _files() if not path.is_relative_to(ROOT / PACKAGE)]
    readers = [_module(path) for path in glue if _used(ast.parse(path.read_text())) & {"os.environ", "os.getenv"}]
    assert readers == ["fixtures.options.settings"]
