"""Sources of a report: the ensemble's file, predictions, facts about the patients, and where they come from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from skinlesion import __version__
from skinlesion.data.metadata import DEFAULT_FACTS
from skinlesion.errors import CheckpointError, DataError
from skinlesion.files import file_digest
from skinlesion.inference.ledger import LedgerEntry, beside_split, read_ledger
from skinlesion.inference.posthoc import with_calibration
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.specialist import correct, correction_in_words
from skinlesion.metrics.baselines import BASELINES, predict_without_image
from skinlesion.studies.report.facts import data_root, facts_of_training, read_facts, with_skin_tones
from skinlesion.taxonomy import HAM10000, Taxonomy

PARTS = ("val", "test")
_ROUNDING = 1e-4  # tolerance of probabilities that are averaged again


@dataclass(frozen=True)
class Sources:
    """Everything a report is made from, checked to belong together."""

    path: Path  # of the ensemble.json
    about: dict[str, Any]  # its contents
    vote: dict[str, Predictions]  # uncalibrated predictions of the ensemble, by part
    members: dict[str, dict[str, Predictions]]  # by member and part; empty where a table is missing
    configs: dict[str, dict[str, Any]]  # configurations of the chosen members whose run folders exist, by member
    split: pd.DataFrame | None  # image_id, lesion_id, split of the first member; None without its run folder
    facts: pd.DataFrame | None  # image_id, diagnosis and facts; None without a metadata table
    root: Path | None  # folder of the data set; None without a metadata table
    ledger: list[LedgerEntry]  # readings of the test part, and protocols fixed for it
    absent: list[str]  # missing sources, in words

    @property
    def names(self) -> list[str]:
        """Names of all members."""
        return [str(member["name"]) for member in self.about["members"]]

    @property
    def chosen(self) -> list[str]:
        """Names of the members that vote."""
        return [self.names[index] for index in self.about["chosen"]]

    @property
    def plain(self) -> dict[str, Predictions] | None:
        """The vote before a specialist corrects it, by part; None without a specialist, or where a table is missing."""
        if not self.members or self.about.get("specialist") is None:
            return None
        return {part: Predictions.soft_vote([self.members[name][part] for name in self.chosen]) for part in self.vote}

    @cached_property
    def baselines(self) -> dict[str, Predictions]:
        """Predictions for the test part that know no image, by name, fitted to all other lesions of the metadata table.

        Empty where that table is missing or lacks lesions, diagnoses or the columns of `BASELINES`.
        """
        facts, test = self.facts, self.vote["test"]
        if facts is None or not {"lesion_id", "diagnosis"} <= set(facts):
            return {}
        is_test = facts["lesion_id"].isin(test.lesion_id) | facts["image_id"].isin(test.image_id)
        train = facts[~is_test & facts["diagnosis"].isin(test.taxonomy.codes)]
        own = facts.set_index("image_id").loc[list(test.image_id)]
        found = {}
        for name, columns in BASELINES.items():
            known = [column for column in columns if column in facts and len({*train[column].dropna()}) > 1]
            if known and len({*train["diagnosis"]}) > 1:
                found[f"{name} alone"] = test.with_probabilities(
                    predict_without_image(train, own, known, taxonomy=test.taxonomy)
                )
        return found

    @cached_property
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
    state = about.get("taxonomy")
    taxonomy = HAM10000 if state is None else Taxonomy.from_dict(state)
    vote = {part: Predictions.read(path.parent / f"predictions_{part}.csv", taxonomy=taxonomy) for part in PARTS}
    members = _read_members(path, names, chosen, vote, about.get("specialist"))
    absent = [] if members else ["predictions of the members (no comparison with them): make the ensemble again"]
    runs = {names[k]: (path.parent / about["members"][k]["checkpoint"]).resolve().parent for k in about["chosen"]}
    files = {name: run / "config.yaml" for name, run in runs.items() if (run / "config.yaml").is_file()}
    configs: dict[str, Any] = {name: OmegaConf.to_container(OmegaConf.load(file)) for name, file in files.items()}
    first = next(iter(configs.values()), None)
    if first is None:
        absent.append("recipe: no config.yaml beside the checkpoints of the members")
    facts = read_facts(metadata, taxonomy=taxonomy) if metadata else facts_of_training(first, taxonomy)
    if facts is None:
        absent.append("metadata table (no rows within source, baselines or subgroups): give it as metadata=FILE")
    split = next(iter(runs.values())) / "split.csv"
    return Sources(
        path=path,
        about=about,
        vote=vote,
        members=members,
        configs=configs,
        split=pd.read_csv(split, dtype=str) if split.is_file() else None,
        facts=None if facts is None else with_skin_tones(facts, path.parent / "evaluation" / "skin_tones_test.csv"),
        root=None if facts is None else metadata.parent if metadata else data_root(first),
        ledger=read_ledger(_ledgers(path, runs, first), split=str(about.get("fingerprint"))),
        absent=absent,
    )


def _ledgers(path: Path, runs: dict[str, Path], config: dict[str, Any] | None) -> list[Path]:
    """Folders that may hold a ledger: of the split, the ensemble and its members."""
    place = beside_split(config or {})
    return [path.parent, *runs.values(), *([] if place is None else [place])]


def _read_ensemble(path: Path) -> dict[str, Any]:
    try:
        about = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        if not all(about["members"][index]["checkpoint"] for index in about["chosen"]) or not about["chosen"]:
            raise ValueError("no members")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{path}: not a readable ensemble.json ({error}); make it with `ensemble`") from error
    return about


def _read_members(
    path: Path, names: list[str], chosen: list[str], vote: dict[str, Predictions], rule: dict[str, Any] | None
) -> dict[str, dict[str, Predictions]]:
    """Predictions of the members, whose mean, corrected by any specialist, must be the vote; empty: one is missing."""
    folders = {name: path.parent / "members" / name.replace("/", "-") for name in names}
    tables = {name: {part: folder / f"predictions_{part}.csv" for part in PARTS} for name, folder in folders.items()}
    if not all(table.is_file() for parts in tables.values() for table in parts.values()):
        return {}
    members = {
        name: {part: Predictions.read(table, taxonomy=vote["val"].taxonomy) for part, table in parts.items()}
        for name, parts in tables.items()
    }
    for part, own in vote.items():
        mean = Predictions.soft_vote([members[name][part] for name in chosen])
        if rule is not None:
            two = own.taxonomy.against_rest(rule["target"])
            other = Predictions.read(path.parent / "specialist" / f"predictions_{part}.csv", taxonomy=two)
            mean = correct(mean, other, rule)
        same = mean.image_id.tolist() == own.image_id.tolist()
        if not same or np.abs(mean.probabilities - own.probabilities).max() > _ROUNDING:
            raise DataError(
                f"{path.parent / f'predictions_{part}.csv'} is not the mean of the members' tables beside it; "
                "make the ensemble again"
            )
    return members


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
    """Origin of an ensemble."""

    version: str  # of the package
    ensemble: str  # first 12 digits of the SHA-256 of the ensemble's file
    fingerprint: str  # of the split, or ""
    chosen: list[str]  # names of the members that vote
    specialist: str  # that corrects the vote, in words; "": none does
    facts: str  # that the members take, in words; "": none
    members: list[str]  # names of all members
    tta: str  # test-time augmentation
    novelty: dict[str, Any] | None  # detector of out-of-distribution images
    parts: dict[str, PartSummary]  # of the split
    recipe: Recipe | None  # None where the configurations of the members are missing
    absent: list[str]  # missing sources, in words


def describe_provenance(sources: Sources) -> Provenance:
    """Describe where an ensemble comes from."""
    about, configs = sources.about, sources.configs
    rule = about.get("specialist")
    data: dict[str, Any] = next((each["data"] for each in configs.values()), {})
    *facts, last = data.get("facts", [fact.name for fact in DEFAULT_FACTS]) or [""]
    taxonomy = next(iter(sources.vote.values())).taxonomy
    return Provenance(
        version=__version__,
        ensemble=file_digest(sources.path)[:12],
        fingerprint=about.get("fingerprint", ""),
        chosen=sources.chosen,
        specialist=correction_in_words(rule, about["specialist_member"]["name"], taxonomy) if rule else "",
        facts=f"{', '.join(facts)} and {last}" if facts else last,
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
    return {
        part: _summarize_part(own, sources.vote["test"].taxonomy.codes)
        for part in ("train", *PARTS, "left_out")
        if len(own := rows[rows["split"] == part])
    }


def _summarize_part(rows: pd.DataFrame, codes: Sequence[str]) -> PartSummary:
    has_age = "age" in rows and rows["age"].notna().any()
    counts = rows["diagnosis"].value_counts() if "diagnosis" in rows else None
    return PartSummary(
        images=len(rows),
        lesions=int(rows["lesion_id"].nunique()),
        by_diagnosis=None if counts is None else {code: int(counts.get(code, 0)) for code in codes},
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
