"""Robustness of an ensemble on a sample of images: every corruption, altered facts and out-of-distribution images."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.image_io import Image
from skinlesion.data.metadata import FACTS, UNKNOWN
from skinlesion.inference.members import PostHoc
from skinlesion.inference.ood import OodStatistics
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.classification import Floats
from skinlesion.metrics.estimate import BootstrapConfig, Estimates
from skinlesion.studies.robustness.corruptions import CORRUPTIONS
from skinlesion.studies.robustness.metrics import OodDetection, compare_predictions, majority_baseline, ood_detection
from skinlesion.studies.robustness.ood_images import ALTERED, NON_DERMOSCOPIC, Draw
from skinlesion.taxonomy import DIAGNOSES

_CATEGORY = {diagnosis.code: diagnosis.category for diagnosis in DIAGNOSES}
_MISSING: dict[str, Any] = {"age": np.nan, "sex": UNKNOWN, "localization": UNKNOWN}


@dataclass(frozen=True)
class OodResult:
    """Detection of out-of-distribution images."""

    passing: float  # share of validation images that are not flagged, 0 to 1
    threshold: float  # score above which an image is flagged
    pictures: dict[str, OodDetection]  # by kind of image
    scores: dict[str, Floats] = field(repr=False)  # (N,) by kind of image, dermoscopy first

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the scores."""
        return {"passing": self.passing, "threshold": self.threshold, "pictures": self.pictures}


@dataclass(frozen=True)
class CorruptionResult:
    """Estimates of the images under one corruption."""

    unit: str  # unit of a step
    neutral: float  # step that changes nothing
    steps: dict[float, Estimates]

    @property
    def worst(self) -> float:
        """Step with the lowest balanced accuracy."""
        return min(self.steps, key=lambda step: self.steps[step]["balanced_accuracy"].value or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        steps = [{"step": step, "numbers": numbers} for step, numbers in self.steps.items()]
        return {"unit": self.unit, "neutral": self.neutral, "steps": steps}


@dataclass(frozen=True)
class RobustnessResult:
    """Results of the study, see `compare_predictions` for the numbers.

    Attributes:
        part: Part of the split, "val" or "test".
        images: Number of images.
        lesions: Number of lesions.
        tta: Test-time augmentation.
        level: Level of the intervals.
        undisturbed: Estimates of the original images and facts.
        without_images: Metrics of a model that always predicts the most frequent diagnosis.
        corruptions: By name.
        facts: By alteration of the facts, the numbers of the same images.
        ood: Detection of out-of-distribution images; None where it is switched off.
    """

    part: str
    images: int
    lesions: int
    tta: str
    level: float
    undisturbed: Estimates
    without_images: dict[str, float]
    corruptions: dict[str, CorruptionResult]
    facts: dict[str, Estimates]
    ood: OodResult | None

    def to_dict(self) -> dict[str, Any]:
        """The contents of robustness.json."""
        return {
            "part": self.part,
            "images_judged": self.images,
            "lesions_judged": self.lesions,
            "tta": self.tta,
            "level": self.level,
            "undisturbed": {"numbers": self.undisturbed},
            "without_images": self.without_images,
            "images": self.corruptions,
            "facts": {name: {"steps": [{"step": 1.0, "numbers": each}]} for name, each in self.facts.items()},
            **({} if self.ood is None else {"novelty": self.ood}),
        }

    def to_frame(self) -> pd.DataFrame:
        """A row for each number of each step of each corruption."""
        steps = [
            ("images", name, step, each) for name, own in self.corruptions.items() for step, each in own.steps.items()
        ]
        steps += [("facts", name, 1.0, each) for name, each in self.facts.items()]
        return pd.DataFrame(
            {"kind": kind, "name": name, "step": step, "number": number, **estimate.to_dict()}
            for kind, name, step, numbers in steps
            for number, estimate in numbers.items()
        )


def study_robustness(
    predictor: Predictor,
    frame: pd.DataFrame,
    train: pd.DataFrame,
    *,
    part: str,
    steps: Mapping[str, Sequence[float]],
    seed: int,
    config: BootstrapConfig,
) -> RobustnessResult:
    """Measure how predictions change with corruptions of the images and with altered facts.

    Args:
        predictor: The model; out-of-distribution images are detected where it has a detector.
        frame: Checked frame of N images.
        train: Checked frame of the training images, see `altered_facts`.
        part: Part of the split that the images are from.
        steps: Steps by corruption.
        seed: Seed of all random changes: an image gets the same hairs at every step.
        config: Bootstrap over lesions.
    """
    detector = predictor.posthoc.ood
    without_detector = replace(predictor, posthoc=PostHoc())  # which does not depend on the facts

    def predict(label: str, draw: Draw) -> Predictions:
        def change(image: Image, image_id: str) -> Image:
            return draw(image, np.random.default_rng((seed, zlib.crc32(image_id.encode()))))

        return predictor.predict_frame(frame, change=change, label=label)

    def numbers(predictions: Predictions) -> Estimates:
        return compare_predictions(predictions, original, config)

    def corrupt(name: str, step: float) -> Estimates:
        return numbers(predict(f"{name} {step:g}", lambda image, rng: CORRUPTIONS[name].apply(image, step, rng)))

    def alter(name: str, facts: pd.DataFrame) -> Estimates:
        changed = frame.assign(**{fact: facts[fact].to_numpy() for fact in FACTS})
        return numbers(without_detector.predict_frame(changed, label=name))

    original = predictor.predict_frame(frame, label="original images")
    return RobustnessResult(
        part=part,
        images=len(frame),
        lesions=original.lesions,
        tta=predictor.members.tta,
        level=config.level,
        undisturbed=numbers(original),
        without_images=majority_baseline(original),
        corruptions={
            name: CorruptionResult(
                CORRUPTIONS[name].unit, CORRUPTIONS[name].neutral, {step: corrupt(name, step) for step in each}
            )
            for name, each in steps.items()
        },
        facts={name: alter(name, each) for name, each in altered_facts(frame, train, seed=seed).items()},
        ood=None if detector is None else _detect(original, detector, predict, config),
    )


def _detect(
    original: Predictions, detector: OodStatistics, predict: Callable[[str, Draw], Predictions], config: BootstrapConfig
) -> OodResult:
    kinds = {**NON_DERMOSCOPIC, **ALTERED}
    scores = {"dermoscopy": np.asarray(original.ood_score)}
    scores |= {kind: np.asarray(predict(kind, draw).ood_score) for kind, draw in kinds.items()}
    threshold = float(detector["threshold"])
    found = {
        kind: ood_detection(scores["dermoscopy"], scores[kind], original.group, threshold=threshold, config=config)
        for kind in kinds
    }
    return OodResult(float(detector["passing"]), threshold, found, scores)


def altered_facts(frame: pd.DataFrame, train: pd.DataFrame, *, seed: int) -> dict[str, pd.DataFrame]:
    """Alter the facts about the patients of the same images in several ways.

    Args:
        frame: Checked frame of the images, N rows.
        train: Checked frame of the training images, which donate contradictory facts.
        seed: Seed of the draws.

    Returns:
        By name, N rows with the columns of `FACTS`: `no_age`, `no_sex`, `no_localization`; `nothing_known`;
        `permuted`, each image with the facts of another image; `contradictory`, each image with the facts of a
        training image of the other category (malignant or benign). The last is missing where all training images
        have one category.
    """
    rng = np.random.default_rng(seed)
    facts = frame[list(FACTS)].reset_index(drop=True)
    altered = {f"no_{fact}": facts.assign(**{fact: _MISSING[fact]}) for fact in FACTS}
    altered["nothing_known"] = facts.assign(**_MISSING)
    cycle = rng.permutation(len(facts))  # a random cycle moves every row (Sattolo, 1986)
    moved = np.empty(len(facts), dtype=np.int64)
    moved[cycle] = np.roll(cycle, 1)
    altered["permuted"] = facts.iloc[moved].reset_index(drop=True)
    category, donors = (each["diagnosis"].map(_CATEGORY).to_numpy() for each in (frame, train))
    pools = {own: np.flatnonzero(donors != own) for own in np.unique(category)}
    if all(len(pool) for pool in pools.values()):
        drawn = [int(rng.choice(pools[own])) for own in category]
        altered["contradictory"] = train[list(FACTS)].iloc[drawn].reset_index(drop=True)
    return altered
