"""`skinlesion export`: a checkpoint or an ensemble to a bundle that needs neither torch nor timm."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.config.deploy import ExportConfig
from skinlesion.errors import counted
from skinlesion.terminal import next_command

if TYPE_CHECKING:
    from skinlesion.deploy.manifest import Manifest

log = logging.getLogger(__name__)

_ALIKE = 0.95  # share of images with the same likeliest diagnosis below which a user is warned


def run(config: ExportConfig) -> None:
    """Write the bundle, if it predicts validation images as the models do.

    Raises:
        SkinlesionError: The models or their images cannot be used, or the graph differs from them.
    """
    from skinlesion.deploy.export import Recipe, build, replacing_bundle, require_one_encoder
    from skinlesion.inference.predictor import Predictor
    from skinlesion.inference.split_part import read_part

    predictor = Predictor.load(str(config.checkpoint or config.ensemble), tta=config.tta, accelerator="cpu")
    networks = predictor.networks
    first, fitted = networks.models[0], predictor.posthoc
    recipe = Recipe(networks.models, networks.tta, config.precision, fitted, networks.specialist)
    require_one_encoder(recipe.models)
    val = read_part(first, "val", config.data, images=config.images, seed=config.seed).frame
    train = None
    if config.precision == "int8":
        train = read_part(first, "train", config.data, images=config.calibration_images, seed=config.seed).frame
    with replacing_bundle(Path(config.out)) as beside:
        log.info("Translating %s to ONNX, which takes some seconds each", counted(len(recipe.models), "model"))
        about = build(recipe, beside, val=val, train=train)
    _report(about, Path(config.out))


def _report(about: "Manifest", folder: Path) -> None:
    from skinlesion.deploy.export import sentence

    size = sum(path.stat().st_size for path in folder.iterdir())
    members = counted(len(about.members), "member")
    log.info("%s: bundle %s, %s, %.1f MB", folder, about.version, members, size / 1e6)
    for precision, found in about.parity.items():
        log.info("%s", sentence(precision, found))
        if found["same_diagnosis"] < _ALIKE:
            log.warning(
                "%s changes too many predictions of these models; export them with precision=fp16 or fp32", precision
            )
    log.info(next_command("predict", "FILE", f"bundle={folder}"))
