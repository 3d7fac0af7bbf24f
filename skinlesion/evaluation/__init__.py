"""What judges a table of probabilities."""
