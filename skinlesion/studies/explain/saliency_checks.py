"""All sanity checks of an ensemble's maps on a sample of images, as numbers with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skinlesion.data.image_io import Image
from skinlesion.inference.loaded_ensemble import LoadedEnsemble
from skinlesion.inference.predictions import group_index
from skinlesion.inference.sample import Sample, see
from skinlesion.metrics.classification import Integers
from skinlesion.studies.explain.masks import find_masks, read_mask
from skinlesion.studies.explain.overlays import Map
from skinlesion.studies.explain.saliency_metrics import Maps, blurred, curves, inside, means
from skinlesion.studies.explain.sanity import cascade, mean_maps, random_maps, replacement, sample_maps

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)  # of the pixels that are replaced
COARSE = (5, 7)  # positions of the random maps: about those of a feature map of a dermoscopic image


class Checked(NamedTuple):
    """What the checks gave."""

    found: dict[str, Any]  # ready for JSON
    image: Image  # the first one of the sample
    strip: dict[str, Map]  # its maps by the part of the first member that was randomised last


def check_maps(
    voters: LoadedEnsemble, sample: Sample, *, masks: Path | None, device: torch.device, settings: Mapping[str, Any]
) -> Checked:
    """Check the maps of the predicted diagnoses.

    Args:
        voters: The ensemble.
        sample: The images.
        masks: A folder of lesion masks, or None.
        device: Where the networks run.
        settings: resamples, seed, level and method of the bootstrap over lesions.

    Raises:
        DataError: There are no masks of these images in the folder, or one cannot be used.
    """
    there = {} if masks is None else find_masks(masks, sample.image_ids)  # before anything long is begun
    seen = see(voters.models, sample, device=device, label="predicting")
    classes = [int(place) for place in np.mean([each.probabilities for each in seen], axis=0).argmax(axis=1)]
    index = group_index(sample.frame["image_id"].tolist(), sample.frame["lesion_id"].tolist())
    maps = mean_maps(voters.models, [sample_maps(model, sample, classes, device=device) for model in voters.models])
    members, strip = _randomised(voters, sample, classes, index, device=device, settings=settings)
    found: dict[str, Any] = {
        "images_judged": len(sample.frame),
        "lesions_judged": int(index.max()) + 1,
        "level": settings["level"],
        "randomisation": {"members": members},
        **_replaced(voters, sample, maps, classes, index, device=device, settings=settings),
    }
    if masks is not None:
        found["lesion"] = _on_lesions(sample, maps, there, settings=settings)
    first = sample.images((maps.shape[1], maps.shape[2]))[0]
    return Checked(found, first, strip)


def _randomised(
    voters: LoadedEnsemble,
    sample: Sample,
    classes: Sequence[int],
    index: Integers,
    *,
    device: torch.device,
    settings: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Map]]:
    members: dict[str, Any] = {}
    strip: dict[str, Map] = {"trained": sample_maps(voters.models[0], sample, classes, device=device)[0]}
    for number, (name, model) in enumerate(zip(voters.names, voters.models, strict=True)):
        steps = []
        for part, maps, correlation in cascade(model, sample, classes, device=device, seed=settings["seed"]):
            steps.append({"part": part, **means({"correlation": correlation}, index, settings=settings)})
            if number == 0:
                strip[part] = maps[0]
        members[name] = steps
    return members, strip


def _replaced(
    voters: LoadedEnsemble,
    sample: Sample,
    maps: Maps,
    classes: Sequence[int],
    index: Integers,
    *,
    device: torch.device,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    shape = (maps.shape[1], maps.shape[2])
    images = list(sample.images(shape))
    fogs = [blurred(image) for image in images]
    orders = {"map": maps, "random": random_maps(len(maps), shape, COARSE, seed=settings["seed"])}
    found = {}
    for kind, before, after in (("deletion", images, fogs), ("insertion", fogs, images)):
        probabilities = {
            name: replacement(
                voters.models,
                sample,
                before,
                after,
                maps=order,
                classes=classes,
                fractions=FRACTIONS,
                device=device,
                label=f"{kind}, {name}",
            )
            for name, order in orders.items()
        }
        found[kind] = curves(probabilities, index, fractions=FRACTIONS, settings=settings)
    return found


def _on_lesions(
    sample: Sample, maps: Maps, there: Mapping[str, Path], *, settings: Mapping[str, Any]
) -> dict[str, Any]:
    kept = [place for place, image_id in enumerate(sample.image_ids) if image_id in there]
    size, images = (maps.shape[1], maps.shape[2]), list(sample.frame["path"])
    lesions = [read_mask(there[sample.image_ids[place]], Path(images[place]), size) for place in kept]
    measured = np.array([inside(maps[place], lesion) for place, lesion in zip(kept, lesions, strict=True)])
    names = ("peak_inside", "energy_inside", "lesion_area")
    rows = sample.frame.iloc[kept]
    index = group_index(rows["image_id"].tolist(), rows["lesion_id"].tolist())
    columns = {name: measured[:, place] for place, name in enumerate(names)}
    without = sorted(set(sample.image_ids) - set(there))
    return {"masks": len(kept), "without_mask": without, **means(columns, index, settings=settings)}
