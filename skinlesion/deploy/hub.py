"""Models on the Hugging Face hub: the files of a repository, its model card, and how they get there."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCardData

from skinlesion import __version__
from skinlesion.deploy import manifest
from skinlesion.errors import ConfigError
from skinlesion.files import escape_markdown, file_digest, write_json, write_text
from skinlesion.inference.hub import FILES, SCHEME
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.specialist import correction_in_words
from skinlesion.metrics.estimate import MARK_NOTE, Estimate, is_marked
from skinlesion.training.checkpoint import read_checkpoint, write_published

CARD = "README.md"  # which the hub shows
ENSEMBLE = "ensemble.json"
TAGS = ("skin-lesion", "dermoscopy", "medical-imaging", "image-classification", "pytorch", "timm")
METRIC_TYPES = {  # the hub's names of metrics, by ours
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "balanced_accuracy": "balanced_accuracy",
    "macro_auroc": "roc_auc",
    "ece": "expected_calibration_error",
    "brier": "brier_score",
}
_TEMPLATE = Path(__file__).with_name("hub_card.md")


@dataclass(frozen=True)
class Judged:
    """Metrics of a model on some images.

    Attributes:
        images: Name of the images, such as "test part".
        metrics: Estimates by name, as from `metrics_with_ci`.
        level: Confidence level of the intervals.
    """

    images: str
    metrics: Mapping[str, Estimate]
    level: float

    def listed(self) -> dict[str, Estimate]:
        """The metrics that a card shows: means over diagnoses, and the AUROC of each target."""
        names = [*METRIC_TYPES, *(name for name in self.metrics if name.startswith("auroc_"))]
        return {name: self.metrics[name] for name in names if self.metrics[name].value is not None}


def write_model(predictor: Predictor, path: Path, folder: Path) -> Predictor:
    """Write the files of a model as the hub gets them, without its card, and load it from there.

    Args:
        predictor: The model.
        path: Where it is, as `Predictor.load` takes it.
        folder: Empty.

    Raises:
        CheckpointError: The model cannot be used.
        BundleError: The bundle cannot.
    """
    file = path / ENSEMBLE if path.is_dir() else path
    if predictor.about is not None:
        for name in (manifest.FILE, *predictor.about.files):
            shutil.copyfile(predictor.folder / name, folder / name)
    elif file.suffix == ".json" and file.is_file():
        _write_ensemble(predictor, json.loads(file.read_text(encoding="utf-8")), folder)
    else:
        (model,) = predictor.networks.models
        write_published(read_checkpoint(model.path), folder, name=model.name)
    return Predictor.load(folder, accelerator="cpu")


def _write_ensemble(predictor: Predictor, contents: dict[str, object], folder: Path) -> None:
    """Write an ensemble.json and the members that vote, each in a folder of its own."""
    networks, voting = predictor.networks, []
    names = [*zip(predictor.members.names, networks.models, strict=True)]
    names += [] if networks.specialist is None else [(networks.specialist.name, networks.specialist)]
    for place, (name, model) in enumerate(names):
        inside = f"members/{place}-{name.replace('/', '-')}"
        weights = write_published(read_checkpoint(model.path), folder / inside, name=name)
        voting.append({"name": name, "checkpoint": f"{inside}/{weights.name}", "sha256": file_digest(weights)})
    if networks.specialist is not None:
        contents = contents | {"specialist_member": voting.pop()}
    novelty = contents.get("novelty")
    if isinstance(novelty, dict):
        shutil.copyfile(predictor.folder / novelty["file"], folder / novelty["file"])
    write_json(folder / ENSEMBLE, contents | {"members": voting, "chosen": list(range(len(voting)))})


def write_card(
    predictor: Predictor, folder: Path, *, repo: str, licence: str, datasets: Sequence[str], judged: Judged | None
) -> None:
    """Write the model card of a repository, with the header that the hub reads.

    Args:
        predictor: The model in `folder`.
        folder: Of the repository's files.
        repo: user/name.
        licence: As the hub spells it.
        datasets: Names of the data sets that the model was trained on.
        judged: What the metrics are; None: nothing is told.
    """
    members, diagnoses = _members(predictor), predictor.taxonomy.diagnoses
    is_ensemble, is_bundle = (folder / ENSEMBLE).exists(), predictor.about is not None
    text = _TEMPLATE.read_text(encoding="utf-8").format(
        header=f"---\n{_header(repo, licence, datasets, judged).to_yaml()}\n---",
        title=repo.partition("/")[2],
        kind=f"An ensemble of {len(members)} members" if len(members) > 1 else "A model",
        number=len(diagnoses),
        facts=", ".join(f"{fact.name} ({fact.unit})" if fact.unit else fact.name for fact in predictor.encoder.facts),
        version=__version__,
        key="bundle" if is_bundle else "ensemble" if is_ensemble else "checkpoint",
        address=f"{SCHEME}{repo}",
        classes="\n".join(_row(each.code, each.name, each.category) for each in diagnoses),
        members="\n".join(_row(*each) for each in members),
        specialist=_specialist(predictor),
        metrics="None are given." if judged is None else _metrics_table(judged),
    )
    write_text(folder / CARD, text)


def _header(repo: str, licence: str, datasets: Sequence[str], judged: Judged | None) -> ModelCardData:
    results = (
        []
        if judged is None
        else [
            EvalResult(
                task_type="image-classification",
                dataset_type=datasets[0] if datasets else "other",
                dataset_name=", ".join(datasets) or "own images",
                dataset_split=judged.images,
                metric_type=METRIC_TYPES.get(name, "roc_auc"),
                metric_name=name,
                metric_value=found.value,
                metric_args={"level": judged.level, "low": found.low, "high": found.high, "method": found.method},
            )
            for name, found in judged.listed().items()
        ]
    )
    return ModelCardData(
        license=licence,
        library_name="skinlesion",
        pipeline_tag="image-classification",
        tags=list(TAGS),
        datasets=list(datasets) or None,
        model_name=repo.partition("/")[2],
        eval_results=results or None,
    )


def _specialist(predictor: Predictor) -> str:
    """What corrects the vote, as a paragraph; "" where nothing does."""
    rule = predictor.posthoc.specialist
    if rule is None:
        return ""
    member = predictor.networks.specialist if predictor.about is None else predictor.about.specialist_member
    return f"{correction_in_words(rule, member.name, predictor.taxonomy)}.\n\n" if member is not None else ""


def _members(predictor: Predictor) -> list[tuple[str, str, str]]:
    """Name, backbone and image size of each member."""
    if predictor.about is not None:
        rows = [(each.name, each.backbone, each.size) for each in predictor.about.members]
    else:
        names = predictor.members.names
        models = predictor.networks.models
        rows = [(name, m.network.backbone.name, m.spec.size) for name, m in zip(names, models, strict=True)]
    return [(name, backbone, f"{size[0]} x {size[1]}") for name, backbone, size in rows]


def _metrics_table(judged: Judged) -> str:
    rows = [_row(name, found.text()) for name, found in judged.listed().items()]
    lines = (f"Of the {judged.images}, with {judged.level:.0%} intervals over lesions.", "")
    table = (*lines, "| metric | value |", "|---|---|", *rows)
    return "\n".join((*table, "", MARK_NOTE) if any(map(is_marked, rows)) else table)


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def upload(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Send the files of a folder in one commit, in place of the model that is there; return the commit's address.

    Args:
        folder: As `write_model` and `write_card` leave it.
        repo: user/name; it is made if it is not there.
        private: Whether a repository that is made is for its owner alone.
        message: Of the commit.

    Raises:
        ConfigError: The hub refuses, or cannot be reached.
    """
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        sent = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, delete_patterns=list(FILES))
    except Exception as error:  # whatever the hub's client makes of a network that fails
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"repo={repo}: the hub cannot be written to ({reason}); log in by `hf auth login` or set HF_TOKEN, and see "
            "that there is a network. dry_run=true out=FOLDER writes the files and sends nothing"
        ) from error
    return str(sent.commit_url)
