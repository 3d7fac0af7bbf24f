"""From a checkpoint, an ensemble or a bundle to predictions, and what is fitted on validation after the vote."""
