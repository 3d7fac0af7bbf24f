"""Whether a bundle says what the PyTorch models say: both see the same image files and the same facts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from skinlesion.data.image_io import read
from skinlesion.data.metadata import FACTS
from skinlesion.deploy.runtime import Bundle
from skinlesion.errors import BundleError
from skinlesion.inference.sample import AT_ONCE, Sample, see
from skinlesion.progress import track
from skinlesion.training.checkpoint import TrainedModel

TOLERANCE = 1e-4
"""Largest difference of a probability at full precision."""

Floats = npt.NDArray[np.floating]


def ask_models(models: Sequence[TrainedModel], sample: Sample, *, tta: str) -> Floats:
    """What the models say of a sample, in PyTorch on the CPU: (M, N, K)."""
    seen = see(models, sample, device=torch.device("cpu"), label="asking PyTorch", tta=tta)
    return np.stack([member.probabilities for member in seen])


def ask_bundle(bundle: Bundle, sample: Sample) -> tuple[Floats, float | None]:
    """What a bundle says of a sample.

    Returns:
        The members' probabilities (M, N, K), and the share of images that it takes for novel; None: it cannot tell.
    """
    paths = list(sample.frame["path"])
    facts = [dict(zip(FACTS, row, strict=True)) for row in sample.frame[list(FACTS)].itertuples(index=False)]
    starts = range(0, len(paths), AT_ONCE)
    answers = [
        bundle.predict([read(Path(path)) for path in paths[start : start + AT_ONCE]], facts[start : start + AT_ONCE])
        for start in track(starts, "asking the bundle", len(starts))
    ]
    flags = [answer.novel for answer in answers if answer.novel is not None]
    members = np.concatenate([answer.members for answer in answers], axis=1)
    return members, float(np.concatenate(flags).mean()) if flags else None


def differences(wanted: Floats, found: Floats) -> dict[str, Any]:
    """How far two votes are from each other.

    Args:
        wanted: The members' probabilities, (M, N, K).
        found: Likewise.

    Returns:
        Plain data: `images`; `largest_difference` and `mean_difference` of a probability of the vote, and
        `largest_of_a_member`; `same_diagnosis`, the share of images whose likeliest diagnosis is the same.
    """
    votes, others = wanted.mean(axis=0), found.mean(axis=0)  # (N, K)
    return {
        "images": len(votes),
        "largest_difference": float(np.abs(votes - others).max()),
        "mean_difference": float(np.abs(votes - others).mean()),
        "largest_of_a_member": float(np.abs(wanted - found).max()),
        "same_diagnosis": float((votes.argmax(axis=1) == others.argmax(axis=1)).mean()),
    }


def require_parity(found: dict[str, Any]) -> None:
    """Refuse a graph of full precision that differs from PyTorch.

    Raises:
        BundleError: It says by how much.
    """
    largest = found["largest_of_a_member"]
    if not largest <= TOLERANCE:  # what is no number differs too
        raise BundleError(
            f"the graph differs from PyTorch by {largest:.2g} in a probability (allowed: {TOLERANCE:g}), so no bundle "
            "is written; please report it with the backbone and the versions of torch and onnxruntime"
        )
