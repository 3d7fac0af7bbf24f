"""What is done to every image once it has its size, in training and in every use: hairs removed, colours balanced.

Needs OpenCV and numpy alone, as `image_io` does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import cv2
import numpy as np

from skinlesion.data.skin import Image, remove_hair

_POWER = 6  # with which the light is averaged: 1 is the grey world, infinity the brightest pixel
_POWERS = (np.arange(256) / 255) ** _POWER
_DARKEST = 1e-3  # share of full light of a channel below which it is not made brighter any more


@dataclass(frozen=True)
class Treatment:
    """How images are treated.

    Attributes:
        hair: "keep", or "remove": dark hairs are painted over, see `skin.remove_hair`.
        colour_constancy: "none", or "shades_of_gray": see `shades_of_gray`.
    """

    hair: str = "keep"
    colour_constancy: str = "none"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The treatment among other settings; a setting that an earlier version did not have means no treatment."""
        return cls(**{name: str(settings[name]) for name in asdict(cls()) if name in settings})

    def __call__(self, image: Image) -> Image:
        """Treat an image (h, w, 3), RGB, that has no padding yet."""
        image = remove_hair(image) if self.hair == "remove" else image
        return shades_of_gray(image) if self.colour_constancy == "shades_of_gray" else image

    @property
    def suffix(self) -> str:
        """Tells the names of folders apart; "" without treatment."""
        removed = "" if self.hair == "keep" else f"-{self.hair}-hair"
        return removed if self.colour_constancy == "none" else f"{removed}-{self.colour_constancy}"

    def differing(self, other: Self) -> list[str]:
        """Names of the settings that differ."""
        return [name for name, value in asdict(self).items() if value != getattr(other, name)]


UNTREATED = Treatment()


def shades_of_gray(image: Image) -> Image:
    """Divide each channel by its share of the light's colour, the mean over the image with power 6.

    Finlayson & Trezzi, Shades of gray and colour constancy, CIC 2004:37-41; on dermoscopic images: Barata et al., IEEE
    J Biomed Health Inform 19:1146-1152, 2015, doi:10.1109/JBHI.2014.2336473. The light's strength stays as it is.

    Args:
        image: RGB, (h, w, 3).
    """
    light = _POWERS[image].mean(axis=(0, 1)) ** (1 / _POWER)  # (3,)
    gains = np.sqrt(np.mean(light**2)) / np.maximum(light, _DARKEST)
    tables = np.clip(np.arange(256)[:, None] * gains, 0, 255).round().astype(np.uint8)  # (256, 3)
    return np.asarray(cv2.LUT(np.ascontiguousarray(image), tables[None]), np.uint8)
