"""kmm-preflight explain: print the page of a finding."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from commands.arguments import Arguments
from kmm_preflight.entry.hints import hint
from kmm_preflight.entry.places import EXIT_USAGE, suite_folder


def finding_ids() -> list[str]:
    """Return the ids of all findings that have a page, sorted."""
    pages = (suite_folder() / "docs/findings").glob("*.md")
    return sorted(page.stem for page in pages if page.stem != "README")


def run(arguments: Sequence[str]) -> int:
    """Print the page, or the nearest id if the finding is unknown."""
    parser = Arguments("explain", "Print what a finding means and how to fix it.")
    parser.add_argument("finding", metavar="FINDING", help="id of the finding, such as kmod-absent")
    wanted = parser.parse_args(arguments).finding
    known = finding_ids()
    if wanted in known:
        print((suite_folder() / f"docs/findings/{wanted}.md").read_text(), end="")
        return 0
    otherwise = "The reports have the ids of findings, such as kmod-absent."
    print(f"ERROR: unknown finding {wanted}. {hint(wanted, known, otherwise, alike=0.5)}", file=sys.stderr)
    return EXIT_USAGE
