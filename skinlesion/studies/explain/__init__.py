"""Saliency maps, their sanity checks, and what each fact changes."""
