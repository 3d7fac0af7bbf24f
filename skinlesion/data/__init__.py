"""From HAM10000's files to batches."""
