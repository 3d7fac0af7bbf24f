"""Hue and saturation of a whole batch of images, each by its own amount, on whatever device it is."""

from functools import cache

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey, ITU-R BT.601, as OpenCV has it

_FIRST = (5.0, 3.0, 1.0)  # sixths of the circle from which red, green and blue are counted


@cache
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Three numbers as (3, 1, 1) float on a device, sent once: sending makes the processor wait for a GPU."""
    return torch.tensor(values, device=device)[:, None, None]


def saturated(images: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from its grey (factor above 1) or towards it.

    Args:
        images: RGB, (B, 3, H, W), 0..255.
        factor: Broadcasts to (B, 1, 1, 1).
    """
    grey = (images * per_channel(_LUMA, images.device)).sum(dim=1, keepdim=True)  # (B, 1, H, W)
    return torch.lerp(grey, images, factor).clamp(0, 255)


def hue_turned(images: Tensor, turn: Tensor) -> Tensor:
    """Turn each image's hue, at its own saturation and value (HSV: Smith, SIGGRAPH 1978, doi:10.1145/800248.807361).

    Args:
        images: RGB, (B, 3, H, W), 0..255.
        turn: In fractions of the colour circle; broadcasts to (B, 1, 1, 1).
    """
    value, place = images.max(dim=1, keepdim=True)  # (B, 1, H, W)
    chroma = value - images.amin(dim=1, keepdim=True)
    # how far the hue stands from the strongest channel, in sixths of the circle: towards the next one, from the last
    following, preceding = (images.gather(1, (place + step) % 3) for step in (1, 2))
    sixths = 2 * place + (following - preceding) / chroma.clamp(min=1e-6)
    k = (per_channel(_FIRST, images.device) + sixths + 6 * turn) % 6  # (B, 3, H, W)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
