"""Imports point one way: domain, its edges, glue, validation."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOMAIN = sorted((ROOT / "kmm_preflight").rglob("*.py"))
GLUE = ("fixtures", "reports", "preflight_tests", "tests")
# What only an edge may import, and which file is one.
EDGES = {
    "urllib3": {"oci/registry.py", "oci/connections.py", "cluster/kubernetes.py"},
    "kubernetes": {"cluster/kubernetes.py"},
    "websocket": {"cluster/stream.py"},
    "subprocess": {
        "oci/credential_helper.py",
        "build/local.py",
        "build/removal.py",
        "build/driver.py",
        "trial/machine.py",
    },
    "socket": set[str](),
    "pytest": set[str](),
    "os.environ": set[str](),
}
CORE = {"model.py", "errors.py", "outside.py"}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
            case ast.Attribute(value=ast.Name(id="os"), attr="environ"):
                names.add("os.environ")
    return names


@pytest.mark.parametrize("path", DOMAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_domain_knows_neither_glue_nor_the_libraries_of_its_edges(path: Path) -> None:
    name = str(path.relative_to(ROOT / "kmm_preflight"))
    roots = {module.partition(".")[0] for module in imported(path)} | (imported(path) & {"os.environ"})
    assert not roots & set(GLUE)
    assert {edge for edge in EDGES if edge in roots and name not in EDGES[edge]} == set()


@pytest.mark.parametrize("name", sorted(CORE))
def test_values_and_errors_know_nothing_of_the_rest(name: str) -> None:
    ours = {module for module in imported(ROOT / "kmm_preflight" / name) if module.startswith("kmm_preflight.")}
    assert {module.split(".")[1] + ".py" for module in ours} <= CORE


@pytest.mark.parametrize("path", sorted((ROOT / "preflight_tests").glob("*.py")), ids=lambda path: path.name)
def test_the_validation_has_no_rules_of_its_own(path: Path) -> None:
    ours = {module for module in imported(path) if module.startswith(("kmm_preflight", "reports"))}
    assert ours <= {"kmm_preflight.model", "kmm_preflight.model.StageResult"}


def test_the_kubernetes_library_is_loaded_only_for_a_cluster() -> None:
    rooms = ("fixtures", "reports", "preflight_tests")
    plugins = ", ".join(f"{room}.{path.stem}" for room in rooms for path in sorted((ROOT / room).glob("[a-z]*.py")))
    told = f"import sys, {plugins}; print('kubernetes' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_only_the_settings_read_the_environment() -> None:
    glue = [path for room in ("fixtures", "reports", "preflight_tests") for path in (ROOT / room).glob("*.py")]
    assert [path.name for path in glue if "os.environ" in imported(path)] == ["settings.py"]
