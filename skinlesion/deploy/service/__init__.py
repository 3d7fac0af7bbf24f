"""The HTTP service of an exported bundle, and its page. It needs neither torch nor pandas."""
