"""Out-of-distribution images: drawings and photographs that are not dermoscopic, and altered dermoscopic images."""

from collections.abc import Callable
from functools import cache
from types import MappingProxyType

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from skinlesion.data.image_io import Image

Draw = Callable[[Image, np.random.Generator], Image]
"""From a dermoscopic image (h, w, 3), which may only give the shape, and a random generator to another image."""

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


def photograph(image: Image, rng: np.random.Generator) -> Image:
    """A crop of a photograph of a temple or a flower (scikit-learn's sample images, CC BY)."""
    whole = _photographs()[int(rng.integers(2))]
    height, width = (round(side * rng.uniform(0.3, 0.9)) for side in whole.shape[:2])
    top, left = rng.integers(whole.shape[0] - height), rng.integers(whole.shape[1] - width)
    return np.asarray(cv2.resize(whole[top : top + height, left : left + width], image.shape[1::-1]), np.uint8)


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


NON_DERMOSCOPIC = MappingProxyType({each.__name__: each for each in (noise, flat, text, scene, photograph)})
"""Images that are not dermoscopic, by kind."""

ALTERED = MappingProxyType({each.__name__: each for each in (negative, scrambled, blue_skin)})
"""Altered dermoscopic images, by kind."""


@cache
def _photographs() -> list[Image]:
    return [np.asarray(image, np.uint8) for image in load_sample_images().images]
