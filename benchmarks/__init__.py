"""Benchmarks: a file a claim, each against what a user would have otherwise, in turn within one run."""
