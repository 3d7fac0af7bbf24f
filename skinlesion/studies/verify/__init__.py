"""Published numbers, recomputed from the predictions tables that are shipped."""
