"""Evaluation on images of another source."""
