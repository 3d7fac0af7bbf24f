"""Checkpoints: plain data beside weights, written whole, and a trained model read back from them."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from pydantic import BaseModel
from safetensors.torch import load_file, save

from skinlesion import __version__
from skinlesion.config.schema import Sha256
from skinlesion.config.train import ModelConfig
from skinlesion.data.image_io import ImageInput
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.treatment import Treatment
from skinlesion.errors import CheckpointError
from skinlesion.files import file_digest, read_json, replacing, write_json
from skinlesion.inference.hub import ABOUT, WEIGHTS, local_path
from skinlesion.model.network import Network
from skinlesion.taxonomy import HAM10000, Taxonomy
from skinlesion.training.build import architecture, build_backbone, build_network

_PREFIX = "network."  # of the network's weights among the LesionClassifier's
_MARK = b"sha256="  # stands before the digest of all that precedes it, at a checkpoint's end
_DIGITS = 64  # of a SHA-256 in hexadecimal


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
    split: dict[str, list[str]]  # image ids of each part; of a published model empty, see `split_part.with_split`
    fingerprint: str  # of the split
    taxonomy: Taxonomy = HAM10000
    class_counts: tuple[int, ...] | None = None  # training images of each diagnosis; None: not noted

    @property
    def hides_images(self) -> bool:
        """Whether it is a published model, which counts the images of each part and does not name them."""
        return bool(self.split) and not any(self.split.values())

    @property
    def table(self) -> str:
        """The table that it was trained on, of a checkpoint that does not say HAM10000's."""
        return str(self.config.get("data", {}).get("table", "HAM10000_metadata"))

    @property
    def is_of_ham10000(self) -> bool:
        """Whether its table has HAM10000's name, and its images, where it names them, those of HAM10000."""
        named = [image for part in self.split.values() for image in part]
        return "HAM10000" in self.table and (not named or any(map(_is_of_ham10000, named)))


def _is_of_ham10000(image: str) -> bool:
    """Whether an image has one of HAM10000's ids, ISIC_0024306 to ISIC_0034320."""
    return "ISIC_0024306" <= image <= "ISIC_0034320" and len(image) == len("ISIC_0024306")


class _Published(BaseModel):
    """Contents of the JSON beside published weights."""

    skinlesion: dict[str, Any]  # the checkpoint's own, but for the split, whose images are counted
    hyper_parameters: dict[str, Any] | None
    sha256: Sha256  # of the weights


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it. Lightning's own way goes through another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, whole or not at all, with its digest at its end."""
        content = io.BytesIO()  # torch's own writer hides that a disk is full
        torch.save(checkpoint, content)
        content.seek(-2, os.SEEK_END)  # the length of the ZIP archive's comment, which other programs pass over
        content.write((len(_MARK) + _DIGITS).to_bytes(2, "little") + _MARK)
        content.write(hashlib.sha256(content.getbuffer()).hexdigest().encode())
        with replacing(Path(path)) as beside:
            beside.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint as Lightning does, unless it is damaged."""
        read_intact(Path(path))
        return super().load_checkpoint(path, *args, **kwargs)


def read_intact(path: Path) -> bytes:
    """Read a checkpoint whose bytes are those that were written.

    The digest of a finished run's best.ckpt stands in metrics.json beside it, that of any other at its end. Files of
    earlier versions have neither; there the CRC-32 of each tensor is checked.

    Raises:
        CheckpointError: The file is missing, unreadable or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; a finished run leaves it as best.ckpt")
    noted = noted_digest(path)
    try:
        content = path.read_bytes()
        end = len(content) - _DIGITS
        if noted is None and content[end - len(_MARK) : end] == _MARK:
            intact = hashlib.sha256(memoryview(content)[:end]).hexdigest().encode() == content[end:]
        elif noted is None:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                intact = archive.testzip() is None and not archive.comment
        else:
            intact = hashlib.sha256(content).hexdigest() == noted
    except Exception as error:  # damaged bytes may raise anything
        raise _unreadable(path, error) from error
    if not intact:
        beside = "metrics.json beside it" if noted else "it"
        raise CheckpointError(
            f"{path}: damaged or replaced, its bytes are not those that {beside} was written with; restore it from a "
            "copy, or train again (resume=restart)"
        )
    return content


def noted_digest(path: Path) -> str | None:
    """The SHA-256 that a finished run notes of its best.ckpt in metrics.json; None: there is none.

    Raises:
        CheckpointError: metrics.json cannot be read.
    """
    beside = path.with_name("metrics.json")
    if path.name != "best.ckpt" or not beside.is_file():
        return None
    try:
        found = json.loads(beside.read_text(encoding="utf-8")).get("checkpoint_sha256")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{beside}: not readable ({error}); delete it, and train goes on to write it") from error
    return None if found is None else str(found)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`, or one that is published, without any pickled data.

    Raises:
        CheckpointError: The file is missing, damaged or of another program.
    """
    if path.suffix == ".safetensors":
        return _read_published(path)
    content = read_intact(path)
    try:
        checkpoint: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler may raise anything
        raise _unreadable(path, error) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("skinlesion"), dict):
        raise CheckpointError(f"{path}: not a checkpoint of skinlesion; expected a best.ckpt or last.ckpt of a run")
    return checkpoint


def is_foreign(path: Path) -> bool:
    """Whether a checkpoint is that of another program: its pickled part does not name this one."""
    if not zipfile.is_zipfile(path):
        return False  # a damaged one of ours, or what nobody reads
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return bool(pickled) and all(b"skinlesion" not in archive.read(name) for name in pickled)


def load_model(path: Path) -> TrainedModel:
    """Load the trained model of a checkpoint, in evaluation mode.

    Args:
        path: The checkpoint, or the folder of its run.

    Raises:
        CheckpointError: The checkpoint cannot be used.
    """
    path = local_path(path)
    path = path / "best.ckpt" if path.is_dir() else path
    checkpoint = read_checkpoint(path)
    try:
        return _trained_model(path, checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        made_by = checkpoint["skinlesion"].get("versions", {}).get("skinlesion", "unknown")
        raise CheckpointError(
            f"{path}: made by skinlesion {made_by}, which this version, {__version__}, cannot read "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); use that version or train again"
        ) from error


def write_published(checkpoint: Mapping[str, Any], folder: Path, *, name: str) -> Path:
    """Write a checkpoint's network as safetensors, and what else a prediction needs as JSON beside it.

    Left out are the optimizer's state, the image ids of the split (their number in each part stays), and the folders
    of absolute paths.

    Args:
        checkpoint: As from `read_checkpoint`.
        folder: Empty, or not there yet.
        name: Of the model, in tables.
    """
    record = dict(checkpoint["skinlesion"])
    record["images"] = {part: len(ids) for part, ids in record.pop("split", {}).items()} or record.get("images", {})
    record |= {"name": name, "config": _without_folders(record.get("config", {}))}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS
    weights = {key: value for key, value in checkpoint["state_dict"].items() if key.startswith(_PREFIX)}
    path.write_bytes(save({key: value.contiguous().clone() for key, value in weights.items()}))
    hparams = _without_folders(checkpoint.get("hyper_parameters"))
    about = {"skinlesion": record, "hyper_parameters": hparams, "sha256": file_digest(path)}
    write_json(folder / ABOUT, about)
    return path


def _read_published(path: Path) -> dict[str, Any]:
    advice = "download it again"
    about = read_json(path.with_name(ABOUT), _Published, error=CheckpointError, advice=advice)
    if not path.is_file() or file_digest(path) != about.sha256:
        raise CheckpointError(f"{path}: missing or damaged, {ABOUT} beside it has another SHA-256; {advice}")
    hparams = about.hyper_parameters
    return {"state_dict": load_file(path), "hyper_parameters": hparams, "skinlesion": about.skinlesion}


def _without_folders(value: Any) -> Any:
    """Plain data without the folders of absolute paths, which tell about a machine and are of no use elsewhere."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    is_path = isinstance(value, str) and (value[:1] in ("/", "~") or PureWindowsPath(value).drive)
    return PureWindowsPath(value).name if is_path else value


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return CheckpointError(f"{path}: not a readable checkpoint ({reason}); train it again")


def _trained_model(path: Path, checkpoint: dict[str, Any]) -> TrainedModel:
    record, weights = checkpoint["skinlesion"], checkpoint["state_dict"]
    taxonomy = Taxonomy.from_dict(record["taxonomy"]) if "taxonomy" in record else HAM10000
    hparams = checkpoint.get("hyper_parameters") or architecture(
        ModelConfig(**{"padding": True, **record["config"]["model"]})
    )
    hparams = {**hparams, "encoder": record["encoder"]}
    network = build_network(hparams, build_backbone(hparams), classes=len(record["classes"]))
    network.load_state_dict({name[len(_PREFIX) :]: weights[name] for name in weights if name.startswith(_PREFIX)})
    image = record["image_input"]
    return TrainedModel(
        name=record.get("name") or path.resolve().parent.name,
        path=path,
        network=network.eval(),
        encoder=MetadataEncoder.from_state(record["encoder"]),
        spec=ImageInput(
            tuple(image["size"]),
            tuple(image["mean"]),
            tuple(image["std"]),
            padded=image.get("padded", True),
            treatment=Treatment.of(image),
        ),
        config=record.get("config", {}),
        classes=tuple(record["classes"]),
        split=record.get("split") or {part: [] for part in record.get("images", {})},
        fingerprint=record.get("fingerprint", ""),
        taxonomy=taxonomy,
        class_counts=None if record.get("class_counts") is None else tuple(record["class_counts"]),
    )
