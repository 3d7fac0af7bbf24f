"""`skinlesion evaluate`: a checkpoint or an ensemble on a part of its split, or on other images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from skinlesion.config.evaluate import EvaluateConfig
from skinlesion.terminal import log_to

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from skinlesion.data.datamodule import Part
    from skinlesion.data.image_cache import ImageCache
    from skinlesion.data.image_io import Image
    from skinlesion.inference.ensemble import EnsembleFile
    from skinlesion.training.checkpoint import TrainedModel

log = logging.getLogger(__name__)


class _Judged(NamedTuple):
    """Images that a model has judged."""

    table: "pd.DataFrame"
    facts: "pd.DataFrame"  # of the same images
    images: "ImageCache"
    about: dict[str, Any]


def run(config: EvaluateConfig) -> None:
    """Write predictions, metrics, report and figures, and print the headline.

    Raises:
        SkinlesionError: The model or the data cannot be used.
    """
    if config.submission is not None:
        _evaluate_submission(config, Path(config.submission))
        return
    models, beside, ensemble = _models(config)
    tta = config.tta or (ensemble.tta if ensemble else "none")
    if config.external.images is not None:
        folder = Path(config.out) if config.out else beside / "external"
        log_to(folder)
        found = _judge_external(models, config, tta=tta, folder=folder)
        name, title = "external", f"{config.external.images}, {len(found.table)} images"
    else:
        folder = Path(config.out) if config.out else beside / "evaluation"
        log_to(folder)
        found = _judge_part(models, config, tta=tta)
        name, title = str(config.split), f"{config.split} part"
    calibration = ensemble.calibration if ensemble and config.calibrated else None
    about = {"tta": tta, **found.about}
    measured = _write(found.table, config, folder, name=name, about=about, calibration=calibration)
    _draw(found.table, found.images.image, config, folder, name=name)
    _show(f"{title}, {config.level:.0%} intervals over lesions ({config.interval})", beside.name, measured)
    groups = _by_group(found.table, found.facts, config, folder, name=name)
    if ensemble is not None:
        _decide(found.table, groups, ensemble, config, folder, name=name)
    log.info("Tables and figures: %s", folder)


def _judge_part(models: "list[TrainedModel]", config: EvaluateConfig, *, tta: str) -> _Judged:
    from skinlesion.inference.predict_images import predict_images, read_part
    from skinlesion.inference.predictions import soft_vote

    part = cast("Part", config.split)
    settings, accelerator = config.loader, config.accelerator
    images = read_part(models[0], part, config.data)  # alike for all members, as their splits are
    caches = [images.cache(model.spec.size) for model in models]
    tables = [
        predict_images(model, images.frame, cache, settings=settings, accelerator=accelerator, tta=tta)
        for model, cache in zip(models, caches, strict=True)
    ]
    return _Judged(soft_vote(tables), images.frame, caches[0], {})


def _judge_external(models: "list[TrainedModel]", config: EvaluateConfig, *, tta: str, folder: Path) -> _Judged:
    from skinlesion.files import write_json, write_text
    from skinlesion.plots.populations import compared
    from skinlesion.plots.predictions import save
    from skinlesion.studies.external.evaluation import judge_external
    from skinlesion.studies.external.populations import populations

    settings, accelerator = config.loader, config.accelerator
    found = judge_external(
        models, config.external, source=config.data, settings=settings, accelerator=accelerator, tta=tta
    )
    write_text(folder / "seen.csv", found.seen.to_csv(index=False, lineterminator="\n"))
    write_json(folder / "populations.json", populations(*found.populations))
    save(compared(*found.populations), folder / "populations.png")
    return _Judged(found.table, found.facts, found.images, {"external": found.about})


def _evaluate_submission(config: EvaluateConfig, submission: Path) -> None:
    """Judge the probabilities of a challenge's CSV, whoever's they are."""
    from skinlesion.data.label_files import read_diagnoses
    from skinlesion.metrics.challenge_csv import read_submission

    other = config.external
    metadata = None if other.metadata is None else Path(other.metadata)
    found = read_diagnoses(Path(str(other.labels)), metadata=metadata, classes=other.classes, key="external")
    ids = found.frame["image_id"].tolist()
    table = read_submission(
        submission,
        actual=dict(zip(ids, found.frame["diagnosis"], strict=True)),
        lesions=dict(zip(ids, found.frame["lesion_id"], strict=True)),
        without=found.dropped,
    )
    folder = Path(config.out) if config.out else submission.with_suffix("")
    log_to(folder)
    about = {"submission": str(submission), "labels": str(other.labels), "classes": found.labels}
    measured = _write(table, config, folder, name="submission", about=about, calibration=None)
    _draw(table, None, config, folder, name="submission")
    _show(
        f"{len(table)} images, {config.level:.0%} intervals over lesions ({config.interval})", submission.name, measured
    )
    _by_group(table, found.frame, config, folder, name="submission")
    log.info("Tables and figures: %s", folder)


def _write(
    table: "pd.DataFrame",
    config: EvaluateConfig,
    folder: Path,
    *,
    name: str,
    about: dict[str, Any],
    calibration: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write the tables and what is measured on them, and return the headline with its intervals."""
    from skinlesion.files import write_json
    from skinlesion.inference.posthoc_fit import with_calibration
    from skinlesion.inference.predictions import write_table
    from skinlesion.metrics.challenge import challenge
    from skinlesion.metrics.challenge_csv import write_submission, write_truth
    from skinlesion.metrics.classification import report
    from skinlesion.metrics.summary import judged

    write_table(table, folder / f"predictions_{name}.csv")
    write_submission(table, folder / f"challenge_{name}.csv")
    write_truth(table, folder / f"challenge_truth_{name}.csv")
    sampled = _sampled(config)
    measured = {**about, "level": config.level, **judged(table, **sampled, bins=config.bins)}
    if calibration is not None:
        scaled = with_calibration(table, calibration)
        write_table(scaled, folder / f"predictions_{name}_calibrated.csv")
        measured["calibrated"] = judged(scaled, **sampled, bins=config.bins)
    write_json(folder / f"metrics_{name}.json", measured)
    write_json(folder / f"report_{name}.json", {**report(table), **about, "challenge": challenge(table, **sampled)})
    return measured


def _by_group(
    table: "pd.DataFrame", facts: "pd.DataFrame", config: EvaluateConfig, folder: Path, *, name: str
) -> dict[str, list[str]]:
    """Write every number of each group of patients and images, and return which group each image is in, by fact."""
    from skinlesion.files import write_text
    from skinlesion.metrics.subgroups import groups_of, rows, subgroups

    groups = groups_of(table, facts)
    if groups:
        found = subgroups(table, groups, **_sampled(config), bins=config.bins)
        write_text(folder / f"subgroups_{name}.csv", rows(found).to_csv(index=False, lineterminator="\n"))
    return groups


def _decide(
    table: "pd.DataFrame",
    groups: dict[str, list[str]],
    ensemble: "EnsembleFile",
    config: EvaluateConfig,
    folder: Path,
    *,
    name: str,
) -> None:
    """Write what the ensemble's operating points and prediction sets, chosen on validation, do on these images."""
    from skinlesion.commands.console import show_points
    from skinlesion.files import write_json
    from skinlesion.inference.posthoc_eval import evaluate_operating_points, evaluate_prediction_sets
    from skinlesion.inference.posthoc_fit import with_calibration

    scaled, settings = with_calibration(table, ensemble.calibration), _sampled(config)
    points = evaluate_operating_points(scaled, ensemble.operating_points, settings=settings)
    sets = evaluate_prediction_sets(scaled, ensemble.conformal, groups=groups, settings=settings)
    write_json(folder / f"decisions_{name}.json", {"operating_points": points, "conformal": sets})
    if isinstance(points, list):
        show_points("Operating points, chosen on validation", points)


def _sampled(config: EvaluateConfig) -> dict[str, Any]:
    return {"resamples": config.resamples, "seed": config.seed, "level": config.level, "method": config.interval}


def _show(title: str, model: str, measured: dict[str, Any]) -> None:
    from skinlesion.commands.console import show_metrics

    show_metrics(title, [(model, measured)])


def _models(config: EvaluateConfig) -> tuple[list["TrainedModel"], Path, "EnsembleFile | None"]:
    from skinlesion.inference.ensemble import read_ensemble
    from skinlesion.training.checkpoint import load_model

    if config.checkpoint is not None:
        model = load_model(Path(config.checkpoint))
        return [model], model.path.parent, None
    path = Path(str(config.ensemble))
    ensemble = read_ensemble(path)
    return ensemble.models(), path if path.is_dir() else path.parent, ensemble


def _draw(
    table: "pd.DataFrame", image_of: "Callable[[str], Image] | None", config: EvaluateConfig, folder: Path, *, name: str
) -> None:
    from skinlesion.plots.curves import precision_recall, roc
    from skinlesion.plots.predictions import confusion_matrix, reliability, sample_sheet, save

    save(confusion_matrix(table), folder / f"confusion_matrix_{name}.png")
    save(precision_recall(table), folder / f"precision_recall_{name}.png")
    save(roc(table), folder / f"roc_{name}.png")
    save(reliability(table, bins=config.bins), folder / f"reliability_{name}.png")
    if image_of is not None:
        save(sample_sheet(table, image_of), folder / f"sample_sheet_{name}.png")
