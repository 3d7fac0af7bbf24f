"""From a trained ensemble and a sample of images to its predictions on the same images, disturbed in steps."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from skinlesion.data.image_io import Image
from skinlesion.inference import ood
from skinlesion.inference.loaded_ensemble import LoadedEnsemble
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.sample import Change, Sample, see
from skinlesion.metrics.classification import Floats
from skinlesion.studies.robustness.corruptions import DISTURBANCES, Corruption
from skinlesion.studies.robustness.other_images import Picture
from skinlesion.studies.robustness.summary import Judged


def judge(
    voters: LoadedEnsemble,
    sample: Sample,
    fitted: ood.Fitted | None,
    *,
    device: torch.device,
    label: str,
    change: Change | None = None,
) -> tuple[Judged, Floats | None]:
    """The ensemble's predictions of a sample, whether each image is novel, and how novel (N,).

    Args:
        voters: The ensemble.
        sample: The images.
        fitted: What novelty has learned; None: it is not judged.
        device: Where the networks run.
        label: Of the progress bar.
        change: What is done to each image.
    """
    seen = see(voters.models, sample, device=device, label=label, tta=voters.tta, change=change)
    table = Predictions.build(
        sample.image_ids,
        list(sample.frame["lesion_id"]),
        probabilities=np.mean([each.probabilities for each in seen], axis=0, dtype=np.float64),
        actual=list(sample.frame["diagnosis"]),
    )
    if fitted is None:
        return Judged(table, None), None
    logits, pooled = [each.embedded.logits for each in seen], [each.embedded.pooled for each in seen]
    scores = ood.score(fitted, logits, pooled)
    return Judged(table, ood.flag(fitted, scores)), scores


def disturbed(
    voters: LoadedEnsemble,
    sample: Sample,
    fitted: ood.Fitted | None,
    *,
    steps: Mapping[str, Sequence[float]],
    device: torch.device,
    seed: int,
) -> dict[str, dict[float, Judged]]:
    """Predictions at each step of each disturbance of the images.

    Args:
        voters: The ensemble.
        sample: The images.
        fitted: What novelty has learned, or None.
        steps: By disturbance.
        device: Where the networks run.
        seed: Of hairs and rulers: an image has the same ones at every step.
    """
    return {
        name: {
            step: judge(
                voters,
                sample,
                fitted,
                device=device,
                label=f"{name} {step:g}",
                change=_at(DISTURBANCES[name], step, seed),
            )[0]
            for step in each
        }
        for name, each in steps.items()
    }


def other_facts(
    voters: LoadedEnsemble, sample: Sample, altered: Mapping[str, pd.DataFrame], *, device: torch.device
) -> dict[str, Judged]:
    """Predictions of the same images with other facts, by name."""
    return {
        name: judge(voters, sample.with_facts(facts), None, device=device, label=name)[0]
        for name, facts in altered.items()
    }


def other_pictures(
    voters: LoadedEnsemble,
    sample: Sample,
    fitted: ood.Fitted,
    pictures: Mapping[str, Picture],
    *,
    device: torch.device,
    seed: int,
) -> dict[str, Any]:
    """How novel each kind of picture is, by kind: (N,) scores, one picture in the place of each image."""
    return {
        kind: judge(voters, sample, fitted, device=device, label=kind, change=_into(picture, seed))[1]
        for kind, picture in pictures.items()
    }


def _at(disturbance: Corruption, step: float, seed: int) -> Change:
    return lambda image, image_id: disturbance.apply(image, step, _own(image_id, seed))


def _into(picture: Picture, seed: int) -> Change:
    def change(image: Image, image_id: str) -> Image:
        return picture(image, _own(image_id, seed))

    return change


def _own(image_id: str, seed: int) -> np.random.Generator:
    """The random numbers of an image, the same whenever and in whatever order it is read."""
    return np.random.default_rng((seed, zlib.crc32(image_id.encode())))
