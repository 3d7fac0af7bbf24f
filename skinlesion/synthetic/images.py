"""Synthetic dermoscopic images: a lesion painted on a patch of skin, and photographs of the patch.

Pigments are painted as optical densities and seen by the law of Beer and Lambert: the skin's colour times
exp(-density). Colours are like HAM10000's.
"""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from skinlesion.synthetic import structures as derm
from skinlesion.synthetic.textures import Line, Map, noise, overlay, soft_step, spots, strokes, tree, walk, warp

EXTENT = 1.5  # side of a patch, in widths of an image, so that turned and shifted photographs stay inside

# Optical density of one unit of melanin, blood and deep melanin (blue: red light is lost) in red, green and blue.
DENSITIES = ((0.38, 0.86, 1.04), (0.38, 1.0, 0.72), (1.05, 0.85, 0.45))
WHITE = (0.93, 0.86, 0.88)  # colour of scar and scales
YELLOW = (0.86, 0.66, 0.36)  # colour of keratin


class Source(NamedTuple):
    """Appearance of the photographs of one of HAM10000's sources."""

    skin: tuple[float, float, float]  # tone of bare skin, red, green, blue in 0..1
    ruler: float  # share that shows ruler marks
    dark_frame: float  # share that shows the dark frame of the lens


SOURCES = {
    "rosendahl": Source(skin=(0.84, 0.68, 0.71), ruler=0.2, dark_frame=0.01),
    "vidir_modern": Source(skin=(0.83, 0.69, 0.75), ruler=0.2, dark_frame=0.2),
    "vidir_molemax": Source(skin=(0.91, 0.61, 0.64), ruler=0.03, dark_frame=0.0),
    "vienna_dias": Source(skin=(0.86, 0.64, 0.66), ruler=0.03, dark_frame=0.0),
}


class Recipe(NamedTuple):
    """Ranges from which one diagnosis is drawn uniformly. They overlap: no single structure gives a diagnosis away."""

    radius: tuple[float, float]  # of the lesion, in widths of the image
    elongation: tuple[float, float]  # longer axis over shorter
    wander: tuple[float, float]  # deviation of the outline from an ellipse, in radii
    soft: tuple[float, float]  # width of the border, in radii
    sun: tuple[float, float]  # sun damage of the skin around, 0 to 1.3
    structures: tuple[tuple[derm.Structure, float, tuple[float, float]], ...]  # each with probability and strength


def _recipe(about: dict[str, Any]) -> Recipe:
    structures = [(getattr(derm, name), probability, strength) for name, probability, strength in about["structures"]]
    return Recipe(**{**about, "structures": tuple(structures)})


PAINTED: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("ham10000.yaml").read_text(encoding="utf-8"))
RECIPES = {code: _recipe(about["recipe"]) for code, about in PAINTED.items()}


def paint(diagnosis: str, source: str, *, width: int, rng: np.random.Generator) -> Map:
    """Paint one lesion and the skin around it.

    Args:
        diagnosis: A diagnosis code.
        source: One of `SOURCES`, which gives the skin tone.
        width: Width in pixels of the photographs of the patch.
        rng: Source of randomness.

    Returns:
        Colours in 0..1 and, as a fourth channel, 1 in the lesion and 0 outside: (side, side, 4), side = EXTENT * width.
    """
    recipe = RECIPES[diagnosis]
    patch = _outline(recipe, side=round(EXTENT * width), rng=rng)
    _paint_skin(patch, rng.uniform(*recipe.sun))
    for structure, probability, strength in recipe.structures:
        if rng.uniform() < probability:
            structure(patch, rng.uniform(*strength))
    tone = np.asarray(SOURCES[source].skin) * rng.normal(1, (0.03, 0.04, 0.045)) * rng.normal(1, 0.03)
    return warp(np.dstack([_colours(patch, tone), patch.inside]), rng, scale=0.06, shift=0.004)


class Photograph(NamedTuple):
    """A photograph and the mask of its lesion."""

    image: NDArray[np.uint8]  # (height, width, 3), RGB
    lesion: NDArray[np.bool_]  # (height, width), also under hairs and frame


def photograph(patch: Map, source: str, *, image_size: tuple[int, int], rng: np.random.Generator) -> Photograph:
    """Take one dermoscopic photograph of a painted patch: another framing and light each time.

    Args:
        patch: Colours and lesion (side, side, 4) from `paint`.
        source: One of `SOURCES`, which gives the shares of ruler marks and dark frames.
        image_size: Width and height in pixels.
        rng: Source of randomness.
    """
    view = _view(patch, image_size, rng)
    image, lesion = view[..., :3], view[..., 3] > 0.5
    for artefact, probability in ((_bubbles, 0.15), (_hairs, 0.35), (_ruler, SOURCES[source].ruler)):
        if rng.uniform() < probability:
            image = artefact(image, rng)
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    from_centre = np.hypot(x, y * np.float32(height / width))  # in half widths
    light = 1 + rng.normal(0, 0.04) * x + rng.normal(0, 0.04) * y - rng.uniform(0, 0.18) * from_centre**2
    balance = rng.normal(1, 0.05) * rng.normal(1, 0.02, 3)
    image = np.asarray(image * light[..., None] * balance, np.float32)
    if rng.uniform() < SOURCES[source].dark_frame:
        opening = soft_step(np.float32(rng.uniform(0.88, 1.2)) - from_centre, 0.03)
        image = overlay(image, np.full(3, 0.03), 1 - opening)
    grain = 0.012 * rng.standard_normal((*image.shape[:2], 1), np.float32)
    return Photograph(np.asarray((np.clip(image + grain, 0, 1) * 255).round(), np.uint8), lesion)


def _outline(recipe: Recipe, *, side: int, rng: np.random.Generator) -> derm.Patch:
    """Draw the outline of a lesion near the middle of bare skin."""
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
    return derm.Patch(side=side, rng=rng, centre=centre, radius=radius, reach=reach, inside=inside)


def _paint_skin(patch: derm.Patch, sun: float) -> None:
    """Paint lines, blotches of pigment and blood, freckles and fine vessels; `sun` damage in 0..1.3."""
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


def _colours(patch: derm.Patch, tone: NDArray[np.float64]) -> Map:
    """Return the colours (side, side, 3) in 0..1 of a patch whose bare skin has the colour `tone`."""
    pigments = np.stack([patch.melanin, patch.blood, patch.blue], axis=-1)
    light = tone.astype(np.float32) * np.exp(-np.maximum(pigments, -0.3) @ np.asarray(DENSITIES, np.float32))
    for colour, cover in ((YELLOW, patch.yellow), (WHITE, patch.white)):
        light = overlay(light, np.asarray(colour), np.clip(cover, 0, 0.85))
    return np.asarray(0.07 + 0.93 * light, np.float32)  # glare of the glass plate: no black is quite black


def _view(patch: Map, image_size: tuple[int, int], rng: np.random.Generator) -> Map:
    """Turn, zoom and shift a patch (side, side, 4) into an image (height, width, 4)."""
    width, height = image_size
    middle = patch.shape[0] / 2
    zoom = float(np.exp(rng.normal(0, 0.2)))
    matrix = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, 25), zoom)
    matrix[:, 2] += np.asarray((width, height)) * (0.5 + rng.normal(0, 0.05, 2)) - middle
    return np.asarray(cv2.warpAffine(patch, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101))


def _hairs(image: Map, rng: np.random.Generator) -> Map:
    """Draw hairs across an image: a few or many, mostly in one direction, dark or fair."""
    height, width = image.shape[:2]
    combed = rng.uniform(0, 2 * np.pi)
    lines: list[Line] = []
    for _ in range(1 + int(rng.exponential(6))):
        root = rng.uniform(-0.1, 1.1, 2) * (width, height)
        heading, length = combed + rng.normal(0, 0.4), width * rng.uniform(0.2, 0.8)
        thickness = width * rng.uniform(0.002, 0.004)
        lines.append((walk(root, rng, heading=heading, length=length, bend=0.06), thickness))
    colour = rng.choice([(0.13, 0.08, 0.08), (0.3, 0.18, 0.12), (0.85, 0.78, 0.72)], p=[0.6, 0.25, 0.15])
    return overlay(image, colour, 0.75 * strokes((width, height), lines))


def _bubbles(image: Map, rng: np.random.Generator) -> Map:
    """Draw gel bubbles: bright points and thin rings."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(2, 9))):
        x, y = (int(at * 16) for at in rng.uniform(0, 1, 2) * (width, height))
        radius = int(rng.uniform(0.004, 0.015) * width * 16)
        cv2.circle(cover, (x, y), radius, 70, 1, cv2.LINE_AA, shift=4)
        cv2.circle(cover, (x - radius // 2, y - radius // 2), radius // 4, 220, -1, cv2.LINE_AA, shift=4)
    return overlay(image, np.ones(3), cover.astype(np.float32) / np.float32(255))


def _ruler(image: Map, rng: np.random.Generator) -> Map:
    """Draw the black ticks of the glass plate's scale across one corner."""
    height, width = image.shape[:2]
    corner = rng.integers(0, 2, 2) * (width, height)
    inwards = np.where(corner > 0, -1, 1) * width
    lines: list[Line] = []
    for tick in range(int(rng.integers(4, 9))):
        start = corner + inwards * (0.02 + 0.03 * tick, 0.16 - 0.022 * tick)
        lines.append((np.stack([start, start + inwards * (0.03, 0.035)]), 0.006 * width))
    return overlay(image, np.zeros(3), 0.9 * strokes((width, height), lines))
