"""Saliency maps: Grad-CAM and spatial attention of one network, and their projection onto the image."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from skinlesion.data.image_io import unpadded_area
from skinlesion.model.network import Head, Network
from skinlesion.training.feature_cache import backbone_maps

Map = npt.NDArray[np.float32]  # (h, w)
Maps = npt.NDArray[np.float32]  # (N, h, w)


class _HeadWithMetadata(nn.Module):
    """A head with fixed metadata, because Grad-CAM passes the feature map alone."""

    def __init__(self, head: Head, metadata: Tensor) -> None:
        super().__init__()
        self.head, self.metadata = head, metadata

    def forward(self, feature_map: Tensor) -> Tensor:
        return cast(Tensor, self.head(feature_map, self.metadata))  # (B, K)


def class_maps(network: Network, image: Tensor, metadata: Tensor, *, classes: Sequence[int]) -> Maps:
    """Grad-CAM on the fused feature map, after the metadata gate and before the attention.

    Each channel is weighted by the mean gradient of the class's logit over all positions; negative evidence is set
    to zero (Selvaraju et al., ICCV 2017, doi:10.1109/ICCV.2017.74, as implemented by the library grad-cam).

    Args:
        network: Network in evaluation mode.
        image: (B, 3, H, W), normalised.
        metadata: (B, M), encoded.
        classes: Class index of each of the B images.

    Returns:
        (B, H, W), enlarged linearly from the feature map, where each map runs from 0 (its minimum) to 1 (its
        maximum); all zeros where no channel supports the class.
    """
    with torch.no_grad():
        feature_map = backbone_maps(network.backbone, image)  # (B, C, h, w)
    with torch.enable_grad(), GradCAM(_HeadWithMetadata(network.head, metadata), [network.head.fused]) as grad_cam:
        targets = [ClassifierOutputTarget(k) for k in classes]
        coarse = grad_cam(feature_map.detach().requires_grad_(), targets)  # (B, h, w), 0 to 1
    network.zero_grad(set_to_none=True)
    height, width = image.shape[-2:]
    return np.asarray(scale_cam_image(coarse, (width, height)), np.float32)


@torch.no_grad()
def spatial_maps(network: Network, image: Tensor, metadata: Tensor) -> Maps | None:
    """Factors by which CBAM's spatial attention scales each position.

    Args:
        network: Network in evaluation mode.
        image: (B, 3, H, W), normalised.
        metadata: (B, M), encoded.

    Returns:
        (B, h, w) in 0..1, at the size of the feature map; None for a network without spatial attention.
    """
    attention = network.head.attention
    if attention is None or attention.spatial is None:
        return None
    fused = network.head.fuse(backbone_maps(network.backbone, image), metadata)  # (B, C, h, w)
    weights: Maps = attention.spatial.map(attention.channel(fused))[:, 0].cpu().numpy()
    return weights


def project(values: Map, shape: tuple[int, int], size: tuple[int, int]) -> Map:
    """Project a map of the network's input onto the original image, without the padding.

    Args:
        values: (h, w), over the whole input, at any resolution.
        shape: (height, width) of the original image in pixels.
        size: (height, width) of the input, into which `image_io.fit` put the image, in pixels.

    Returns:
        (height, width) of the original image.
    """
    whole = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
    unpadded = np.ascontiguousarray(whole[unpadded_area(shape, size)])
    return np.asarray(cv2.resize(unpadded, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
