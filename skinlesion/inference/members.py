"""Interface of the networks that vote, in PyTorch or onnxruntime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.inference.ood import OodStatistics

Fact = float | str | None
Facts = Mapping[str, Fact]
Size = tuple[int, int]  # (height, width) in pixels
Prepared = tuple[Image, ...]
"""An image fitted to each of a predictor's sizes, (height, width, 3) uint8 each."""


class Outputs(NamedTuple):
    """Outputs of M members for a batch of B images."""

    probabilities: npt.NDArray[np.floating]  # (M, B, K), the mean over the views of test-time augmentation
    logits: Sequence[npt.NDArray[np.floating]]  # M of (B, K), of the images as they are; empty without OOD statistics
    pooled: Sequence[npt.NDArray[np.floating]]  # M of (B, C), likewise


class Members(Protocol):
    """The networks that vote, in PyTorch or onnxruntime."""

    @property
    def names(self) -> Sequence[str]:
        """M different names."""

    @property
    def encoder(self) -> MetadataEncoder:
        """Turns facts into the networks' input."""

    @property
    def sizes(self) -> Sequence[Size]:
        """The different sizes to which images are fitted."""

    @property
    def tta(self) -> str:
        """Views of an image that vote, see `inference.tta`."""

    def run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32], *, embed: bool) -> Outputs:
        """Run all members on B images with encoded facts (B, M).

        Args:
            images: B, each fitted to all `sizes`.
            metadata: (B, M).
            embed: Whether logits and pooled features are wanted too.
        """


@dataclass(frozen=True)
class PostHoc:
    """Calibration, decisions and OOD statistics fitted after the vote, as ensemble.json and bundle.json keep them."""

    calibration: Mapping[str, Any] | None = None  # see `calibration.calibrated`
    operating_points: Sequence[Mapping[str, Any]] | None = None  # see `operating_points.fit`
    conformal: Sequence[Mapping[str, Any]] | None = None  # see `conformal.fit`; the first is in use
    ood: OodStatistics | None = None  # statistics of training images, see `ood.fit`
    decision: Mapping[str, Any] | None = None  # see `calibration.Decision`; None: the likeliest, and no prior is known
