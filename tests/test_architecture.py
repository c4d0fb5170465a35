"""ARCHITECTURE.md names every file of the package, the glue and the commands, by room.

`python -m tests.test_architecture` writes the list of rooms again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
# Lowest first, as in tests/test_imports.py.
ROOMS = (
    "kmm_preflight",
    *(
        f"kmm_preflight/{name}"
        for name in ("base", "oci", "kmod", "release", "planning", "nodes", "cluster", "worker", "stages", "build")
    ),
    *(f"kmm_preflight/{name}" for name in ("trial", "status", "entry")),
    "fixtures",
    "fixtures/options",
    "reports",
    "commands",
    "preflight_tests",
)
START, END = "<!-- rooms start -->\n", "<!-- rooms end -->\n"


def first_sentence(path: Path) -> str:
    """Return the first sentence of a file's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.split(r"(?<=[.?])\s", " ".join(docstring.split()))[0].removesuffix(".")


def rooms() -> Iterator[str]:
    """Return the lines of the list."""
    for room in ROOMS:
        yield from ("", f"### `{room}/`", "", f"{first_sentence(ROOT / room / '__init__.py')}.".replace("?.", "?"), "")
        for path in sorted((ROOT / room).glob("*.py")):
            if path.name != "__init__.py":
                yield f"- `{path.stem}`: {first_sentence(path)}."
    yield ""


def written(page: str) -> str:
    """Return the page with the list of today."""
    before, _, rest = page.partition(START)
    return f"{before}{START}" + "\n".join(rooms()) + END + rest.partition(END)[2]


def test_the_page_names_every_file() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "write it again: python -m tests.test_architecture"


def test_every_folder_with_code_is_a_room() -> None:
    folders = {path.parent.relative_to(ROOT) for top in ROOMS for path in (ROOT / top).rglob("*.py")}
    assert {str(folder) for folder in folders} == set(ROOMS)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
