"""The members of an ensemble: which they are, whether they go together, and the file that names them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from skinlesion.config.schema import Range, Sha256, Tta
from skinlesion.data.datamodule import Part
from skinlesion.errors import CheckpointError, ConfigError, DataError, counted
from skinlesion.files import file_digest, read_json
from skinlesion.inference.fitted import MAKE_AGAIN, Fitted
from skinlesion.inference.members import PostHoc
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.specialist import check_specialist
from skinlesion.taxonomy import HAM10000, Taxonomy
from skinlesion.training.checkpoint import TrainedModel, load_model, noted_digest
from skinlesion.training.run_folder import read_config

FORMAT = 2
"""Raised when an older program would misread the file: 2 may have a specialist."""


class _Member(BaseModel):
    name: str  # of its run
    checkpoint: str  # its path from the folder of ensemble.json
    sha256: Sha256


class _Contents(Fitted):
    """Contents of ensemble.json; what has a default was not there in earlier versions."""

    format: int = 1
    members: Annotated[list[_Member], Field(min_length=1)]
    chosen: Annotated[list[Annotated[int, Range(0)]], Field(min_length=1)]
    tta: Tta = "none"
    classes: list[str] | None = None
    taxonomy: dict[str, Any] | None = None
    fingerprint: str | None = None
    specialist_member: _Member | None = None  # what `specialist` is the rule of


@dataclass(frozen=True)
class EnsembleFile:
    """An ensemble.json: what is needed to let the chosen members vote again."""

    path: Path
    members: list[Path]  # checkpoints
    chosen: list[int]  # positions in members
    tta: str  # views of an image that vote, see `inference.tta`
    posthoc: PostHoc  # fitted to the vote of the chosen members
    classes: tuple[str, ...]
    fingerprint: str | None  # of the split; None: not noted
    specialist: Path | None = None  # checkpoint that corrects the vote, by `posthoc.specialist`

    def models(self) -> list[TrainedModel]:
        """The chosen members, loaded and checked against each other and the file.

        Raises:
            CheckpointError: A member does not go with the others, or has other classes or another split than the file.
        """
        models = [load_model(self.members[position]) for position in self.chosen]
        check_together(models)
        for key, noted in {"classes": self.classes, "fingerprint": self.fingerprint}.items():
            found = getattr(models[0], key)
            if noted is not None and noted != found:
                raise CheckpointError(f"{self.path}: {key}: {noted}, but its members have {found}; {MAKE_AGAIN}")
        return models

    def specialist_options(self) -> dict[str, Any]:
        """The specialist, loaded and checked, as `TorchMembers` takes it; {}: there is none.

        Raises:
            CheckpointError: It cannot be used with these members.
        """
        if self.specialist is None or self.posthoc.specialist is None:
            return {}
        found = load_model(self.specialist)
        check_specialist(found, [load_model(self.members[self.chosen[0]])])
        return {"specialist": found, "target": self.posthoc.specialist["target"]}


def find_members(members: str | Sequence[str]) -> tuple[list[Path], int | None]:
    """The checkpoints of a sweep's folder, of a list, or of one model alone; and how many members the sweep announced.

    Raises:
        CheckpointError: No member, or a member of the sweep that has not finished; all are named.
    """
    if not isinstance(members, str):
        paths = _checkpoints([Path(member) for member in members])
        twice = sorted({str(path) for path in paths if sum(path.resolve() == other.resolve() for other in paths) > 1})
        if twice or not paths:
            given = f"given twice: {', '.join(twice)}" if twice else "none given"
            raise CheckpointError(f"members: {given}; expected different checkpoints")
        return paths, None
    folder = Path(members)
    if folder.is_file() or (folder / "best.ckpt").exists():
        return _checkpoints([folder]), None
    runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not runs:
        raise CheckpointError(f"members={members}: no runs there; expected the folder of a sweep (train sweep=six)")
    unfinished = [run.name for run in runs if not (run / "metrics.json").exists()]
    if unfinished:
        raise CheckpointError(
            f"members={members}: {', '.join(unfinished)} not finished; run the sweep's command again, it goes on there"
        )
    announced = read_config(runs[0]).get("expected_members")
    if announced is not None and (type(announced) is not int or announced < 1):
        raise CheckpointError(f"{runs[0] / 'config.yaml'}: expected_members: {announced!r}: expected a number or null")
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
            f"{counted(len(found), 'member')} ({names}), expected {expected}; train the others, or give "
            f"expected={len(found)}"
        )


def check_together(models: Sequence[TrainedModel]) -> None:
    """Refuse members that were trained on different classes, splits, values of the facts or treated images.

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
        own, wanted = model.spec.treatment, first.spec.treatment
        for name in own.differing(wanted):
            raise CheckpointError(
                f"{model.path}: trained with data.{name}={getattr(own, name)}, but {first.path} with "
                f"{getattr(wanted, name)}; give members that were trained on the same images"
            )
        if model.encoder != first.encoder:
            raise CheckpointError(
                f"{model.path}: learned other facts, or other values of them, than {first.path}; give members that "
                "were trained on the same table"
            )


def own_predictions(model: TrainedModel, part: Part) -> Predictions | None:
    """The predictions table that lies beside a checkpoint, if it was made by that very checkpoint."""
    table = model.path.with_name(f"predictions_{part}.csv")  # of the digest in metrics.json, as the model is: it loaded
    return Predictions.read(table, taxonomy=model.taxonomy) if table.exists() and noted_digest(model.path) else None


def describe(
    models: Sequence[TrainedModel],
    chosen: Sequence[int],
    folder: Path,
    *,
    tta: str = "none",
    fitted: Mapping[str, Any] | None = None,
    specialist: TrainedModel | None = None,
) -> dict[str, Any]:
    """The contents of an ensemble.json that lies in `folder`.

    Args:
        models: All members.
        chosen: Positions of those that vote.
        folder: From which the checkpoints are named.
        tta: Views of an image that vote, see `inference.tta`.
        fitted: What was fitted on validation after the vote: `calibration`, `operating_points`, `conformal`,
            `novelty`, `specialist`.
        specialist: That corrects the vote.
    """

    def member(model: TrainedModel, name: str) -> dict[str, str]:
        place = os.path.relpath(model.path.resolve(), folder.resolve())
        return {"name": name, "checkpoint": place, "sha256": file_digest(model.path)}

    return {
        "format": FORMAT,
        "members": [member(model, model.name) for model in models],
        "specialist_member": None if specialist is None else member(specialist, specialist.name),
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
    about = read_json(path, _Contents, error=CheckpointError, advice=MAKE_AGAIN)
    if about.format > FORMAT:
        raise CheckpointError(
            f"{path}: format {about.format}, made by a newer skinlesion; this one reads up to {FORMAT}"
        )
    extra = [] if about.specialist_member is None else [about.specialist_member]
    everyone = [*about.members, *extra]
    # not `resolve`: in the hub's cache files are links to others without a name
    places = [Path(os.path.normpath(path.parent.resolve() / member.checkpoint)) for member in everyone]
    listed = places[: len(about.members)]
    if len({*about.chosen}) < len(about.chosen) or max(about.chosen) >= len(listed):
        expected = f"different positions among {len(listed)} members, from 0"
        raise CheckpointError(f"{path}: chosen: {about.chosen}: expected {expected}; {MAKE_AGAIN}")
    if bool(extra) != (about.specialist is not None):
        raise CheckpointError(f"{path}: specialist: expected its rule and its specialist_member; {MAKE_AGAIN}")
    _find_moved(path, everyone, places)
    signed = [(checkpoint, member.sha256) for checkpoint, member in zip(places, everyone, strict=True)]
    if about.novelty is not None:
        signed.append((path.parent / about.novelty["file"], about.novelty.get("sha256", "")))
    for file, digest in signed:
        if not file.is_file() or file_digest(file) != digest:
            raise CheckpointError(f"{file}: missing, or has changed since {path} was made; make the ensemble again")
    try:
        taxonomy = HAM10000 if about.taxonomy is None else Taxonomy.from_dict(about.taxonomy)
        posthoc = about.posthoc(path.parent, taxonomy=taxonomy, members=len(about.chosen))
    except (ConfigError, DataError) as error:
        raise CheckpointError(f"{path}: {error}; {MAKE_AGAIN}") from error
    classes = taxonomy.codes if about.classes is None else tuple(about.classes)
    corrects = places[-1] if extra else None
    return EnsembleFile(path, listed, about.chosen, about.tta, posthoc, classes, about.fingerprint, corrects)


def _find_moved(path: Path, members: Sequence[_Member], listed: Sequence[Path]) -> None:
    """Refuse an ensemble whose members are not where it names them; say how to point to them."""
    absent = [place for place, checkpoint in enumerate(listed) if not checkpoint.is_file()]
    if absent:
        names = ", ".join(f"{members[place].name} ({members[place].checkpoint})" for place in absent)
        raise CheckpointError(
            f"{path}: {len(absent)} of its {len(listed)} members have moved: {names}; write where each is now as its "
            f'"checkpoint" in that file (from {path.parent}, or the whole path), or put them back. Once they are '
            f"found, skinlesion export ensemble={path} makes a bundle, which needs no members"
        )


def _checkpoints(paths: Sequence[Path]) -> list[Path]:
    found = [path / "best.ckpt" if path.is_dir() else path for path in paths]
    absent = [str(path) for path in found if not path.is_file()]
    if absent:
        raise CheckpointError(f"{', '.join(absent)}: no such checkpoint; a finished run leaves it as best.ckpt")
    return found
