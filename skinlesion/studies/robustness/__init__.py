"""Robustness of a model: corrupted images, altered facts, the removed lesion, and out-of-distribution images."""
