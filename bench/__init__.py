"""Benchmarks that anyone can run, each with the peer beside us in the same run."""
