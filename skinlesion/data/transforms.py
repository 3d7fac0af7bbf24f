"""Transforms of images: random changes in training, and normalisation to a tensor."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing must not ask the network

import albumentations as A
import cv2
import torch
from torch import Tensor

from skinlesion.config.data import AugmentConfig
from skinlesion.data.image_io import Image, ImageInput, fit

_SQUARE = 1  # sets its random numbers apart from those of the other changes

Augment = Callable[[Image, int], Image]
"""Image (H, W, 3) and a draw -> changed image; the same draw gives the same change."""


@dataclass(frozen=True)
class Augmentation:
    """The random changes of training images: those of the published recipe, and optionally colour and framing.

    Takes an image (H, W, 3) and a draw, and gives the changed image; processes and the order of calls do not change
    the result. It can be sent to a worker, however that was started.

    Attributes:
        options: How much is changed.
        seed: Determines the change, together with a draw.
    """

    options: AugmentConfig
    seed: int

    @cached_property
    def _pipeline(self) -> A.Compose:
        options = self.options
        # colours only where they change, so that they draw no random numbers otherwise
        colours = A.ColorJitter(
            brightness=(1, 1),
            contrast=(1, 1),
            saturation=(1 - options.saturation, 1 + options.saturation),
            hue=(-options.hue, options.hue),
            p=1,
        )
        changes = [
            A.HorizontalFlip(p=options.flip),
            A.VerticalFlip(p=options.flip),
            A.RandomBrightnessContrast(
                brightness_limit=(-options.brightness, options.brightness),
                contrast_limit=(-options.contrast, options.contrast),
                p=1,
            ),
            A.Affine(
                rotate=(-options.rotation, options.rotation),
                translate_percent=dict.fromkeys("xy", (-options.shift, options.shift)),
                scale=(1 - options.zoom, 1 + options.zoom),
                keep_ratio=True,
                border_mode=cv2.BORDER_REFLECT_101,  # black wedges would be seen in training only
                p=1,
            ),
        ]
        return A.Compose([*changes, colours] if options.hue or options.saturation else changes)

    def __call__(self, image: Image, draw: int) -> Image:
        """Change an image."""
        seed, options = self.seed, self.options
        self._pipeline.set_random_state(np.random.default_rng((seed, draw)), random.Random(f"{seed}-{draw}"))
        changed: Image = self._pipeline(image=image)["image"]
        rng = np.random.default_rng((seed, draw, _SQUARE))
        return _square_part(changed, rng, least=options.square_side) if rng.random() < options.square else changed


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
