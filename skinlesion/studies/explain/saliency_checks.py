"""Checks of an ensemble's saliency maps: randomised weights, deletion and insertion of pixels, lesion masks."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from skinlesion.data.image_io import Image, decode
from skinlesion.data.transforms import normalise
from skinlesion.data.treatment import Treatment
from skinlesion.inference.predictor import BATCH, Predictor
from skinlesion.inference.table_columns import group_index
from skinlesion.metrics.classification import Floats
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.metrics.saliency_verdict import randomisation_verdict
from skinlesion.model.network import Network
from skinlesion.studies.explain.saliency import Map, Maps, class_maps, project
from skinlesion.studies.explain.saliency_metrics import (
    ReplacementCurves,
    blur,
    find_masks,
    lesion_overlap,
    mean_estimates,
    pixel_order,
    random_maps,
    rank_correlations,
    read_mask,
    replace_pixels,
    replacement_curves,
)
from skinlesion.terminal import track
from skinlesion.training.checkpoint import TrainedModel

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)  # shares of replaced pixels
RANDOM_GRID = (5, 7)  # resolution of the random maps: about that of a feature map of a dermoscopic image


@dataclass(frozen=True)
class LesionOverlap:
    """Overlap of maps with lesion masks."""

    masks: int  # number of images with a mask
    without_mask: list[str]  # ids of the images without one
    peak_inside: Estimate  # share of maps whose maximum lies in the lesion
    energy_inside: Estimate  # share of the map's sum in the lesion
    lesion_area: Estimate  # share of the image that the lesion covers


@dataclass(frozen=True)
class SaliencyChecks:
    """Results of all checks."""

    images: int
    lesions: int
    level: float  # of the intervals
    randomisation: Mapping[str, Mapping[str, Estimate]]  # by member and randomised part: correlation with trained maps
    deletion: ReplacementCurves  # while pixels are blurred
    insertion: ReplacementCurves  # while pixels are restored
    lesion: LesionOverlap | None  # None without masks
    example: Image  # first image, (h, w, 3)
    example_maps: Mapping[str, Map]  # (h, w) by the part of the first member that was randomised last

    @property
    def verdict(self) -> tuple[str, str]:
        """Verdict on the maps after the randomisation of all weights, as from `randomisation_verdict`."""
        return randomisation_verdict({name: list(steps.values())[-1] for name, steps in self.randomisation.items()})

    def to_dict(self) -> dict[str, Any]:
        """The contents of explanations.json: everything but the example."""
        members = {
            name: [{"part": part, "correlation": each} for part, each in steps.items()]
            for name, steps in self.randomisation.items()
        }
        return {
            "images_judged": self.images,
            "lesions_judged": self.lesions,
            "level": self.level,
            "randomisation": {"members": members, **dict(zip(("verdict", "sentence"), self.verdict, strict=True))},
            "deletion": self.deletion,
            "insertion": self.insertion,
            **({} if self.lesion is None else {"lesion": self.lesion}),
        }


def check_maps(
    predictor: Predictor, frame: pd.DataFrame, *, masks: Path | None, config: BootstrapConfig
) -> SaliencyChecks:
    """Check the maps of the predicted diagnoses.

    Args:
        predictor: A checkpoint or an ensemble, without test-time augmentation.
        frame: Checked frame of N images, sorted by image_id.
        masks: Folder of lesion masks, or None.
        config: Bootstrap over lesions.

    Raises:
        DataError: The folder contains no mask of these images, or a mask is invalid.
        CheckpointError: The predictor is a bundle.
    """
    # fails before the long computation
    mask_paths = None if masks is None else find_masks(masks, frame["image_id"].tolist())
    predictions, networks = predictor.predict_frame(frame), predictor.networks
    classes, index = predictions.predicted_targets.tolist(), predictions.group
    models, device, size = networks.models, networks.device, networks.models[0].spec.size
    trained = [sample_maps(model, model.network, frame, classes, device=device) for model in models]
    maps = np.asarray(np.mean([_resized(each, size) for each in trained], axis=0), np.float32)
    randomisation: dict[str, dict[str, Estimate]] = {name: {} for name in networks.names}
    example_maps: dict[str, Map] = {"trained": trained[0][0]}
    for model, own, (name, steps) in zip(models, trained, randomisation.items(), strict=True):
        for part, changed, correlation in randomise_weights(
            model, frame, classes, own, device=device, seed=config.seed
        ):
            steps[part] = mean_estimates({name: correlation}, index, config=config)[name]
            if model is models[0]:
                example_maps[part] = changed[0]
    images = list(_read_images(frame, size, networks.treatment))
    blurred = [blur(image) for image in images]
    orders = {"map": maps, "random": random_maps(len(maps), size, RANDOM_GRID, seed=config.seed)}
    deletion, insertion = (
        replacement_curves(
            {
                name: replace_gradually(predictor, frame, *pair, order=order, classes=classes)
                for name, order in orders.items()
            },
            index,
            fractions=FRACTIONS,
            config=config,
        )
        for pair in ((images, blurred), (blurred, images))
    )
    return SaliencyChecks(
        images=len(frame),
        lesions=predictions.lesions,
        level=config.level,
        randomisation=randomisation,
        deletion=deletion,
        insertion=insertion,
        lesion=None if mask_paths is None else _overlap(frame, maps, mask_paths, config=config),
        example=images[0],
        example_maps=example_maps,
    )


def sample_maps(
    model: TrainedModel, network: Network, frame: pd.DataFrame, classes: Sequence[int], *, device: torch.device
) -> Maps:
    """Class map of each image at the model's input size, by the model's network or another: (N, H, W)."""
    images, metadata = _read_images(frame, model.spec.size, model.spec.treatment), model.encoder.encode(frame)
    network.to(device).eval()
    maps = []
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        pixels, facts = normalise(images[rows], model.spec), torch.from_numpy(metadata[rows])
        maps.append(class_maps(network, pixels.to(device), facts.to(device), classes=classes[rows]))
    return np.concatenate(maps)


def randomise_weights(
    model: TrainedModel, frame: pd.DataFrame, classes: Sequence[int], trained: Maps, *, device: torch.device, seed: int
) -> Iterator[tuple[str, Maps, Floats]]:
    """Randomise a network's weights part by part, from the logits to the stem, and compare its maps.

    The cascading randomisation of Adebayo et al., NeurIPS 2018, arXiv:1810.03292. The values of each tensor are
    shuffled, which erases what was learned and keeps the scale of the activations.

    Args:
        model: A member, which stays unchanged.
        frame: Checked frame of N images.
        classes: N class indices.
        trained: (N, H, W), maps of the trained network.
        device: Device of the networks.
        seed: Seed of the shuffles.

    Yields:
        The part that was randomised last, the maps (N, H, W), and their rank correlations (N,) with `trained`.
    """
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    for name, tensors in network_parts(network):
        for tensor in tensors:
            shuffle(tensor, generator)
        maps = sample_maps(model, network, frame, classes, device=device)
        yield name, maps, rank_correlations(trained, maps)


def network_parts(network: Network) -> Iterator[tuple[str, list[Tensor]]]:
    """Parameters of a network by part, from the logits to the stem."""
    head = network.head
    modules: dict[str, nn.Module | None] = {"funnel": head.funnel, "attention": head.attention, "gate": head.gate}
    for name, module in modules.items():
        if module is not None:
            yield name, [*module.parameters()]
    yield from reversed(network.backbone.stage_parameters())


@torch.no_grad()
def shuffle(tensor: Tensor, generator: torch.Generator) -> None:
    """Shuffle the values of a tensor in place."""
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    tensor.copy_(tensor.flatten()[order].view_as(tensor))


def replace_gradually(
    predictor: Predictor,
    frame: pd.DataFrame,
    before: Sequence[Image],
    after: Sequence[Image],
    *,
    order: Maps,
    classes: Sequence[int],
) -> Floats:
    """Probability of each image's class, before calibration, while its pixels are replaced: (N, F) at `FRACTIONS`.

    Args:
        predictor: A model.
        frame: N rows with the facts.
        before: N images, (h, w, 3).
        after: N images whose pixels replace those of `before`.
        order: (N, h, w), maps that order the replacement: the greatest value first.
        classes: N class indices.
    """
    orders = [pixel_order(values) for values in order]
    names = predictor.encoder.names
    facts = [{name: row[name] for name in names} for _, row in frame.iterrows()]
    found = np.empty((len(before), len(FRACTIONS)))
    for column, fraction in enumerate(track(FRACTIONS, "replacing pixels", len(FRACTIONS))):
        changed = [replace_pixels(*each, fraction) for each in zip(before, after, orders, strict=True)]
        members = predictor.predict_prepared([predictor.prepare(image) for image in changed], facts).members
        assert members is not None  # (M, N, K)
        found[:, column] = members.mean(axis=0)[np.arange(len(before)), list(classes)]
    return found


def _overlap(frame: pd.DataFrame, maps: Maps, masks: Mapping[str, Path], *, config: BootstrapConfig) -> LesionOverlap:
    has_mask = frame["image_id"].isin(list(masks)).to_numpy()
    rows, size = frame[has_mask], (maps.shape[1], maps.shape[2])
    lesions = [
        read_mask(masks[name], Path(path), size) for name, path in zip(rows["image_id"], rows["path"], strict=True)
    ]
    overlaps = np.array([lesion_overlap(*each) for each in zip(maps[has_mask], lesions, strict=True)])
    columns = dict(zip(("peak_inside", "energy_inside", "lesion_area"), overlaps.T, strict=True))
    index = group_index(rows["image_id"].tolist(), rows["group_id"].tolist())
    missing = sorted(frame.loc[~has_mask, "image_id"])
    return LesionOverlap(len(rows), missing, **mean_estimates(columns, index, config=config))


def _read_images(frame: pd.DataFrame, size: tuple[int, int], treatment: Treatment) -> npt.NDArray[np.uint8]:
    """All images at one size, (N, height, width, 3)."""
    return np.stack([decode(Path(path), size, treatment) for path in frame["path"]])


def _resized(maps: Maps, size: tuple[int, int]) -> Maps:
    """Project maps (N, H, W) of one member's input onto the input of another size."""
    return np.stack([project(values, size, (values.shape[0], values.shape[1])) for values in maps])
