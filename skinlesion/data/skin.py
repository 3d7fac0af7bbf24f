"""Skin around the lesion: how light a picture shows it, and hairs found and painted over.

Needs OpenCV and numpy alone, as `image_io` does.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

TONES = ("1 very light", "2 light", "3 intermediate", "4 tan", "5 brown", "6 dark")
"""Classes of the individual typology angle, in the order in which tables sort them."""
BORDERS = (55.0, 41.0, 28.0, 10.0, -30.0)
"""Degrees: a class lies above its border, the last one below all."""
UNKNOWN, BLUE_CAST = "unknown", "blue cast"

_FRAME = 0.12  # width of the border that is taken for skin, share of the shorter side
_BLACK = 40  # grey values up to this one, and what is near them, are no skin: corners, and the padding of `fit`
_LEAST = 0.1  # share of a side of the border that must be skin
_REACH = 0.045  # length of the closing's lines, share of the shorter side: wider structures are no hairs
_DARKER = 12  # grey values by which a hair is darker than what lies beside it
_LENGTH = 0.15  # least length of a hair, share of the shorter side
_SLENDER = 8.0  # least length of a hair in mean widths


class SkinTone(NamedTuple):
    """Colour of the border of a picture in CIELAB; NaN where the border shows no skin.

    Attributes:
        lightness: Median L*, 0..100.
        yellowness: Median b*.
        ita: Individual typology angle in degrees; NaN too where b* is not above 0, which is no colour of skin.
        error: Standard deviation of the angle over the four sides of the picture in degrees; NaN with one side.
    """

    lightness: float
    yellowness: float
    ita: float
    error: float

    @property
    def name(self) -> str:
        """The class of the angle, one of `TONES`; "blue cast" or "unknown" where there is none."""
        if np.isnan(self.ita):
            return UNKNOWN if np.isnan(self.lightness) else BLUE_CAST
        return TONES[sum(self.ita <= border for border in BORDERS)]


def skin_tone(image: Image) -> SkinTone:
    """Estimate how light the skin of a picture is: arctan((L* - 50) / b*) of its border.

    Chardon, Cretois & Hourseau, Int J Cosmet Sci 13:191-208, 1991, doi:10.1111/j.1467-2494.1991.tb00561.x.
    Dermatoscopes polarise, expose and white-balance as they like: this is the lightness of the picture's skin, not the
    person's skin type. Black corners, bars and hairs are left out; a lesion on less than half of the border is
    left out by the median.

    Args:
        image: RGB, (h, w, 3).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    is_lit = grey > _BLACK
    if not is_lit.any():
        return SkinTone(*[np.nan] * 4)
    rows, columns = (np.flatnonzero(is_lit.any(axis=axis)) for axis in (1, 0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # without black bars
    image, is_lit = np.ascontiguousarray(image[inside]), is_lit[inside]
    width = max(1, round(_FRAME * min(is_lit.shape)))
    dark = cv2.dilate((~is_lit).astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8))  # fading corners
    is_skin = (dark == 0) & ~hair_mask(image)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    sides = (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:])
    pixels = [lab[side][is_skin[side]] for side in sides if is_skin[side].mean() >= _LEAST]
    if not pixels:
        return SkinTone(*[np.nan] * 4)
    lightness, _, yellowness = np.median(np.concatenate(pixels), axis=0).astype(float).tolist()
    angles = [_angle(*np.median(each[:, [0, 2]], axis=0)) for each in pixels]
    ita = _angle(lightness, yellowness) if yellowness > 0 else np.nan
    error = float(np.std(angles, ddof=1)) if len(angles) > 1 and yellowness > 0 else np.nan
    return SkinTone(lightness, yellowness, ita, error)


def _angle(lightness: float, yellowness: float) -> float:
    return float(np.degrees(np.arctan2(lightness - 50, yellowness)))


def hair_mask(image: Image) -> Mask:
    """Find dark hairs: structures that a closing fills, and that are long and slender, (h, w).

    After DullRazor (Lee et al., Comput Biol Med 27:533-543, 1997, doi:10.1016/S0010-4825(97)00020-6), whose lengths for
    512 x 486 pixels are shares of the shorter side here. Pigment networks and vessels can pass for hairs; fair hairs
    are not found.

    Args:
        image: RGB, (h, w, 3).
    """
    grey, side = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), min(image.shape[:2])
    reach = 2 * max(1, round(_REACH * side / 2)) + 1
    diagonal = np.eye(reach, dtype=np.uint8)
    lines = (np.ones((1, reach), np.uint8), np.ones((reach, 1), np.uint8), diagonal, diagonal[::-1].copy())
    closed = [cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, line, borderType=cv2.BORDER_REPLICATE) for line in lines]
    darker = (np.max(closed, axis=0) > _DARKER).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(darker, connectivity=8)
    extent = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    is_hair = (extent >= _LENGTH * side) & (extent**2 >= _SLENDER * stats[:, cv2.CC_STAT_AREA])
    is_hair[0] = False  # the background
    return np.asarray(is_hair[labels])


def remove_hair(image: Image) -> Image:
    """Paint hairs over from their surroundings (Telea, 2004); all other pixels stay as they are.

    Args:
        image: RGB, (h, w, 3).
    """
    mask = cv2.dilate(hair_mask(image).astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.asarray(cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA), np.uint8) if mask.any() else image


def shift_skin(image: Image, shift: float) -> Image:
    """Show the skin darker or lighter: its L* is shifted, all other L* are scaled alike, a* and b* stay.

    Args:
        image: RGB, (h, w, 3).
        shift: Of the L* of the border of the picture, of 100; darker below 0.
    """
    if not shift:
        return image
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    own = skin_tone(image).lightness
    own = float(np.median(lab[..., 0])) if np.isnan(own) else own
    lab[..., 0] = (lab[..., 0] * (1 + shift / max(own, 1.0))).clip(0, 100)
    shares = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return np.asarray((shares * 255).round().clip(0, 255), np.uint8)
