"""Whether maps can be trusted: they should change with the weights, point at what matters, and lie on the lesion."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.image_io import Image
from skinlesion.metrics.bootstrap import Replicates, SumStatistic, bootstrap, sums_of
from skinlesion.metrics.classification import Floats, Integers, ratio
from skinlesion.metrics.estimate import BootstrapConfig, estimates_to_dict
from skinlesion.studies.explain.overlays import Map

Maps = npt.NDArray[np.float32]  # (N, h, w)


def rank_correlations(maps: Maps, others: Maps) -> Floats:
    """Spearman's correlation of each two maps over their pixels: (N,); NaN where one of them is all alike."""
    first, second = (pd.DataFrame(each.reshape(len(each), -1)).rank(axis=1).to_numpy() for each in (maps, others))
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return ratio((first * second).sum(axis=1), spread)


def blurred(image: Image) -> Image:
    """An image (h, w, 3) of which only the broad colours are left: what stands in for removed places."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), image.shape[1] / 10), np.uint8)


def replaced(image: Image, other: Image, order: npt.NDArray[np.int64], fraction: float) -> Image:
    """Put `other` in the place of an image's first pixels.

    Args:
        image: (h, w, 3).
        other: Likewise.
        order: (h * w,) pixels, those that are replaced first in front.
        fraction: 0..1 of the pixels.
    """
    changed = image.reshape(-1, 3).copy()
    places = order[: round(fraction * len(order))]
    changed[places] = other.reshape(-1, 3)[places]
    return changed.reshape(image.shape)


def order_of(values: Map) -> npt.NDArray[np.int64]:
    """The pixels of a map (h, w), the greatest first."""
    return np.argsort(-values.ravel(), kind="stable")


def random_map(shape: tuple[int, int], grid: tuple[int, int], rng: np.random.Generator) -> Map:
    """A map (h, w) of nothing, as coarse as those of a network whose feature map has the size `grid`."""
    return np.asarray(cv2.resize(rng.random(grid, dtype=np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR))


def inside(values: Map, lesion: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """How a map lies on a lesion.

    Args:
        values: (h, w), not negative.
        lesion: (h, w).

    Returns:
        1.0 if the greatest value lies in the lesion, else 0.0 (the pointing game of Zhang et al., ECCV 2016,
        doi:10.1007/978-3-319-46493-0_33); the share of the map's sum in it (Wang et al., CVPRW 2020,
        arXiv:1910.01279); and the share of the image that the lesion covers, which a map of nothing would reach.
        The first two are NaN for a map that is all alike.
    """
    area = float(lesion.mean())
    if np.ptp(values) == 0:
        return np.nan, np.nan, area
    peak = float(lesion.ravel()[int(values.argmax())])
    return peak, float(values[lesion].sum() / values.sum()), area


def curves(
    probabilities: Mapping[str, Floats], index: Integers, *, fractions: Sequence[float], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Judge deletion or insertion curves (Petsiuk, Das & Saenko, BMVC 2018, arXiv:1806.07421).

    Args:
        probabilities: Of the predicted diagnosis, (N, F) at each fraction of replaced pixels, in the order of the
            `map`, and in `random` order.
        index: (N,) numbers of the lesions.
        fractions: F, from 0 to 1.
        settings: resamples, seed, level and method of `bootstrap`.

    Returns:
        `fractions`; `map` and `random`, F means with intervals; `area_map`, `area_random` under the curves, and
        `area_less_random`, their difference on the same resamples of lesions.
    """
    areas = {name: np.asarray(np.trapezoid(values, fractions, axis=1)) for name, values in probabilities.items()}
    places = range(len(fractions))
    columns = {f"{name} {place}": values[:, place] for name, values in probabilities.items() for place in places}
    columns |= {f"area_{name}": values for name, values in areas.items()}
    columns["area_less_random"] = areas["map"] - areas["random"]
    found = means(columns, index, settings=settings)
    points = {name: [found.pop(f"{name} {place}") for place in places] for name in probabilities}
    return {"fractions": list(fractions), **points, **found}


def means(columns: Mapping[str, Floats], index: Integers, *, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the mean of each column with its interval over lesions; what is NaN is left out of it.

    Args:
        columns: (N,) each.
        index: (N,) numbers of the lesions.
        settings: resamples, seed, level and method of `bootstrap`.
    """
    known = np.stack([~np.isnan(values) for values in columns.values()], axis=1)
    values = np.nan_to_num(np.stack(list(columns.values()), axis=1))

    def finish(sums: Floats) -> Replicates:
        total = ratio(sums[:, : len(columns)], sums[:, len(columns) :])
        return {name: total[:, place] for place, name in enumerate(columns)}

    sums = sums_of(np.concatenate([values, known], axis=1), index)
    config = BootstrapConfig(**settings)
    return estimates_to_dict(bootstrap(SumStatistic(sums, finish), config, lesions=int(index.max()) + 1))
