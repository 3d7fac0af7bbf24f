"""The reject option: error rates of a model on its most confident images.

Geifman & El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017, arXiv:1705.08500; the area under
the risk-coverage curve (AURC) is that of Geifman, Uziel & El-Yaniv, ICLR 2019, arXiv:1805.08206.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.bootstrap import Replicates, SumStatistic, bootstrap, sums_of, without_each
from skinlesion.metrics.classification import Floats, Integers, ratio
from skinlesion.metrics.estimate import BootstrapConfig, Estimates, estimates_to_dict

_ROUNDING = 1e-9  # four fifths of five images are four


def confidence_score(predictions: Predictions, members: Sequence[Predictions] = ()) -> dict[str, Floats]:
    """Scores of how confident a model is of each image; higher is more confident.

    Args:
        predictions: Predictions for N images.
        members: Predictions of the members that voted, for the same images; empty: not known.

    Returns:
        (N,) by name: `confidence` (probability of the likeliest diagnosis), `entropy` (negative, in nats) and, of two
        members or more, `disagreement` (negative mutual information between member and diagnosis: the entropy of
        their mean less the mean of their entropies; Smith & Gal, UAI 2018, arXiv:1803.08533).
    """
    values = predictions.probabilities.astype(np.float64)
    found = {"confidence": values.max(axis=1), "entropy": -_entropy(values)}
    if len(members) > 1:
        place = [{image_id: row for row, image_id in enumerate(member.image_id)} for member in members]
        rows = [[own[image_id] for image_id in predictions.image_id] for own in place]
        each = np.stack([m.probabilities[own] for m, own in zip(members, rows, strict=True)]).astype(np.float64)
        found["disagreement"] = _entropy(each).mean(axis=0) - _entropy(each.mean(axis=0))
    return found


def risk_coverage(predictions: Predictions, scores: npt.ArrayLike) -> pd.DataFrame:
    """The share of wrong predictions among the most confident images, for each share of images that is kept.

    Args:
        predictions: With known actual diagnoses.
        scores: (N,) higher is more confident. Images of equal scores are kept or rejected together.

    Returns:
        A row a threshold, highest first: `threshold`, `coverage` (share of images kept), `risk` (share of these wrong).
    """
    order, ends = _ordered(np.asarray(scores, dtype=np.float64))
    wrong = _wrong(predictions)[order]
    last = np.unique(ends)
    kept = last + 1
    return pd.DataFrame(
        {
            "threshold": np.asarray(scores, dtype=np.float64)[order][last],
            "coverage": kept / len(wrong),
            "risk": np.cumsum(wrong)[last] / kept,
        }
    )


def aurc(predictions: Predictions, scores: Mapping[str, Floats], config: BootstrapConfig) -> Estimates:
    """The area under the risk-coverage curve of each confidence score, with its interval over lesions; low is good.

    The area is the mean over images of the risk among all that are at least as confident. For comparison, `best` is
    the area of an order with all wrong images last, and `chance` that of a random one: the error rate.
    """
    wrong, group = _wrong(predictions), predictions.group
    compared = {**scores, "best": -wrong, "chance": np.zeros(len(predictions))}
    return bootstrap(AurcStatistic(compared, wrong, group), config, lesions=predictions.groups)


@dataclass(frozen=True)
class KeptShare:
    """The images that are kept above a threshold of confidence.

    Attributes:
        wanted: Share of the validation images that the threshold keeps, 0..1.
        threshold: Lowest score that is kept.
        metrics: `coverage` (share of images that is kept), `risk` (share of the kept images that is wrong), and by
            diagnosis `kept_CODE` (share of its images that is kept) and `recall_CODE` (sensitivity among these).
    """

    wanted: float
    threshold: float
    metrics: Estimates

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"wanted": self.wanted, "threshold": self.threshold, "numbers": estimates_to_dict(self.metrics)}


def threshold_at_share(scores: Floats, share: float) -> float:
    """The highest threshold that keeps at least a share, above 0 up to 1, of (N,) scores; equal ones stay together."""
    return float(np.sort(scores)[::-1][math.ceil(share * len(scores) - _ROUNDING) - 1])


def reject_option(
    predictions: Predictions, scores: Floats, *, validation: Floats, share: float, config: BootstrapConfig
) -> KeptShare:
    """Measure what is kept at the threshold that keeps a share of the validation images.

    Args:
        predictions: With known actual diagnoses, N images that did not choose the threshold.
        scores: (N,) higher is more confident.
        validation: (M,) scores of the validation images.
        share: Share of the validation images to keep, above 0 up to 1.
        config: Settings of the intervals, at the fixed threshold: its own uncertainty is not in them.
    """
    threshold, codes = threshold_at_share(validation, share), predictions.taxonomy.codes
    kept, wrong = scores >= threshold, _wrong(predictions)
    own = np.eye(len(codes))[predictions.targets]  # (N, K)
    columns = [np.ones(len(kept)), kept, wrong * kept, *own.T, *(own.T * kept), *(own.T * kept * (1 - wrong))]

    def finish(sums: Floats) -> Replicates:
        images, stay, errors = sums[:, :3].T
        of_code, stay_of_code, right = np.split(sums[:, 3:].T, 3)
        found = {"coverage": ratio(stay, images), "risk": ratio(errors, stay)}
        found |= {f"kept_{code}": ratio(stay_of_code[k], of_code[k]) for k, code in enumerate(codes)}
        return found | {f"recall_{code}": ratio(right[k], stay_of_code[k]) for k, code in enumerate(codes)}

    rates = SumStatistic(sums_of(np.stack(columns, axis=1), predictions.group), finish)
    proportions = rates.denominators(*finish(rates.sums))
    found = bootstrap(rates, config, lesions=predictions.groups, proportions=proportions)
    return KeptShare(share, threshold, found)


@dataclass(frozen=True)
class AurcStatistic:
    """Areas under risk-coverage curves, by the name of the score."""

    scores: Mapping[str, Floats]  # (N,) by name
    wrong: Floats  # (N,) 0 or 1
    group: Integers  # (N,) lesions

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        found = {}
        for name, values in self.scores.items():
            order, ends = _ordered(values)
            counts = weights[:, self.group[order]]  # (R, N) how often each image counts, most confident first
            kept = np.cumsum(counts, axis=1)
            risks = ratio(np.cumsum(counts * self.wrong[order], axis=1), kept)[:, ends]
            found[name] = ratio((np.nan_to_num(risks) * counts).sum(axis=1), kept[:, -1])
        return found

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return without_each(self, int(self.group.max()) + 1)


def _ordered(values: Floats) -> tuple[Integers, Integers]:
    """The images, most confident first, and for each place the last one of the same score."""
    order = np.argsort(-values, kind="stable").astype(np.int64)
    ends = np.searchsorted(-values[order], -values[order], side="right") - 1
    return order, ends.astype(np.int64)


def _wrong(predictions: Predictions) -> Floats:
    return np.asarray(predictions.targets != predictions.predicted_targets, dtype=np.float64)


def _entropy(values: Floats) -> Floats:
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    return np.asarray(-(values * logs).sum(axis=-1))
