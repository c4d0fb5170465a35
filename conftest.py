"""Names the plugins of the suite; nothing else, ever."""

# A plugin that another one imports stands before it: pytest rewrites the assertions of a module once.
pytest_plugins = [
    "fixtures.options.command_line",
    "fixtures.workers",
    "fixtures.live_status",
    "fixtures.planning",
    "fixtures.stages",
    "fixtures.verdicts",
    "reports.files",
    "reports.html",
    "reports.progress",
    "reports.terminal",
]
