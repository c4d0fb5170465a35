"""Builders, and what they are told to make."""
