"""The report of an ensemble: what it is made from, its numbers, figures, page, model card and checklists."""
