"""Loss, training phases, cached features."""
