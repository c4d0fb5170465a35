"""Glue between the domain and its readers, on the way out: every output is a view of the one report."""
