"""Robustness of an ensemble on a sample of images: every corruption, and altered facts."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.data.image_io import Image
from skinlesion.data.metadata import DEFAULT_FACTS, NUMBER, UNKNOWN, FactSpec
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.bootstrap import Difference, Replicates, SumStatistic, bootstrap, sums_of
from skinlesion.metrics.classification import HEADLINE, Floats, Integers, ratio, recall
from skinlesion.metrics.estimate import BootstrapConfig, Estimates
from skinlesion.studies.robustness.corruptions import CORRUPTIONS, Draw
from skinlesion.studies.robustness.detection import OodResult, detect
from skinlesion.taxonomy import HAM10000, Taxonomy


def compare_predictions(changed: Predictions, original: Predictions, config: BootstrapConfig) -> Estimates:
    """Evaluate a model on changed images and compare it with the same images unchanged.

    Args:
        changed: Predictions for the changed images.
        original: Predictions for the original images.
        config: Bootstrap over lesions.

    Returns:
        Each of `HEADLINE` and the `recall_CODE` of the taxonomy's main target; `change_NUMBER`, its difference from the
        original images, paired over resamples; `same`, the share of images whose predicted diagnosis does not change;
        and, where detected, `novel`, the share of images flagged as out-of-distribution.
    """
    now, then = (_statistic(each, original.predicted_targets) for each in (changed, original))
    changes = bootstrap(Difference(now, then), config, lesions=original.groups)
    own = _recall(original.taxonomy)
    shares = ("accuracy", *own, "same", *(["novel"] if changed.ood is not None else []))
    numbers = bootstrap(now, config, lesions=original.groups, proportions=now.denominators(*shares))
    return {**numbers, **{f"change_{name}": changes[name] for name in (*HEADLINE, *own)}}


def majority_baseline(predictions: Predictions) -> dict[str, float]:
    """Each metric of `HEADLINE` for a model that always predicts the most frequent diagnosis."""
    counts = np.bincount(predictions.targets, minlength=len(predictions.taxonomy))
    confusion = np.zeros((len(counts), len(counts)))
    confusion[:, counts.argmax()] = counts
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


def _statistic(predictions: Predictions, before: Integers) -> SumStatistic:
    """Metrics, and shares of images: `same` prediction as `before` (N,), and flagged as out-of-distribution."""
    classes, predicted = len(predictions.taxonomy), predictions.predicted_targets
    cells = np.eye(classes**2)[predictions.targets * classes + predicted]
    shares = {"same": predicted == before, **({} if predictions.ood is None else {"novel": predictions.ood})}

    def finish(sums: Floats) -> Replicates:
        confusion = sums[:, : classes**2].reshape(-1, classes, classes)
        found = {name: metric(confusion) for name, metric in HEADLINE.items()}
        for name, code in _recall(predictions.taxonomy).items():
            found[name] = recall(confusion)[:, predictions.taxonomy.codes.index(code)]
        images = sums[:, : classes**2].sum(axis=1)
        return found | {name: ratio(sums[:, classes**2 + k], images) for k, name in enumerate(shares)}

    return SumStatistic(sums_of(np.column_stack([cells, *shares.values()]), predictions.group), finish)


def _recall(taxonomy: Taxonomy) -> dict[str, str]:
    """The code of the main target by the name of its sensitivity; {}: there is none."""
    return {f"recall_{code}": code for code in [taxonomy.main_target] if code is not None}


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
    """Results of the study, see `compare_predictions` for the numbers."""

    part: str  # of the split, "val" or "test"
    images: int
    lesions: int
    tta: str  # test-time augmentation
    level: float  # of the intervals
    undisturbed: Estimates  # of the original images and facts
    without_images: dict[str, float]  # metrics of a model that always predicts the most frequent diagnosis
    corruptions: dict[str, CorruptionResult]
    facts: dict[str, Estimates]  # of the same images, by alteration of the facts
    ood: OodResult | None  # None where the model detects none
    taxonomy: Taxonomy = HAM10000

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
    without_detector = replace(predictor, posthoc=replace(predictor.posthoc, ood=None))  # which knows no facts

    def predict(label: str, draw: Draw) -> Predictions:
        def change(image: Image, image_id: str) -> Image:
            return draw(image, np.random.default_rng((seed, zlib.crc32(image_id.encode()))))

        return predictor.predict_frame(frame, change=change, label=label)

    def numbers(predictions: Predictions) -> Estimates:
        return compare_predictions(predictions, original, config)

    def corrupt(name: str, step: float) -> Estimates:
        return numbers(predict(f"{name} {step:g}", lambda image, rng: CORRUPTIONS[name].apply(image, step, rng)))

    def alter(name: str, facts: pd.DataFrame) -> Estimates:
        changed = frame.assign(**{str(fact): facts[fact].to_numpy() for fact in facts})
        return numbers(without_detector.predict_frame(changed, label=name))

    original = predictor.predict_frame(frame, label="original images")
    altered = altered_facts(frame, train, seed=seed, taxonomy=predictor.taxonomy, facts=predictor.encoder.facts)
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
        facts={name: alter(name, each) for name, each in altered.items()},
        ood=None if detector is None else detect(original, predictor, frame, predict, config),
        taxonomy=predictor.taxonomy,
    )


def altered_facts(
    frame: pd.DataFrame,
    train: pd.DataFrame,
    *,
    seed: int,
    facts: Sequence[FactSpec] = DEFAULT_FACTS,
    taxonomy: Taxonomy = HAM10000,
) -> dict[str, pd.DataFrame]:
    """Alter the facts about the patients of the same images in several ways.

    Args:
        frame: Checked frame of the images, N rows.
        train: Checked frame of the training images, which donate contradictory facts.
        seed: Seed of the draws.
        facts: Those that the model knows.
        taxonomy: The diagnoses with their categories.

    Returns:
        By name, N rows with a column of each fact: `no_age`, `no_sex` and so on; `nothing_known`;
        `permuted`, each image with the facts of another image; `contradictory`, each image with the facts of a
        training image of the other category (malignant or benign). The last is missing where all training images
        have one category.
    """
    rng = np.random.default_rng(seed)
    missing: dict[str, Any] = {fact.name: np.nan if fact.kind == NUMBER else UNKNOWN for fact in facts}
    known = frame[list(missing)].reset_index(drop=True)
    altered = {f"no_{fact}": known.assign(**{fact: value}) for fact, value in missing.items()}
    altered["nothing_known"] = known.assign(**missing)
    cycle = rng.permutation(len(known))  # a random cycle moves every row (Sattolo, 1986)
    moved = np.empty(len(known), dtype=np.int64)
    moved[cycle] = np.roll(cycle, 1)
    altered["permuted"] = known.iloc[moved].reset_index(drop=True)
    category_of = {each.code: each.category for each in taxonomy.diagnoses}
    category, donors = (each["diagnosis"].map(category_of).to_numpy() for each in (frame, train))
    pools = {own: np.flatnonzero(donors != own) for own in np.unique(category)}
    if all(len(pool) for pool in pools.values()):
        drawn = [int(rng.choice(pools[own])) for own in category]
        altered["contradictory"] = train[list(missing)].iloc[drawn].reset_index(drop=True)
    return altered
