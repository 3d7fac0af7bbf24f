"""Weights in float16: half the size, for the way to another machine and back."""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import Tensor

_TRAINING_ONLY = ("optimizer_states", "lr_schedulers", "callbacks")


def halve(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Kernels in float16; vectors (biases, norms and their statistics) and what float16 cannot hold as they are."""
    return {name: _half(tensor) for name, tensor in tensors.items()}


def halve_checkpoint(source: Path, target: Path) -> None:
    """Write a run's best.ckpt without its optimiser, kernels in float16, gzipped.

    Unpacked, `skinlesion evaluate checkpoint=FILE` reads it.
    """
    import torch  # the machine has it; the rest of what runs there needs the standard library alone

    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    kept = {key: value for key, value in checkpoint.items() if key not in _TRAINING_ONLY}
    kept["state_dict"] = halve(kept["state_dict"])
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}")
    with gzip.open(beside, "wb", compresslevel=1) as file:
        torch.save(kept, cast(IO[bytes], file))
    os.replace(beside, target)


def _half(tensor: "Tensor") -> "Tensor":
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor
