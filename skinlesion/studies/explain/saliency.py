"""Maps over an image: where one member found what speaks for a diagnosis, and where its attention lies."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from skinlesion.model.network import Head, Network
from skinlesion.training.feature_cache import backbone_maps

Maps = npt.NDArray[np.float32]


class _OfPatients(nn.Module):
    """A head whose metadata are given beforehand, since Grad-CAM hands over the feature map alone."""

    def __init__(self, head: Head, metadata: Tensor) -> None:
        super().__init__()
        self.head, self.metadata = head, metadata

    def forward(self, feature_map: Tensor) -> Tensor:
        return cast(Tensor, self.head(feature_map, self.metadata))  # (B, K)


def class_maps(network: Network, image: Tensor, metadata: Tensor, *, classes: Sequence[int]) -> Maps:
    """Grad-CAM on the fused feature map, which is behind the gate and before the attention.

    A channel counts by the mean gradient of the class's logit over its positions; what speaks against the class is
    cut off (Selvaraju et al., ICCV 2017, doi:10.1109/ICCV.2017.74, as made by the library grad-cam).

    Args:
        network: In evaluation mode.
        image: (B, 3, H, W), normalised.
        metadata: (B, M), encoded.
        classes: B positions in CODES.

    Returns:
        (B, H, W); on the feature map each runs from 0, its least, to 1, its greatest value, or is 0 all over where
        nothing speaks for the class. It is enlarged linearly.
    """
    with torch.no_grad():
        feature_map = backbone_maps(network.backbone, image)  # (B, C, h, w)
    with torch.enable_grad(), GradCAM(_OfPatients(network.head, metadata), [network.head.fused]) as grad_cam:
        targets = [ClassifierOutputTarget(place) for place in classes]
        coarse = grad_cam(feature_map.detach().requires_grad_(), targets)  # (B, h, w), 0 to 1
    network.zero_grad(set_to_none=True)
    return _enlarged(coarse, image)


@torch.no_grad()
def spatial_maps(network: Network, image: Tensor, metadata: Tensor) -> Maps | None:
    """By how much CBAM's spatial attention scales each place.

    Args:
        network: In evaluation mode.
        image: (B, 3, H, W), normalised.
        metadata: (B, M), encoded.

    Returns:
        (B, h, w) factors in 0..1, at the size of the feature map; None for a network without spatial attention.
    """
    attention = network.head.attention
    if attention is None or attention.spatial is None:
        return None
    fused = network.head.fuse(backbone_maps(network.backbone, image), metadata)  # (B, C, h, w)
    weights: Maps = attention.spatial.map(attention.channel(fused))[:, 0].cpu().numpy()
    return weights


def _enlarged(coarse: Maps, image: Tensor) -> Maps:
    height, width = image.shape[-2:]
    return np.asarray(scale_cam_image(coarse, (width, height)), np.float32)
