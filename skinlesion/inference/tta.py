"""Test-time augmentation: dermoscopic images have no up or down, so flips, quarter turns and larger scales vote too."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone

TTA = ("none", "flips", "dihedral", "scales")
_FLIPS = ((), (-1,), (-2,), (-2, -1))
_LARGER = ((6, (-1,)), (7, (-2,)))  # fifths of a side, and along which side the enlarged image is mirrored


def views(image: Tensor, tta: str) -> Iterator[Tensor]:
    """Yield the views that vote: the images (B, C, H, W) first, then others of them, (B, C, h, w).

    Args:
        image: (B, C, H, W).
        tta: "none": itself alone. "flips": also mirrored along each side and along both, which is half a turn.
            "dihedral": all eight flips and quarter turns of a square image; of another, those four of "flips",
            since a quarter turn would change its shape. "scales": also at 1.2 and at 1.4 of its sides, since a network
            sees lesions smaller when it predicts than when it learns from crops (Touvron et al., arXiv:1906.06423);
            the enlarged are mirrored, the first along its width and the second along its height.

    Raises:
        ConfigError: `tta` is none of these words.
    """
    if tta not in TTA:
        raise ConfigError(f"tta={tta}: expected one of {', '.join(TTA)}")
    if tta == "scales":
        height, width = image.shape[-2:]
        yield image
        for fifths, side in _LARGER:
            size = (height * fifths // 5, width * fifths // 5)
            yield F.interpolate(image, size, mode="bilinear", align_corners=False).flip(side)
        return
    quarters = (0, 1) if tta == "dihedral" and image.shape[-1] == image.shape[-2] else (0,)
    for quarter in quarters:
        for flipped in _FLIPS[:1] if tta == "none" else _FLIPS:
            yield torch.rot90(image, quarter, (-2, -1)).flip(flipped)


def check_views(tta: str, backbones: Iterable[Backbone]) -> None:
    """Refuse larger scales for networks that take images of one size only.

    Raises:
        ConfigError: It names the network and the words that suit it.
    """
    for backbone in backbones:
        if tta == "scales" and not backbone.takes_any_size:
            name = backbone.name
            raise ConfigError(f"tta=scales: {name} takes images of one size only; give none, flips or dihedral")
