"""What bundle.json says of a bundle that has just been made."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from skinlesion import __version__
from skinlesion.data.metadata import AGES
from skinlesion.deploy.manifest import LICENCE, NOTE, Graph, Manifest, Member
from skinlesion.errors import CheckpointError
from skinlesion.files import file_digest
from skinlesion.taxonomy import DIAGNOSES
from skinlesion.training.checkpoint import TrainedModel

_PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
PREPROCESSING = {
    "1 decode": "8 bits a channel, RGB, turned as its EXIF orientation says",
    "2 fit": "scaled to fit into (height, width) with its aspect kept, by OpenCV's INTER_AREA where it shrinks and "
    "INTER_LINEAR where it grows, sides rounded to whole pixels; centred on black, an odd pixel to the lower right",
    "3 normalise": "inside the graph, for each member: (pixel / 255 - mean) / std",
    "metadata": f"a row of numbers: (age - age_mean) / age_std with age in years ({AGES[0]:g} to {AGES[1]:g}), 0 where "
    "unknown; 1 where the age is unknown, else 0; sex one-hot in the order of sexes; localization one-hot in the order "
    "of localizations; words in lower case, others than these count as unknown",
}


def describe(
    models: Sequence[TrainedModel], folder: Path, graph: Graph, *, parity: Mapping[str, Any], **others: Any
) -> Manifest:
    """The manifest of a bundle.

    Args:
        models: Its members.
        folder: Holds all its files but bundle.json.
        graph: What was written there.
        parity: How it compares with PyTorch.
        **others: precision, tta, calibration, operating_points, conformal and novelty, see `Manifest`.
    """
    return Manifest.sealed(
        classes=[{"code": each.code, "name": each.name, "category": each.category} for each in DIAGNOSES],
        metadata=models[0].encoder.state(),
        preprocessing=PREPROCESSING,
        members=[_member(model) for model in models],
        graph=graph,
        parity=dict(parity),
        versions={"skinlesion": __version__, **{package: version(package) for package in _PACKAGES}},
        files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
        licence=LICENCE,
        note=NOTE,
        **others,
    )


def require_one_encoder(models: Sequence[TrainedModel]) -> None:
    """Refuse members that see a patient's facts in different ways: a bundle has one input for them.

    Raises:
        CheckpointError: It names the first that differs.
    """
    for model in models[1:]:
        if model.encoder != models[0].encoder:
            raise CheckpointError(
                f"{model.path}: learned other values of age, sex or localization than {models[0].path}; "
                "export members that were trained on the same table"
            )


def _member(model: TrainedModel) -> Member:
    return Member(
        name=model.name,
        backbone=str(model.config["model"]["backbone"]),
        size=model.spec.size,
        mean=model.spec.mean,
        std=model.spec.std,
        sha256=file_digest(model.path),
    )
