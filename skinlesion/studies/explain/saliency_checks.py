"""Checks of an ensemble's saliency maps: randomised weights, deletion and insertion of pixels, lesion masks."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skinlesion.data.image_io import Image, fit
from skinlesion.data.transforms import normalise
from skinlesion.inference.loaded_ensemble import LoadedEnsemble
from skinlesion.inference.sample import AT_ONCE, Sample, see, see_batch
from skinlesion.metrics.bootstrap import lesion_index
from skinlesion.metrics.classification import Floats, Integers
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.model.network import Network
from skinlesion.model.stages import own_parameters, title
from skinlesion.progress import track
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
    """Results of all checks.

    Attributes:
        images: Number of images.
        lesions: Number of lesions.
        level: Level of the intervals.
        randomisation: By member, each part of the network in the order of randomisation with the rank correlation of
            the maps with those of the trained network.
        deletion: Curves while pixels are blurred.
        insertion: Curves while pixels are restored.
        lesion: Overlap with lesion masks; None without masks.
        example: First image of the sample, (h, w, 3).
        example_maps: Maps of the example (h, w) by the part of the first member that was randomised last.
    """

    images: int
    lesions: int
    level: float
    randomisation: Mapping[str, Mapping[str, Estimate]]
    deletion: ReplacementCurves
    insertion: ReplacementCurves
    lesion: LesionOverlap | None
    example: Image
    example_maps: Mapping[str, Map]

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
            "randomisation": {"members": members},
            "deletion": self.deletion,
            "insertion": self.insertion,
            **({} if self.lesion is None else {"lesion": self.lesion}),
        }


def check_maps(
    ensemble: LoadedEnsemble, sample: Sample, *, masks: Path | None, device: torch.device, config: BootstrapConfig
) -> SaliencyChecks:
    """Check the maps of the predicted diagnoses on a sample of images.

    Args:
        ensemble: The ensemble.
        sample: The images.
        masks: Folder of lesion masks, or None.
        device: Device of the networks.
        config: Bootstrap over lesions.

    Raises:
        DataError: The folder contains no mask of these images, or a mask is invalid.
    """
    mask_paths = None if masks is None else find_masks(masks, sample.image_ids)  # fails before the long computation
    models, size, index = ensemble.models, ensemble.models[0].spec.size, lesion_index(sample.frame)
    outputs = see(models, sample, device=device, label="predicting")
    classes = [int(k) for k in np.mean([each.probabilities for each in outputs], axis=0).argmax(axis=1)]
    trained = [sample_maps(model, model.network, sample, classes, device=device) for model in models]
    maps = np.asarray(np.mean([_resized(each, size) for each in trained], axis=0), np.float32)
    randomisation: dict[str, dict[str, Estimate]] = {name: {} for name in ensemble.names}
    example_maps: dict[str, Map] = {"trained": trained[0][0]}
    for model, own, (name, steps) in zip(models, trained, randomisation.items(), strict=True):
        for part, changed, correlation in randomise_weights(
            model, sample, classes, own, device=device, seed=config.seed
        ):
            steps[part] = mean_estimates({name: correlation}, index, config=config)[name]
            if model is models[0]:
                example_maps[part] = changed[0]
    images = list(sample.images(size))
    blurred = [blur(image) for image in images]
    orders = {"map": maps, "random": random_maps(len(maps), size, RANDOM_GRID, seed=config.seed)}
    deletion, insertion = (
        replacement_curves(
            {
                name: replace_gradually(models, sample, *pair, order=order, classes=classes, device=device)
                for name, order in orders.items()
            },
            index,
            fractions=FRACTIONS,
            config=config,
        )
        for pair in ((images, blurred), (blurred, images))
    )
    return SaliencyChecks(
        images=len(sample.frame),
        lesions=int(index.max()) + 1,
        level=config.level,
        randomisation=randomisation,
        deletion=deletion,
        insertion=insertion,
        lesion=None if mask_paths is None else _overlap(sample, maps, mask_paths, config=config),
        example=images[0],
        example_maps=example_maps,
    )


def sample_maps(
    model: TrainedModel, network: Network, sample: Sample, classes: Sequence[int], *, device: torch.device
) -> Maps:
    """Class map of each image of a sample at the model's input size, by the model's network or another: (N, H, W)."""
    images, metadata = sample.images(model.spec.size), model.encoder.encode(sample.frame)
    network.to(device).eval()
    maps = []
    for start in range(0, len(images), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        pixels, facts = normalise(images[rows], model.spec), torch.from_numpy(metadata[rows])
        maps.append(class_maps(network, pixels.to(device), facts.to(device), classes=classes[rows]))
    return np.concatenate(maps)


def randomise_weights(
    model: TrainedModel, sample: Sample, classes: Sequence[int], trained: Maps, *, device: torch.device, seed: int
) -> Iterator[tuple[str, Maps, Floats]]:
    """Randomise a network's weights part by part, from the logits to the stem, and compare its maps.

    The cascading randomisation of Adebayo et al., NeurIPS 2018, arXiv:1810.03292. The values of each tensor are
    shuffled, which erases what was learned and keeps the scale of the activations.

    Args:
        model: A member, which stays unchanged.
        sample: N images.
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
        maps = sample_maps(model, network, sample, classes, device=device)
        yield name, maps, rank_correlations(trained, maps)


def network_parts(network: Network) -> Iterator[tuple[str, list[Tensor]]]:
    """Parameters of a network by part, from the logits to the stem."""
    head = network.head
    modules: dict[str, nn.Module | None] = {"funnel": head.funnel, "attention": head.attention, "gate": head.gate}
    for name, module in modules.items():
        if module is not None:
            yield name, [*module.parameters()]
    for stage in reversed(network.backbone.stages()):
        yield title(stage), [each for leaf in stage for each in own_parameters(network.backbone.net, leaf)]


@torch.no_grad()
def shuffle(tensor: Tensor, generator: torch.Generator) -> None:
    """Shuffle the values of a tensor in place."""
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    tensor.copy_(tensor.flatten()[order].view_as(tensor))


def replace_gradually(
    models: Sequence[TrainedModel],
    sample: Sample,
    before: Sequence[Image],
    after: Sequence[Image],
    *,
    order: Maps,
    classes: Sequence[int],
    device: torch.device,
) -> Floats:
    """Probability of each image's class by the ensemble while its pixels are replaced: (N, F) at `FRACTIONS`.

    Args:
        models: Members of the ensemble.
        sample: N rows with the facts.
        before: N images, (h, w, 3).
        after: N images whose pixels replace those of `before`.
        order: (N, h, w), maps that order the replacement: the greatest value first.
        classes: N class indices.
        device: Device of the networks.
    """
    orders = [pixel_order(values) for values in order]
    found = np.empty((len(before), len(FRACTIONS)))
    for column, fraction in enumerate(track(FRACTIONS, "replacing pixels", len(FRACTIONS))):
        changed = [replace_pixels(*each, fraction) for each in zip(before, after, orders, strict=True)]
        probabilities = np.mean([_probabilities(model, sample, changed, device) for model in models], axis=0)  # (N, K)
        found[:, column] = probabilities[np.arange(len(before)), list(classes)]
    return found


def _probabilities(model: TrainedModel, sample: Sample, images: Sequence[Image], device: torch.device) -> Floats:
    metadata = model.encoder.encode(sample.frame)
    found = []
    for start in range(0, len(images), AT_ONCE):
        fitted = np.stack([fit(image, model.spec.size) for image in images[start : start + AT_ONCE]])
        facts = torch.from_numpy(metadata[start : start + AT_ONCE]).to(device)
        found.append(see_batch(model, normalise(fitted, model.spec).to(device), facts).probabilities)
    return np.concatenate(found)


def _overlap(sample: Sample, maps: Maps, masks: Mapping[str, Path], *, config: BootstrapConfig) -> LesionOverlap:
    rows = [row for row, image_id in enumerate(sample.image_ids) if image_id in masks]
    size, paths = (maps.shape[1], maps.shape[2]), list(sample.frame["path"])
    lesions = [read_mask(masks[sample.image_ids[row]], Path(paths[row]), size) for row in rows]
    overlaps = np.array([lesion_overlap(maps[row], lesion) for row, lesion in zip(rows, lesions, strict=True)])
    columns = dict(zip(("peak_inside", "energy_inside", "lesion_area"), overlaps.T, strict=True))
    index: Integers = lesion_index(sample.frame.iloc[rows].reset_index(drop=True))
    missing = sorted(set(sample.image_ids) - set(masks))
    return LesionOverlap(len(rows), missing, **mean_estimates(columns, index, config=config))


def _resized(maps: Maps, size: tuple[int, int]) -> Maps:
    """Project maps (N, H, W) of one member's input onto the input of another size."""
    return np.stack([project(values, size, (values.shape[0], values.shape[1])) for values in maps])
