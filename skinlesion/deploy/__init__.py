"""Export of an ensemble to a bundle that needs no torch, and its service."""
