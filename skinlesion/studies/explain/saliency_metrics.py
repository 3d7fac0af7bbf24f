"""Metrics of saliency maps: rank correlation, deletion and insertion curves, and overlap with lesion masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.image_io import Image, fit, read
from skinlesion.errors import DataError
from skinlesion.metrics.bootstrap import Replicates, SumStatistic, bootstrap, sums_of
from skinlesion.metrics.classification import Floats, Integers, ratio
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates
from skinlesion.studies.explain.saliency import Map, Maps

SUFFIXES = ("", "_segmentation", "_mask")  # HAM10000's own masks are named ISIC_0024306_segmentation.png
_ASPECT_TOLERANCE = 0.03  # relative; small images round their sides


@dataclass(frozen=True)
class ReplacementCurves:
    """Deletion or insertion curves (Petsiuk, Das & Saenko, BMVC 2018, arXiv:1806.07421)."""

    fractions: tuple[float, ...]  # F shares of replaced pixels, from 0 to 1
    map: list[Estimate]  # mean probability of the predicted diagnosis at each fraction, in the order of the map
    random: list[Estimate]  # the same in random order
    area_map: Estimate  # under the curve
    area_random: Estimate
    area_less_random: Estimate  # difference of the two areas, paired over resamples


def rank_correlations(maps: Maps, others: Maps) -> Floats:
    """Spearman's correlation over pixels of each pair of maps: (N,); NaN where a map is constant."""
    first, second = (pd.DataFrame(each.reshape(len(each), -1)).rank(axis=1).to_numpy() for each in (maps, others))
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return ratio((first * second).sum(axis=1), spread)


def blur(image: Image) -> Image:
    """An image (h, w, 3) without detail, which replaces deleted pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), image.shape[1] / 10), np.uint8)


def replace_pixels(image: Image, other: Image, order: npt.NDArray[np.int64], fraction: float) -> Image:
    """Replace a fraction of an image's pixels by those of another image.

    Args:
        image: (h, w, 3).
        other: (h, w, 3).
        order: (h * w,) pixel indices in the order of replacement.
        fraction: Share of the pixels to replace, 0..1.
    """
    changed = image.reshape(-1, 3).copy()
    chosen = order[: round(fraction * len(order))]
    changed[chosen] = other.reshape(-1, 3)[chosen]
    return changed.reshape(image.shape)


def pixel_order(values: Map) -> npt.NDArray[np.int64]:
    """Pixel indices of a map (h, w), the greatest value first."""
    return np.argsort(-values.ravel(), kind="stable")


def random_maps(count: int, shape: tuple[int, int], grid: tuple[int, int], *, seed: int) -> Maps:
    """Random maps (N, h, w) as coarse as those of a network whose feature map has the size `grid`."""
    rng = np.random.default_rng(seed)
    coarse = [rng.random(grid, dtype=np.float32) for _ in range(count)]
    return np.stack([cv2.resize(each, shape[::-1], interpolation=cv2.INTER_LINEAR) for each in coarse])


def replacement_curves(
    probabilities: Mapping[str, Floats], index: Integers, *, fractions: Sequence[float], config: BootstrapConfig
) -> ReplacementCurves:
    """Average deletion or insertion curves over images.

    Args:
        probabilities: (N, F) probability of the predicted diagnosis at each fraction by order, `map` and `random`.
        index: (N,) lesion numbers.
        fractions: F shares of replaced pixels, from 0 to 1.
        config: Bootstrap over lesions.
    """
    columns = {f"{name} {k}": column for name, each in probabilities.items() for k, column in enumerate(each.T)}
    areas = {name: np.asarray(np.trapezoid(each, fractions, axis=1)) for name, each in probabilities.items()}
    areas["less_random"] = areas["map"] - areas["random"]
    means = mean_estimates({**columns, **areas}, index, config=config)
    curve, random = ([means[f"{name} {k}"] for k in range(len(fractions))] for name in ("map", "random"))
    return ReplacementCurves(tuple(fractions), curve, random, means["map"], means["random"], means["less_random"])


def mean_estimates(columns: Mapping[str, Floats], index: Integers, *, config: BootstrapConfig) -> Estimates:
    """Mean of each column with its interval over lesions, without NaN values.

    Args:
        columns: (N,) by name.
        index: (N,) lesion numbers.
        config: Bootstrap over lesions.
    """
    known = np.stack([~np.isnan(values) for values in columns.values()], axis=1)
    values = np.nan_to_num(np.stack(list(columns.values()), axis=1))

    def finish(sums: Floats) -> Replicates:
        means = ratio(sums[:, : len(columns)], sums[:, len(columns) :])
        return {name: means[:, column] for column, name in enumerate(columns)}

    statistic = SumStatistic(sums_of(np.concatenate([values, known], axis=1), index), finish)
    proportions = statistic.denominators(*{"peak_inside"} & columns.keys())
    return bootstrap(statistic, config, lesions=int(index.max()) + 1, proportions=proportions)


def lesion_overlap(values: Map, lesion: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Overlap of a map with a lesion mask.

    Args:
        values: (h, w), not negative.
        lesion: (h, w).

    Returns:
        1.0 if the maximum lies in the lesion, else 0.0 (the pointing game of Zhang et al., ECCV 2016,
        doi:10.1007/978-3-319-46493-0_33); the share of the map's sum in the lesion (Wang et al., CVPRW 2020,
        arXiv:1910.01279); and the lesion's share of the image, which a uniform map would reach. The first two are NaN
        for a constant map.
    """
    area = float(lesion.mean())
    if np.ptp(values) == 0:
        return np.nan, np.nan, area
    peak = float(lesion.ravel()[int(values.argmax())])
    return peak, float(values[lesion].sum() / values.sum()), area


def find_masks(folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
    """Paths of the lesion masks in a folder by image id; images may lack a mask.

    Raises:
        DataError: The folder does not exist or contains none of the masks.
    """
    if not folder.is_dir():
        raise DataError(f"masks={folder}: no such folder; expected PNG files named by image id")
    found = {
        image_id: path
        for image_id in image_ids
        for suffix in reversed(SUFFIXES)
        if (path := folder / f"{image_id}{suffix}.png").is_file()
    }
    if not found:
        raise DataError(
            f"masks={folder}: no mask of any of {len(image_ids)} images; expected files such as {image_ids[0]}.png or "
            f"{image_ids[0]}{SUFFIXES[1]}.png"
        )
    return found


def read_mask(path: Path, image: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a lesion mask and fit it into the input of a network, as its image is.

    Args:
        path: The mask.
        image: The image of the mask.
        size: (height, width) of the network's input in pixels.

    Raises:
        DataError: The mask is not readable, has another aspect ratio than the image, or has a single value.
    """
    mask, shape = read(path), read(image).shape
    if abs(mask.shape[1] / mask.shape[0] * shape[0] / shape[1] - 1) > _ASPECT_TOLERANCE:
        sizes = f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, the image {shape[1]} x {shape[0]}"
        raise DataError(f"{path}: {sizes}; expected the same aspect ratio")
    lesion = fit(mask, size)[..., 0] > 127
    if lesion.all() or not lesion.any():
        only = "white" if lesion.all() else "black"
        raise DataError(f"{path}: all pixels are {only}; expected a binary mask: lesion 255, background 0")
    return np.asarray(lesion)
