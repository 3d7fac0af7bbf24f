"""Cross-validation of classifiers on embeddings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.config.data import SplitConfig
from skinlesion.data.csv_io import read_rows
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.splits import assign
from skinlesion.errors import DataError, counted
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import groups_of_frame
from skinlesion.studies.probe.classifiers import CLASSIFIERS, Sample, Task
from skinlesion.studies.probe.embedding import Embedders, Vectors
from skinlesion.taxonomy import HAM10000, Taxonomy

log = logging.getLogger(__name__)


def splits_of(frame: pd.DataFrame, options: SplitConfig, *, taxonomy: Taxonomy = HAM10000) -> list[pd.DataFrame]:
    """The split of each fold; of a policy without folds, its one split.

    Raises:
        DataError: A split cannot be used.
    """
    folds = [options.fold]
    if options.policy == "grouped":
        folds = [*range(options.folds)]
    elif options.policy == "file":
        rows, _ = read_rows(Path(str(options.file)).expanduser(), columns=())
        if "fold" in rows and "split" not in rows:
            folds = sorted({int(fold) for fold in rows["fold"] if fold.isdecimal()}) or folds
    return [assign(frame, taxonomy=taxonomy, **asdict(replace(options, fold=fold))) for fold in folds]


def refuse_leakage(embedders: Embedders, splits: Sequence[pd.DataFrame]) -> None:
    """Refuse a checkpoint that was trained on lesions which are to judge it.

    Raises:
        DataError: It names the checkpoint.
    """
    for split in splits:
        lesion_of = dict(zip(split["image_id"], split["lesion_id"], strict=True))
        tested = {*split.loc[split["split"] == "test", "lesion_id"]}
        for each in embedders.each:
            if leaked := tested & {lesion_of[image] for image in each.trained_on if image in lesion_of}:
                raise DataError(
                    f"backbones: {each.name} was trained on {counted(len(leaked), 'lesion')} of the test part; give "
                    "the split of that run (split.policy=file split.file=RUN/split.csv), which has one fold"
                )


def cross_validate(
    frame: pd.DataFrame,
    vectors: Vectors,
    splits: Sequence[pd.DataFrame],
    *,
    classifiers: Sequence[str],
    facts: bool,
    alpha: float,
    seed: int,
    taxonomy: Taxonomy = HAM10000,
) -> dict[str, Predictions]:
    """Predict the test part of each split by classifiers that learn from its other parts.

    Args:
        frame: A checked frame, N rows.
        vectors: (N, D) embeddings of its images.
        splits: Splits whose test parts do not overlap.
        classifiers: Names in `CLASSIFIERS`.
        facts: Whether the encoded facts about the patient stand beside the embedding.
        alpha: Exponent of the inverse class frequency that classes weigh.
        seed: Of what is drawn.
        taxonomy: The K diagnoses.

    Returns:
        By name, the predictions of all test parts.
    """
    found: dict[str, list[Predictions]] = {name: [] for name in classifiers}
    groups = groups_of_frame(frame)
    for split in splits:
        parts = _parts(frame, vectors, split, facts=facts)
        sample = {
            part: Sample(x, taxonomy.indices(frame["diagnosis"].iloc[rows].tolist()))
            for part, (rows, x) in parts.items()
        }
        task = Task.of(sample["train"], sample["val"], classes=len(taxonomy), alpha=alpha, seed=seed)
        rows = frame.iloc[parts["test"][0]]
        ids, lesions, actual = (rows[name].tolist() for name in ("image_id", "lesion_id", "diagnosis"))
        known: dict[str, Any] = {"actual": actual, "group_id": None if groups is None else groups[parts["test"][0]]}
        for name in classifiers:
            values = CLASSIFIERS[name](task, sample["test"].x)
            table = Predictions.build(ids, lesions, probabilities=values, taxonomy=taxonomy, **known)
            found[name].append(table)
    return {name: Predictions.concatenate(tables).sorted() for name, tables in found.items()}


def _parts(
    frame: pd.DataFrame, vectors: Vectors, split: pd.DataFrame, *, facts: bool
) -> Mapping[str, tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", Vectors]]:
    """Row numbers and standardised features of each part; all is learned from the training part."""
    part_of = dict(zip(split["image_id"], split["split"], strict=True))
    names = np.array([part_of.get(image, "") for image in frame["image_id"]])
    train = names == "train"
    scale = vectors[train].std(axis=0)
    features = (vectors - vectors[train].mean(axis=0)) / np.where(scale > 0, scale, 1)
    if facts:
        encoded = MetadataEncoder.fit(frame[train]).encode(frame)
        features = np.concatenate([features, encoded], axis=1)
    rows = {part: np.flatnonzero(names == part) for part in ("train", "val", "test")}
    return {part: (places, features[places].astype(np.float32)) for part, places in rows.items()}
