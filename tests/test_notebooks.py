"""The notebooks: they run on the synthetic data, define nothing, and hold the outputs that the site shows."""

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import composed
from nbclient import NotebookClient

from skinlesion.commands.ensemble import run
from skinlesion.config.inference import EnsembleConfig

FOLDER = Path(__file__).parent.parent / "notebooks"
FIGURES = {"01_dataset": 5, "02_ensemble": 4, "03_errors": 3, "04_picture": 2}
NAMES = tuple(FIGURES)


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook: Any) -> list[str]:
    return [cell.source.replace("%matplotlib inline", "") for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="session")
def voted(sweep_folder: Path) -> Path:
    """The members' folder, with their ensemble in it."""
    run(
        composed(
            "ensemble", EnsembleConfig, f"members={sweep_folder}", "split=test", "resamples=100", "accelerator=cpu"
        )
    )
    return sweep_folder


def test_these_are_all() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_its_outputs_and_defines_nothing(name: str) -> None:
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run from top to bottom
    held = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in held} <= {"execute_result", "display_data", "stream"}
    assert sum("image/png" in output.get("data", {}) for output in held) == FIGURES[name]
    assert not re.search(r"/(?:root|home|tmp|work|Users)/", json.dumps(notebook))  # a place on a machine
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    nodes = [node for source in code(notebook) for node in ast.walk(ast.parse(source))]
    assert not [node for node in nodes if isinstance(node, definitions)]
    assert len(json.dumps(notebook)) < 1_000_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the Jupyter client's own making
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, synthetic_root: Path, voted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINLESION_DATA", str(synthetic_root))
    monkeypatch.setenv("SKINLESION_RUNS", str(voted))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = read(name)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == FIGURES[name]
