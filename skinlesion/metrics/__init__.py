"""Metrics of a predictions table, with intervals over lesions."""
