"""The search for the best ensemble: macro-F1 of the mean probabilities of every subset of the members."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError, counted
from skinlesion.metrics.classification import Floats, Integers, confusions, macro_f1

_NUMBERS_AT_ONCE = 2**14  # mean probabilities held at a time: they stay in the processor's cache
_MARGIN = 1e-6  # between the two largest probabilities: ten times what rounding to float32 can change
_DIGITS = 12  # decimals to which macro-F1 decides: the rest is rounding, which must not break ties


@dataclass(frozen=True)
class Subset:
    """Some members of an ensemble and the macro-F1 of their vote."""

    members: tuple[int, ...]  # positions on the member axis, ascending
    macro_f1: float  # 0..1, of the mean of their probabilities


def search(probabilities: npt.ArrayLike, actual: npt.ArrayLike, *, smallest: int, largest: int) -> list[Subset]:
    """Measure every subset of the members.

    Args:
        probabilities: (M, N, K), of M members for the same N images. Search on validation images: the best of
            many subsets looks better than it is on the images that chose it.
        actual: (N,) class indices.
        smallest: The fewest members of a subset, at least 1.
        largest: The most members of a subset; more than M counts as M.

    Returns:
        All subsets, best macro-F1 first; of equals the one with fewer members, then the lexicographically
        first.

    Raises:
        DataError: A probability is not finite, or there are fewer members than `smallest`.
        ValueError: The shapes do not fit, or `smallest` is above `largest` or below 1.
    """
    values, classes = np.asarray(probabilities, dtype=np.float64), np.asarray(actual, dtype=np.int64)
    _check(values, classes, smallest=smallest, largest=largest)
    sizes = range(smallest, min(largest, len(values)) + 1)
    subsets = [members for size in sizes for members in combinations(range(len(values)), size)]
    f1 = np.concatenate([macro_f1(each) for each in _confusions_of(subsets, values, actual=classes)])
    order = np.argsort(-f1.round(_DIGITS), kind="stable")  # subsets stand fewest first, then lexicographically
    return [Subset(subsets[place], float(f1[place])) for place in order]


def _confusions_of(subsets: list[tuple[int, ...]], values: Floats, *, actual: Integers) -> Iterator[Integers]:
    """Yield the (S, K, K) confusion matrices of successive S subsets, S bounded by memory."""
    settled = _settled(values)
    common = confusions(actual[settled], values[0, settled].argmax(axis=-1), classes=values.shape[2])  # (K, K)
    by_class = np.ascontiguousarray(values[:, ~settled].transpose(2, 0, 1))  # (K, M, N)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, by_class.shape[2]))
    for start in range(0, len(subsets), at_once):
        chunk = subsets[start : start + at_once]
        chosen = np.zeros((len(chunk), len(values)))  # (S, M), 1 for a member
        for row, subset in enumerate(chunk):
            chosen[row, list(subset)] = 1
        predicted = _predicted(chosen, by_class)  # (S, N)
        yield common + confusions(actual[~settled], predicted, classes=len(by_class))


def _settled(values: Floats) -> npt.NDArray[np.bool_]:
    """Images that every subset predicts alike, since all members do, by more than rounding could change: (N,)."""
    largest = values.argmax(axis=-1)  # (M, N)
    second, first = np.partition(values, -2, axis=-1)[..., -2:].transpose(2, 0, 1)  # (M, N)
    settled: npt.NDArray[np.bool_] = ((largest == largest[0]) & (first - second > _MARGIN)).all(axis=0)
    return settled


def _predicted(chosen: Floats, by_class: Floats) -> Integers:
    """The class of the largest mean probability, the first one of equals: (S, M) and (K, M, N) -> (S, N)."""
    members = chosen.sum(axis=1, keepdims=True)  # (S, 1)
    largest = np.full((len(chosen), by_class.shape[2]), -np.inf, np.float32)
    predicted = np.zeros(largest.shape, np.int8)
    for k, each in enumerate(by_class):  # class by class: whole rows at a time, faster than argmax over few classes
        # sum, divide and round just as the vote on predictions tables does, so that both decide the same
        mean = (chosen @ each / members).astype(np.float32)  # (S, N)
        np.maximum(predicted, np.multiply(mean > largest, k, dtype=np.int8), out=predicted)  # k is the highest so far
        np.maximum(largest, mean, out=largest)
    return predicted.astype(np.int64)


def _check(values: Floats, actual: Integers, *, smallest: int, largest: int) -> None:
    if values.ndim != 3 or not values.size or values.shape[2] < 2 or actual.shape != values.shape[1:2]:
        raise ValueError(
            f"probabilities {values.shape} and actual {actual.shape} must be (M, N, K) and (N,), not empty, K > 1"
        )
    if not 1 <= smallest <= largest:
        raise ValueError(f"smallest is {smallest} and largest {largest}; expected 1 <= smallest <= largest")
    if not np.isfinite(values).all():
        bad = sorted({int(member) for member in np.argwhere(~np.isfinite(values))[:, 0]})
        raise DataError(f"members {bad}: a probability is not finite; evaluate them again")
    if len(values) < smallest:
        raise DataError(f"{counted(len(values), 'member')}, but a subset needs {smallest}; give more members")
