"""`skinlesion export`: a checkpoint or an ensemble to a bundle that needs neither torch nor timm."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.config.deploy import ExportConfig

if TYPE_CHECKING:
    from skinlesion.deploy.export import Recipe
    from skinlesion.deploy.manifest import Manifest

log = logging.getLogger(__name__)

_ALIKE = 0.95  # share of images with the same likeliest diagnosis below which a user is warned


def run(config: ExportConfig) -> None:
    """Write the bundle, if it says of validation images what the models say.

    Raises:
        SkinlesionError: The models or their images cannot be used, or the graph differs from them.
    """
    from skinlesion.deploy.export import build, replacing_bundle, require_one_encoder
    from skinlesion.inference.split_part import read_part

    recipe = _recipe(config)
    first = recipe.models[0]
    require_one_encoder(recipe.models)
    val = read_part(first, "val", config.data, images=config.images, seed=config.seed).frame
    train = None
    if config.precision == "int8":
        train = read_part(first, "train", config.data, images=config.calibration_images, seed=config.seed).frame
    with replacing_bundle(Path(config.out)) as beside:
        log.info("Translating %d models to ONNX, which takes some seconds each", len(recipe.models))
        about = build(recipe, beside, val=val, train=train)
    _tell(about, Path(config.out))


def _recipe(config: ExportConfig) -> "Recipe":
    from skinlesion.deploy.export import Recipe
    from skinlesion.inference.ensemble import read_ensemble
    from skinlesion.training.checkpoint import load_model

    if config.checkpoint is not None:
        return Recipe([load_model(Path(config.checkpoint))], config.tta or "none", config.precision)
    file = read_ensemble(Path(str(config.ensemble)))
    return Recipe(file.models(), file.tta, config.precision, file.posthoc)


def _tell(about: "Manifest", folder: Path) -> None:
    from skinlesion.deploy.export import sentence

    size = sum(path.stat().st_size for path in folder.iterdir())
    log.info("%s: bundle %s, %d members, %.1f MB", folder, about.version, len(about.members), size / 1e6)
    for precision, found in about.parity.items():
        log.info("%s", sentence(precision, found))
        if found["same_diagnosis"] < _ALIKE:
            log.warning("%s loses too much of these models: export them with fp16 or fp32 instead", precision)
    log.info("Try it: skinlesion predict bundle=%s image=FILE", folder)
