"""The schema of every command: dataclasses whose comments are the help, whose types and annotations are the checks.

Values live in YAML under `conf/`; nothing here has a default. `validation.typed` merges one into the other.
"""
