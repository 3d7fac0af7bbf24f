"""What a checkpoint holds beside weights, and how a trained model comes back from it. Plain data only."""

import pickle
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from skinlesion import __version__
from skinlesion.config.model import ModelConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.data.image_io import ImageInput
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.splits import fingerprint
from skinlesion.errors import CheckpointError
from skinlesion.model.network import Network
from skinlesion.taxonomy import CODES
from skinlesion.training.build import as_plain, build_backbone, build_network

_PACKAGES = ("torch", "timm", "lightning", "albumentations", "numpy")
_PREFIX = "network."  # of the network's weights among the LesionClassifier's


@dataclass(frozen=True)
class TrainedModel:
    """A network with all that it needs to see an image and a patient as it did in training."""

    name: str  # of the run, for tables
    path: Path
    network: Network
    encoder: MetadataEncoder
    spec: ImageInput
    config: dict[str, Any]  # of its training
    classes: tuple[str, ...]
    split: dict[str, list[str]]  # image ids of each part
    fingerprint: str  # of the split


def record(config: TrainConfig, datamodule: LesionDataModule) -> dict[str, Any]:
    """The plain data that goes into a run's checkpoints."""
    parts = datamodule.split.groupby("split")["image_id"]
    return {
        "config": asdict(config),
        "classes": list(CODES),
        "encoder": datamodule.encoder.state(),
        "class_counts": datamodule.class_counts(),
        "image_input": as_plain(datamodule.spec),
        "split": {str(part): image_ids.tolist() for part, image_ids in parts},
        "fingerprint": fingerprint(datamodule.split),
        "versions": {"skinlesion": __version__, **{package: version(package) for package in _PACKAGES}},
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, loaded with `weights_only=True`.

    Raises:
        CheckpointError: The file is missing, broken or of another program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; a finished run leaves it as best.ckpt")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); train it again") from error
    if not isinstance(checkpoint, dict) or "skinlesion" not in checkpoint:
        raise CheckpointError(f"{path}: not a checkpoint of skinlesion; expected a best.ckpt or last.ckpt of a run")
    return checkpoint


def load_model(path: Path) -> TrainedModel:
    """The trained model that a checkpoint holds, in evaluation mode.

    Args:
        path: The checkpoint, or the folder of its run.

    Raises:
        CheckpointError: The checkpoint cannot be used.
    """
    path = path / "best.ckpt" if path.is_dir() else path
    checkpoint = read_checkpoint(path)
    try:
        return _trained_model(path, checkpoint)
    except (KeyError, TypeError, RuntimeError) as error:
        made_by = checkpoint["skinlesion"].get("versions", {}).get("skinlesion", "unknown")
        raise CheckpointError(
            f"{path}: made by skinlesion {made_by}, which this version, {__version__}, cannot read "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); use that version or train again"
        ) from error


def _trained_model(path: Path, checkpoint: dict[str, Any]) -> TrainedModel:
    about = checkpoint["skinlesion"]
    encoder = MetadataEncoder.from_state(about["encoder"])
    config = ModelConfig(**about["config"]["model"])
    network = build_network(config, build_backbone(config), encoder)
    weights = checkpoint["state_dict"]
    network.load_state_dict({name[len(_PREFIX) :]: weights[name] for name in weights if name.startswith(_PREFIX)})
    image = {name: tuple(value) for name, value in about["image_input"].items()}
    return TrainedModel(
        name=path.resolve().parent.name,
        path=path,
        network=network.eval(),
        encoder=encoder,
        spec=ImageInput(**image),
        config=about["config"],
        classes=tuple(about["classes"]),
        split=about["split"],
        fingerprint=about["fingerprint"],
    )
