"""Training and benchmarks on a GPU machine without a network: pack here, copy, run there a step at a time.

`pack` writes one folder, `run` needs nothing but that folder and the packages that such a machine has. What runs there
before the packed wheels are installed uses Python's standard library alone.
"""
