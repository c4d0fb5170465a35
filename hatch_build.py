"""Put the suite into the wheel as data of the package; an editable install runs the suite of the clone."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SUITE = ("pyproject.toml", "conftest.py", "preflight_tests", "fixtures", "reports", "commands", "docs/findings")
"""Files and folders of the suite, relative to the top of the clone."""


class SuiteHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling leaves its parameter open
    """Hook that hatchling calls before it writes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the suite. version is "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"] |= {name: f"kmm_preflight/suite/{name}" for name in SUITE}
