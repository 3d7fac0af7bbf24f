"""`skinlesion evaluate`: a checkpoint or an ensemble on a part of its split, or on other images."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from skinlesion.config.inference import EvaluateConfig
from skinlesion.terminal import log_to

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from skinlesion.data.datamodule import Part
    from skinlesion.data.image_io import Image
    from skinlesion.inference.members import PostHoc
    from skinlesion.inference.predictions import Predictions
    from skinlesion.inference.predictor import Predictor
    from skinlesion.metrics.summary import Summary

log = logging.getLogger(__name__)


class _Evaluated(NamedTuple):
    """Predictions, and where and under which name their results are written."""

    predictions: "Predictions"
    facts: "pd.DataFrame"  # of the same images
    folder: Path
    name: str  # of the files: val, test, external or submission
    title: str
    model: str  # for people
    about: dict[str, Any]  # how the predictions came about, ready for JSON
    image_of: "Callable[[str], Image] | None" = None  # None: the images are not there
    posthoc: "PostHoc | None" = None  # None: no model, or a checkpoint


def run(config: EvaluateConfig) -> None:
    """Write predictions, metrics, report and figures, and print the headline; of several external sets one table.

    Raises:
        SkinlesionError: The model or the data cannot be used.
    """
    from skinlesion.inference.predictor import Predictor

    if config.submission is not None:
        _evaluate(_read_submission(config, Path(config.submission)), config)
        return
    predictor = Predictor.from_config(config)
    predictor = replace(predictor, posthoc=replace(predictor.posthoc, ood=None))  # no score of it is written
    if config.external_sets:
        _evaluate_sets(predictor, config)
    else:
        predict = _predict_part if config.external.images is None else _predict_external
        _evaluate(predict(predictor, config), config)


def _evaluate(found: _Evaluated, config: EvaluateConfig) -> "Summary":
    """Write the results of one set of images."""
    log_to(found.folder)
    summary = _write_metrics(found, config)
    _draw(found, config)
    groups = _write_subgroups(found, config)
    if found.posthoc is not None:
        _write_decisions(found, groups, config)
    log.info("Tables and figures: %s", found.folder)
    return summary


def _evaluate_sets(predictor: "Predictor", config: EvaluateConfig) -> None:
    """Evaluate each external set in a folder of its name, then write and print a row a set."""
    from skinlesion.commands.console import show_metrics
    from skinlesion.files import write_json

    _check_sets(predictor, config)
    folder, rows, written = Path(config.out) if config.out else predictor.folder / "external", [], {}
    log_to(folder)
    for name, external in config.sets().items():
        found = _predict_external(
            predictor, replace(config, external=external, external_sets={}, out=str(folder / name))
        )
        summary = _evaluate(found, config)
        rows.append((f"{name} ({len(found.predictions)} images)", summary.metrics))
        written[name] = {**found.about, **summary.to_dict()}
    write_json(folder / "external_sets.json", {"model": found.model, "level": config.level, "sets": written})
    over = f"{config.level:.0%} intervals over lesions, or patients where these are known ({config.interval})"
    show_metrics(f"{found.model}, {over}", rows, heading="external set")


def _check_sets(predictor: "Predictor", config: EvaluateConfig) -> None:
    """Refuse all sets that cannot be used at once, before the first is evaluated; what is read is said then."""
    from skinlesion.errors import DataError
    from skinlesion.studies.external.evaluation import check_external

    problems, before = [], logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        for name, external in config.sets().items():
            try:
                check_external(predictor, external, source=config.data)
            except DataError as error:
                problems.append(f"external_sets.{name}: {error}")
    finally:
        logging.disable(before)
    if problems:
        raise DataError("\n".join(problems))


def _interval(found: "Predictions", config: EvaluateConfig) -> str:
    from skinlesion.commands.console import resampled

    over = resampled(found.lesion_id, found.group_id)
    return f"{config.level:.0%} intervals over {over} ({config.interval})"


def _predict_part(predictor: "Predictor", config: EvaluateConfig) -> _Evaluated:
    from skinlesion.inference.ledger import Examined
    from skinlesion.inference.protocol import open_protocol
    from skinlesion.inference.split_part import read_part

    part, models = cast("Part", config.split), predictor.networks.models
    examined = Examined.named_by(config, predictor)
    digest = open_protocol(
        config.protocol,
        part,
        examined,
        configs=[model.config for model in models],
        tta=predictor.members.tta,
        posthoc=predictor.posthoc,
    )
    images = read_part(models[0], part, config.data)
    examined.note(part, "evaluate", protocol=digest)
    caches = images.caches(predictor.members)
    return _Evaluated(
        predictions=predictor.predict_frame(images.frame, caches=caches, batch=config.loader.batch_size),
        facts=images.frame,
        folder=Path(config.out) if config.out else predictor.folder / "evaluation",
        name=part,
        title=f"{part} part",
        model=predictor.folder.name,
        about=_about(predictor),
        image_of=caches[predictor.sizes[0]].image,
        posthoc=predictor.posthoc if config.ensemble else None,
    )


def _predict_external(predictor: "Predictor", config: EvaluateConfig) -> _Evaluated:
    from skinlesion.files import write_csv, write_json
    from skinlesion.plots import audit as figures
    from skinlesion.plots.style import save
    from skinlesion.studies.external.evaluation import predict_external
    from skinlesion.studies.external.populations import compare_populations

    found = predict_external(predictor, config.external, source=config.data)
    folder = Path(config.out) if config.out else predictor.folder / "external"
    write_csv(folder / "seen.csv", found.known)
    comparison = compare_populations(*found.populations)
    write_json(folder / "populations.json", comparison)
    save(figures.compare_populations(*found.populations, comparison.apart), folder / "populations.png")
    posthoc, target = predictor.posthoc, found.source.target
    if target is not None:  # of two classes, calibrated already
        points = [point for point in posthoc.operating_points or [] if point["target"] == target]
        posthoc = replace(posthoc, calibration=None, conformal=None, operating_points=points)
    return _Evaluated(
        predictions=found.predictions,
        facts=found.frame,
        folder=folder,
        name="external",
        title=f"{found.source.images}, {len(found.predictions)} images",
        model=predictor.folder.name,
        about={**_about(predictor), "external": found.source},
        image_of=found.cache.image,
        posthoc=posthoc if config.ensemble else None,
    )


def _about(predictor: "Predictor") -> dict[str, Any]:
    decision = predictor.posthoc.decision
    return {"tta": predictor.members.tta, "decision": "likeliest" if decision is None else decision["rule"]}


def _read_submission(config: EvaluateConfig, submission: Path) -> _Evaluated:
    """Read the probabilities of a challenge's CSV, whoever's they are, and the labels of the same images."""
    from skinlesion.data.columns import Layout
    from skinlesion.data.metadata import DEFAULT_FACTS
    from skinlesion.data.readers import read_labelled
    from skinlesion.inference.table_columns import groups_of_frame
    from skinlesion.metrics.challenge import read_submission
    from skinlesion.taxonomy import Taxonomy

    other = config.external
    metadata = None if other.metadata is None else Path(other.metadata)
    taxonomy = Taxonomy.load(other.taxonomy)
    found = read_labelled(
        Path(str(other.labels)),
        images=None,
        metadata=metadata,
        classes=other.classes,
        torn=other.torn,
        taxonomy=taxonomy,
        layout=Layout.of(other.columns, DEFAULT_FACTS, other.facts, key="external"),
        groups=None if other.groups is None else Path(other.groups),
        key="external",
    )
    ids = found.frame["image_id"].tolist()
    predictions = read_submission(
        submission,
        actual=dict(zip(ids, found.frame["diagnosis"], strict=True)),
        lesions=dict(zip(ids, found.frame["lesion_id"], strict=True)),
        without=found.dropped,
        taxonomy=taxonomy,
    )
    predictions = replace(
        predictions, group_id=groups_of_frame(found.frame.set_index("image_id").loc[predictions.image_id.tolist()])
    )
    return _Evaluated(
        predictions=predictions,
        facts=found.frame,
        folder=Path(config.out) if config.out else submission.with_suffix(""),
        name="submission",
        title=f"{len(predictions)} images",
        model=submission.name,
        about={"submission": str(submission), "labels": str(other.labels), "classes": found.label_counts},
    )


def _write_metrics(found: _Evaluated, config: EvaluateConfig) -> "Summary":
    """Write the tables and their metrics, and print the headline."""
    from skinlesion.commands.console import show_metrics
    from skinlesion.files import write_json
    from skinlesion.inference.posthoc import with_calibration
    from skinlesion.metrics.challenge import challenge_scores, write_submission, write_truth
    from skinlesion.metrics.classification import report
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.metrics.summary import summarize_predictions

    predictions, folder, name, bootstrap = found.predictions, found.folder, found.name, BootstrapConfig.of(config)
    predictions.write(folder / f"predictions_{name}.csv")
    write_submission(predictions, folder / f"challenge_{name}.csv")
    write_truth(predictions, folder / f"challenge_truth_{name}.csv")
    summary = summarize_predictions(predictions, bootstrap, bins=config.bins)
    written = {**found.about, "level": config.level, **summary.to_dict()}
    if config.calibrated and found.posthoc is not None and found.posthoc.calibration is not None:
        scaled = with_calibration(predictions, found.posthoc.calibration)
        scaled.write(folder / f"predictions_{name}_calibrated.csv")
        written["calibrated"] = summarize_predictions(scaled, bootstrap, bins=config.bins).to_dict()
    write_json(folder / f"metrics_{name}.json", written)
    challenge = challenge_scores(predictions, bootstrap).to_dict()
    write_json(folder / f"report_{name}.json", {**report(predictions).to_dict(), **found.about, "challenge": challenge})
    show_metrics(f"{found.title}, {_interval(predictions, config)}", [(found.model, summary.metrics)])
    return summary


def _draw(found: _Evaluated, config: EvaluateConfig) -> None:
    from skinlesion.plots.classification import confusion_matrix, precision_recall, reliability, roc, sample_sheet
    from skinlesion.plots.style import save

    predictions = found.predictions
    figures = {
        "confusion_matrix": confusion_matrix(predictions),
        "precision_recall": precision_recall(predictions),
        "roc": roc(predictions),
        "reliability": reliability(predictions, bins=config.bins),
    }
    if found.image_of is not None:
        figures["sample_sheet"] = sample_sheet(predictions, found.image_of)
    for name, figure in figures.items():
        save(figure, found.folder / f"{name}_{found.name}.png")


def _write_subgroups(found: _Evaluated, config: EvaluateConfig) -> dict[str, list[str]]:
    """Write every metric of each group of patients and images, and return the group of each image, by fact."""
    from skinlesion.data.image_statistics import skin_tones
    from skinlesion.files import write_csv
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.metrics.summary import groups_of, subgroup_rows, subgroups

    groups = groups_of(found.predictions, found.facts)
    if found.image_of is not None:
        tones = skin_tones(found.predictions.image_id.tolist(), found.image_of)
        write_csv(found.folder / f"skin_tones_{found.name}.csv", tones.round(1))
        groups["skin_tone"] = tones["skin_tone"].tolist()
    if groups:
        rows = subgroup_rows(subgroups(found.predictions, groups, BootstrapConfig.of(config), bins=config.bins))
        write_csv(found.folder / f"subgroups_{found.name}.csv", rows)
    return groups


def _write_decisions(found: _Evaluated, groups: dict[str, list[str]], config: EvaluateConfig) -> None:
    """Write how the ensemble's operating points and prediction sets, chosen on validation, do on these images."""
    from skinlesion.commands.console import show_points
    from skinlesion.files import write_json
    from skinlesion.inference.posthoc import evaluate_decisions, with_calibration
    from skinlesion.metrics.estimate import BootstrapConfig

    assert found.posthoc is not None
    decisions = evaluate_decisions(
        with_calibration(found.predictions, found.posthoc.calibration),
        BootstrapConfig.of(config),
        points=found.posthoc.operating_points,
        sets=found.posthoc.conformal,
        groups=groups,
    )
    write_json(found.folder / f"decisions_{found.name}.json", decisions.to_dict())
    for fitted, coverage in decisions.conformal[:1]:
        wanted = 1 - fitted["alpha"]
        if short := coverage.shortfalls(wanted):
            listed = "; ".join(
                f"{each.fact} {each.group} {each.metrics.metrics['coverage'].text()}".strip() for each in short
            )
            log.warning("Prediction sets hold the actual diagnosis less often than %.0f %%: %s", 100 * wanted, listed)
    if decisions.operating_points:
        rows = [(point["target"], point["sensitivity"], metrics) for point, _, metrics in decisions.operating_points]
        show_points("Operating points, chosen on validation", rows)
