"""Provenance of an ensemble: software, split, parts of the data, and the recipe of its members."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skinlesion import __version__
from skinlesion.files import file_digest
from skinlesion.studies.report.sources import Sources
from skinlesion.taxonomy import CODES

_PARTS = ("train", "val", "test", "left_out")


@dataclass(frozen=True)
class PartSummary:
    """One part of the split; a fact is None where the metadata table lacks it."""

    images: int
    lesions: int
    by_diagnosis: dict[str, int] | None = None  # number of images by code
    age: list[float] | None = None  # quartiles in years
    unknown_age: float | None = None  # share of images, 0 to 1
    female: float | None = None  # share of images, 0 to 1
    confirmed: float | None = None  # share of images with histology, 0 to 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without missing facts."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """Training of the members: common settings, phases, and the settings of each member."""

    policy: str
    split_seed: int
    size: list[int] | None  # height and width in pixels; None: the backbone's own
    fusion: str
    attention: str
    funnel: list[int]
    batch_size: int
    phases: list[dict[str, Any]]  # name, epochs, lr, unfreeze
    members: list[dict[str, Any]]  # name, backbone, start, seed, alpha, gamma


@dataclass(frozen=True)
class Provenance:
    """Origin of an ensemble.

    Attributes:
        version: Version of the package.
        ensemble: First 12 digits of the SHA-256 of the ensemble's file.
        fingerprint: Fingerprint of the split, or "".
        chosen: Names of the members that vote.
        members: Names of all members.
        tta: Test-time augmentation.
        novelty: Detector of out-of-distribution images, or None.
        parts: Summary of each part of the split.
        recipe: None where the configurations of the members are missing.
        absent: Missing sources, in words.
    """

    version: str
    ensemble: str
    fingerprint: str
    chosen: list[str]
    members: list[str]
    tta: str
    novelty: dict[str, Any] | None
    parts: dict[str, PartSummary]
    recipe: Recipe | None
    absent: list[str]


def describe_provenance(sources: Sources) -> Provenance:
    """Describe where an ensemble comes from."""
    about, configs = sources.about, sources.configs
    return Provenance(
        version=__version__,
        ensemble=file_digest(sources.path)[:12],
        fingerprint=about.get("fingerprint", ""),
        chosen=sources.chosen,
        members=sources.names,
        tta=about.get("tta", "none"),
        novelty=about.get("novelty"),
        parts=_summarize_parts(sources),
        recipe=_recipe(configs) if configs else None,
        absent=sources.absent,
    )


def _summarize_parts(sources: Sources) -> dict[str, PartSummary]:
    rows = sources.split
    if rows is None:
        rows = pd.concat(
            pd.DataFrame({"image_id": each.image_id, "lesion_id": each.lesion_id, "split": part})
            for part, each in sources.vote.items()
        )
    if sources.facts is not None:
        rows = rows.merge(sources.facts.drop(columns="lesion_id", errors="ignore"))
    return {part: _summarize_part(own) for part in _PARTS if len(own := rows[rows["split"] == part])}


def _summarize_part(rows: pd.DataFrame) -> PartSummary:
    has_age = "age" in rows and rows["age"].notna().any()
    counts = rows["diagnosis"].value_counts() if "diagnosis" in rows else None
    return PartSummary(
        images=len(rows),
        lesions=int(rows["lesion_id"].nunique()),
        by_diagnosis=None if counts is None else {code: int(counts.get(code, 0)) for code in CODES},
        age=np.nanquantile(rows["age"], [0.25, 0.5, 0.75]).tolist() if has_age else None,
        unknown_age=float(rows["age"].isna().mean()) if has_age else None,
        female=float((rows["sex"] == "female").mean()) if "sex" in rows else None,
        confirmed=float((rows["dx_type"] == "histo").mean()) if "dx_type" in rows else None,
    )


def _recipe(configs: dict[str, dict[str, Any]]) -> Recipe:
    first = next(iter(configs.values()))
    model = first["model"]
    return Recipe(
        policy=first["split"]["policy"],
        split_seed=first["split"]["seed"],
        size=[int(side) for side in model["image_size"]] if model.get("image_size") else None,
        fusion=model["fusion"],
        attention=model["attention"],
        funnel=list(model["funnel"]),
        batch_size=first["loader"]["batch_size"],
        phases=[
            {"name": name, "epochs": each["epochs"], "lr": each.get("lr", each.get("rate")),
             "unfreeze": each["unfreeze"]}
            for name, each in first["schedule"]["phases"].items()
        ],
        members=[_member_recipe(name, config) for name, config in configs.items()],
    )  # fmt: skip


def _member_recipe(name: str, config: dict[str, Any]) -> dict[str, Any]:
    pretrained, loss = config["model"]["pretrained"], config["loss"]
    start = "weights of a file" if isinstance(pretrained, str) else "ImageNet" if pretrained else "random"
    own = {"backbone": config["model"]["backbone"], "start": start, "seed": config["seed"]}
    return {"name": name, **own, "alpha": loss["alpha"], "gamma": loss["gamma"]}
