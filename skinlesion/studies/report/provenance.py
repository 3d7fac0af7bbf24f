"""What a report tells of the data and the recipe: counts, patients, how the members were trained."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from skinlesion import __version__
from skinlesion.studies.report.sources import Sources
from skinlesion.taxonomy import CODES

_ORDER = ("train", "val", "test", "left_out")


def material(sources: Sources) -> dict[str, Any]:
    """Plain data on where an ensemble comes from.

    Returns:
        `version` (of the package), `ensemble` (12 digits of the file's SHA-256), `fingerprint` (of the split),
        `chosen`, `members`, `tta`, `novelty`, `absent`; `parts`: for each part of the split `images`, `lesions`, and,
        where the facts are known, `by_diagnosis`, `age` (quartiles), `female`, `unknown_age` and `confirmed`
        (shares); and `recipe`, or None where it is not known.
    """
    return {
        "version": __version__,
        "ensemble": hashlib.sha256(sources.path.read_bytes()).hexdigest()[:12],
        "fingerprint": sources.about.get("fingerprint", ""),
        "chosen": sources.chosen,
        "members": sources.names,
        "tta": sources.about.get("tta", "none"),
        "novelty": sources.about.get("novelty"),
        "parts": _parts(sources),
        "recipe": _recipe(sources.recipes) if sources.recipes else None,
        "absent": sources.absent,
    }


def _parts(sources: Sources) -> dict[str, dict[str, Any]]:
    split = sources.split
    if split is None:
        kept = [
            table.to_frame()[["image_id", "lesion_id"]].assign(split=part) for part, table in sources.tables.items()
        ]
        split = pd.concat(kept, ignore_index=True)
    rows = split if sources.facts is None else split.merge(sources.facts.drop(columns="lesion_id", errors="ignore"))
    return {part: _part(rows[rows["split"] == part]) for part in _ORDER if (rows["split"] == part).any()}


def _part(rows: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {"images": len(rows), "lesions": int(rows["lesion_id"].nunique())}
    if "diagnosis" in rows:
        found["by_diagnosis"] = {code: int((rows["diagnosis"] == code).sum()) for code in CODES}
    if "age" in rows and rows["age"].notna().any():
        found["age"] = [float(value) for value in np.nanquantile(rows["age"], [0.25, 0.5, 0.75])]
        found["unknown_age"] = float(rows["age"].isna().mean())
    if "sex" in rows:
        found["female"] = float((rows["sex"] == "female").mean())
    if "dx_type" in rows:
        found["confirmed"] = float((rows["dx_type"] == "histo").mean())
    return found


def _recipe(recipes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the members have in common, and what each has of its own."""
    first = next(iter(recipes.values()))
    model, phases = first["model"], first["schedule"]["phases"]
    return {
        "policy": first["split"]["policy"],
        "split_seed": first["split"]["seed"],
        "size": [int(side) for side in model["image_size"]] if model.get("image_size") else None,
        "fusion": model["fusion"],
        "attention": model["attention"],
        "funnel": list(model["funnel"]),
        "batch_size": first["loader"]["batch_size"],
        "phases": [
            {
                "name": name,
                "epochs": each["epochs"],
                "lr": each.get("lr", each.get("rate")),
                "unfreeze": each["unfreeze"],
            }
            for name, each in phases.items()
        ],
        "members": [_member(name, each) for name, each in recipes.items()],
    }


def _member(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    pretrained, loss = recipe["model"]["pretrained"], recipe["loss"]
    start = "weights of a file" if isinstance(pretrained, str) else "ImageNet" if pretrained else "random"
    own = {"backbone": recipe["model"]["backbone"], "start": start, "seed": recipe["seed"]}
    return {"name": name, **own, "alpha": loss["alpha"], "gamma": loss["gamma"]}
