"""Corruptions of images and facts, and what is flagged as out-of-distribution."""
