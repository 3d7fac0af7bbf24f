"""Report on an ensemble: page, model card and checklists, made from tables without a model."""
