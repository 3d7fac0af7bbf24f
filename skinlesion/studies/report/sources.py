"""Sources of a report: the ensemble's file, predictions, the recipe of its members, and facts about the patients."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from skinlesion.data.csv_io import read_rows
from skinlesion.data.metadata import normalize_words, parse_ages
from skinlesion.data.readers import TABLE_SUFFIXES
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.posthoc import with_calibration
from skinlesion.inference.predictions import Predictions

PARTS = ("val", "test")
_FACTS = ("sex", "localization", "dataset", "dx_type")
_ROUNDING = 1e-4  # tolerance of probabilities that are averaged again


@dataclass(frozen=True)
class Sources:
    """Everything a report is made from, checked to belong together.

    Attributes:
        path: The ensemble.json.
        about: Its contents.
        vote: Uncalibrated predictions of the ensemble by part.
        members: Predictions by member and part; empty where they are missing.
        configs: Configurations of the chosen members whose run folders exist, by member.
        split: image_id, lesion_id and split of the first member; None where its run folder is missing.
        facts: image_id, diagnosis and facts; None where no metadata table is found.
        root: Folder of the data set; None likewise.
        absent: Missing sources, in words.
    """

    path: Path
    about: dict[str, Any]
    vote: dict[str, Predictions]
    members: dict[str, dict[str, Predictions]]
    configs: dict[str, dict[str, Any]]
    split: pd.DataFrame | None
    facts: pd.DataFrame | None
    root: Path | None
    absent: list[str]

    @property
    def names(self) -> list[str]:
        """Names of all members."""
        return [str(member["name"]) for member in self.about["members"]]

    @property
    def chosen(self) -> list[str]:
        """Names of the members that vote."""
        return [self.names[index] for index in self.about["chosen"]]

    @property
    def calibrated(self) -> dict[str, Predictions]:
        """Calibrated predictions of the ensemble by part."""
        return {part: with_calibration(each, self.about.get("calibration")) for part, each in self.vote.items()}


def read_sources(ensemble: Path, *, metadata: Path | None) -> Sources:
    """Find and check all sources.

    Args:
        ensemble: An ensemble.json or its folder.
        metadata: Metadata table; None: the one that the members were trained on, if it still exists.

    Raises:
        SkinlesionError: The ensemble or a table is missing, invalid, or does not belong to the others.
    """
    path = ensemble / "ensemble.json" if ensemble.is_dir() else ensemble
    about = _read_ensemble(path)
    names = [str(member["name"]) for member in about["members"]]
    chosen = [names[index] for index in about["chosen"]]
    vote = {part: Predictions.read(path.parent / f"predictions_{part}.csv") for part in PARTS}
    members = _read_members(path, names, chosen, vote)
    absent = [] if members else ["predictions of the members (no comparison with them): make the ensemble again"]
    runs = {names[k]: (path.parent / about["members"][k]["checkpoint"]).resolve().parent for k in about["chosen"]}
    configs = {name: _read_config(run / "config.yaml") for name, run in runs.items() if (run / "config.yaml").is_file()}
    first = next(iter(configs.values()), None)
    if first is None:
        absent.append("recipe: no config.yaml beside the checkpoints of the members")
    table = metadata or _find_metadata(first)
    if table is None:
        absent.append("metadata table (no subgroups): give it as metadata=FILE")
    split = next(iter(runs.values())) / "split.csv"
    return Sources(
        path=path,
        about=about,
        vote=vote,
        members=members,
        configs=configs,
        split=pd.read_csv(split, dtype=str) if split.is_file() else None,
        facts=None if table is None else read_facts(table),
        root=None if table is None else table.parent,
        absent=absent,
    )


def read_facts(path: Path) -> pd.DataFrame:
    """Read a metadata table without images: image_id, lesion_id, diagnosis, age and other facts, where present.

    Raises:
        DataError: The table is not readable, names an image twice, or has an invalid age.
    """
    rows, problems = read_rows(path, columns=("image_id",))
    if problems:
        raise DataError("\n- ".join([f"The metadata table {path} is invalid:", *problems]))
    repeated = rows["image_id"][rows["image_id"].duplicated()].tolist()
    if repeated:
        raise DataError(f"{path}: image_id in more than one row: {', '.join(repeated[:5])}; keep one row per image")
    columns = {"image_id": rows["image_id"].tolist()}
    columns |= {name: normalize_words(rows[name]) for name in _FACTS if name in rows}
    columns |= {"diagnosis": normalize_words(rows["dx"])} if "dx" in rows else {}
    columns |= {"lesion_id": rows["lesion_id"].tolist()} if "lesion_id" in rows else {}
    facts = pd.DataFrame(columns)
    if "age" not in rows:
        return facts
    years, invalid = parse_ages(rows["age"])
    if invalid.any():
        raise DataError(f"{path}: invalid age of {rows['image_id'].to_numpy()[invalid][0]}; expected years")
    return facts.assign(age=years)


def _read_ensemble(path: Path) -> dict[str, Any]:
    try:
        about = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        if not all(about["members"][index]["checkpoint"] for index in about["chosen"]) or not about["chosen"]:
            raise ValueError("no members")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path}: not a readable ensemble.json ({error}); make it with `ensemble`") from error
    return about


def _read_members(
    path: Path, names: list[str], chosen: list[str], vote: dict[str, Predictions]
) -> dict[str, dict[str, Predictions]]:
    """Predictions of the members, whose mean must be the vote; empty where a table is missing."""
    folders = {name: path.parent / "members" / name.replace("/", "-") for name in names}
    tables = {name: {part: folder / f"predictions_{part}.csv" for part in PARTS} for name, folder in folders.items()}
    if not all(table.is_file() for parts in tables.values() for table in parts.values()):
        return {}
    members = {name: {part: Predictions.read(table) for part, table in parts.items()} for name, parts in tables.items()}
    for part, own in vote.items():
        mean = Predictions.soft_vote([members[name][part] for name in chosen])
        same = mean.image_id.tolist() == own.image_id.tolist()
        if not same or np.abs(mean.probabilities - own.probabilities).max() > _ROUNDING:
            raise DataError(
                f"{path.parent / f'predictions_{part}.csv'} is not the mean of the members' tables beside it; "
                "make the ensemble again"
            )
    return members


def _read_config(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path), resolve=False))


def _find_metadata(config: dict[str, Any] | None) -> Path | None:
    data = (config or {}).get("data") or {}
    if not isinstance(data.get("root"), str) or not isinstance(data.get("table"), str):
        return None
    candidates = [Path(data["root"]).expanduser() / f"{data['table']}{suffix}" for suffix in TABLE_SUFFIXES]
    return next((path for path in candidates if path.is_file()), None)
