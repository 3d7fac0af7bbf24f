"""Checkpoints: plain data beside weights, written whole, and a trained model read back from them."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from skinlesion import __version__
from skinlesion.config.train import ModelConfig
from skinlesion.data.image_io import ImageInput
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.errors import CheckpointError
from skinlesion.files import replacing
from skinlesion.model.network import Network
from skinlesion.taxonomy import HAM10000, Taxonomy
from skinlesion.training.build import architecture, build_backbone, build_network

_PREFIX = "network."  # of the network's weights among the LesionClassifier's


@dataclass(frozen=True)
class TrainedModel:
    """A network with everything needed to prepare an image and a patient's metadata as in training."""

    name: str  # of the run, for tables
    path: Path
    network: Network
    encoder: MetadataEncoder
    spec: ImageInput
    config: dict[str, Any]  # of its training; empty where it was trained in a notebook
    classes: tuple[str, ...]
    split: dict[str, list[str]]  # image ids of each part
    fingerprint: str  # of the split
    taxonomy: Taxonomy = HAM10000


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it. Lightning's own way goes through another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, whole or not at all."""
        content = io.BytesIO()  # torch's own writer hides that a disk is full
        torch.save(checkpoint, content)
        with replacing(Path(path)) as beside:
            beside.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`.

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
    """Load the trained model of a checkpoint, in evaluation mode.

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
    record, weights = checkpoint["skinlesion"], checkpoint["state_dict"]
    taxonomy = Taxonomy.from_dict(record["taxonomy"]) if "taxonomy" in record else HAM10000
    hparams = checkpoint.get("hyper_parameters") or architecture(ModelConfig(**record["config"]["model"]))
    hparams = {**hparams, "encoder": record["encoder"]}
    network = build_network(hparams, build_backbone(hparams), classes=len(record["classes"]))
    network.load_state_dict({name[len(_PREFIX) :]: weights[name] for name in weights if name.startswith(_PREFIX)})
    image = {name: tuple(value) for name, value in record["image_input"].items()}
    return TrainedModel(
        name=path.resolve().parent.name,
        path=path,
        network=network.eval(),
        encoder=MetadataEncoder.from_state(record["encoder"]),
        spec=ImageInput(**image),
        config=record.get("config", {}),
        classes=tuple(record["classes"]),
        split=record.get("split", {}),
        fingerprint=record.get("fingerprint", ""),
        taxonomy=taxonomy,
    )
