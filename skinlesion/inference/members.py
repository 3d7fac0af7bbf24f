"""Interface of the networks that vote, in PyTorch or onnxruntime."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.treatment import Treatment
from skinlesion.inference.ood import OodStatistics

Fact = float | str | None
Facts = Mapping[str, Fact]
Size = tuple[int, int]  # (height, width) in pixels
Prepared = tuple[Image, ...]
"""An image fitted to each of a predictor's sizes, or to their area, (height, width, 3) uint8 each."""


class Outputs(NamedTuple):
    """Outputs of M members for a batch of B images."""

    probabilities: npt.NDArray[np.floating]  # (M, B, K), the mean over the views of test-time augmentation
    logits: Sequence[npt.NDArray[np.floating]]  # M of (B, K), of the images as they are; empty without OOD statistics
    pooled: Sequence[npt.NDArray[np.floating]]  # M of (B, C), likewise
    specialist: npt.NDArray[np.floating] | None = None  # (B,), its probability of its target; None: there is none

    @classmethod
    def joined(cls, parts: "Sequence[Outputs]", order: npt.NDArray[np.integer]) -> Self:
        """The outputs for all images of several batches, in an order."""
        scores = [part.specialist for part in parts if part.specialist is not None]
        return cls(
            np.concatenate([part.probabilities for part in parts], axis=1)[:, order],
            [np.concatenate(each)[order] for each in zip(*(part.logits for part in parts), strict=True)],
            [np.concatenate(each)[order] for each in zip(*(part.pooled for part in parts), strict=True)],
            None if not scores else np.concatenate(scores)[order],
        )


def by_shape(images: Iterable[Prepared], start: int) -> Iterator[tuple[list[int], list[Prepared]]]:
    """Part images into groups of equal shapes, each with the numbers of its images, counted from `start`."""
    groups: dict[object, list[tuple[int, Prepared]]] = {}
    for row, image in enumerate(images, start):
        groups.setdefault(tuple(each.shape for each in image), []).append((row, image))
    for group in groups.values():
        rows, own = zip(*group, strict=True)
        yield list(rows), list(own)


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
    def takes_any_shape(self) -> bool:
        """Whether images may have another shape than `sizes`, so that they need no padding."""

    @property
    def treatment(self) -> Treatment:
        """What is done to each image once it has its size, see `image_io.fit`."""

    @property
    def tta(self) -> str:
        """Views of an image that vote, see `inference.tta`."""

    def run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32], *, embed: bool) -> Outputs:
        """Run all members on B images with encoded facts (B, M).

        Args:
            images: B of equal shapes, each fitted to all `sizes`, or to their area.
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
    specialist: Mapping[str, Any] | None = None  # see `specialist.Correction`, of the vote before all else
