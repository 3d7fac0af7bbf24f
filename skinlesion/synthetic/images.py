"""Painting of synthetic dermoscopic images: a lesion on a patch of skin, and photographs of the patch.

Pigments are painted as optical densities and seen by the law of Beer and Lambert: the skin's colour times
exp(-density). Colours are like HAM10000's.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from skinlesion.synthetic.recipes import RECIPES, Recipe
from skinlesion.synthetic.structures import Patch
from skinlesion.synthetic.textures import (
    Line,
    Map,
    covered,
    noise,
    soft_step,
    spots,
    strokes,
    tree,
    walk,
    warped,
)

EXTENT = 1.5  # side of a patch, in widths of an image: what a rotated and shifted photograph can see

# Optical density in red, green, blue of one unit of each pigment.
MELANIN = (0.38, 0.86, 1.04)
BLOOD = (0.38, 1.0, 0.72)
BLUE = (1.05, 0.85, 0.45)  # melanin deep in the skin looks blue: red light is lost
WHITE = (0.93, 0.86, 0.88)  # colour of scar and scales
YELLOW = (0.86, 0.66, 0.36)  # colour of keratin

# Skin tone (red, green, blue in 0..1) as each of HAM10000's sources photographs it.
SKIN = {
    "rosendahl": (0.84, 0.68, 0.71),
    "vidir_modern": (0.83, 0.69, 0.75),
    "vidir_molemax": (0.91, 0.61, 0.64),
    "vienna_dias": (0.86, 0.64, 0.66),
}

# How often photographs of a source show ruler marks, and the dark frame of the lens.
RULER = {"rosendahl": 0.2, "vidir_modern": 0.2, "vidir_molemax": 0.03, "vienna_dias": 0.03}
DARK_FRAME = {"rosendahl": 0.01, "vidir_modern": 0.2, "vidir_molemax": 0.0, "vienna_dias": 0.0}


def paint(diagnosis: str, source: str, *, width: int, rng: np.random.Generator) -> Map:
    """Paint one lesion and the skin around it.

    Args:
        diagnosis: A diagnosis code.
        source: One of HAM10000's sources, which gives the skin tone.
        width: Width in pixels of the photographs that will be taken of the patch.
        rng: Source of randomness: the lesion is the same whenever its state is.

    Returns:
        Colours in 0..1 and, as a fourth channel, 1 in the lesion and 0 outside: (side, side, 4), side = EXTENT * width.
    """
    recipe = RECIPES[diagnosis]
    patch = _outlined(recipe, side=round(EXTENT * width), rng=rng)
    _weathered_skin(patch, rng.uniform(*recipe.sun))
    for structure, share, strength in recipe.structures:
        if rng.uniform() < share:
            structure(patch, rng.uniform(*strength))
    tone = np.asarray(SKIN[source]) * rng.normal(1, (0.03, 0.04, 0.045)) * rng.normal(1, 0.03)
    return warped(np.dstack([_seen(patch, tone), patch.inside]), rng, scale=0.06, shift=0.004)


class Photograph(NamedTuple):
    """What a photograph shows, and where in it the lesion is."""

    image: NDArray[np.uint8]  # (height, width, 3), RGB
    lesion: NDArray[np.bool_]  # (height, width), under whatever hairs or frame cover it


def photograph(patch: Map, source: str, *, image_size: tuple[int, int], rng: np.random.Generator) -> Photograph:
    """Take one dermoscopic photograph of a painted patch: another framing and light each time.

    Args:
        patch: Colours and lesion (side, side, 4) from `paint`.
        source: One of HAM10000's sources: says how often the dark frame and ruler marks are seen.
        image_size: Width and height in pixels.
        rng: Source of randomness.
    """
    framed = _framed(patch, image_size, rng)
    image, lesion = framed[..., :3], framed[..., 3] > 0.5
    for disturbance, share in ((_bubbles, 0.15), (_hairs, 0.35), (_ruler, RULER[source])):
        if rng.uniform() < share:
            image = disturbance(image, rng)
    image = _lit(image, rng)
    if rng.uniform() < DARK_FRAME[source]:
        image = _framed_dark(image, rng)
    grain = 0.012 * rng.standard_normal((*image.shape[:2], 1), np.float32)
    return Photograph(np.asarray((np.clip(image + grain, 0, 1) * 255).round(), np.uint8), lesion)


def _outlined(recipe: Recipe, *, side: int, rng: np.random.Generator) -> Patch:
    """Bare skin with the outline of a lesion near its middle."""
    centre = 0.5 + rng.normal(0, 0.02, 2)
    radius = rng.uniform(*recipe.radius) / EXTENT
    longer = np.sqrt(rng.uniform(*recipe.elongation))
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[:side, :side].astype(np.float32) / np.float32(side)
    along = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    across = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    wander = rng.uniform(*recipe.wander) * noise(side, rng, scale=1.1 * radius, octaves=4)
    reach = np.maximum(np.hypot(along / longer, across * longer) / radius + wander, 0).astype(np.float32)
    inside = soft_step(1 - reach, rng.uniform(*recipe.soft))
    return Patch(side=side, rng=rng, centre=centre, radius=radius, reach=reach, inside=inside)


def _weathered_skin(patch: Patch, sun: float) -> None:
    """Give the skin its lines, blotches of pigment and blood, freckles and fine vessels; `sun` in 0..1.3."""
    side, rng = patch.side, patch.rng
    patch.blood += 0.04 * (0.6 + sun) * noise(side, rng, scale=0.05, octaves=7)
    patch.melanin += 0.1 * sun * np.maximum(noise(side, rng, scale=0.06, octaves=7), 0)
    patch.melanin += 0.03 * noise(side, rng, scale=0.03, octaves=4, stretch=rng.uniform(1, 5))
    freckles = rng.uniform(0, 1, (int(rng.poisson(1 + 5 * sun)) + 1, 2))
    patch.melanin += 0.25 * spots(side, freckles, radius=rng.uniform(0.005, 0.02))
    fine_vessels: list[Line] = []
    for start in rng.uniform(0, side, (int(rng.poisson(6 * sun)), 2)):
        fine_vessels += tree(start, rng, length=0.2 * side, thickness=0.003 * side)
    patch.blood += 0.2 * strokes((side, side), fine_vessels)


def _seen(patch: Patch, tone: NDArray[np.float64]) -> Map:
    """The colours (side, side, 3) in 0..1 of a patch whose bare skin has the colour `tone`."""
    pigments = np.stack([patch.melanin, patch.blood, patch.blue], axis=-1)
    densities = np.asarray((MELANIN, BLOOD, BLUE), np.float32)
    light = tone.astype(np.float32) * np.exp(-np.maximum(pigments, -0.3) @ densities)
    for colour, cover in ((YELLOW, patch.yellow), (WHITE, patch.white)):
        light = covered(light, np.asarray(colour), np.clip(cover, 0, 0.85))
    return np.asarray(0.07 + 0.93 * light, np.float32)  # glare of the glass plate: no black is quite black


def _framed(patch: Map, image_size: tuple[int, int], rng: np.random.Generator) -> Map:
    """Turn, zoom and shift a patch (side, side, 4) into an image (height, width, 4)."""
    width, height = image_size
    middle = patch.shape[0] / 2
    zoom = float(np.exp(rng.normal(0, 0.2)))
    matrix = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, 25), zoom)
    matrix[:, 2] += np.asarray((width, height)) * (0.5 + rng.normal(0, 0.05, 2)) - middle
    return np.asarray(cv2.warpAffine(patch, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101))


def _hairs(image: Map, rng: np.random.Generator) -> Map:
    """Lay hairs across an image: a few or many, mostly combed one way, dark or fair."""
    height, width = image.shape[:2]
    combed = rng.uniform(0, 2 * np.pi)
    lines: list[Line] = []
    for _ in range(1 + int(rng.exponential(6))):
        root = rng.uniform(-0.1, 1.1, 2) * (width, height)
        heading, length = combed + rng.normal(0, 0.4), width * rng.uniform(0.2, 0.8)
        thickness = width * rng.uniform(0.002, 0.004)
        lines.append((walk(root, rng, heading=heading, length=length, bend=0.06), thickness))
    colour = rng.choice([(0.13, 0.08, 0.08), (0.3, 0.18, 0.12), (0.85, 0.78, 0.72)], p=[0.6, 0.25, 0.15])
    return covered(image, colour, 0.75 * strokes((width, height), lines))


def _bubbles(image: Map, rng: np.random.Generator) -> Map:
    """Gel bubbles: bright points and thin rings."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(2, 9))):
        x, y = (int(at * 16) for at in rng.uniform(0, 1, 2) * (width, height))
        radius = int(rng.uniform(0.004, 0.015) * width * 16)
        cv2.circle(cover, (x, y), radius, 70, 1, cv2.LINE_AA, shift=4)
        cv2.circle(cover, (x - radius // 2, y - radius // 2), radius // 4, 220, -1, cv2.LINE_AA, shift=4)
    return covered(image, np.ones(3), cover.astype(np.float32) / np.float32(255))


def _ruler(image: Map, rng: np.random.Generator) -> Map:
    """Black ticks of the glass plate's scale, cutting one corner."""
    height, width = image.shape[:2]
    corner = rng.integers(0, 2, 2) * (width, height)
    inwards = np.where(corner > 0, -1, 1) * width
    lines: list[Line] = []
    for tick in range(int(rng.integers(4, 9))):
        start = corner + inwards * (0.02 + 0.03 * tick, 0.16 - 0.022 * tick)
        lines.append((np.stack([start, start + inwards * (0.03, 0.035)]), 0.006 * width))
    return covered(image, np.zeros(3), 0.9 * strokes((width, height), lines))


def _lit(image: Map, rng: np.random.Generator) -> Map:
    """Expose an image: brightness, white balance, a slope of light, darker towards the corners."""
    x, y, far = _places(image)
    light = 1 + rng.normal(0, 0.04) * x + rng.normal(0, 0.04) * y - rng.uniform(0, 0.18) * far**2
    balance = rng.normal(1, 0.05) * rng.normal(1, 0.02, 3)
    return np.asarray(image * light[..., None] * balance, np.float32)


def _framed_dark(image: Map, rng: np.random.Generator) -> Map:
    """Leave a round opening of the lens, black around it."""
    _, _, far = _places(image)
    opening = soft_step(np.float32(rng.uniform(0.88, 1.2)) - far, 0.03)
    return covered(image, np.full(3, 0.03), 1 - opening)


def _places(image: Map) -> tuple[Map, Map, Map]:
    """Where each pixel of an image lies: x and y (-1..1), distance from the middle in half widths."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return x, y, np.hypot(x, y * np.float32(height / width))
