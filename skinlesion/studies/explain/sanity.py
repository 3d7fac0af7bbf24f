"""Sanity checks of maps on some images: randomised weights, removal of what the maps show, the lesion's mask."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skinlesion.data.image_io import Image, fit
from skinlesion.data.transforms import normalise
from skinlesion.inference.sample import AT_ONCE, Sample, see_batch
from skinlesion.metrics.classification import Floats
from skinlesion.model.network import Network
from skinlesion.progress import track
from skinlesion.studies.explain.overlays import onto
from skinlesion.studies.explain.saliency import class_maps
from skinlesion.studies.explain.saliency_metrics import Maps, order_of, random_map, rank_correlations, replaced
from skinlesion.training.checkpoint import TrainedModel


def sample_maps(model: TrainedModel, sample: Sample, classes: Sequence[int], *, device: torch.device) -> Maps:
    """The class map of each image of a sample, at the model's input size: (N, H, W)."""
    return _maps(model, model.network.to(device).eval(), sample, classes, device)


def cascade(
    model: TrainedModel, sample: Sample, classes: Sequence[int], *, device: torch.device, seed: int
) -> Iterator[tuple[str, Maps, Floats]]:
    """Randomise a network's weights part by part, from the logits down, and see how far its maps stay the same.

    Adebayo et al., NeurIPS 2018, arXiv:1810.03292. The values of each tensor are shuffled among themselves, so that
    what was learned is lost while the sizes of activations are kept.

    Args:
        model: One member.
        sample: N images.
        classes: N positions in CODES.
        device: Where the networks run.
        seed: Of the shuffles.

    Yields:
        The part that was randomised last, the maps (N, H, W), and their rank correlations (N,) with those of the
        trained network.
    """
    trained = sample_maps(model, sample, classes, device=device)
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    for name, tensors in parts(network):
        for tensor in tensors:
            shuffle(tensor, generator)
        maps = _maps(model, network.to(device).eval(), sample, classes, device)
        yield name, maps, rank_correlations(trained, maps)


def parts(network: Network) -> Iterator[tuple[str, list[Tensor]]]:
    """The parameters of a network by part, from the logits down to the stem."""
    head = network.head
    named: dict[str, nn.Module | None] = {"funnel": head.funnel, "attention": head.attention, "gate": head.gate}
    for name, module in named.items():
        if module is not None:
            yield name, [*module.parameters()]
    yield from reversed(network.backbone.stage_parameters())


@torch.no_grad()
def shuffle(tensor: Tensor, generator: torch.Generator) -> None:
    """Put the values of a tensor into a random order, in place."""
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    tensor.copy_(tensor.flatten()[order].view_as(tensor))


def replacement(
    models: Sequence[TrainedModel],
    sample: Sample,
    before: Sequence[Image],
    after: Sequence[Image],
    *,
    maps: Maps,
    classes: Sequence[int],
    fractions: Sequence[float],
    device: torch.device,
    label: str,
) -> Floats:
    """The vote's probability of each image's class while its pixels are replaced: (N, F).

    Args:
        models: The members.
        sample: N patients, for their facts.
        before: Their images, (h, w, 3).
        after: What takes the place of their pixels.
        maps: (N, h, w), the order in which pixels are replaced: the greatest first.
        classes: N positions in CODES.
        fractions: F shares of the pixels.
        device: Where the networks run.
        label: Of the progress bar.
    """
    orders = [order_of(values) for values in maps]
    found = np.empty((len(before), len(fractions)))
    for place, fraction in enumerate(track(fractions, label, len(fractions))):
        changed = [replaced(*each, fraction) for each in zip(before, after, orders, strict=True)]
        voted = np.mean([_probabilities(model, sample, changed, device) for model in models], axis=0)  # (N, K)
        found[:, place] = voted[np.arange(len(before)), list(classes)]
    return found


def random_maps(count: int, shape: tuple[int, int], grid: tuple[int, int], *, seed: int) -> Maps:
    """Maps (N, h, w) of nothing, to compare with."""
    rng = np.random.default_rng(seed)
    return np.stack([random_map(shape, grid, rng) for _ in range(count)])


def mean_maps(models: Sequence[TrainedModel], each: Sequence[Maps]) -> Maps:
    """The members' maps, brought to the size of the first one's input, and averaged: (N, H, W)."""
    size = models[0].spec.size
    laid = [
        np.stack([onto(values, size, model.spec.size) for values in maps])
        for model, maps in zip(models, each, strict=True)
    ]
    return np.asarray(np.mean(laid, axis=0), np.float32)


def _maps(model: TrainedModel, network: Network, sample: Sample, classes: Sequence[int], device: torch.device) -> Maps:
    images, metadata = sample.images(model.spec.size), model.encoder.encode(sample.frame)
    found = []
    for start in range(0, len(images), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        seen = normalise(images[rows], model.spec).to(device)
        facts = torch.from_numpy(metadata[rows]).to(device)
        found.append(class_maps(network, seen, facts, classes=classes[rows]))
    return np.concatenate(found)


def _probabilities(
    model: TrainedModel, sample: Sample, images: Sequence[Image], device: torch.device
) -> npt.NDArray[np.float32]:
    metadata = model.encoder.encode(sample.frame)
    found = []
    for start in range(0, len(images), AT_ONCE):
        fitted = np.stack([fit(image, model.spec.size) for image in images[start : start + AT_ONCE]])
        facts = torch.from_numpy(metadata[start : start + AT_ONCE]).to(device)
        found.append(see_batch(model, normalise(fitted, model.spec).to(device), facts).probabilities)
    return np.concatenate(found)
