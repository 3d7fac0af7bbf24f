"""A synthetic HAM10000, for the demo and the tests."""
