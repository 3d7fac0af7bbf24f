"""Transforms of images: random changes in training, and normalisation to a tensor."""

import os
import random
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing must not ask the network

import albumentations as A
import cv2
import torch
from torch import Tensor

from skinlesion.data.image_io import Image, ImageInput, fit

_SQUARE = 1  # sets its random numbers apart from those of the other changes

PUBLISHED = {
    "flip": 0.5,
    "rotation": 45.0,
    "shift": 0.075,
    "zoom": 0.15,
    "brightness": 0.15,
    "contrast": 0.15,
    "hue": 0.0,
    "saturation": 0.0,
    "square": 0.0,
    "square_side": 1.0,
}
"""Options of `augmentation` in the published recipe (Corvus333-dev/SkinCancer, README of 2025)."""

Augment = Callable[[Image, int], Image]
"""Image (H, W, 3) and a draw -> changed image; the same draw gives the same change."""


def augmentation(
    *,
    flip: float,
    rotation: float,
    shift: float,
    zoom: float,
    brightness: float,
    contrast: float,
    hue: float,
    saturation: float,
    square: float,
    square_side: float,
    seed: int,
) -> Augment:
    """Make the random changes of training images: those of the published recipe, and optionally colour and framing.

    Args:
        flip: Probability of each of the two flips.
        rotation: Degrees, drawn from -rotation to rotation.
        shift: Fraction of the side, drawn in the same way for each axis.
        zoom: The scale is drawn from 1 - zoom to 1 + zoom.
        brightness: Fraction of the full range, drawn in the same way.
        contrast: The factor is drawn from 1 - contrast to 1 + contrast.
        hue: Fraction of the colour circle, drawn in the same way.
        saturation: The factor is drawn from 1 - saturation to 1 + saturation.
        square: Probability that only a square part of the image is shown.
        square_side: Least side of that square, as a fraction of the image's shorter side.
        seed: Determines the change, together with a draw.

    Returns:
        A function of an image and a draw; processes and the order of calls do not change its result.
    """
    # colours only where they change, so that they draw no random numbers otherwise
    colours = [
        A.ColorJitter(
            brightness=(1, 1), contrast=(1, 1), saturation=(1 - saturation, 1 + saturation), hue=(-hue, hue), p=1
        )
    ]
    pipeline = A.Compose(
        [
            A.HorizontalFlip(p=flip),
            A.VerticalFlip(p=flip),
            A.RandomBrightnessContrast(
                brightness_limit=(-brightness, brightness), contrast_limit=(-contrast, contrast), p=1
            ),
            A.Affine(
                rotate=(-rotation, rotation),
                translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                scale=(1 - zoom, 1 + zoom),
                keep_ratio=True,
                border_mode=cv2.BORDER_REFLECT_101,  # black wedges would be seen in training only
                p=1,
            ),
            *(colours if hue or saturation else []),
        ]
    )

    def augment(image: Image, draw: int) -> Image:
        pipeline.set_random_state(np.random.default_rng((seed, draw)), random.Random(f"{seed}-{draw}"))
        changed: Image = pipeline(image=image)["image"]
        rng = np.random.default_rng((seed, draw, _SQUARE))
        return _square_part(changed, rng, least=square_side) if rng.random() < square else changed

    return augment


def _square_part(image: Image, rng: np.random.Generator, *, least: float) -> Image:
    """A random square of an image, fitted into its size as a square photograph would be."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * rng.uniform(least, 1)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return fit(image[top : top + side, left : left + side], (height, width))


def normalise(images: Image, spec: ImageInput) -> Tensor:
    """Scale pixels 0..255 by the mean and std of the pretrained weights.

    Args:
        images: RGB, (B, H, W, 3).
        spec: Mean and std of each channel.

    Returns:
        (B, 3, H, W), float32, channels last in memory.
    """
    count, height, width, _ = images.shape
    rows = images.reshape(count * height, width, 3)
    # a lookup table takes a third of the time of arithmetic on every pixel
    scaled = cv2.LUT(rows, _table(spec)).reshape(images.shape)  # (B, H, W, 3)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


@cache
def _table(spec: ImageInput) -> npt.NDArray[np.float32]:
    """The scaled value of each pixel value in each channel, (256, 1, 3)."""
    values = torch.arange(256).float().div(255)[:, None]  # (256, 1)
    scaled = values.sub(torch.tensor(spec.mean)).div(torch.tensor(spec.std))  # (256, 3)
    return cast(npt.NDArray[np.float32], scaled.numpy().reshape(256, 1, 3))
