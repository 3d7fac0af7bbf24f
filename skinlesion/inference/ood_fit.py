"""Novelty of an ensemble: what its members make of training and validation images, and of any others."""

from collections.abc import Sequence

import torch

from skinlesion.config.data import SourceConfig
from skinlesion.data.frame import targets
from skinlesion.inference import ood
from skinlesion.inference.sample import read_sample, see
from skinlesion.training.checkpoint import TrainedModel

IMAGES = 2000  # of training, and of validation, at most: more hardly move a covariance of 64 axes


def fit_novelty(
    models: Sequence[TrainedModel],
    *,
    source: SourceConfig,
    device: torch.device,
    passing: float,
    seed: int,
    images: int = IMAGES,
) -> ood.Fitted:
    """Learn what training images look like to an ensemble; see `evaluation.novelty.fit`.

    Args:
        models: The members, of one split, in the order in which they vote.
        source: Where the images are.
        device: Where the networks run.
        passing: The share of validation images that is not flagged.
        seed: Of which images are drawn, where there are more than `images`.
        images: Of training, and of validation, at most.

    Raises:
        DataError: The data lack some of the images, or there are too few.
    """
    train = read_sample(models[0], "train", images=images, seed=seed, source=source)
    val = read_sample(models[0], "val", images=images, seed=seed, source=source)
    seen = {
        part: [each.embedded for each in see(models, sample, device=device, label=f"novelty: {part} images")]
        for part, sample in (("train", train), ("val", val))
    }
    return ood.fit(seen["train"], targets(train.frame), seen["val"], passing=passing)
