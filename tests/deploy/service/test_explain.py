"""Explanations: right where the truth is known, for any image shape and any number of predictions."""

import numpy as np
import pytest
from service_doubles import coloured

from skinlesion.deploy.service.explain import (
    Grid,
    cell_effects,
    colour_map,
    finest_grid,
    max_windows,
    occlude,
    overlay,
    shrink,
)


def test_the_peak_lies_where_the_model_looks() -> None:
    """A model that reads nothing but the red of one corner: only covering that corner changes its answer."""
    image = coloured(40, 40, 40, (90, 120))
    image[60:, 90:] = (250, 40, 40)
    grid = Grid(6, 8)
    red = lambda picture: float(picture[60:, 90:, 0].mean()) / 255  # noqa: E731
    effects = cell_effects([red(image) - red(covered) for covered in occlude(image, grid)], grid)
    assert effects.shape == (6, 8)
    peak = np.unravel_index(effects.argmax(), effects.shape)
    assert (peak >= np.array([4, 6])).all(), "the corner is cells 4 and 5 by 6 and 7"
    assert effects.max() > 0.1
    assert np.abs(effects[:3, :5]).max() < 0.001 * effects.max()


def test_each_cell_is_covered_by_four_windows() -> None:
    image = coloured(40, 40, 40, (40, 60))
    image[0, 0] = 255  # the median stays 40
    grid = Grid(4, 6)
    white = np.full_like(image, 200)
    white[:30] = 40  # a quarter of the pixels: the median stays 40
    covered = list(occlude(white, grid))
    assert len(covered) == len(grid.windows) == 5 * 7
    changed = np.stack([(picture[35, 35] != white[35, 35]).any() for picture in covered])
    assert changed.sum() == 4


def test_cell_effects_are_means_of_windows() -> None:
    grid = Grid(1, 1)
    np.testing.assert_allclose(cell_effects([1, 2, 3, 6], grid), [[3]])
    np.testing.assert_allclose(cell_effects(np.ones(4 * 5), Grid(3, 4)), np.ones((3, 4)))


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (100, 100), (16, 400)])
@pytest.mark.parametrize("predictions", [1, 30, 60, 169, 1000])
def test_the_grid_stays_within_its_budget(shape: tuple[int, int], predictions: int) -> None:
    grid = finest_grid(coloured(size=shape), max_windows=predictions)
    coarsest = max(grid.rows, grid.columns) == 4
    assert len(grid.windows) <= predictions or coarsest
    assert max(grid.rows, grid.columns) <= 12
    assert max_windows(predictions) <= max(predictions, 25)
    assert abs(grid.rows / grid.columns - shape[0] / shape[1]) < 0.25 or min(grid.rows, grid.columns) == 1


def test_colours_show_support_and_no_effect_stays_empty() -> None:
    picture = colour_map(np.array([[0.2, 0.0], [0.0, -0.1]], np.float32), (40, 40))
    assert picture.shape == (40, 40, 4)
    assert picture[2, 2, 0] > picture[2, 2, 2], "orange supports"
    assert picture[37, 37, 2] > picture[37, 37, 0], "blue speaks against"
    assert picture[2, 2, 3] > picture[37, 37, 3] > 0, "stronger where more changes"
    assert not colour_map(np.full((2, 2), 1e-5, np.float32), (8, 8))[..., 3].any()
    image = coloured(10, 20, 30, (8, 8))
    np.testing.assert_array_equal(overlay(image, np.zeros((8, 8, 4), np.uint8)), image)


def test_shrinking_keeps_the_aspect_and_never_enlarges() -> None:
    assert shrink(coloured(size=(300, 600)), 100).shape == (50, 100, 3)
    assert shrink(coloured(size=(30, 60)), 100).shape == (30, 60, 3)
