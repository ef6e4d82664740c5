"""Benchmarks: ratios against a named alternative, both timed in the same run."""
