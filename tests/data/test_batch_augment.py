"""Augmentation of whole batches on the device: against OpenCV, against torchvision, and against the CPU's policy."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional as vision

from skinlesion.config.data import AugmentConfig
from skinlesion.data.batch_augment import RANDOM_NUMBERS, BatchAugment, saturate, shift_hue
from skinlesion.data.gpu_augmenter import PARTS, random_integers, splitmix64
from skinlesion.data.image_io import fit
from skinlesion.data.transforms import Augmentation

STILL = dict.fromkeys(
    ("flip", "rotation", "shift", "zoom", "brightness", "contrast", "hue", "saturation", "square"), 0.0
) | {"square_side": 1.0}
REFERENCE = {"flip": 0.5, "rotation": 45.0, "shift": 0.075, "zoom": 0.15, "brightness": 0.15, "contrast": 0.15}
FRAMING = {**REFERENCE, "zoom": 0.2, "hue": 0.03, "saturation": 0.2, "square": 0.35, "square_side": 0.6}
MIDDLE = 0.5  # the chance that leaves what is drawn either way as it is


def skin(height: int = 60, width: int = 80, *, count: int = 1) -> np.ndarray:
    """Smooth coloured images, so that interpolation does not decide."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(40, 216, (count, 6, 8, 3), np.uint8)
    return np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) for each in coarse])


def changed(images: np.ndarray, numbers: np.ndarray, **policy: float) -> np.ndarray:
    """(B, H, W, 3) float."""
    augment = BatchAugment(AugmentConfig(**{**STILL, **policy}))
    result = augment(torch.from_numpy(images), torch.from_numpy(numbers.astype(np.float32)))
    return result.permute(0, 2, 3, 1).numpy()


def numbers(**columns: float) -> np.ndarray:
    names = ("x", "y", "angle", "shift_x", "shift_y", "scale", "brightness", "contrast", "hue", "saturation")
    names += ("square", "side", "left", "top")
    assert len(names) == RANDOM_NUMBERS
    return np.array([[columns.get(name, MIDDLE) for name in names]])


def test_nothing_asked_is_nothing_changed() -> None:
    images = skin(count=3)
    np.testing.assert_allclose(changed(images, np.random.default_rng(0).random((3, RANDOM_NUMBERS))), images, atol=1e-3)


def test_flips_are_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 7, 9, 3), np.uint8)
    for x, y in ((0.0, 0.9), (0.9, 0.0), (0.0, 0.0)):
        expected = image[:, :: -1 if y == 0 else 1, :: -1 if x == 0 else 1]
        np.testing.assert_allclose(changed(image, numbers(x=x, y=y), flip=0.5), expected, atol=1e-2)


@pytest.mark.parametrize("size", [(60, 80), (64, 64), (45, 32)])
def test_places_are_those_of_opencv(size: tuple[int, int]) -> None:
    """Rotation, zoom and shift together: OpenCV is given the matrix worked out by hand."""
    height, width = size
    image = skin(height, width)
    angle, scale = math.radians(0.4 * 45), 1 + 0.6 * 0.15
    across, down = math.trunc(-0.8 * 0.075 * width), math.trunc(0.5 * 0.075 * height)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    turn = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = np.column_stack((turn, middle + np.array([across, down]) - turn @ middle))
    expected = cv2.warpAffine(image[0], matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    drawn = numbers(x=0.9, y=0.9, angle=0.7, scale=0.8, shift_x=0.1, shift_y=0.75)
    result = changed(image, drawn, **{key: REFERENCE[key] for key in ("flip", "rotation", "shift", "zoom")})[0]
    assert np.abs(result - expected).mean() < 0.5
    assert np.abs(result - expected).max() < 6  # OpenCV interpolates in steps of 1/32 pixel


def test_brightness_and_contrast_by_hand() -> None:
    image = skin()
    drawn = numbers(brightness=0.75, contrast=0.25)
    expected = np.clip(image * (1 - 0.5 * 0.2) + 255 * 0.5 * 0.3, 0, 255)
    np.testing.assert_allclose(changed(image, drawn, brightness=0.3, contrast=0.2), expected, atol=1e-2)


@pytest.mark.parametrize("size", [(60, 80), (45, 32), (50, 50)])
def test_a_square_part_is_seen_as_a_square_photograph_would_be(size: tuple[int, int]) -> None:
    height, width = size
    image = skin(height, width)
    side = round(min(size) * (0.6 + 0.4 * 0.25))
    left, top = math.floor(0.9 * (width - side + 1)), math.floor(0.3 * (height - side + 1))
    expected = fit(np.ascontiguousarray(image[0, top : top + side, left : left + side]), size)
    drawn = numbers(square=0.1, side=0.25, left=0.9, top=0.3)
    result = changed(image, drawn, square=0.35, square_side=0.6)[0]
    assert ((result.sum(axis=2) == 0) == (expected.sum(axis=2) == 0)).all()
    assert np.abs(result - expected).mean() < 1
    untouched = changed(image, numbers(square=0.4, side=0.25, left=0.9, top=0.3), square=0.35, square_side=0.6)
    np.testing.assert_allclose(untouched, image, atol=1e-3)


@pytest.mark.parametrize("amount", [-0.4, -0.03, 0.0, 0.1, 0.5])
def test_colours_are_those_of_torchvision(amount: float) -> None:
    images = torch.from_numpy(np.random.default_rng(1).random((2, 3, 9, 11), np.float32))
    hue = shift_hue(images * 255, torch.tensor(amount)) / 255
    torch.testing.assert_close(hue, vision.adjust_hue(images, amount), rtol=0, atol=1e-4)
    paler = saturate(images * 255, torch.tensor(1 + amount)) / 255
    torch.testing.assert_close(paler, vision.adjust_saturation(images, 1 + amount), rtol=0, atol=1e-3)


def test_grey_has_no_hue_to_turn() -> None:
    grey = torch.full((1, 3, 2, 2), 90.0)
    torch.testing.assert_close(shift_hue(grey, torch.tensor(0.3)), grey)


def test_an_image_does_not_see_its_neighbours() -> None:
    images, drawn = skin(count=5), np.random.default_rng(2).random((5, RANDOM_NUMBERS))
    together = changed(images, drawn, **FRAMING)
    order = [3, 1, 4]
    np.testing.assert_array_equal(together[order], changed(images[order], drawn[order], **FRAMING))


def test_the_generator_is_splitmix64() -> None:
    """The first numbers from state 1234567, as published with the reference implementation (Vigna's splitmix64.c)."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(np.array([1234567], np.uint64), 4)[0].tolist() == expected


def test_chances_are_uniform_and_depend_on_seed_and_draw_alone() -> None:
    drawn = random_integers(range(4000), seed=3, count=RANDOM_NUMBERS) / PARTS
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert min(stats.kstest(column, "uniform").pvalue for column in drawn.T) > 1e-3
    assert np.abs(np.corrcoef(drawn.T) - np.eye(RANDOM_NUMBERS)).max() < 0.07
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.07  # of neighbouring draws
    np.testing.assert_array_equal(
        random_integers([17, 2**64 - 1, 5], seed=3, count=RANDOM_NUMBERS)[[0, 2]] / PARTS, drawn[[17, 5]]
    )
    assert not np.array_equal(random_integers(range(10), seed=4, count=RANDOM_NUMBERS) / PARTS, drawn[:10])


def both(policy: dict[str, float], image: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """The CPU's changes of an image and the device's, each (draws, H, W, 3) float."""
    one = Augmentation(AugmentConfig(**{**STILL, **policy}), 1)
    by_image = np.stack([one(image.copy(), draw) for draw in range(draws)]).astype(np.float64)
    drawn = random_integers(range(draws), seed=1, count=RANDOM_NUMBERS) / PARTS
    return by_image, changed(np.broadcast_to(image, (draws, *image.shape)).copy(), drawn, **policy).astype(np.float64)


def pose(images: np.ndarray) -> np.ndarray:
    """Angle in degrees, x and y of the middle, and area of a bright bar in dark images, by moments: (B, 4)."""
    weight = images.mean(axis=3)
    y, x = np.mgrid[: weight.shape[1], : weight.shape[2]]
    area = weight.sum(axis=(1, 2))
    middle_x, middle_y = ((weight * at).sum(axis=(1, 2)) / area for at in (x, y))
    right, below = x - middle_x[:, None, None], y - middle_y[:, None, None]
    xx, yy, xy = ((weight * at).sum(axis=(1, 2)) for at in (right * right, below * below, right * below))
    return np.column_stack((np.degrees(np.arctan2(2 * xy, xx - yy)) / 2, middle_x, middle_y, area))


def bar() -> np.ndarray:
    image = np.zeros((64, 64, 3), np.uint8)
    image[28:34, 20:42] = 255  # off the middle, so that flips show
    return image


def test_both_policies_turn_shift_zoom_and_flip_alike() -> None:
    geometry = {key: REFERENCE[key] for key in ("flip", "rotation", "shift", "zoom")}
    for one, other in zip(*(pose(images).T for images in both(geometry, bar(), 400)), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 0.01
        assert other.std() == pytest.approx(one.std(), rel=0.15)


def test_both_policies_give_pixels_of_the_same_moments() -> None:
    for policy in (REFERENCE, FRAMING):
        one, other = both(policy, skin(48, 64)[0], 400)
        for moment in (np.mean, np.std):
            for axis in ((1, 2, 3), (1, 2)):  # of each image, and of each of its channels
                first, second = moment(one, axis=axis).reshape(-1), moment(other, axis=axis).reshape(-1)
                assert second.mean() == pytest.approx(first.mean(), rel=0.03)
                assert stats.ks_2samp(first, second).statistic < 0.12
        black, dark = ((images[:, 0, 0].sum(axis=1) == 0).mean() for images in (one, other))
        assert dark == pytest.approx(black, abs=0.08)
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / len(one))  # of each place's mean over the changes
        assert np.abs((other.mean(axis=0) - one.mean(axis=0)) / error).max() < 5
