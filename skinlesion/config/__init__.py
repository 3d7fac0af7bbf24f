"""The schema of every configuration: one dataclass a node, its units, meanings and ranges.

Values live in YAML under `conf/`; nothing here has a default. `gate.typed` merges one into the other.
"""
