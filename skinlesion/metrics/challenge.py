"""The metrics of the ISIC challenges, as their scorer `isic-challenge-scoring` defines them, and their CSV files.

They differ from the classification report: a diagnosis counts as predicted where its probability is above 0.5, and an
image whose highest probability two diagnoses share has no predicted one. Codella et al. (2019), arXiv:1902.03368.
The files, with a column of ids and one a diagnosis, hold a submission (probabilities) or the ground truth (0 or 1).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.csv_io import by_line, read_rows
from skinlesion.errors import DataError, first_five
from skinlesion.files import write_text
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.auroc import auroc_and_ap, partial_auc, rank_classes
from skinlesion.metrics.bootstrap import JointStatistic, Replicates, SumStatistic, bootstrap, sums_of, without_each
from skinlesion.metrics.classification import Floats, mean_of_defined, ratio
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates, estimates_to_dict
from skinlesion.taxonomy import HAM10000, Taxonomy

COUNTED = ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")
RANKED = ("auc", "auc_sens_80", "ap")
METRICS = (*COUNTED, *RANKED)
"""Of each diagnosis, in the scorer's order."""

UNSCORED = "ISIC_0035068"  # of the test set of 2018: the scorer gives it no weight
_SENSITIVITY = 0.8
_WHY = {  # a ratio without a denominator: the scorer gives 1
    "sensitivity": "no image of {}",
    "specificity": "every image is {}",
    "dice": "no image of {}, and none taken for it",
    "ppv": "no image has {} above 0.5",
    "npv": "every image has {} above 0.5",
}
_DIGITS = "%#.9g"  # a point in every number: the scorer refuses a column of whole numbers


@dataclass(frozen=True)
class ChallengeScores:
    """Scores of a submission, each with its interval.

    Attributes:
        images: How many are scored.
        lesions: How many lesions they show.
        balanced_accuracy: The goal of the challenge of 2018.
        macro_average: By name of `METRICS`, the mean over the diagnoses where the metric is defined.
        per_category: By the challenge's column, then name of `METRICS`.
    """

    images: int
    lesions: int
    balanced_accuracy: Estimate
    macro_average: Estimates
    per_category: dict[str, Estimates]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "lesions": self.lesions,
            "balanced_accuracy": self.balanced_accuracy.to_dict(),
            "macro_average": estimates_to_dict(self.macro_average),
            "per_category": {name: estimates_to_dict(each) for name, each in self.per_category.items()},
        }


def challenge_scores(predictions: Predictions, config: BootstrapConfig) -> ChallengeScores:
    """Score predictions with known actual diagnoses as a submission to a challenge.

    A ratio that has no denominator is 1, as the scorer has it, and says so in its note; areas that have none are None
    and left out of their mean.

    Raises:
        DataError: No image is left to score.
    """
    scored = predictions.select(predictions.image_id != UNSCORED)
    if not len(scored):
        raise DataError(f"no image to score: {UNSCORED}, the only one, has no weight in the challenge")
    statistic = JointStatistic((_counted(scored), _Ranked(scored)))
    notes = _notes(scored)
    rates = [f"{rate}_{code}" for rate in COUNTED if rate != "dice" for code in scored.taxonomy.codes]
    proportions = _counted(scored, undefined=np.nan).denominators(*rates)
    found = bootstrap(statistic, config, lesions=scored.groups, proportions=proportions)
    for name, note in notes.items():  # before the note of the bootstrap; in place of a bare "not computable"
        each = found[name]
        also = [each.note] if each.note and each.value is not None else []
        found[name] = replace(each, note="; ".join([note, *also]))
    return ChallengeScores(
        images=len(scored),
        lesions=scored.lesions,
        balanced_accuracy=found["balanced_accuracy"],
        macro_average={name: found[name] for name in METRICS},
        per_category={
            code.upper(): {name: found[f"{name}_{code}"] for name in METRICS}
            for code in scored.taxonomy.submission_order
        },
    )


def write_submission(predictions: Predictions, path: Path) -> None:
    """Write probabilities as a submission to a challenge, whole or not at all."""
    _write(predictions, predictions.probabilities, path)


def write_truth(predictions: Predictions, path: Path) -> None:
    """Write actual diagnoses as a challenge's ground truth, whole or not at all.

    Raises:
        DataError: An actual diagnosis is unknown.
    """
    _write(predictions, np.eye(len(predictions.taxonomy))[predictions.targets], path)


def read_submission(
    path: Path,
    *,
    actual: Mapping[str, str],
    lesions: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    taxonomy: Taxonomy = HAM10000,
) -> Predictions:
    """Read a submission to a challenge.

    Args:
        path: The CSV; image ids may end in ".jpg", as the scorer allows.
        actual: Diagnosis code by image id, of the images that are to be scored.
        lesions: Lesion id by image id; None or no entry: unknown.
        without: Ids of images that are passed over.
        taxonomy: The diagnoses, and their order in the file.

    Raises:
        DataError: The file is no submission, a number is none from 0 to 1, a row's sum is not 1, or its images are not
            those of `actual`.
    """
    order = taxonomy.submission_order
    names = ", ".join(code.upper() for code in order)
    rows, problems = read_rows(path, columns=("image", *order))
    unknown = [str(column) for column in rows if column not in ("image", *order)]
    if unknown:
        problems.append(f"unknown column {', '.join(unknown)}; expected image, {names}.")
    if not problems:
        ids = rows["image"].str.replace(r"\.jpe?g$", "", case=False, regex=True)
        rows, ids = rows[~ids.isin(list(without))], ids[~ids.isin(list(without))]
        if (twice := ids.duplicated(keep=False)).any():
            problems.append(f"image in more than one row: {by_line(ids[twice])}; keep one.")
        if not (known := ids.isin(list(actual))).all():
            problems.append(f"images that have no label: {by_line(ids[~known])}; is it a submission for other images?")
        if absent := sorted(set(actual) - set(ids)):
            problems.append(f"no row for {len(absent):,} of {len(actual):,} images: {first_five(absent)}; add them.")
    if problems:
        raise DataError.listing(f"{path} is no submission for these images:", problems)
    return Predictions.build(
        ids.tolist(),
        [(lesions or {}).get(image_id, "") for image_id in ids],
        probabilities=rows[list(taxonomy.codes)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64),
        actual=[actual[image_id] for image_id in ids],
        taxonomy=taxonomy,
        source=str(path),
    )


def _counted(predictions: Predictions, *, undefined: float = 1.0) -> SumStatistic:
    codes, values = predictions.taxonomy.codes, predictions.probabilities
    actual = np.eye(len(codes))[predictions.targets]  # (N, K)
    predicted = values > 0.5
    highest = values == values.max(axis=1, keepdims=True)
    hits = actual * highest * (highest.sum(axis=1, keepdims=True) == 1)
    blocks = (actual, predicted, actual * predicted, hits, np.ones((len(values), 1)))

    def finish(sums: Floats) -> Replicates:
        positive, called, both, hit, images = np.split(sums, np.arange(1, 5) * len(codes), axis=1)  # (R, K), (R, 1)
        neither = images - positive - called + both
        each = {
            "accuracy": ratio(both + neither, images),
            "sensitivity": ratio(both, positive),
            "specificity": ratio(neither, images - positive),
            "dice": ratio(2 * both, positive + called),
            "ppv": ratio(both, called),
            "npv": ratio(neither, images - called),
        }
        each = {name: np.where(np.isnan(rate), undefined, rate) for name, rate in each.items()}
        return {"balanced_accuracy": mean_of_defined(ratio(hit, positive)), **_named(each, codes)}

    return SumStatistic(sums_of(np.concatenate(blocks, axis=1), predictions.group), finish)


class _Ranked:
    """Areas and average precision of each diagnosis."""

    def __init__(self, predictions: Predictions) -> None:
        self._lesions, self._codes = predictions.groups, predictions.taxonomy.codes
        self._classes = rank_classes(predictions.targets, predictions.probabilities, predictions.group)

    def resampled(self, weights: Floats) -> Replicates:
        counts = np.ascontiguousarray(weights.T)  # (L, R)
        areas, precisions = zip(*(auroc_and_ap(each, counts) for each in self._classes), strict=True)
        partial = [partial_auc(each, counts, sensitivity=_SENSITIVITY) for each in self._classes]
        columns = zip(RANKED, (areas, partial, precisions), strict=True)
        return _named({name: np.stack(values, axis=1) for name, values in columns}, self._codes)

    def jackknife(self) -> Replicates:
        return without_each(self, self._lesions)


def _named(each: Mapping[str, Floats], codes: Collection[str]) -> Replicates:
    """The (R, K) numbers of each metric, by name and diagnosis, and their mean by name."""
    found = {f"{name}_{code}": values[:, k] for name, values in each.items() for k, code in enumerate(codes)}
    return found | {name: mean_of_defined(values) for name, values in each.items()}


def _notes(predictions: Predictions) -> dict[str, str]:
    """Notes on the numbers that have no denominator, and on the means that leave some out, by name."""
    codes, predicted = predictions.taxonomy.codes, predictions.probabilities > 0.5
    actual = predictions.targets[:, None] == np.arange(len(codes))  # (N, K)
    present, everywhere = actual.any(axis=0), actual.all(axis=0)
    without = {
        "sensitivity": ~present,
        "specificity": everywhere,
        "dice": ~(actual | predicted).any(axis=0),
        "ppv": ~predicted.any(axis=0),
        "npv": predicted.all(axis=0),
    }
    notes = {
        f"{name}_{code}": f"1 by the challenge's convention: {_WHY[name].format(code.upper())}"
        for name, absent in without.items()
        for k, code in enumerate(codes)
        if absent[k]
    }
    for k, code in enumerate(codes):
        if not present[k] or everywhere[k]:
            why = _WHY["specificity" if everywhere[k] else "sensitivity"].format(code.upper())
            notes |= {f"{name}_{code}": f"not computable: {why}" for name in RANKED if name != "ap" or not present[k]}
    defined = int(present.sum())
    counts = {"balanced_accuracy": defined, "ap": defined}
    counts |= dict.fromkeys(("auc", "auc_sens_80"), defined if defined > 1 else 0)
    means = {name: f"the mean of {count} of {len(codes)} diagnoses" for name, count in counts.items()}
    return notes | {name: note for name, note in means.items() if 0 < counts[name] < len(codes)}


def _write(predictions: Predictions, values: npt.NDArray[np.floating], path: Path) -> None:
    codes = predictions.taxonomy.codes
    columns = {
        code.upper(): values[:, codes.index(code)].astype(np.float64) for code in predictions.taxonomy.submission_order
    }
    frame = pd.DataFrame({"image": predictions.image_id, **columns})
    write_text(path, frame.to_csv(index=False, float_format=_DIGITS, lineterminator="\n"))
