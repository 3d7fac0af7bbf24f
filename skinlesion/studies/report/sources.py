"""What a report is made from: the ensemble's file, its predictions tables, its members' recipe, the facts. No model."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from skinlesion.data.csv_io import read_rows
from skinlesion.data.metadata import normalize_words, parse_ages
from skinlesion.data.readers import TABLE_SUFFIXES
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.predictions import Predictions

PARTS = ("val", "test")
_FACTS = ("sex", "localization", "dataset", "dx_type")
_ROUNDING = 1e-4  # of probabilities that were averaged anew


@dataclass(frozen=True)
class Sources:
    """All that a report is made from, checked to belong together."""

    path: Path  # the ensemble.json
    about: dict[str, Any]  # its contents
    tables: dict[str, Predictions]  # by part, the vote of the chosen members, uncalibrated
    members: dict[str, dict[str, Predictions]]  # by name, then part; empty where they are not kept
    recipes: dict[str, dict[str, Any]]  # by name, the configurations of the chosen members whose runs are still there
    split: pd.DataFrame | None  # image_id, lesion_id, split of the first of them
    facts: pd.DataFrame | None  # image_id, diagnosis and the facts; None where no table is found
    root: Path | None = None  # folder of the data set
    absent: list[str] = field(default_factory=list)  # what was not found, in words

    @property
    def names(self) -> list[str]:
        """Of all members, in the order of the file."""
        return [str(member["name"]) for member in self.about["members"]]

    @property
    def chosen(self) -> list[str]:
        """Names of the members that vote."""
        return [self.names[position] for position in self.about["chosen"]]


def read_sources(ensemble: Path, *, metadata: Path | None) -> Sources:
    """Find and check everything.

    Args:
        ensemble: An ensemble.json, or its folder.
        metadata: The table of facts; None: the one that the members were trained on, if it is still there.

    Raises:
        SkinlesionError: The ensemble or a table is missing, broken, or does not belong to the rest.
    """
    path = ensemble / "ensemble.json" if ensemble.is_dir() else ensemble
    about = _read_about(path)
    tables = {part: Predictions.read(path.parent / f"predictions_{part}.csv") for part in PARTS}
    absent: list[str] = []
    members = _read_members(path, about, tables, absent)
    voters = [about["members"][position] for position in about["chosen"]]
    runs = {str(each["name"]): (path.parent / each["checkpoint"]).resolve().parent for each in voters}
    recipes = {name: found for name, run in runs.items() if (found := _read_recipe(run)) is not None}
    if not recipes:
        absent.append("the recipe: no config.yaml beside the checkpoints of the members")
    run = next(iter(runs.values()))
    split = pd.read_csv(run / "split.csv", dtype=str) if (run / "split.csv").is_file() else None
    table = metadata or _own_metadata(next(iter(recipes.values()), None))
    if table is None:
        absent.append("the metadata table: no subgroups; give it as metadata=FILE")
    facts = None if table is None else read_facts(table)
    root = None if table is None else table.parent
    return Sources(path, about, tables, members, recipes, split, facts, root, absent)


def read_facts(path: Path) -> pd.DataFrame:
    """A metadata table without its images: `image_id`, `lesion_id`, `diagnosis`, `age` and the facts what it has.

    Raises:
        DataError: It cannot be read, names an image twice, or has an age that is none.
    """
    rows, problems = read_rows(path, columns=("image_id",))
    if problems:
        raise DataError.listing(f"The metadata table {path} cannot be used:", problems)
    twice = rows["image_id"][rows["image_id"].duplicated()].tolist()
    if twice:
        raise DataError(f"{path}: image_id in more than one row: {', '.join(twice[:5])}; keep one row an image")
    found = {"image_id": rows["image_id"].tolist()}
    found |= {name: normalize_words(rows[name]) for name in _FACTS if name in rows}
    if "dx" in rows:
        found["diagnosis"] = normalize_words(rows["dx"])
    if "lesion_id" in rows:
        found["lesion_id"] = rows["lesion_id"].tolist()
    facts = pd.DataFrame(found)
    if "age" not in rows:
        return facts
    years, faulty = parse_ages(rows["age"])
    if faulty.any():
        raise DataError(
            f"{path}: faulty age of {rows['image_id'].to_numpy()[np.flatnonzero(faulty)[0]]}; expected years"
        )
    return facts.assign(age=years)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        if not all(about["members"][position]["checkpoint"] for position in about["chosen"]) or not about["chosen"]:
            raise ValueError("no member votes")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path}: not a readable ensemble.json ({error}); make it with `ensemble`") from error
    return about


def _read_members(
    path: Path, about: dict[str, Any], tables: dict[str, Predictions], absent: list[str]
) -> dict[str, dict[str, Predictions]]:
    """The members' tables, which must make up the vote."""
    names = [str(member["name"]) for member in about["members"]]
    folders = {name: path.parent / "members" / name.replace("/", "-") for name in names}
    paths = {name: {part: folder / f"predictions_{part}.csv" for part in PARTS} for name, folder in folders.items()}
    if not all(each.is_file() for parts in paths.values() for each in parts.values()):
        absent.append("the members' predictions: no comparison with them; make the ensemble again")
        return {}
    members = {name: {part: Predictions.read(each) for part, each in parts.items()} for name, parts in paths.items()}
    for part in PARTS:
        voted = Predictions.soft_vote([members[names[position]][part] for position in about["chosen"]])
        same = voted.image_id.tolist() == tables[part].image_id.tolist()
        if not same or np.abs(voted.probabilities - tables[part].probabilities).max() > _ROUNDING:
            raise DataError(
                f"{path.parent / f'predictions_{part}.csv'} is not the mean of the members' tables beside it; "
                "make the ensemble again"
            )
    return members


def _read_recipe(run: Path) -> dict[str, Any] | None:
    path = run / "config.yaml"
    if not path.is_file():
        return None
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path), resolve=False))


def _own_metadata(recipe: dict[str, Any] | None) -> Path | None:
    data = (recipe or {}).get("data") or {}
    if not isinstance(data.get("root"), str) or not isinstance(data.get("table"), str):
        return None
    candidates = [Path(data["root"]).expanduser() / f"{data['table']}{suffix}" for suffix in TABLE_SUFFIXES]
    return next((path for path in candidates if path.is_file()), None)
