"""The search for an ensemble against a loop over the subsets."""

from itertools import combinations

import numpy as np
import pytest
from conftest import CODES
from sklearn.metrics import f1_score

from skinlesion.errors import DataError
from skinlesion.inference import subset_search as subsets
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.subset_search import Subset, search
from skinlesion.metrics.classification import headline


def random_members(members: int, images: int, *, seed: int, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actual = rng.integers(0, classes, images)
    weights = rng.gamma(0.3 + 0.7 * np.eye(classes)[actual], size=(members, images, classes)) + 1e-6
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32), actual


def by_loop(values: np.ndarray, actual: np.ndarray, sizes: range) -> list[tuple[float, int, tuple[int, ...]]]:
    """Return the order and macro-F1 that a loop over scikit-learn's function finds."""
    found = []
    for size in sizes:
        for members in combinations(range(len(values)), size):
            predicted = values[list(members)].astype(np.float64).mean(axis=0).argmax(axis=-1)
            found.append((-round(f1_score(actual, predicted, average="macro"), 10), size, members))
    return sorted(found)


@pytest.mark.parametrize(("members", "smallest", "largest", "classes"), [(6, 2, 6, 7), (5, 1, 3, 7), (7, 2, 3, 4)])
def test_the_search_finds_what_a_loop_finds(members: int, smallest: int, largest: int, classes: int) -> None:
    values, actual = random_members(members, 40, seed=members, classes=classes)
    found = search(values, actual, smallest=smallest, largest=largest)
    expected = by_loop(values, actual, range(smallest, largest + 1))
    assert [subset.members for subset in found] == [members for _, _, members in expected]
    np.testing.assert_allclose([subset.macro_f1 for subset in found], [-f1 for f1, _, _ in expected], atol=1e-9)


def test_the_search_decides_as_the_vote_on_tables_does() -> None:
    values, actual = random_members(4, 60, seed=1)
    names = [f"I{number:02d}" for number in range(60)]
    codes = [CODES[k] for k in actual]
    tables = [Predictions.build(names, [""] * 60, probabilities=each, actual=codes) for each in values]
    stacked = np.stack([table.probabilities for table in tables])
    for subset in search(stacked, actual, smallest=1, largest=4):
        vote = Predictions.soft_vote([tables[member] for member in subset.members])
        assert headline(vote)["macro_f1"] == subset.macro_f1


def test_a_tie_that_rounding_makes_is_decided_as_the_vote_decides_it() -> None:
    below = np.nextafter(np.float32(0.25), np.float32(0))
    values = np.array([[[0.5, 0.25, 0.25, 0, 0, 0, 0]], [[below, 0.5, 0.25, 0, 0, 0, 0]]], dtype=np.float32)
    tables = [Predictions.build(["I"], [""], probabilities=each, actual=[CODES[0]]) for each in values]
    assert Predictions.soft_vote(tables).predicted.tolist() == [
        CODES[0]
    ]  # the means are equal in float32, not in float64
    assert search(values, [0], smallest=2, largest=2) == [Subset(members=(0, 1), macro_f1=1.0)]


def test_images_that_all_members_agree_on_are_counted_too() -> None:
    """Half of the images are settled before any subset is tried, a few of them wrongly."""
    values, actual = random_members(6, 60, seed=11)
    values[:, :30] = np.eye(7)[(actual[:30] + (np.arange(30) % 5 == 0)) % 7]
    found = search(values, actual, smallest=2, largest=6)
    expected = by_loop(values, actual, range(2, 7))
    assert [subset.members for subset in found] == [members for _, _, members in expected]
    np.testing.assert_allclose([subset.macro_f1 for subset in found], [-f1 for f1, _, _ in expected], atol=1e-9)
    everywhere = search(values[:, :30], actual[:30], smallest=2, largest=2)
    assert len({subset.macro_f1 for subset in everywhere}) == 1


def test_nine_members_have_456_subsets_of_two_to_six() -> None:
    values, actual = random_members(9, 10, seed=2)
    found = search(values, actual, smallest=2, largest=6)
    assert len(found) == len({subset.members for subset in found}) == 456
    assert {len(subset.members) for subset in found} == {2, 3, 4, 5, 6}


def test_of_equals_fewer_members_then_the_first_come_first() -> None:
    values, actual = random_members(1, 30, seed=3)
    found = search(np.repeat(values, 4, axis=0), actual, smallest=1, largest=3)
    assert [subset.members for subset in found] == [
        *((0,), (1,), (2,), (3,)),
        *((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)),
        *((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)),
    ]
    assert len({subset.macro_f1 for subset in found}) == 1


def test_two_members_that_correct_each_other_win() -> None:
    unsure, wrong = [0.4, 0.35, 0.25], [0.1, 0.3, 0.6]
    one = [[0.9, 0.1, 0.0], unsure, [0.5, 0.1, 0.4]]
    two = [unsure[::-1], [0.0, 0.8, 0.2], [0.0, 0.2, 0.8]]
    bad = [wrong, wrong, wrong[::-1]]
    best = search([one, two, bad], [0, 1, 2], smallest=1, largest=3)[0]
    assert best == Subset(members=(0, 1), macro_f1=1.0)


def test_the_size_of_the_chunks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, actual = random_members(6, 20, seed=4)
    whole = search(values, actual, smallest=2, largest=5)
    for numbers in (1, 20 * 7 * 4):  # one subset at a time, and four
        monkeypatch.setattr(subsets, "_NUMBERS_AT_ONCE", numbers)
        assert search(values, actual, smallest=2, largest=5) == whole


def test_larger_subsets_than_members_do_not_matter() -> None:
    values, actual = random_members(3, 20, seed=5)
    assert search(values, actual, smallest=2, largest=6) == search(values, actual, smallest=2, largest=3)


def test_too_few_members_are_refused() -> None:
    values, actual = random_members(1, 20, seed=6)
    with pytest.raises(DataError, match="1 member, but a subset needs 2"):
        search(values, actual, smallest=2, largest=6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_are_refused(bad: float) -> None:
    values, actual = random_members(3, 20, seed=7)
    values[1, 4, 2] = bad
    with pytest.raises(DataError, match=r"members \[1\]"):
        search(values, actual, smallest=2, largest=3)


@pytest.mark.parametrize(("smallest", "largest"), [(0, 2), (3, 2)])
def test_sizes_that_are_no_range_are_refused(smallest: int, largest: int) -> None:
    values, actual = random_members(3, 20, seed=8)
    with pytest.raises(ValueError, match="smallest"):
        search(values, actual, smallest=smallest, largest=largest)


def test_shapes_that_do_not_fit_are_refused() -> None:
    values, actual = random_members(3, 20, seed=9)
    for wrong in ((values, actual[:-1]), (values[0], actual), (values[:0], actual), (values[:, :0], actual[:0])):
        with pytest.raises(ValueError, match=r"\(M, N, K\)"):
            search(*wrong, smallest=2, largest=3)
