"""From trained models to the files of a bundle, compared with the models before they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinlesion.deploy import manifest
from skinlesion.deploy.describe import describe
from skinlesion.deploy.graph import write_graph
from skinlesion.deploy.manifest import Graph, Manifest
from skinlesion.deploy.model_card import model_card
from skinlesion.deploy.parity import Floats, ask_bundle, ask_models, differences, require_parity
from skinlesion.deploy.quantize import halve, quantise
from skinlesion.deploy.runtime import Bundle
from skinlesion.deploy.session import open_session
from skinlesion.deploy.voting_module import Voting
from skinlesion.inference import ood
from skinlesion.inference.sample import Sample
from skinlesion.training.checkpoint import TrainedModel

SEEN = "novelty.npz"
CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made of."""

    models: list[TrainedModel]
    tta: str  # which flips and turns of an image vote
    precision: str  # fp32 | fp16 | int8
    calibration: dict[str, Any] | None = None  # as in ensemble.json, like the two that follow
    operating_points: list[dict[str, Any]] | None = None
    conformal: list[dict[str, Any]] | None = None
    seen: ood.Fitted | None = None  # what training images look like, see evaluation.novelty


def build(recipe: Recipe, folder: Path, *, val: Sample, train: Sample | None) -> Manifest:
    """Write a bundle's files.

    Args:
        recipe: What it is made of.
        folder: Empty.
        val: Validation images, on which the graph is compared with the models.
        train: Training images, needed for int8.

    Raises:
        BundleError: The graph differs from the models.
    """
    graph = write_graph(Voting(recipe.models, tta=recipe.tta).eval(), folder, width=recipe.models[0].encoder.width)
    wanted = ask_models(recipe.models, val, tta=recipe.tta)
    parity = {"fp32": _agreement(recipe, folder, graph, val, wanted)}
    require_parity(parity["fp32"])
    if recipe.precision != "fp32":
        _lower(recipe, folder / graph.file, train)
        parity[recipe.precision] = _agreement(recipe, folder, graph, val, wanted)
    if recipe.seen is not None:
        ood.write(recipe.seen, folder / SEEN)
    (folder / CARD).write_text(model_card(_about(recipe, folder, graph, parity)), encoding="utf-8")
    about = _about(recipe, folder, graph, parity)
    (folder / manifest.FILE).write_text(about.text(), encoding="utf-8")
    return Bundle.load(folder).about  # as whoever is handed it will read it


def _agreement(recipe: Recipe, folder: Path, graph: Graph, val: Sample, wanted: Floats) -> dict[str, Any]:
    session = open_session(folder / graph.file, threads=None)
    members, flagged = ask_bundle(Bundle(_about(recipe, folder, graph, {}), session, seen=recipe.seen), val)
    return {**differences(wanted, members), **({} if flagged is None else {"taken_for_novel": flagged})}


def _lower(recipe: Recipe, graph: Path, train: Sample | None) -> None:
    if recipe.precision == "fp16":
        halve(graph)
    elif train is not None:
        quantise(graph, recipe.models, train)


def _about(recipe: Recipe, folder: Path, graph: Graph, parity: Mapping[str, Any]) -> Manifest:
    return describe(
        recipe.models,
        folder,
        graph,
        parity=parity,
        precision=recipe.precision,
        tta=recipe.tta,
        calibration=recipe.calibration,
        operating_points=recipe.operating_points,
        conformal=recipe.conformal,
        novelty=None if recipe.seen is None else _about_seen(recipe.seen),
    )


def _about_seen(seen: ood.Fitted) -> dict[str, Any]:
    return {"file": SEEN, "passing": float(seen["passing"]), "threshold": float(seen["threshold"])}
