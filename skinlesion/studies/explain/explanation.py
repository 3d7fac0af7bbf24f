"""From an image and a patient to what explains the diagnosis: all members' maps, laid onto the image."""

from collections.abc import Sequence

import numpy as np
import torch

from skinlesion.data.image_io import Image, fit
from skinlesion.data.transforms import normalise
from skinlesion.inference import ood
from skinlesion.inference.loaded_ensemble import LoadedEnsemble
from skinlesion.inference.sample import see_batch
from skinlesion.studies.explain.metadata_ablation import Facts, metadata_ablation, votes
from skinlesion.studies.explain.overlays import Explanation, Map, onto
from skinlesion.studies.explain.saliency import class_maps, spatial_maps
from skinlesion.taxonomy import CODES
from skinlesion.training.checkpoint import TrainedModel


def explain(
    voters: LoadedEnsemble, image: Image, facts: Facts, *, name: str, chosen: str | None, device: torch.device
) -> Explanation:
    """Say what an ensemble made of an image, and why.

    Args:
        voters: The ensemble, or one model.
        image: RGB, (h, w, 3), of any size.
        facts: age in years, sex, localization; None where unknown.
        name: Of the image.
        chosen: The diagnosis that is asked about; None: the one that is predicted.
        device: Where the networks run.
    """
    models = voters.models
    probabilities = votes(models, image, facts, device=device, tta=voters.tta).mean(axis=0)
    predicted = CODES[int(probabilities.argmax())]
    chosen = chosen or predicted
    maps = {
        code: [_class_map(model, image, facts, code=code, device=device) for model in models]
        for code in dict.fromkeys((predicted, chosen))
    }
    spatial = [each for model in models if (each := _spatial_map(model, image, facts, device=device)) is not None]
    return Explanation(
        name=name,
        image=image,
        facts=facts,
        probabilities=probabilities,
        chosen=chosen,
        maps={code: _mean(each) for code, each in maps.items()},
        members=dict(zip(voters.names, maps[chosen], strict=True)),
        spatial=_mean(spatial) if spatial else None,
        response=metadata_ablation(models, image, facts, device=device, tta=voters.tta),
        novelty=_novelty(voters, image, facts, device=device),
    )


def _novelty(voters: LoadedEnsemble, image: Image, facts: Facts, *, device: torch.device) -> tuple[float, float] | None:
    fitted = voters.novelty
    if fitted is None:
        return None
    seen = [see_batch(model, *_inputs(model, image, facts, device)).embedded for model in voters.models]
    (score,) = ood.score(fitted, [each.logits for each in seen], [each.pooled for each in seen])
    return float(score), float(fitted["threshold"])


def _mean(maps: Sequence[Map]) -> Map:
    return np.asarray(np.mean(maps, axis=0), np.float32)


def _class_map(model: TrainedModel, image: Image, facts: Facts, *, code: str, device: torch.device) -> Map:
    seen, metadata = _inputs(model, image, facts, device)
    (values,) = class_maps(model.network.to(device).eval(), seen, metadata, classes=[CODES.index(code)])
    return onto(values, (image.shape[0], image.shape[1]), model.spec.size)


def _spatial_map(model: TrainedModel, image: Image, facts: Facts, *, device: torch.device) -> Map | None:
    seen, metadata = _inputs(model, image, facts, device)
    weights = spatial_maps(model.network.to(device).eval(), seen, metadata)
    return None if weights is None else onto(weights[0], (image.shape[0], image.shape[1]), model.spec.size)


def _inputs(model: TrainedModel, image: Image, facts: Facts, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The image (1, 3, H, W) and the facts (1, M) as the network takes them."""
    seen = normalise(fit(image, model.spec.size)[None], model.spec).to(device)
    return seen, torch.from_numpy(model.encoder.encode_patient(facts))[None].to(device)
