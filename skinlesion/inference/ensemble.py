"""The members of an ensemble: which they are, whether they go together, and the file that names them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from skinlesion.data.datamodule import Part
from skinlesion.errors import CheckpointError
from skinlesion.files import file_digest
from skinlesion.inference import ood
from skinlesion.inference.members import PostHoc
from skinlesion.inference.predictions import Predictions
from skinlesion.training.checkpoint import TrainedModel, load_model


@dataclass(frozen=True)
class EnsembleFile:
    """An ensemble.json: what is needed to let the chosen members vote again."""

    members: list[Path]  # checkpoints
    chosen: list[int]  # positions in members
    tta: str  # views of an image that vote, see `inference.tta`
    posthoc: PostHoc  # fitted to the vote of the chosen members

    def models(self) -> list[TrainedModel]:
        """The chosen members, loaded and checked against each other."""
        models = [load_model(self.members[position]) for position in self.chosen]
        check_together(models)
        return models


def find_members(members: str | Sequence[str]) -> tuple[list[Path], int | None]:
    """The checkpoints of a sweep's folder, or of a list; and how many members the sweep announced.

    Raises:
        CheckpointError: No member, or a member of the sweep that has not finished; all are named.
    """
    if not isinstance(members, str):
        paths = _checkpoints([Path(member) for member in members])
        twice = sorted({str(path) for path in paths if sum(path.resolve() == other.resolve() for other in paths) > 1})
        if twice or len(paths) < 2:
            given = f"given twice: {', '.join(twice)}" if twice else f"{len(paths)} member"
            raise CheckpointError(f"members: {given}; expected at least two different checkpoints")
        return paths, None
    folder = Path(members)
    if folder.is_file() or (folder / "best.ckpt").exists():
        raise CheckpointError(
            f"members={members}: one model; expected a sweep's folder or a list, members=[a.ckpt,b.ckpt]"
        )
    runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not runs:
        raise CheckpointError(f"members={members}: no runs there; expected the folder of a sweep (train sweep=six)")
    unfinished = [run.name for run in runs if not (run / "metrics.json").exists()]
    if unfinished:
        raise CheckpointError(
            f"members={members}: {', '.join(unfinished)} not finished; run the sweep's command again, it goes on there"
        )
    announced = OmegaConf.select(OmegaConf.load(runs[0] / "config.yaml"), "expected_members")
    return _checkpoints(runs), announced


def unique_names(models: Sequence[TrainedModel]) -> list[str]:
    """A name for each member: its folder's, with the folder above where two are alike."""
    names = [model.name for model in models]
    return [
        f"{model.path.resolve().parent.parent.name}/{name}" if names.count(name) > 1 else name
        for model, name in zip(models, names, strict=True)
    ]


def check_count(found: Sequence[Path], expected: int | None) -> None:
    """Refuse another number of members than expected.

    Raises:
        CheckpointError: It names the members found.
    """
    if expected is not None and len(found) != expected:
        names = ", ".join(path.parent.name for path in found)
        raise CheckpointError(
            f"{len(found)} members ({names}), expected {expected}; train the others, or give expected={len(found)}"
        )


def check_together(models: Sequence[TrainedModel]) -> None:
    """Refuse members that were trained on different classes, splits or values of the facts.

    Raises:
        CheckpointError: It names the first member that differs.
    """
    first = models[0]
    for model in models[1:]:
        if model.classes != first.classes:
            raise CheckpointError(f"{model.path}: classes {model.classes}, but {first.path} has {first.classes}")
        if model.fingerprint != first.fingerprint:
            raise CheckpointError(
                f"{model.path}: trained on another split than {first.path} ({model.fingerprint[:12]}, not "
                f"{first.fingerprint[:12]}); its test images may be the other's training images"
            )
        if model.encoder != first.encoder:
            raise CheckpointError(
                f"{model.path}: learned other values of age, sex or localization than {first.path}; give members that "
                "were trained on the same table"
            )


def own_predictions(model: TrainedModel, part: Part) -> Predictions | None:
    """The predictions table that lies beside a checkpoint, if it was made by that very checkpoint."""
    folder = model.path.parent
    table, metrics = folder / f"predictions_{part}.csv", folder / "metrics.json"
    if not (table.exists() and metrics.exists()):
        return None
    made_by = json.loads(metrics.read_text(encoding="utf-8")).get("checkpoint_sha256")
    return Predictions.read(table) if made_by == file_digest(model.path) else None


def describe(
    models: Sequence[TrainedModel],
    chosen: Sequence[int],
    folder: Path,
    *,
    tta: str = "none",
    fitted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contents of an ensemble.json that lies in `folder`.

    Args:
        models: All members.
        chosen: Positions of those that vote.
        folder: From which the checkpoints are named.
        tta: Views of an image that vote, see `inference.tta`.
        fitted: What was fitted on validation after the vote: `calibration`, `operating_points`, `conformal`,
            `novelty`.
    """
    return {
        "members": [
            {
                "name": model.name,
                "checkpoint": os.path.relpath(model.path.resolve(), folder.resolve()),
                "sha256": file_digest(model.path),
            }
            for model in models
        ],
        "chosen": list(chosen),
        "tta": tta,
        "classes": list(models[0].classes),
        "taxonomy": models[0].taxonomy.to_dict(),
        "fingerprint": models[0].fingerprint,
        **(fitted or {}),
    }


def read_ensemble(path: Path) -> EnsembleFile:
    """An ensemble.json, its members found and unchanged.

    Args:
        path: The file, or its folder.

    Raises:
        CheckpointError: The file or a member is missing, broken or has changed.
    """
    path = path / "ensemble.json" if path.is_dir() else path
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        listed = [((path.parent / member["checkpoint"]).resolve(), member["sha256"]) for member in about["members"]]
        chosen = [int(position) for position in about["chosen"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable ensemble.json ({error}); make it with `ensemble`") from error
    _checkpoints([checkpoint for checkpoint, _ in listed])
    for checkpoint, digest in listed:
        if file_digest(checkpoint) != digest:
            raise CheckpointError(f"{checkpoint}: has changed since {path} was made; make the ensemble again")
    statistics, novelty = None, about.get("novelty")
    if novelty is not None:
        file = path.parent / str(novelty.get("file"))
        statistics = ood.read(file)
        if file_digest(file) != novelty.get("sha256"):
            raise CheckpointError(f"{file}: has changed since {path} was made; make the ensemble again")
    return EnsembleFile(
        members=[checkpoint for checkpoint, _ in listed],
        chosen=chosen,
        tta=str(about.get("tta", "none")),
        posthoc=PostHoc(about.get("calibration"), about.get("operating_points"), about.get("conformal"), statistics),
    )


def _checkpoints(paths: Sequence[Path]) -> list[Path]:
    found = [path / "best.ckpt" if path.is_dir() else path for path in paths]
    absent = [str(path) for path in found if not path.is_file()]
    if absent:
        raise CheckpointError(f"{', '.join(absent)}: no such checkpoint; a finished run leaves it as best.ckpt")
    return found
