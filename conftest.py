"""Names the plugins of the suite; nothing else, ever."""

pytest_plugins = [
    "fixtures.options",
    "fixtures.workers",
    "fixtures.planning",
    "fixtures.stages",
    "reports.verdicts",
    "reports.html",
    "reports.terminal",
]
