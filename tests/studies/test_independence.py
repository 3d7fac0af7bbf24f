"""A study can be deleted: only commands and figures import studies, and no study imports another one."""

import ast
from pathlib import Path

import skinlesion

PACKAGE = Path(skinlesion.__file__).parent


def studies_imported_by(path: Path) -> set[str]:
    """Names of the studies that a file imports, also inside functions."""
    modules = {node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    return {module.split(".")[2] for module in modules if module.startswith("skinlesion.studies.")}


def test_studies_are_independent() -> None:
    found = {path.relative_to(PACKAGE): studies_imported_by(path) for path in PACKAGE.rglob("*.py")}
    users = {path: studies for path, studies in found.items() if studies}
    assert len(users) > 10
    for path, studies in users.items():
        folder, name = path.parts[:2]
        assert folder in ("commands", "plots", "studies"), path
        assert folder != "studies" or studies == {name}, path
