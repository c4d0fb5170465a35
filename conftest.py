"""Names the plugins of the suite; nothing else, ever."""

pytest_plugins = [
    "fixtures.command_line",
    "fixtures.workers",
    "fixtures.planning",
    "fixtures.stages",
    "reports.verdicts",
    "reports.html",
    "reports.terminal",
]
