"""Outputs of a run. Every output is a view of the report."""
