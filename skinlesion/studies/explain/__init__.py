"""Saliency maps of an ensemble, checks of these maps, and the effect of each fact about a patient."""
