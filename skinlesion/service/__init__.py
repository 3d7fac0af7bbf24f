"""The service: an exported bundle behind HTTP, and a page for a person. Nothing here needs torch."""
