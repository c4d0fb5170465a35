"""Name the plugins of the suite, once this Python has what they need."""

from fixtures.prerequisites import check

check()

# A plugin comes before the plugins that import it: pytest rewrites the assertions of a module when it loads the plugin.
pytest_plugins = [
    "fixtures.options.command_line",
    "fixtures.mistakes",
    "fixtures.workers",
    "fixtures.live_status",
    "fixtures.planning",
    "fixtures.stages",
    "fixtures.time_limits",
    "fixtures.verdicts",
    "reports.files",
    "reports.html",
    "reports.progress",
    "reports.terminal",
]
