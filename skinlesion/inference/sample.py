"""Images of one part of a split, with their facts, as the members of an ensemble see them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from skinlesion.config.data import SourceConfig, restore_data_config
from skinlesion.data.datamodule import Part
from skinlesion.data.image_io import Image, decode, fit, read
from skinlesion.data.metadata import FACTS
from skinlesion.data.readers import read_data
from skinlesion.data.transforms import normalise
from skinlesion.errors import DataError
from skinlesion.inference.ood import Embedded
from skinlesion.inference.tta import views
from skinlesion.terminal import track
from skinlesion.training.checkpoint import TrainedModel
from skinlesion.training.feature_cache import backbone_maps

AT_ONCE = 32  # images

Size = tuple[int, int]  # (height, width) in pixels
Change = Callable[[Image, str], Image]
"""An image as it was taken (h, w, 3) and its id -> a changed image."""


class Seen(NamedTuple):
    """What one member makes of N images."""

    probabilities: npt.NDArray[np.float32]  # (N, K), of its flips and turns where they vote
    embedded: Embedded  # of the images as they are


@dataclass(frozen=True)
class Sample:
    """Rows of the checked frame, sorted by image id."""

    frame: pd.DataFrame

    @property
    def image_ids(self) -> list[str]:
        """Of the rows, in order."""
        return list(self.frame["image_id"])

    def images(self, size: Size) -> npt.NDArray[np.uint8]:
        """All images at one size, (N, height, width, 3)."""
        return np.stack([decode(Path(path), size) for path in self.frame["path"]])

    def with_facts(self, facts: pd.DataFrame) -> "Sample":
        """The same images with other facts (N rows of age, sex, localization)."""
        return Sample(self.frame.assign(**{fact: facts[fact].to_numpy() for fact in FACTS}))


def read_sample(model: TrainedModel, part: Part, *, images: int | None, seed: int, source: SourceConfig) -> Sample:
    """Some images, or all, of a part of the split that a model was trained with.

    Args:
        model: Names the images of the part, and where they were.
        part: Which.
        images: How many are drawn; None, or more than there are: all.
        seed: Of the draw.
        source: Where the images are now.

    Raises:
        DataError: The data lack some of the images.
    """
    wanted = sorted(model.split[part])
    if images is not None and images < len(wanted):
        drawn = np.random.default_rng(seed).choice(len(wanted), images, replace=False)
        wanted = [wanted[place] for place in sorted(drawn)]
    data = restore_data_config(model.config["data"])
    frame = read_data(replace(data, root=source.root or data.root, missing_images="drop", extra_images="ignore"))
    missing = sorted(set(wanted) - set(frame["image_id"]))
    if missing:
        raise DataError(
            f"{len(missing)} images of the {part} part of {model.path} are not there "
            f"({', '.join(missing[:5])}); give the data it was trained on as data.root=FOLDER"
        )
    return Sample(frame[frame["image_id"].isin(wanted)].reset_index(drop=True))


def see(
    models: Sequence[TrainedModel],
    sample: Sample,
    *,
    device: torch.device,
    label: str,
    tta: str = "none",
    change: Change | None = None,
) -> list[Seen]:
    """What each member makes of a sample, a few images at a time.

    Args:
        models: The members.
        sample: The images.
        device: Where the networks run.
        label: Of the progress bar.
        tta: Which flips and turns of each image vote.
        change: What is done to each image before it is fitted into a member's size.
    """
    for model in models:
        model.network.to(device).eval()
    metadata = [torch.from_numpy(model.encoder.encode(sample.frame)) for model in models]  # (N, M) each
    parts: list[list[Seen]] = [[] for _ in models]
    for rows in track(_chunks(len(sample.frame)), label, -(-len(sample.frame) // AT_ONCE)):
        pixels = _pixels(sample.frame.iloc[rows], {model.spec.size for model in models}, change)
        for part, model, facts in zip(parts, models, metadata, strict=True):
            image = normalise(pixels[model.spec.size], model.spec).to(device)
            part.append(see_batch(model, image, facts[rows].to(device), tta=tta))
    return [_joined(part) for part in parts]


def see_patient(
    model: TrainedModel,
    pixels: npt.NDArray[np.uint8],
    facts: Mapping[str, float | str | None],
    *,
    device: torch.device,
    tta: str = "none",
) -> Seen:
    """What one member makes of some images of one patient, all at once.

    Args:
        model: Its network is put into evaluation mode.
        pixels: Images fitted into the model's size, (B, H, W, 3), RGB.
        facts: age in years, sex, localization; None where unknown.
        device: Where the network runs.
        tta: Which flips and turns of each image vote.
    """
    model.network.to(device).eval()
    row = torch.from_numpy(model.encoder.encode_patient(facts))  # (M,)
    metadata = row.expand(len(pixels), -1).to(device)  # (B, M)
    return see_batch(model, normalise(pixels, model.spec).to(device), metadata, tta=tta)


@torch.inference_mode()
def see_batch(model: TrainedModel, image: Tensor, metadata: Tensor, *, tta: str = "none") -> Seen:
    """What one member makes of normalised images (B, 3, H, W) with encoded facts (B, M)."""
    turns = [
        model.network.head.embed(backbone_maps(model.network.backbone, each), metadata) for each in views(image, tta)
    ]
    votes = torch.stack([logits.float().softmax(dim=1) for logits, _ in turns])  # (turns, B, K)
    logits, pooled = turns[0]  # of the image as it is
    embedded = Embedded(logits.float().cpu().numpy(), pooled.float().cpu().numpy())
    return Seen(votes.mean(dim=0).cpu().numpy(), embedded)


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, min(start + AT_ONCE, length)) for start in range(0, length, AT_ONCE))


def _pixels(rows: pd.DataFrame, sizes: set[Size], change: Change | None) -> dict[Size, npt.NDArray[np.uint8]]:
    """Images at each size: (B, height, width, 3)."""
    if change is None:
        return {size: np.stack([decode(Path(path), size) for path in rows["path"]]) for size in sizes}
    changed = [
        change(read(Path(path)), image_id) for path, image_id in zip(rows["path"], rows["image_id"], strict=True)
    ]
    return {size: np.stack([fit(image, size) for image in changed]) for size in sizes}


def _joined(parts: Sequence[Seen]) -> Seen:
    embedded = Embedded(
        np.concatenate([part.embedded.logits for part in parts]),
        np.concatenate([part.embedded.pooled for part in parts]),
    )
    return Seen(np.concatenate([part.probabilities for part in parts]), embedded)
