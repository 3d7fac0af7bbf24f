"""Test-time augmentation: dermoscopic images have no up or down, so flips and quarter turns vote too."""

from collections.abc import Iterator

import torch
from torch import Tensor

from skinlesion.errors import ConfigError

TTA = ("none", "flips", "dihedral")


def views(image: Tensor, tta: str) -> Iterator[Tensor]:
    """Yield the views that vote: the images (B, C, H, W) first, then their flips and quarter turns in the same shape.

    Args:
        image: (B, C, H, W).
        tta: "none": itself alone. "flips": also mirrored along each side and along both, which is half a turn.
            "dihedral": all eight flips and quarter turns of a square image; of another, those four of "flips",
            since a quarter turn would change its shape.

    Raises:
        ConfigError: `tta` is none of these words.
    """
    if tta not in TTA:
        raise ConfigError(f"tta={tta}: expected one of {', '.join(TTA)}")
    quarters = (0, 1) if tta == "dihedral" and image.shape[-1] == image.shape[-2] else (0,)
    sides: tuple[tuple[int, ...], ...] = ((),) if tta == "none" else ((), (-1,), (-2,), (-2, -1))
    for quarter in quarters:
        for flipped in sides:
            yield torch.rot90(image, quarter, (-2, -1)).flip(flipped)
