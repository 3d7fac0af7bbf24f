"""The HTTP service of an exported bundle, and its page. Nothing here needs torch."""
