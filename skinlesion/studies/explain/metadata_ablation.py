"""The gate's response: which fact about a patient moves which diagnosis by how much."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from skinlesion.data.image_io import Image, fit
from skinlesion.inference.sample import see_patient
from skinlesion.training.checkpoint import TrainedModel

Facts = Mapping[str, float | str | None]


def votes(
    models: Sequence[TrainedModel], image: Image, facts: Facts, *, device: torch.device, tta: str
) -> npt.NDArray[np.float32]:
    """Each member's probabilities (M, K) of an image (h, w, 3) of any size."""
    return np.stack(
        [
            see_patient(model, fit(image, model.spec.size)[None], facts, device=device, tta=tta).probabilities[0]
            for model in models
        ]
    )


def metadata_ablation(
    models: Sequence[TrainedModel], image: Image, facts: Facts, *, device: torch.device, tta: str
) -> dict[str, npt.NDArray[np.float32]]:
    """By how much each known fact raises each diagnosis's probability, the mean of the members.

    Args:
        models: The members.
        image: RGB, (h, w, 3), of any size.
        facts: age in years, sex, localization; None where unknown.
        device: Where the networks run.
        tta: Which flips and turns of the image vote.

    Returns:
        By known fact, (K,): the probability with all facts less that without this one.
    """
    known = [fact for fact, value in facts.items() if value is not None]
    with_all = votes(models, image, facts, device=device, tta=tta).mean(axis=0)
    return {
        fact: with_all - votes(models, image, {**facts, fact: None}, device=device, tta=tta).mean(axis=0)
        for fact in known
    }
