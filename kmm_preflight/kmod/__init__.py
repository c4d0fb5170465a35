"""Kmod files: names, contents, signatures, and the checks of the kernel's loader."""
