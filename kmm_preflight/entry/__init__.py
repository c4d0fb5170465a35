"""Ways into the suite: the command, and the plugins of pytest that are loaded before the suite."""
