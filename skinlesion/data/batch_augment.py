"""Random changes of training images, a whole batch at a time, on the batch's own device.

The policy is that of `transforms.Augmentation`, in the same order and over the same ranges. Flips, rotation, zoom,
shift and square part are one sampling of the image instead of three, so that pixels are interpolated once.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from skinlesion.config.data import AugmentConfig

RANDOM_NUMBERS = 14  # random numbers an image takes, one for each field of `_Drawn`
_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey, ITU-R BT.601, as OpenCV has it

_FIRST = (5.0, 3.0, 1.0)  # sixths of the circle from which red, green and blue are counted


@dataclass(frozen=True)
class _Drawn:
    """The change of each image of a batch, each (B, 1, 1)."""

    mirrored: Tensor  # -1 or 1: left and right
    upturned: Tensor  # -1 or 1: top and bottom
    angle: Tensor  # radians
    shift_x: Tensor  # fraction of the width
    shift_y: Tensor  # fraction of the height
    scale: Tensor
    brightness: Tensor  # added, 0..255
    contrast: Tensor  # factor
    hue: Tensor  # fraction of the colour circle
    saturation: Tensor  # factor
    square: Tensor  # 0 or 1: whether only a square part is shown
    side: Tensor  # of the square, as a fraction of the image's shorter side
    left: Tensor  # place of the square, 0..1 of the room there is
    top: Tensor


@dataclass(frozen=True)
class BatchAugment:
    """The changes of `transforms.Augmentation`.

    Takes images (B, H, W, 3) uint8 and random numbers (B, RANDOM_NUMBERS) in [0, 1); gives images (B, 3, H, W)
    float, 0..255. An image's change depends on its own numbers alone.
    """

    options: AugmentConfig

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Change a batch."""
        drawn = self._drawn(numbers)
        changed = images.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        changed = (changed * drawn.contrast[..., None] + drawn.brightness[..., None]).clamp(0, 255)
        # with corners aligned, reflection is about the middle of the outermost pixel, as BORDER_REFLECT_101 has it
        grid = self._sampling_grid(drawn, height=images.shape[1], width=images.shape[2])
        changed = F.grid_sample(changed, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        if self.options.saturation:
            changed = saturate(changed, drawn.saturation[..., None])
        if self.options.hue:
            changed = shift_hue(changed, drawn.hue[..., None])
        return _framed(changed, drawn.square[..., None]) if self.options.square else changed

    def _drawn(self, numbers: Tensor) -> _Drawn:
        columns = numbers[:, :, None, None].unbind(dim=1)  # each (B, 1, 1)
        x, y, angle, shift_x, shift_y, scale, brightness, contrast, hue, saturation, square, side, left, top = columns
        return _Drawn(
            mirrored=1 - 2 * (x < self.options.flip).float(),
            upturned=1 - 2 * (y < self.options.flip).float(),
            angle=_either_way(angle, math.radians(self.options.rotation)),
            shift_x=_either_way(shift_x, self.options.shift),
            shift_y=_either_way(shift_y, self.options.shift),
            scale=1 + _either_way(scale, self.options.zoom),
            brightness=255 * _either_way(brightness, self.options.brightness),
            contrast=1 + _either_way(contrast, self.options.contrast),
            hue=_either_way(hue, self.options.hue),
            saturation=1 + _either_way(saturation, self.options.saturation),
            square=(square < self.options.square).float(),
            side=self.options.square_side + (1 - self.options.square_side) * side,
            left=left,
            top=top,
        )

    def _sampling_grid(self, drawn: _Drawn, *, height: int, width: int) -> Tensor:
        """Find where each pixel comes from: (B, H, W, 2), x and y, -1..1 between the outermost pixels."""
        x = torch.arange(width, device=drawn.angle.device) - (width - 1) / 2  # (W,), from the image's middle
        y = (torch.arange(height, device=drawn.angle.device) - (height - 1) / 2)[:, None]  # (H, 1)
        if self.options.square:
            x, y = _in_square(drawn, x, y, height=height, width=width)  # (B, 1, W), (B, H, 1)
        # whole pixels, as albumentations shifts
        x = x - torch.trunc(drawn.shift_x * width)
        y = y - torch.trunc(drawn.shift_y * height)
        cosine, sine = torch.cos(drawn.angle) / drawn.scale, torch.sin(drawn.angle) / drawn.scale
        across = drawn.mirrored * (cosine * x - sine * y)  # (B, H, W)
        down = drawn.upturned * (sine * x + cosine * y)
        return torch.stack((across * (2 / max(1, width - 1)), down * (2 / max(1, height - 1))), dim=-1)


def _either_way(drawn: Tensor, limit: float) -> Tensor:
    """Scale [0, 1) to [-limit, limit)."""
    return (2 * drawn - 1) * limit


def _in_square(drawn: _Drawn, x: Tensor, y: Tensor, *, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find where a square part, enlarged to the shorter side, shows the image, in pixels from the middle."""
    shorter = min(height, width)
    side = torch.where(drawn.square > 0, torch.round(shorter * drawn.side).clamp(min=1), shorter)  # pixels
    places = []
    for at, length, place in ((x, width, drawn.left), (y, height, drawn.top)):
        first = torch.floor(place * (length - side + 1))  # pixel of the square's border
        middle = first + (side - 1) / 2 - (length - 1) / 2
        shown = (length - shorter) // 2 + (shorter - 1) / 2 - (length - 1) / 2  # middle of where it is shown
        places.append(torch.where(drawn.square > 0, (at - shown) * (side / shorter) + middle, at))
    return places[0], places[1]


def _framed(images: Tensor, square: Tensor) -> Tensor:
    """Blacken what is beside the square, where only a square part is shown."""
    height, width = images.shape[2:]
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    shown = images.new_zeros(height, width)
    shown[top : top + shorter, left : left + shorter] = 1
    return images * torch.where(square > 0, shown, 1.0)


@cache
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Three numbers as (3, 1, 1) float on a device, copied once: copying makes the processor wait for a GPU."""
    return torch.tensor(values, device=device)[:, None, None]


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from its grey (factor above 1) or towards it.

    Args:
        images: RGB, (B, 3, H, W), 0..255.
        factor: Broadcasts to (B, 1, 1, 1).
    """
    grey = (images * per_channel(_LUMA, images.device)).sum(dim=1, keepdim=True)  # (B, 1, H, W)
    return torch.lerp(grey, images, factor).clamp(0, 255)


def shift_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Shift each image's hue at constant saturation and value (HSV: Smith, SIGGRAPH 1978, doi:10.1145/800248.807361).

    Args:
        images: RGB, (B, 3, H, W), 0..255.
        turn: Shift of the hue as a fraction of the colour circle; broadcasts to (B, 1, 1, 1).
    """
    value, place = images.max(dim=1, keepdim=True)  # (B, 1, H, W)
    chroma = value - images.amin(dim=1, keepdim=True)
    # how far the hue stands from the strongest channel, in sixths of the circle: towards the next one, from the last
    following, preceding = (images.gather(1, (place + step) % 3) for step in (1, 2))
    sixths = 2 * place + (following - preceding) / chroma.clamp(min=1e-6)
    k = (per_channel(_FIRST, images.device) + sixths + 6 * turn) % 6  # (B, 3, H, W)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
