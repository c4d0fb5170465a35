"""Builders, and the build and sign stages."""
