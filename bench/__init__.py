"""Benchmarks for everybody. Each measures this suite and its peer in the same run."""
