"""The house: imports go one way, there is no circle, and files and functions stay small."""

import ast
import re
from pathlib import Path

import pytest

import skinlesion

PACKAGE = Path(skinlesion.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" and "conf" not in path.parts)

# A predictions table needs nothing but the taxonomy: metrics and figures take it.
TABLES = ("inference.predictions", "inference.table_columns")
# Each row may import from itself and from rows above it.
ROWS: tuple[tuple[str, ...], ...] = (
    ("skinlesion", "errors", "files", "taxonomy", "terminal", "config", "model", *TABLES),
    ("data", "metrics"),
    ("training", "inference"),
    ("plots", "studies", "deploy", "synthetic"),
    ("commands",),
    ("cli", "__main__"),
)
# A bundle is one of the things that a predictor loads.
EXCEPTIONS = {("inference.predictor", "deploy.runtime")}
BLIND = (
    "model",
    "training/losses",
    "data/splits",
    "data/metadata",
    "data/image_io",
    "plots/style",
    "plots/classification",
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    """The package's own modules that a file imports, also inside functions; names without `skinlesion.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("skinlesion.") for name in found if name.startswith("skinlesion.")}


def row_of(module: str) -> int:
    parts = module.split(".")
    names = [".".join(parts[:2]), parts[0]]
    return next((number for name in names for number, row in enumerate(ROWS) if name in row), 0)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    module = module_of(path)
    for name in imports_of(path):
        allowed = any(module == user and name.startswith(used) for user, used in EXCEPTIONS)
        assert allowed or row_of(name) <= row_of(module), f"{module} imports {name} from a row below it"


def test_every_file_has_a_row() -> None:
    known = {name for row in ROWS for name in row}
    assert {module_of(path).split(".")[0] for path in FILES} <= known
    assert len(FILES) > 60


def test_there_is_no_circle() -> None:
    modules = {module_of(path) for path in FILES}
    graph = {}
    for path in FILES:
        names = imports_of(path)
        graph[module_of(path)] = {m for m in modules if any(name == m or name.startswith(f"{m}.") for name in names)}
    while graph:
        free = {module for module, needed in graph.items() if not needed & graph.keys() - {module}}
        assert free, f"a circle among {sorted(graph)}"
        graph = {module: needed for module, needed in graph.items() if module not in free}


@pytest.mark.parametrize("prefix", BLIND)
def test_some_never_see_a_configuration(prefix: str) -> None:
    chosen = [path for path in FILES if str(path.relative_to(PACKAGE)).startswith(prefix)]
    assert chosen
    for path in chosen:
        assert not any(name.startswith("config.") for name in imports_of(path)), path


def test_one_place_spells_the_codes() -> None:
    for path in FILES:
        if path.name not in ("taxonomy.py",) and "synthetic" not in path.parts:
            assert '"akiec"' not in path.read_text(), path


def test_files_are_one_idea_and_functions_one_thing() -> None:
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 340, f"{path} is long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno - (ast.get_docstring(node) or "").count("\n")
                assert length <= 50, f"{path}: {node.name} has {length} lines"


def test_nothing_is_called_utils() -> None:
    assert not {path.stem for path in PACKAGE.rglob("*")} & {"utils", "base", "common", "core", "helpers", "manager"}


def test_the_tree_of_the_guide_names_what_is_there() -> None:
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"```\nskinlesion/\n(.*?)  synthetic/", guide, re.DOTALL)
    assert tree is not None
    named = {}
    for line in tree[1].replace("\n" + " " * 18, " ").splitlines():
        folder, _, listed = line.strip().partition("/")
        names = re.sub(r"\(.*?\)|:.*", "", listed).split(",")
        if len(names) > 2:
            named[folder] = {name.strip().rstrip("/") for name in names if " " not in name.strip()}
    assert {"data", "model", "training", "inference", "metrics", "deploy"} <= named.keys()
    for folder, names in named.items():
        assert names <= {path.stem for path in (PACKAGE / folder).iterdir()}, folder


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_file_knows_a_diagnosis(path: Path) -> None:
    """Diagnoses are data: their codes stand in conf/, and in no string of the package."""
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert "mel" not in texts
