"""The report of an ensemble: page, model card and checklists, made from tables."""
