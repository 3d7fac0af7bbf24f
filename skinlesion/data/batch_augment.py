"""The random changes of training images, a whole batch at a time on the device where it lies.

The policy is that of `transforms.augmentation`, in the same order and over the same ranges. Flips, rotation, zoom,
shift and square part are one sampling of the image instead of three, so that pixels are interpolated once.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from skinlesion.data.colour import hue_turned, saturated

RANDOM_NUMBERS = 14  # random numbers an image takes, one for each field of `_Drawn`


@dataclass(frozen=True)
class _Drawn:
    """What is done to each image of a batch, each (B, 1, 1)."""

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
    square: Tensor  # 0 or 1: whether a square part is all that is seen
    side: Tensor  # of the square, as a fraction of the image's shorter side
    left: Tensor  # place of the square, 0..1 of what is possible
    top: Tensor


@dataclass(frozen=True)
class BatchAugment:
    """The changes of `transforms.augmentation`; the arguments are the same.

    Takes images (B, H, W, 3) uint8 and random numbers (B, RANDOM_NUMBERS) in [0, 1); gives images (B, 3, H, W)
    float, 0..255. An image's change depends on its own numbers alone.
    """

    flip: float
    rotation: float
    shift: float
    zoom: float
    brightness: float
    contrast: float
    hue: float
    saturation: float
    square: float
    square_side: float

    def __call__(self, images: Tensor, random_integers: Tensor) -> Tensor:
        """Change a batch."""
        drawn = self._drawn(random_integers)
        changed = images.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        changed = (changed * drawn.contrast[..., None] + drawn.brightness[..., None]).clamp(0, 255)
        # with corners aligned, reflection is about the middle of the outermost pixel, as BORDER_REFLECT_101 has it
        grid = self._places(drawn, height=images.shape[1], width=images.shape[2])
        changed = F.grid_sample(changed, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
        if self.saturation:
            changed = saturated(changed, drawn.saturation[..., None])
        if self.hue:
            changed = hue_turned(changed, drawn.hue[..., None])
        return _framed(changed, drawn.square[..., None]) if self.square else changed

    def _drawn(self, random_integers: Tensor) -> _Drawn:
        columns = random_integers[:, :, None, None].unbind(dim=1)  # each (B, 1, 1)
        x, y, angle, shift_x, shift_y, scale, brightness, contrast, hue, saturation, square, side, left, top = columns
        return _Drawn(
            mirrored=1 - 2 * (x < self.flip).float(),
            upturned=1 - 2 * (y < self.flip).float(),
            angle=_either_way(angle, math.radians(self.rotation)),
            shift_x=_either_way(shift_x, self.shift),
            shift_y=_either_way(shift_y, self.shift),
            scale=1 + _either_way(scale, self.zoom),
            brightness=255 * _either_way(brightness, self.brightness),
            contrast=1 + _either_way(contrast, self.contrast),
            hue=_either_way(hue, self.hue),
            saturation=1 + _either_way(saturation, self.saturation),
            square=(square < self.square).float(),
            side=self.square_side + (1 - self.square_side) * side,
            left=left,
            top=top,
        )

    def _places(self, drawn: _Drawn, *, height: int, width: int) -> Tensor:
        """Where each pixel of a changed image comes from: (B, H, W, 2), x and y, -1..1 between outermost pixels."""
        x = torch.arange(width, device=drawn.angle.device) - (width - 1) / 2  # (W,), from the image's middle
        y = (torch.arange(height, device=drawn.angle.device) - (height - 1) / 2)[:, None]  # (H, 1)
        if self.square:
            x, y = _in_square(drawn, x, y, height=height, width=width)  # (B, 1, W), (B, H, 1)
        # whole pixels, as albumentations shifts
        x = x - torch.trunc(drawn.shift_x * width)
        y = y - torch.trunc(drawn.shift_y * height)
        cosine, sine = torch.cos(drawn.angle) / drawn.scale, torch.sin(drawn.angle) / drawn.scale
        across = drawn.mirrored * (cosine * x - sine * y)  # (B, H, W)
        down = drawn.upturned * (sine * x + cosine * y)
        return torch.stack((across * (2 / max(1, width - 1)), down * (2 / max(1, height - 1))), dim=-1)


def _either_way(chance: Tensor, limit: float) -> Tensor:
    """[0, 1) to [-limit, limit)."""
    return (2 * chance - 1) * limit


def _in_square(drawn: _Drawn, x: Tensor, y: Tensor, *, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The places, from the middle, at which a square part enlarged to the shorter side shows the image."""
    shorter = min(height, width)
    side = torch.where(drawn.square > 0, torch.round(shorter * drawn.side).clamp(min=1), shorter)  # pixels
    places = []
    for at, length, chance in ((x, width, drawn.left), (y, height, drawn.top)):
        first = torch.floor(chance * (length - side + 1))  # pixel of the square's border
        middle = first + (side - 1) / 2 - (length - 1) / 2
        shown = (length - shorter) // 2 + (shorter - 1) / 2 - (length - 1) / 2  # middle of where it is shown
        places.append(torch.where(drawn.square > 0, (at - shown) * (side / shorter) + middle, at))
    return places[0], places[1]


def _framed(images: Tensor, square: Tensor) -> Tensor:
    """Black beside the square, where a square part is seen."""
    height, width = images.shape[2:]
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    seen = images.new_zeros(height, width)
    seen[top : top + shorter, left : left + shorter] = 1
    return images * torch.where(square > 0, seen, 1.0)
