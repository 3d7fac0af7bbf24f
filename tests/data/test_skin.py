"""Skin tones of known colours, and drawn hairs painted over."""

import cv2
import numpy as np
import pytest

from skinlesion.data.image_io import fit
from skinlesion.data.skin import BLUE_CAST, TONES, UNKNOWN, hair_mask, remove_hair, shift_skin, skin_tone


def lab_by_hand(rgb: tuple[int, int, int]) -> tuple[float, float]:
    """L* and b* of an sRGB colour, by the formulae of CIE 15 and IEC 61966-2-1."""
    shares = np.array(rgb) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    _, y, z = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (y, z / 1.0888))
    return 116 * y - 16, 200 * (y - z)


def picture(skin: tuple[int, int, int], *, size: tuple[int, int] = (150, 200)) -> np.ndarray:
    """A dark round lesion on skin of one colour."""
    image = np.full((*size, 3), skin, np.uint8)
    cv2.circle(image, (size[1] // 2, size[0] // 2), size[0] // 4, (90, 50, 40), -1)
    return image


def with_hairs(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image with three thin dark hairs, one across the lesion, and where they are."""
    hairs, (height, width) = np.zeros(image.shape[:2], np.uint8), image.shape[:2]
    for start, end in (((0, 20), (width, 40)), ((30, 0), (45, height)), ((width - 20, height), (width // 2, 0))):
        cv2.line(hairs, start, end, 1, 2)
    drawn = image.copy()
    drawn[hairs > 0] = (25, 18, 15)
    return drawn, hairs > 0


@pytest.mark.parametrize("skin", [(240, 205, 190), (225, 172, 140), (190, 140, 105), (150, 105, 75), (95, 62, 45)])
def test_the_angle_of_a_known_colour(skin: tuple[int, int, int]) -> None:
    lightness, yellowness = lab_by_hand(skin)
    expected = np.degrees(np.arctan((lightness - 50) / yellowness))
    found = skin_tone(picture(skin))
    assert (found.lightness, found.yellowness) == pytest.approx((lightness, yellowness), abs=0.2)
    assert found.ita == pytest.approx(expected, abs=0.5)
    assert found.error == pytest.approx(0, abs=1e-3)
    borders = [90, 55, 41, 28, 10, -30, -90]  # as in the paper
    (place,) = [rank for rank in range(6) if borders[rank + 1] < expected <= borders[rank]]
    assert found.name == TONES[place]


def test_hairs_black_corners_and_bars_do_not_count() -> None:
    skin = (225, 172, 140)
    plain = skin_tone(picture(skin)).ita
    assert skin_tone(with_hairs(picture(skin))[0]).ita == pytest.approx(plain, abs=0.5)
    assert skin_tone(fit(picture(skin), (150, 150))).ita == pytest.approx(plain, abs=0.5)  # between black bars
    round_one = picture(skin)
    y, x = np.mgrid[:150, :200]
    round_one[np.hypot(y - 75, x - 100) > 95] = 0
    assert skin_tone(round_one).ita == pytest.approx(plain, abs=0.5)


def test_a_side_that_differs_makes_the_error() -> None:
    image = picture((225, 172, 140))
    image[:, 180:] = (150, 105, 75)  # one of four sides: their standard deviation is half the difference
    one, other = (
        np.degrees(np.arctan((lightness - 50) / yellowness))
        for lightness, yellowness in map(lab_by_hand, [(225, 172, 140), (150, 105, 75)])
    )
    found = skin_tone(image)
    assert found.error == pytest.approx((one - other) / 2, abs=0.5)
    assert found.ita == pytest.approx(one, abs=0.5)


def test_no_skin_and_a_blue_cast_have_no_angle() -> None:
    dark, blue = skin_tone(np.zeros((60, 80, 3), np.uint8)), skin_tone(picture((180, 165, 190)))
    assert (dark.name, blue.name) == (UNKNOWN, BLUE_CAST)
    assert np.isnan([dark.lightness, dark.ita, dark.error, blue.ita, blue.error]).all()


@pytest.mark.parametrize("shift", [-30, -10, 10])
def test_shifted_skin_has_the_lightness_asked_for(shift: float) -> None:
    image = picture((225, 172, 140))
    before, after = skin_tone(image), skin_tone(shift_skin(image, shift))
    assert after.lightness - before.lightness == pytest.approx(shift, abs=0.6)
    assert (shift_skin(np.zeros_like(image), shift) == 0).all()


@pytest.mark.parametrize("size", [(150, 200), (300, 400)])
def test_drawn_hairs_vanish_and_the_lesion_stays(size: tuple[int, int]) -> None:
    image = picture((225, 172, 140), size=size)
    hairy, where = with_hairs(image)
    found = hair_mask(hairy)
    assert found[where].mean() > 0.95
    cleaned = remove_hair(hairy)
    away = np.abs(cleaned.astype(int) - image).max(axis=2)
    assert np.abs(hairy.astype(int) - image).max(axis=2)[where].mean() > 100
    assert away[where].mean() < 8
    near = cv2.dilate(where.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    np.testing.assert_array_equal(cleaned[~near], hairy[~near])


def test_an_image_without_hairs_stays_as_it_is() -> None:
    image = picture((225, 172, 140))
    cv2.circle(image, (40, 40), 3, (60, 30, 20), -1)  # a dot is no hair
    np.testing.assert_array_equal(remove_hair(image), image)
    np.testing.assert_array_equal(remove_hair(np.zeros_like(image)), 0)
