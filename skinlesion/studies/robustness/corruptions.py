"""What disturbs a dermoscopic image: hair, ruler, dark frame, blur, compression, light, colour; and the lesion removed.

Each is a function of an image (h, w, 3), a step and a random generator. Lengths are fractions of the image, so that a
step means the same at every resolution. With the same generator a larger step holds all of a smaller one.

Blur, compression, brightness and colour are albumentations' transforms, held at one strength. It has no hair, no
ruler, no round dark frame and no removed lesion that come in steps: these are drawn here.
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
from skinlesion.synthetic.textures import covered, strokes, walk

Apply = Callable[[Image, float, np.random.Generator], Image]

_BORDER = 0.05  # of the shorter side: the rim whose colour stands in for a removed lesion


@dataclass(frozen=True)
class Corruption:
    """One way to disturb an image, in steps."""

    apply: Apply
    neutral: float  # the step that changes nothing
    least: float  # steps run from here
    most: float  # to here
    unit: str  # what a step counts


def hairs(image: Image, count: float, rng: np.random.Generator) -> Image:
    """Lay dark hairs across an image, all combed about one way."""
    height, width = image.shape[:2]
    combed = rng.uniform(0, 2 * np.pi)
    lines = []
    for _ in range(round(count)):
        root = rng.uniform(-0.1, 1.1, 2) * (width, height)
        heading, length = combed + rng.normal(0, 0.4), width * rng.uniform(0.2, 0.8)
        lines.append((walk(root, rng, heading=heading, length=length, bend=0.06), width * rng.uniform(0.002, 0.005)))
    return _pixels(covered(_floats(image), np.array((0.13, 0.08, 0.08)), 0.85 * strokes((width, height), lines)))


def ruler(image: Image, length: float, rng: np.random.Generator) -> Image:
    """Print a black scale along the lower edge, over a fraction of the width."""
    height, width = image.shape[:2]
    gap, base = 0.02 * width, height * rng.uniform(0.9, 0.97)
    lines = []
    for tick in range(int(length / 0.02) + 1 if length > 0 else 0):
        high = height * (0.08 if tick % 5 == 0 else 0.045)
        lines.append((np.array([[tick * gap, base], [tick * gap, base - high]]), 0.005 * width))
    return _pixels(covered(_floats(image), np.zeros(3), 0.9 * strokes((width, height), lines)))


def vignette(image: Image, reach: float, rng: np.random.Generator) -> Image:
    """Black out what lies outside a round opening; `reach` is how far the black comes in from the corners, 0..1."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    far = np.hypot(x - width / 2, y - height / 2) / np.hypot(width / 2, height / 2)
    return np.where((far <= 1 - reach)[..., None], image, np.uint8(0))


def blur(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Blur an image by a Gaussian; sigma in percent of the width."""
    return image if sigma == 0 else _changed(_blurring(sigma / 100 * image.shape[1]), image)


def compression(image: Image, quality: float, rng: np.random.Generator) -> Image:
    """Compress an image as JPEG; at quality 100 it is left as it is."""
    if quality >= 100:
        return image
    # albumentations gives the codec's channels as they come, and the codec takes the first one for blue
    return np.ascontiguousarray(_changed(_compressing(round(quality)), image[..., ::-1])[..., ::-1])


def brightness(image: Image, factor: float, rng: np.random.Generator) -> Image:
    """Multiply the light; what becomes too bright is cut off, as by a camera."""
    return _changed(_lighting(factor), image)


def colour(image: Image, shift: float, rng: np.random.Generator) -> Image:
    """Shift the colour by a share of the full range: more red and less blue above 0, the other way below."""
    return _changed(_shifting(shift), image)


def lesion_removed(image: Image, share: float, rng: np.random.Generator) -> Image:
    """Paint a share of the image, from the middle outwards, in the colour of its rim: what is left is surroundings."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    far = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2).ravel()
    middle = np.zeros(height * width, dtype=bool)
    middle[np.argsort(far, kind="stable")[: round(share * height * width)]] = True
    return np.where(middle.reshape(height, width, 1), _rim_colour(image), image)


DISTURBANCES = MappingProxyType(
    {
        "hair": Corruption(hairs, neutral=0, least=0, most=1000, unit="hairs"),
        "ruler": Corruption(ruler, neutral=0, least=0, most=1, unit="fraction of the width"),
        "vignette": Corruption(vignette, neutral=0, least=0, most=1, unit="black from the corners inwards"),
        "blur": Corruption(blur, neutral=0, least=0, most=20, unit="sigma, % of the width"),
        "jpeg": Corruption(compression, neutral=100, least=1, most=100, unit="JPEG quality"),
        "brightness": Corruption(brightness, neutral=1, least=0, most=10, unit="factor"),
        "colour": Corruption(colour, neutral=0, least=-1, most=1, unit="of the full range: red up, blue down"),
        "lesion_removed": Corruption(lesion_removed, neutral=0, least=0, most=1, unit="share painted over"),
    }
)
"""All disturbances by name."""


def check_steps(steps: Mapping[str, Any]) -> None:
    """Refuse disturbances that there are not, and steps that cannot be taken.

    Raises:
        ConfigError: It names the key, the step and what was expected.
    """
    for name, each in steps.items():
        require_choice("steps", name, tuple(DISTURBANCES))
        disturbance = DISTURBANCES[name]
        expected = f"numbers from {disturbance.least:g} to {disturbance.most:g} ({disturbance.unit}), each once"
        numbers = isinstance(each, list) and len(each) > 0 and all(type(step) in (int, float) for step in each)
        inside = numbers and all(disturbance.least <= step <= disturbance.most for step in each)
        require(inside and len(set(each)) == len(each), f"steps.{name}", each, expected)


def _changed(transform: A.ImageOnlyTransform, image: Image) -> Image:
    return np.asarray(transform(image=np.ascontiguousarray(image))["image"], np.uint8)


# Each is made once a step: making a transform takes longer than applying it.
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


def _rim_colour(image: Image) -> npt.NDArray[np.uint8]:
    """The median colour (3,) of an image's rim."""
    rim = max(1, round(_BORDER * min(image.shape[:2])))
    inner = np.zeros(image.shape[:2], dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    return np.asarray(np.median(image[~inner], axis=0).round(), np.uint8)


def _floats(image: Image) -> npt.NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(255)


def _pixels(values: npt.NDArray[np.float32]) -> Image:
    return np.asarray((np.clip(values, 0, 1) * 255).round(), np.uint8)
