"""Corruptions of dermoscopic images: hair, ruler, vignette, blur, compression, brightness, colour, removed lesion.

Each is a function of an image (h, w, 3), a step and a random generator. Lengths are fractions of the image, so that a
step means the same at every resolution. With the same generator a larger step contains all of a smaller one.

Blur, compression, brightness and colour are transforms of albumentations at a fixed strength. It has no hair, ruler,
vignette or removed lesion in steps; these are drawn here.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing must not ask the network

import albumentations as A

from skinlesion.config.schema import require, require_choice
from skinlesion.data.image_io import Image
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
    return _pixels(overlay(_floats(image), np.array((0.13, 0.08, 0.08)), 0.85 * strokes((width, height), lines)))


def ruler(image: Image, length: float, rng: np.random.Generator) -> Image:
    """Draw a black ruler along the lower edge, over a fraction of the width."""
    height, width = image.shape[:2]
    gap, base = 0.02 * width, height * rng.uniform(0.9, 0.97)
    lines = []
    for tick in range(int(length / 0.02) + 1 if length > 0 else 0):
        high = height * (0.08 if tick % 5 == 0 else 0.045)
        lines.append((np.array([[tick * gap, base], [tick * gap, base - high]]), 0.005 * width))
    return _pixels(overlay(_floats(image), np.zeros(3), 0.9 * strokes((width, height), lines)))


def vignette(image: Image, reach: float, rng: np.random.Generator) -> Image:
    """Blacken everything outside a circle; `reach` is the black share of the half diagonal, 0..1."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    far = np.hypot(x - width / 2, y - height / 2) / np.hypot(width / 2, height / 2)
    return np.where((far <= 1 - reach)[..., None], image, np.uint8(0))


def blur(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Blur by a Gaussian with sigma in percent of the width."""
    return image if sigma == 0 else _changed(_blurring(sigma / 100 * image.shape[1]), image)


def compression(image: Image, quality: float, rng: np.random.Generator) -> Image:
    """Compress as JPEG; quality 100 leaves the image unchanged."""
    if quality >= 100:
        return image
    # albumentations passes the channels on unchanged, and the codec expects blue first
    return np.ascontiguousarray(_changed(_compressing(round(quality)), image[..., ::-1])[..., ::-1])


def brightness(image: Image, factor: float, rng: np.random.Generator) -> Image:
    """Multiply the brightness, with saturation as in a camera."""
    return _changed(_lighting(factor), image)


def colour(image: Image, shift: float, rng: np.random.Generator) -> Image:
    """Shift the colour by a share of the full range: more red and less blue above 0, the opposite below."""
    return _changed(_shifting(shift), image)


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


CORRUPTIONS = MappingProxyType(
    {
        "hair": Corruption(hairs, neutral=0, least=0, most=1000, unit="number of hairs"),
        "ruler": Corruption(ruler, neutral=0, least=0, most=1, unit="length, share of the width"),
        "vignette": Corruption(vignette, neutral=0, least=0, most=1, unit="black share of the half diagonal"),
        "blur": Corruption(blur, neutral=0, least=0, most=20, unit="sigma, % of the width"),
        "jpeg": Corruption(compression, neutral=100, least=1, most=100, unit="quality"),
        "brightness": Corruption(brightness, neutral=1, least=0, most=10, unit="factor"),
        "colour": Corruption(colour, neutral=0, least=-1, most=1, unit="share of the full range, red above 0"),
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


def _changed(transform: A.ImageOnlyTransform, image: Image) -> Image:
    return np.asarray(transform(image=np.ascontiguousarray(image))["image"], np.uint8)


# Cached by step: creating a transform takes longer than applying it.
@cache
def _blurring(sigma: float) -> A.GaussianBlur:
    return A.GaussianBlur(blur_limit=0, sigma_limit=(sigma, sigma), p=1)


@cache
def _compressing(quality: int) -> A.ImageCompression:
    return A.ImageCompression(quality_range=(quality, quality), p=1)


@cache
def _lighting(factor: float) -> A.MultiplicativeNoise:
    return A.MultiplicativeNoise(multiplier=(factor, factor), p=1)


@cache
def _shifting(shift: float) -> A.RGBShift:
    levels = 255 * shift
    return A.RGBShift(r_shift_limit=(levels, levels), g_shift_limit=(0, 0), b_shift_limit=(-levels, -levels), p=1)


def _floats(image: Image) -> npt.NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(255)


def _pixels(values: npt.NDArray[np.float32]) -> Image:
    return np.asarray((np.clip(values, 0, 1) * 255).round(), np.uint8)
