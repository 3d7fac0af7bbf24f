"""Explanation of one prediction: maps of all members on the image, and the effect of each fact about the patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from skinlesion.data.image_io import Image, fit
from skinlesion.data.transforms import normalise
from skinlesion.inference import ood
from skinlesion.inference.loaded_ensemble import LoadedEnsemble
from skinlesion.inference.sample import see_batch, see_patient
from skinlesion.studies.explain.saliency import Map, class_maps, project, spatial_maps
from skinlesion.taxonomy import CODES
from skinlesion.training.checkpoint import TrainedModel

Facts = Mapping[str, float | str | None]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Prediction of an ensemble for one image, with what supports it.

    Attributes:
        name: Name of the image.
        image: Original image, (h, w, 3).
        facts: Age in years, sex and localization; None where unknown.
        probabilities: (K,), of the ensemble.
        target: Code of the diagnosis that the member maps explain.
        maps: (h, w) by code, for the predicted diagnosis and the target, averaged over the members.
        members: (h, w) by member, for the target.
        spatial: (h, w), factors of CBAM's spatial attention, averaged over the members that have it.
        fact_effects: (K,) by fact, see `metadata_ablation`.
        ood: Out-of-distribution score and its threshold; None where the model does not compute one.
    """

    name: str
    image: Image
    facts: Facts
    probabilities: Floats
    target: str
    maps: Mapping[str, Map]
    members: Mapping[str, Map]
    spatial: Map | None
    fact_effects: Mapping[str, Floats]
    ood: tuple[float, float] | None = None

    @property
    def is_ood(self) -> bool:
        """Whether the image is flagged as out-of-distribution."""
        return self.ood is not None and self.ood[0] > self.ood[1]

    @property
    def predicted(self) -> str:
        """Code of the most likely diagnosis."""
        return CODES[int(self.probabilities.argmax())]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with probabilities and their changes to six digits."""
        low, high = (None, None) if self.spatial is None else (float(self.spatial.min()), float(self.spatial.max()))
        return {
            "image": self.name,
            "facts": dict(self.facts),
            "predicted": self.predicted,
            "class": self.target,
            "probabilities": _by_code(self.probabilities),
            "gate_response": {fact: _by_code(change) for fact, change in self.fact_effects.items()},
            "maps": {code: {"peak": peak(values)} for code, values in self.maps.items()},
            "members": {name: {"peak": peak(values)} for name, values in self.members.items()},
            "agreement": agreement(self.members),
            "spatial_attention": None if self.spatial is None else {"least": low, "most": high},
            "novelty": None if self.ood is None else {"score": self.ood[0], "threshold": self.ood[1]},
            "note": "peaks are x and y as fractions of the image; research use only, not a medical device",
        }


def explain(
    ensemble: LoadedEnsemble, image: Image, facts: Facts, *, name: str, target: str | None, device: torch.device
) -> Explanation:
    """Explain the prediction of an ensemble for one image.

    Args:
        ensemble: An ensemble, or a single model.
        image: RGB, (h, w, 3), of any size.
        facts: Age in years, sex and localization; None where unknown.
        name: Name of the image.
        target: Code of the diagnosis to explain; None: the predicted one.
        device: Device of the networks.
    """
    models, shape = ensemble.models, (image.shape[0], image.shape[1])
    probabilities = member_probabilities(models, image, facts, device=device, tta=ensemble.tta).mean(axis=0)
    predicted = CODES[int(probabilities.argmax())]
    target = target or predicted
    inputs = [_inputs(model, image, facts, device) for model in models]
    networks = [model.network.to(device).eval() for model in models]
    maps: dict[str, list[Map]] = {code: [] for code in dict.fromkeys((predicted, target))}
    spatial = []
    for model, network, each in zip(models, networks, inputs, strict=True):
        for code, member_maps in maps.items():
            (values,) = class_maps(network, *each, classes=[CODES.index(code)])
            member_maps.append(project(values, shape, model.spec.size))
        if (weights := spatial_maps(network, *each)) is not None:
            spatial.append(project(weights[0], shape, model.spec.size))
    return Explanation(
        name=name,
        image=image,
        facts=facts,
        probabilities=probabilities,
        target=target,
        maps={code: _mean(each) for code, each in maps.items()},
        members=dict(zip(ensemble.names, maps[target], strict=True)),
        spatial=_mean(spatial) if spatial else None,
        fact_effects=metadata_ablation(models, image, facts, device=device, tta=ensemble.tta),
        ood=_ood(ensemble, inputs),
    )


def metadata_ablation(
    models: Sequence[TrainedModel], image: Image, facts: Facts, *, device: torch.device, tta: str
) -> dict[str, Floats]:
    """Increase of each diagnosis's probability by each known fact, averaged over the members.

    Args:
        models: Members of the ensemble.
        image: RGB, (h, w, 3), of any size.
        facts: Age in years, sex and localization; None where unknown.
        device: Device of the networks.
        tta: Test-time augmentation, see `inference.tta`.

    Returns:
        By known fact, (K,): the probability given all facts minus the probability without this fact.
    """

    def predict(given: Facts) -> Floats:
        return member_probabilities(models, image, given, device=device, tta=tta).mean(axis=0)

    given_all = predict(facts)
    return {fact: given_all - predict({**facts, fact: None}) for fact, value in facts.items() if value is not None}


def member_probabilities(
    models: Sequence[TrainedModel], image: Image, facts: Facts, *, device: torch.device, tta: str
) -> Floats:
    """Probabilities (M, K) of each member for an image (h, w, 3) of any size."""
    return np.stack(
        [
            see_patient(model, fit(image, model.spec.size)[None], facts, device=device, tta=tta).probabilities[0]
            for model in models
        ]
    )


def peak(values: Map) -> tuple[float, float] | None:
    """Position of the maximum of a map (h, w): x and y of the pixel's centre in 0..1; None for a constant map."""
    if np.ptp(values) == 0:
        return None
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return float((column + 0.5) / values.shape[1]), float((row + 0.5) / values.shape[0])


def agreement(maps: Mapping[str, Map]) -> float | None:
    """Mean correlation over pixels of all pairs of maps that are not constant; None if there is no such pair."""
    varied = [values.ravel() for values in maps.values() if np.ptp(values) > 0]
    pairs = [float(np.corrcoef(*pair)[0, 1]) for pair in combinations(varied, 2)]
    return float(np.mean(pairs)) if pairs else None


def _inputs(model: TrainedModel, image: Image, facts: Facts, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised image (1, 3, H, W) and the encoded facts (1, M)."""
    pixels = normalise(fit(image, model.spec.size)[None], model.spec).to(device)
    return pixels, torch.from_numpy(model.encoder.encode_patient(facts))[None].to(device)


def _ood(ensemble: LoadedEnsemble, inputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float] | None:
    fitted = ensemble.novelty
    if fitted is None:
        return None
    embedded = [see_batch(model, *each).embedded for model, each in zip(ensemble.models, inputs, strict=True)]
    (score,) = ood.score(fitted, [each.logits for each in embedded], [each.pooled for each in embedded])
    return float(score), float(fitted["threshold"])


def _mean(maps: Sequence[Map]) -> Map:
    return np.asarray(np.mean(maps, axis=0), np.float32)


def _by_code(values: Floats) -> dict[str, float]:
    return {code: round(float(value), 6) for code, value in zip(CODES, values, strict=True)}
