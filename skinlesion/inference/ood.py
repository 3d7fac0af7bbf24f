"""Out-of-distribution score: how unlike the training images an image is, for whatever reason.

Two components, each a mean over the members of an ensemble. The energy, -logsumexp of the logits (Liu, Wang, Owens &
Li, NeurIPS 2020, arXiv:2010.03759), is high where no diagnosis is likely. The distance is the Mahalanobis distance from
the nearest diagnosis's mean pooled features (Lee, Lee, Lee & Shin, NeurIPS 2018, arXiv:1807.03888); the covariance,
shared by all diagnoses, is that of probabilistic PCA (Tipping & Bishop, J. R. Stat. Soc. B 61:611-622 (1999),
doi:10.1111/1467-9868.00196), so that a few axes are enough and what lies off them counts too. Features count at length
1 (Müller & Hein, Mahalanobis++, ICML 2025, arXiv:2505.18032): an image that excites nothing, such as noise or a page
of text, has short ones, which lie among the means.

Each component is scaled by validation images, 0 at their median and 1 at their 95 % quantile, and the larger one is
the score. Needs numpy alone. What is fitted is a dict of arrays, for `numpy.savez`.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NotRequired

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from skinlesion.config.schema import FileName, Sha256, Share
from skinlesion.errors import CheckpointError, DataError
from skinlesion.files import replacing

Floats = npt.NDArray[np.float64]
OodStatistics = dict[str, npt.NDArray[np.floating]]

FORMAT = 2.0  # raise it when `score` reads other arrays; that of features of any length, 1.0, is read too
IMAGES = 2000  # of training, and of validation, at most: more hardly move a covariance of 64 axes
AXES = 64  # of the features' covariance, at most
_ENDS = (0.5, 0.95)  # quantiles of validation images by which a component is scaled
_LEAST = 1e-6  # variance off the axes, as a share of the mean variance: dead features do not divide by zero


class OodFile(TypedDict):
    """Names the file of statistics beside an ensemble.json or a bundle.json."""

    file: FileName
    sha256: NotRequired[Sha256]  # bundle.json lists it among its files
    passing: NotRequired[Share]  # share of validation images that is not flagged; the file holds it too
    threshold: NotRequired[float]  # of the score, likewise


class Embedded(NamedTuple):
    """Output of one member for N images, without test-time augmentation."""

    logits: npt.NDArray[np.floating]  # (N, K)
    pooled: npt.NDArray[np.floating]  # (N, C), see Network.embed


def fit(
    train: Sequence[Embedded], targets: npt.ArrayLike, val: Sequence[Embedded], *, id_pass_rate: float, axes: int = AXES
) -> OodStatistics:
    """Fit the features of training images, for each member, and the threshold that a share of validation images passes.

    Args:
        train: Of each member, of the same training images.
        targets: (N,) their class indices.
        val: Of each member, of the same validation images.
        id_pass_rate: Share of validation images that is not flagged, between 0 and 1.
        axes: Of the covariance that are kept, at most.

    Returns:
        `format`, `members`, `passing`, `threshold`, `energy` and `distance` (median and 95 % quantile on validation);
        and of each member m `mean_m` (G, C) of the G diagnoses that have images, `axes_m` (R, C), `variance_m` (R,)
        along them and `rest_m` off them.

    Raises:
        DataError: There are too few images, or a number is not finite.
        ValueError: A setting is out of range, or the numbers of members or images differ.
    """
    actual = np.asarray(targets, dtype=np.int64)
    if not 0 < id_pass_rate < 1 or axes < 1:
        raise ValueError(f"id_pass_rate is {id_pass_rate} and axes {axes}; expected between 0 and 1, and at least 1")
    if not train or len(train) != len(val) or any(len(member.pooled) != len(actual) for member in train):
        raise ValueError(f"{len(train)} and {len(val)} members, {len(actual)} targets: do not fit")
    _refuse_unfit(train, val, actual)
    fitted: OodStatistics = {
        "format": np.array(FORMAT),
        "members": np.array(float(len(train))),
        "passing": np.array(id_pass_rate),
    }
    for number, member in enumerate(train):
        fitted |= {f"{name}_{number}": value for name, value in _shape(member.pooled, actual, axes).items()}
    logits, pooled = [member.logits for member in val], [member.pooled for member in val]
    for name, values in components(fitted, logits, pooled).items():
        fitted[name] = np.quantile(values, _ENDS)
    fitted["threshold"] = np.asarray(np.quantile(score(fitted, logits, pooled), id_pass_rate))
    return fitted


def score(
    fitted: Mapping[str, npt.NDArray[np.floating]],
    logits: Sequence[npt.NDArray[np.floating]],
    pooled: Sequence[npt.NDArray[np.floating]],
) -> Floats:
    """Out-of-distribution scores (B,): 0 at the median of validation, above `threshold` for flagged images.

    Args:
        fitted: What `fit` returned.
        logits: Of each member in the order of `fit`, (B, K), of the images as they are; or an array (M, B, K).
        pooled: Likewise, (B, C), each of its member's C.
    """
    scaled = [
        (values - fitted[name][0]) / max(float(fitted[name][1] - fitted[name][0]), 1e-12)
        for name, values in components(fitted, logits, pooled).items()
    ]
    return np.asarray(np.max(scaled, axis=0), dtype=np.float64)


def flag(fitted: Mapping[str, npt.NDArray[np.floating]], scores: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether each image is flagged as out-of-distribution: (B,)."""
    return np.asarray(~(np.asarray(scores) <= fitted["threshold"]))  # NaN is flagged too


def write(fitted: OodStatistics, path: Path) -> None:
    """Write what `fit` returned to an .npz file, whole or not at all."""
    with replacing(path) as beside:
        np.savez(beside, **fitted)  # type: ignore[arg-type] # numpy's stub takes the dict for its allow_pickle


def read(path: Path) -> OodStatistics:
    """Read what `write` wrote.

    Raises:
        CheckpointError: The file is missing, broken or of another format.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            fitted = {name: arrays[name] for name in arrays.files}
        known = float(fitted["format"]) in (1.0, FORMAT)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not readable ({error}); make the ensemble again") from error
    if not known:
        raise CheckpointError(f"{path}: format {fitted['format']}, expected {FORMAT}; make the ensemble again")
    return fitted


def components(
    fitted: Mapping[str, npt.NDArray[np.floating]],
    logits: Sequence[npt.NDArray[np.floating]],
    pooled: Sequence[npt.NDArray[np.floating]],
) -> dict[str, Floats]:
    """The two components of B images, `energy` and `distance`, each (B,), before they are scaled."""
    members = int(fitted["members"])
    if not len(logits) == len(pooled) == members:
        raise ValueError(f"logits of {len(logits)} and features of {len(pooled)} members, expected {members}")
    longer = float(fitted["format"]) < FORMAT
    features = [np.asarray(values, dtype=np.float64) if longer else _unit(values) for values in pooled]
    far = [_distance(fitted, number, values) for number, values in enumerate(features)]
    return {
        "energy": np.asarray(np.mean([energy(values) for values in logits], axis=0)),
        "distance": np.asarray(np.mean(far, axis=0)),
    }


def energy(logits: npt.ArrayLike) -> Floats:
    """-logsumexp of logits: (B, K) -> (B,)."""
    values = np.asarray(logits, dtype=np.float64)
    highest = values.max(axis=1)
    return np.asarray(-highest - np.log(np.exp(values - highest[:, None]).sum(axis=1)))


def _unit(pooled: npt.NDArray[np.floating]) -> Floats:
    """Features (B, C) at length 1."""
    features = np.asarray(pooled, dtype=np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, np.finfo(np.float32).tiny))


def _shape(pooled: npt.NDArray[np.floating], actual: npt.NDArray[np.int64], axes: int) -> OodStatistics:
    """Means of the diagnoses, and the covariance around them: leading axes, and one variance for all others."""
    features = _unit(pooled)
    present, group = np.unique(actual, return_inverse=True)
    means = np.stack([features[group == place].mean(axis=0) for place in range(len(present))])  # (G, C)
    around = features - means[group]  # (N, C)
    freedom = max(len(features) - len(present), 1)
    variances, directions = np.linalg.eigh(around.T @ around / freedom)  # ascending
    variances, directions = np.maximum(variances[::-1], 0), directions.T[::-1]
    kept = min(axes, len(variances) - 1, freedom)
    rest = max(float(variances[kept:].mean()), _LEAST * float(variances.mean()), float(np.finfo(np.float32).tiny))
    return {
        "mean": means.astype(np.float32),
        "axes": directions[:kept].astype(np.float32),
        "variance": np.maximum(variances[:kept], rest).astype(np.float32),
        "rest": np.array(rest, dtype=np.float32),
    }


def _distance(fitted: Mapping[str, npt.NDArray[np.floating]], number: int, pooled: Floats) -> Floats:
    """Mahalanobis distance (B,) from the nearest mean, divided by the root of C, so that it is about 1 in training."""
    axes = fitted[f"axes_{number}"].astype(np.float64)  # (R, C)
    nearest = np.full(len(pooled), np.inf)
    for mean in fitted[f"mean_{number}"].astype(np.float64):
        away = pooled - mean  # (B, C)
        along = away @ axes.T  # (B, R)
        off = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        squared = (along**2 / fitted[f"variance_{number}"]).sum(axis=1) + off / float(fitted[f"rest_{number}"])
        nearest = np.minimum(nearest, squared)
    return np.asarray(np.sqrt(nearest / pooled.shape[1]))


def _refuse_unfit(train: Sequence[Embedded], val: Sequence[Embedded], actual: npt.NDArray[np.int64]) -> None:
    images = len(val[0].logits)
    if len(actual) <= len(np.unique(actual)) or images < 2:
        raise DataError(
            f"out-of-distribution detection is fitted to {len(actual)} training and {images} validation images; "
            "expected more training images than diagnoses, and at least two of validation"
        )
    if not all(np.isfinite(values).all() for member in (*train, *val) for values in member):
        raise DataError("a logit or feature is not finite; out-of-distribution detection needs a model trained anew")
