"""Explanation of one prediction: maps of all members on the image, and the effect of each fact about the patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from skinlesion.config.schema import require_choice
from skinlesion.data.image_io import Image
from skinlesion.data.transforms import normalise
from skinlesion.inference.members import Facts
from skinlesion.inference.predictor import Predictor
from skinlesion.studies.explain.saliency import Map, class_maps, project, spatial_maps
from skinlesion.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Prediction of an ensemble for one image, with what supports it."""

    name: str  # of the image
    image: Image  # original, (h, w, 3)
    facts: Facts  # age in years, sex and localization; None where unknown
    taxonomy: Taxonomy
    probabilities: Floats  # (K,), calibrated where the model is
    target: str  # code of the diagnosis that the member maps explain
    maps: Mapping[str, Map]  # (h, w) by code, for the predicted diagnosis and the target: means over the members
    members: Mapping[str, Map]  # (h, w) by member, for the target
    spatial: Map | None  # (h, w), factors of CBAM's spatial attention: mean over the members that have it
    fact_effects: Mapping[str, Floats]  # (K,) by fact, see `metadata_ablation`
    ood: tuple[float, float] | None = None  # out-of-distribution score and its threshold

    @property
    def is_ood(self) -> bool:
        """Whether the image is flagged as out-of-distribution."""
        return self.ood is not None and self.ood[0] > self.ood[1]

    @property
    def predicted(self) -> str:
        """Code of the most likely diagnosis."""
        return self.taxonomy.codes[int(self.probabilities.argmax())]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with probabilities and their changes to six digits."""
        low, high = (None, None) if self.spatial is None else (float(self.spatial.min()), float(self.spatial.max()))
        return {
            "image": self.name,
            "facts": dict(self.facts),
            "predicted": self.predicted,
            "class": self.target,
            "probabilities": self._by_code(self.probabilities),
            "gate_response": {fact: self._by_code(change) for fact, change in self.fact_effects.items()},
            "maps": {code: {"peak": peak(values)} for code, values in self.maps.items()},
            "members": {name: {"peak": peak(values)} for name, values in self.members.items()},
            "agreement": agreement(self.members),
            "spatial_attention": None if self.spatial is None else {"least": low, "most": high},
            "novelty": None if self.ood is None else {"score": self.ood[0], "threshold": self.ood[1]},
            "note": "peaks are x and y as fractions of the image; research use only, not a medical device",
        }

    def _by_code(self, values: Floats) -> dict[str, float]:
        return {code: round(float(value), 6) for code, value in zip(self.taxonomy.codes, values, strict=True)}


def explain(predictor: Predictor, image: Image, facts: Facts, *, name: str, target: str | None) -> Explanation:
    """Explain the prediction for one image.

    Args:
        predictor: A checkpoint or an ensemble.
        image: RGB, (h, w, 3), of any size.
        facts: Age in years, sex and localization; None where unknown.
        name: Name of the image.
        target: Code of the diagnosis to explain; None: the predicted one.

    Raises:
        ConfigError: The model does not know a fact, or the target.
        CheckpointError: The predictor is a bundle.
    """
    if target is not None:
        require_choice("class", target, predictor.taxonomy.codes)
    networks, codes, shape = predictor.networks, predictor.taxonomy.codes, (image.shape[0], image.shape[1])
    prediction = predictor.predict(image, facts)
    (predicted,) = prediction.predicted
    target = target or predicted
    maps: dict[str, list[Map]] = {code: [] for code in dict.fromkeys((predicted, target))}
    spatial: list[Map] = []
    prepared = dict(zip(predictor.sizes, predictor.prepare(image), strict=True))  # as they are predicted
    for model in networks.models:
        resized = prepared[model.spec.size]
        size = (resized.shape[0], resized.shape[1])
        pixels = normalise(resized[None], model.spec).to(networks.device)  # (1, 3, H, W)
        metadata = torch.from_numpy(model.encoder.encode_patient(facts))[None].to(networks.device)  # (1, M)
        for code, member_maps in maps.items():
            (values,) = class_maps(model.network, pixels, metadata, classes=[codes.index(code)])
            member_maps.append(project(values, shape, size))
        if (weights := spatial_maps(model.network, pixels, metadata)) is not None:
            spatial.append(project(weights[0], shape, size))
    fitted = predictor.posthoc.ood
    scores = prediction.ood_score
    return Explanation(
        name=name,
        image=image,
        facts=facts,
        taxonomy=predictor.taxonomy,
        probabilities=prediction.probabilities[0],
        target=target,
        maps={code: np.mean(each, axis=0, dtype=np.float32) for code, each in maps.items()},
        members=dict(zip(networks.names, maps[target], strict=True)),
        spatial=np.mean(spatial, axis=0, dtype=np.float32) if spatial else None,
        fact_effects=metadata_ablation(predictor, image, facts),
        ood=None if fitted is None or scores is None else (float(scores[0]), float(fitted["threshold"])),
    )


def metadata_ablation(predictor: Predictor, image: Image, facts: Facts) -> dict[str, Floats]:
    """Increase of each diagnosis's probability by each known fact.

    Args:
        predictor: A model.
        image: RGB, (h, w, 3), of any size.
        facts: Age in years, sex and localization; None where unknown.

    Returns:
        By known fact, (K,): the probability given all facts minus the probability without this fact.
    """
    known = [fact for fact, value in facts.items() if value is not None]
    given_all = predictor.predict(image, facts).probabilities[0]
    return {fact: given_all - predictor.predict(image, {**facts, fact: None}).probabilities[0] for fact in known}


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
