"""Corruptions of dermoscopic images in steps, from hair to a removed lesion, and out-of-distribution images.

Each corruption is a function of an image (h, w, 3), a step and a random generator. Lengths are fractions of the image,
so that a step means the same at every resolution. With the same generator a larger step contains all of a smaller one.

Blur, compression, brightness and colour are transforms of albumentations at a fixed strength. It has no hair, ruler,
vignette or removed lesion in steps; these are drawn here.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_sample_images

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing must not ask the network

import albumentations as A

from skinlesion.config.schema import require, require_choice
from skinlesion.data.image_io import Image
from skinlesion.data.skin import shift_skin
from skinlesion.synthetic.textures import overlay, strokes, walk

Apply = Callable[[Image, float, np.random.Generator], Image]

_RIM = 0.05  # of the shorter side: the rim whose median colour replaces a removed lesion


@dataclass(frozen=True)
class Corruption:
    """A corruption with steps of increasing strength."""

    apply: Apply
    neutral: float  # step that changes nothing
    least: float  # smallest step
    most: float  # largest step
    unit: str  # unit of a step


def hairs(image: Image, count: float, rng: np.random.Generator) -> Image:
    """Draw dark hairs, all in about the same direction."""
    height, width = image.shape[:2]
    direction = rng.uniform(0, 2 * np.pi)
    lines = []
    for _ in range(round(count)):
        root = rng.uniform(-0.1, 1.1, 2) * (width, height)
        heading, length = direction + rng.normal(0, 0.4), width * rng.uniform(0.2, 0.8)
        lines.append((walk(root, rng, heading=heading, length=length, bend=0.06), width * rng.uniform(0.002, 0.005)))
    return _draw_lines(image, lines, colour=(0.13, 0.08, 0.08), opacity=0.85)


def ruler(image: Image, length: float, rng: np.random.Generator) -> Image:
    """Draw a black ruler along the lower edge, over a fraction of the width."""
    height, width = image.shape[:2]
    gap, base = 0.02 * width, height * rng.uniform(0.9, 0.97)
    lines = []
    for tick in range(int(length / 0.02) + 1 if length > 0 else 0):
        high = height * (0.08 if tick % 5 == 0 else 0.045)
        lines.append((np.array([[tick * gap, base], [tick * gap, base - high]]), 0.005 * width))
    return _draw_lines(image, lines, colour=(0.0, 0.0, 0.0), opacity=0.9)


def vignette(image: Image, reach: float, rng: np.random.Generator) -> Image:
    """Blacken everything outside a circle; `reach` is the black share of the half diagonal, 0..1."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    far = np.hypot(x - width / 2, y - height / 2) / np.hypot(width / 2, height / 2)
    return np.where((far <= 1 - reach)[..., None], image, np.uint8(0))


def blur(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Blur by a Gaussian with sigma in percent of the width."""
    limit = sigma / 100 * image.shape[1]
    return _transformed(image, A.GaussianBlur, blur_limit=0, sigma_limit=(limit, limit)) if sigma else image


def compression(image: Image, quality: float, rng: np.random.Generator) -> Image:
    """Compress as JPEG; quality 100 leaves the image unchanged."""
    if quality >= 100:
        return image
    # albumentations passes the channels on unchanged, and the codec expects blue first
    limits = (round(quality), round(quality))
    changed = _transformed(image[..., ::-1], A.ImageCompression, quality_range=limits)
    return np.ascontiguousarray(changed[..., ::-1])


def brightness(image: Image, factor: float, rng: np.random.Generator) -> Image:
    """Multiply the brightness, with saturation as in a camera."""
    return _transformed(image, A.MultiplicativeNoise, multiplier=(factor, factor))


def colour(image: Image, shift: float, rng: np.random.Generator) -> Image:
    """Shift the colour by a share of the full range: more red and less blue above 0, the opposite below."""
    red, blue = (255 * shift, 255 * shift), (-255 * shift, -255 * shift)
    return _transformed(image, A.RGBShift, r_shift_limit=red, g_shift_limit=(0, 0), b_shift_limit=blue)


def skin_tone(image: Image, shift: float, rng: np.random.Generator) -> Image:
    """Shift the lightness of the skin, see `shift_skin`; the lesion keeps its contrast."""
    return shift_skin(image, shift)


def lesion_removed(image: Image, share: float, rng: np.random.Generator) -> Image:
    """Paint a share of the image, from its centre outwards, in the colour of its rim: the surroundings remain."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    far = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2).ravel()
    centre = np.zeros(height * width, dtype=bool)
    centre[np.argsort(far, kind="stable")[: round(share * height * width)]] = True
    rim = max(1, round(_RIM * min(height, width)))
    inner = np.zeros((height, width), dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    colour = np.asarray(np.median(image[~inner], axis=0).round(), np.uint8)  # (3,)
    return np.where(centre.reshape(height, width, 1), colour, image)


def _draw_lines(
    image: Image, lines: list[tuple[npt.NDArray[Any], float]], *, colour: tuple[float, float, float], opacity: float
) -> Image:
    height, width = image.shape[:2]
    shares = image.astype(np.float32) / np.float32(255)
    values = overlay(shares, np.array(colour), opacity * strokes((width, height), lines))
    return np.asarray((np.clip(values, 0, 1) * 255).round(), np.uint8)


def _transformed(image: Image, kind: Callable[..., A.ImageOnlyTransform], **settings: Any) -> Image:
    return np.asarray(_transform(kind, **settings)(image=np.ascontiguousarray(image))["image"], np.uint8)


@cache  # because creating a transform takes longer than applying it
def _transform(kind: Callable[..., A.ImageOnlyTransform], **settings: Any) -> A.ImageOnlyTransform:
    return kind(p=1, **settings)


CORRUPTIONS = MappingProxyType(
    {
        "hair": Corruption(hairs, neutral=0, least=0, most=1000, unit="number of hairs"),
        "ruler": Corruption(ruler, neutral=0, least=0, most=1, unit="length, share of the width"),
        "vignette": Corruption(vignette, neutral=0, least=0, most=1, unit="black share of the half diagonal"),
        "blur": Corruption(blur, neutral=0, least=0, most=20, unit="sigma, % of the width"),
        "jpeg": Corruption(compression, neutral=100, least=1, most=100, unit="quality"),
        "brightness": Corruption(brightness, neutral=1, least=0, most=10, unit="factor"),
        "colour": Corruption(colour, neutral=0, least=-1, most=1, unit="share of the full range, red above 0"),
        "skin_tone": Corruption(
            skin_tone, neutral=0, least=-100, most=100, unit="shift of the skin's L*, darker below 0"
        ),
        "lesion_removed": Corruption(lesion_removed, neutral=0, least=0, most=1, unit="painted share of the image"),
    }
)
"""All corruptions by name."""


def check_steps(steps: Mapping[str, Any]) -> None:
    """Refuse unknown corruptions and steps out of range.

    Raises:
        ConfigError: Names the key, the step and the expected values.
    """
    for name, each in steps.items():
        require_choice("steps", name, tuple(CORRUPTIONS))
        corruption = CORRUPTIONS[name]
        expected = f"numbers from {corruption.least:g} to {corruption.most:g} ({corruption.unit}), each once"
        numbers = isinstance(each, list) and len(each) > 0 and all(type(step) in (int, float) for step in each)
        inside = numbers and all(corruption.least <= step <= corruption.most for step in each)
        require(inside and len(set(each)) == len(each), f"steps.{name}", each, expected)


Draw = Callable[[Image, np.random.Generator], Image]
"""Function of a dermoscopic image (h, w, 3), which may give the shape alone, and a random generator; to an image."""

_WORDS = ("patient", "date of birth", "findings", "ward", "referral", "signature", "0123456789", "dose", "no. 4711")


def noise(image: Image, rng: np.random.Generator) -> Image:
    """Pixels of random colours."""
    return rng.integers(0, 256, image.shape, dtype=np.uint8)


def flat(image: Image, rng: np.random.Generator) -> Image:
    """One colour, or a horizontal gradient between two."""
    first, second = rng.integers(0, 256, (2, 3))
    second = first if rng.random() < 0.5 else second
    gradient = np.linspace(0, 1, image.shape[1])[None, :, None]
    row = first * (1 - gradient) + second * gradient  # (1, w, 3)
    return np.broadcast_to(row, image.shape).round().astype(np.uint8)


def text(image: Image, rng: np.random.Generator) -> Image:
    """A page of dark text on pale paper."""
    page = np.full(image.shape, rng.integers(225, 256), np.uint8)
    height, width = image.shape[:2]
    size = height / 450 * rng.uniform(0.7, 1.2)
    for line in range(1, int(15 / max(size * 450 / height, 0.5)) + 1):
        words = " ".join(rng.choice(_WORDS, 5))
        at = (round(0.05 * width), round(line * 32 * size * 1.2))
        cv2.putText(page, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 30), max(1, round(2 * size)), cv2.LINE_AA)
    return page


def scene(image: Image, rng: np.random.Generator) -> Image:
    """A drawn landscape with sun, hills and a house."""
    height, width = image.shape[:2]
    sky = np.linspace((90, 150, 230), (210, 225, 245), height)[:, None, :].astype(np.uint8)
    drawn = np.ascontiguousarray(np.broadcast_to(sky, image.shape))
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.3) * height
    cv2.circle(drawn, (round(x), round(y)), round(0.06 * width), (250, 230, 120), -1, cv2.LINE_AA)
    for depth in range(3):
        across = np.arange(width + 1)
        top = height * (0.5 + 0.12 * depth + 0.06 * np.sin(across / width * rng.uniform(3, 9) + rng.uniform(0, 6)))
        outline = np.concatenate([np.stack([across, top], axis=1), [[width, height], [0, height]]])
        cv2.fillPoly(drawn, [outline.round().astype(np.int32)], (60 + 25 * depth, 120 + 20 * depth, 50))
    left, side = rng.uniform(0.1, 0.7) * width, 0.18 * width
    walls = np.array([[left, 0.62 * height], [left + side, 0.85 * height]]).round().astype(int)
    cv2.rectangle(drawn, walls[0].tolist(), walls[1].tolist(), (200, 90, 70), -1)
    roof = np.array([[left, 0.62 * height], [left + side / 2, 0.5 * height], [left + side, 0.62 * height]])
    cv2.fillPoly(drawn, [roof.round().astype(np.int32)], (110, 50, 45))
    return drawn


def _skin(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """Skin of a random tone under uneven light, with pores: (h, w, 3)."""
    tone = np.array([224, 172, 142]) * rng.uniform(0.35, 1.05)
    coarse = rng.normal(1, 0.06, (4, 5, 1)).astype(np.float32)
    light = cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    pores = cv2.GaussianBlur(rng.normal(0, 14, shape[:2]), (0, 0), max(shape[0] / 300, 0.5))[..., None]
    return np.asarray((tone * light + pores).clip(0, 255), np.uint8)


def skin(image: Image, rng: np.random.Generator) -> Image:
    """Bare skin without a lesion, with creases, as in a photograph from a hand's breadth."""
    drawn, (height, width) = _skin(image.shape, rng), image.shape[:2]
    for _ in range(int(rng.integers(3, 8))):
        across = np.linspace(0, width, 30)
        along = height * (rng.uniform(0, 1) + 0.04 * np.sin(across / width * rng.uniform(2, 6) + rng.uniform(0, 6)))
        line = np.stack([across, along + rng.uniform(-0.3, 0.3) * across], axis=1).round().astype(np.int32)
        cv2.polylines(drawn, [line], False, (drawn.mean(axis=(0, 1)) * 0.8).tolist(), 2, cv2.LINE_AA)
    return drawn


def hand(image: Image, rng: np.random.Generator) -> Image:
    """A hand of any skin tone on a table."""
    height, width = image.shape[:2]
    mask, palm = np.zeros((height, width), np.uint8), (round(0.5 * width), round(0.68 * height))
    cv2.ellipse(mask, palm, (round(0.17 * height), round(0.22 * height)), 0, 0, 360, 1, -1)
    for angle, length in zip(
        np.linspace(-60, 60, 5) + rng.uniform(-6, 6, 5), (0.3, 0.46, 0.5, 0.46, 0.36), strict=True
    ):
        turn = np.deg2rad(angle)
        end = (round(palm[0] + length * height * np.sin(turn)), round(palm[1] - length * height * np.cos(turn)))
        cv2.line(mask, palm, end, 1, round(0.075 * height))
    table = np.broadcast_to(rng.integers(40, 230, 3), image.shape)
    return np.where(mask[..., None] > 0, _skin(image.shape, rng), table).astype(np.uint8)


def eye(image: Image, rng: np.random.Generator) -> Image:
    """An open eye between lids."""
    drawn, (height, width) = _skin(image.shape, rng), image.shape[:2]
    centre, half = (width // 2, height // 2), round(0.17 * height * rng.uniform(0.9, 1.1))
    lids = np.zeros((height, width), np.uint8)
    cv2.ellipse(lids, centre, (round(0.36 * width), round(1.1 * half)), 0, 0, 360, 1, -1)
    ball = np.full_like(drawn, (236, 230, 226))
    cv2.circle(ball, centre, half, rng.integers(30, 150, 3).tolist(), -1, cv2.LINE_AA)
    cv2.circle(ball, centre, round(half * rng.uniform(0.3, 0.6)), (10, 10, 12), -1, cv2.LINE_AA)
    return np.where(lids[..., None] > 0, ball, drawn)


def radiograph(image: Image, rng: np.random.Generator) -> Image:
    """A chest radiograph: pale ribs and spine on dark lungs."""
    height, width = image.shape[:2]
    drawn = np.full((height, width), 60.0)
    for side in (0.28, 0.72):
        cv2.ellipse(
            drawn, (round(side * width), height // 2), (round(0.19 * width), round(0.42 * height)), 0, 0, 360, 25, -1
        )
        for row in np.arange(0.12, 0.95, 0.11) + rng.uniform(-0.02, 0.02):
            centre = (round(side * width), round(row * height))
            cv2.ellipse(
                drawn, centre, (round(0.2 * width), round(0.05 * height)), 0, 180, 360, 120, max(2, height // 50)
            )
    cv2.line(drawn, (width // 2, 0), (width // 2, height), 170, round(0.06 * width))
    grey = cv2.GaussianBlur(drawn, (0, 0), height / 90) + rng.normal(0, 6, drawn.shape)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def histology(image: Image, rng: np.random.Generator) -> Image:
    """A stained section of tissue: violet nuclei on pink."""
    height, width = image.shape[:2]
    drawn = np.asarray((_skin(image.shape, rng) * 0.1 + np.array([205, 150, 190])).clip(0, 255), np.uint8)
    for x, y, size in rng.uniform((0, 0, 0.006), (1, 1, 0.014), (int(rng.integers(150, 500)), 3)):
        axes = (max(1, round(size * width)), max(1, round(size * height)))
        place = (round(x * width), round(y * height))
        cv2.ellipse(drawn, place, axes, rng.uniform(0, 180), 0, 360, (90, 50, 130), -1, cv2.LINE_AA)
    return drawn


def photographs() -> list[Image]:
    """A temple and a flower, whole (scikit-learn's sample images, CC BY)."""
    return [np.asarray(each, np.uint8) for each in load_sample_images().images]


def negative(image: Image, rng: np.random.Generator) -> Image:
    """The dermoscopic image with inverted colours."""
    return np.asarray(255 - image, np.uint8)


def scrambled(image: Image, rng: np.random.Generator) -> Image:
    """The dermoscopic image with 8 x 8 tiles in random order."""
    height, width = (side // 8 for side in image.shape[:2])
    parts = (
        image[: 8 * height, : 8 * width].reshape(8, height, 8, width, 3).swapaxes(1, 2).reshape(64, height, width, 3)
    )
    mixed = parts[rng.permutation(64)].reshape(8, 8, height, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(mixed.reshape(8 * height, 8 * width, 3))


def blue_skin(image: Image, rng: np.random.Generator) -> Image:
    """The dermoscopic image with red and blue exchanged, as by a program that confuses their order."""
    return np.ascontiguousarray(image[..., ::-1])


BODY = (skin, hand, eye, radiograph, histology)
"""Drawn images of the body, the first three as a camera without a dermatoscope would take them."""

NON_DERMOSCOPIC = MappingProxyType({each.__name__: each for each in (noise, flat, text, scene, *BODY)})
"""Images that are not dermoscopic, by kind."""

ALTERED = MappingProxyType({each.__name__: each for each in (negative, scrambled, blue_skin)})
"""Altered dermoscopic images, by kind."""
