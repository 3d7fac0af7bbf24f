"""Fitting, random changes and normalisation of images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import skinlesion
from skinlesion.config.data import AugmentConfig
from skinlesion.data.image_io import ImageInput, fit
from skinlesion.data.transforms import Augmentation, normalise

STILL = AugmentConfig(0, 0, 0, 0, 0, 0, 0, 0, 0, 1)


def changing(*, seed: int = 1, **options: float) -> Augmentation:
    """The changes that are named, and no others."""
    return Augmentation(replace(STILL, **options), seed)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_fit_keeps_an_image_of_the_right_size() -> None:
    assert fit(picture(), (24, 32)) is not None
    np.testing.assert_array_equal(fit(picture(), (24, 32)), picture())


def test_fit_pads_in_equal_parts_and_keeps_the_aspect() -> None:
    white = np.full((30, 60, 3), 255, np.uint8)
    fitted = fit(white, (40, 40))
    assert fitted.shape == (40, 40, 3)
    np.testing.assert_array_equal(fitted[10:30], 255)  # 60x30 becomes 40x20
    assert fitted[:10].max() == 0
    assert fitted[30:].max() == 0


def test_fit_enlarges() -> None:
    assert fit(np.full((5, 10, 3), 7, np.uint8), (20, 40)).min() == 7


def test_no_change_is_the_identity() -> None:
    np.testing.assert_array_equal(changing()(picture(), 3), picture())


def test_flips_flip() -> None:
    changed = changing(flip=1.0)(picture(), 0)
    np.testing.assert_array_equal(changed, picture()[::-1, ::-1])


def test_a_draw_fixes_the_change() -> None:
    settings = {"flip": 0.5, "rotation": 45, "shift": 0.075, "zoom": 0.15, "brightness": 0.15, "contrast": 0.15}
    settings |= {"hue": 0.1, "saturation": 0.2, "square": 0.5, "square_side": 0.5}
    one, other = changing(**settings, seed=1), changing(**settings, seed=1)
    forth = [one(picture(), draw) for draw in range(8)]
    back = [other(picture(), draw) for draw in reversed(range(8))][::-1]
    for first, second in zip(forth, back, strict=True):
        np.testing.assert_array_equal(first, second)
    assert len({image.tobytes() for image in forth}) == 8
    assert changing(**settings, seed=2)(picture(), 0).tobytes() != forth[0].tobytes()


@pytest.mark.parametrize(("key", "bound"), [("brightness", 0.15), ("contrast", 0.15)])
def test_brightness_and_contrast_stay_in_range(key: str, bound: float) -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    change = changing(**{key: bound})
    values = np.array([change(grey, draw).mean() for draw in range(60)])
    assert np.abs(values - 128).max() <= bound * 255 + 1
    assert np.ptp(values) > bound * 128  # and it does change them


def test_zoom_and_shift_move_a_square_by_what_they_say() -> None:
    square = np.zeros((100, 100, 3), np.uint8)
    square[40:60, 40:60] = 255
    shifts, sides = [], []
    for draw in range(40):
        rows = np.flatnonzero(changing(shift=0.1)(square, draw)[..., 0].max(1) > 127)
        shifts.append(rows.mean() - 49.5)
        rows = np.flatnonzero(changing(zoom=0.2)(square, draw)[..., 0].max(1) > 127)
        sides.append(len(rows) / 20)
    assert 7 < np.abs(shifts).max() <= 10.5
    assert 0.75 <= min(sides) < 0.9
    assert 1.1 < max(sides) <= 1.25


def test_normalise_by_hand() -> None:
    pixels = np.zeros((1, 1, 2, 3), np.uint8)
    pixels[0, 0, 1] = (255, 51, 0)
    spec = ImageInput((1, 2), (0.5, 0.2, 0.0), (0.5, 0.1, 1.0))
    result = normalise(pixels, spec)
    assert result.shape == (1, 3, 1, 2)
    torch.testing.assert_close(result[0, :, 0, 1], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(result[0, :, 0, 0], torch.tensor([-1.0, -2.0, 0.0]))


def test_a_square_part_comes_as_a_square_photograph_would() -> None:
    image = picture(30, 60)
    change = changing(square=1.0)
    lefts = set()
    for draw in range(20):
        changed = change(image, draw)
        assert changed.shape == (30, 60, 3)
        assert changed[:, :15].max() == changed[:, 45:].max() == 0  # as `fit` pads a square image
        inner = changed[:, 15:45]
        lefts |= {left for left in range(31) if np.array_equal(image[:, left : left + 30], inner)}
    assert len(lefts) > 5


def test_square_parts_are_as_frequent_and_as_large_as_asked() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    white[:, 20:] = 0
    half = changing(square=0.5, square_side=0.5)
    changed = sum(not np.array_equal(half(white, draw), white) for draw in range(200))
    assert 70 < changed < 130


def test_hue_and_saturation_turn_colours_alone() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    hues = [changing(hue=0.1)(red, draw)[0, 0] for draw in range(20)]
    assert all(max(colour) == 200 for colour in hues)  # as bright as before
    assert len({tuple(colour) for colour in hues}) > 5
    grey = np.full((4, 4, 3), 90, np.uint8)
    pale = changing(saturation=0.5)
    assert all(np.abs(pale(grey, draw).astype(int) - 90).max() <= 1 for draw in range(10))
    assert len({tuple(pale(picture(), draw)[0, 0]) for draw in range(10)}) > 5


def test_importing_albumentations_asks_no_network() -> None:
    """It looks for its newest version when it is imported, unless a variable of the environment says not to."""
    texts = [path.read_text() for path in (Path(skinlesion.__file__).parent).rglob("*.py")]
    importing = [text for text in texts if "import albumentations" in text]
    assert len(importing) > 1
    assert all(
        text.index('"NO_ALBUMENTATIONS_UPDATE", "1"') < text.index("import albumentations") for text in importing
    )
