"""`skinlesion evaluate`: a checkpoint or an ensemble on one part of its split, as tables and figures."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from skinlesion.config.evaluate import EvaluateConfig
from skinlesion.launch import launch

if TYPE_CHECKING:
    import pandas as pd

    from skinlesion.data.datamodule import Part
    from skinlesion.learning.checkpoint import TrainedModel

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> None:
    """Write predictions, metrics, report and figures, and print the headline.

    Raises:
        SkinlesionError: The model or the data cannot be used.
    """
    from skinlesion.evaluation.challenge import challenge
    from skinlesion.evaluation.challenge_table import write_entry, write_truth
    from skinlesion.evaluation.console import show_metrics
    from skinlesion.evaluation.fitted import with_calibration
    from skinlesion.evaluation.judged import judged
    from skinlesion.evaluation.metrics import report
    from skinlesion.evaluation.predictions import soft_vote, write_table
    from skinlesion.files import write_json
    from skinlesion.learning.judge import judge_model

    models, beside, tta, calibration = _models(config)
    part = cast("Part", config.split)
    settings, accelerator = config.loader, config.accelerator
    table = soft_vote(
        [
            judge_model(model, part, source=config.data, settings=settings, accelerator=accelerator, tta=tta)
            for model in models
        ]
    )
    folder = Path(config.out) if config.out else beside / "evaluation"
    write_table(table, folder / f"predictions_{part}.csv")
    write_entry(table, folder / f"challenge_{part}.csv")
    write_truth(table, folder / f"challenge_truth_{part}.csv")
    sampled: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed, "level": config.level}
    sampled["method"] = config.interval
    measured = {"tta": tta, "level": config.level, **judged(table, **sampled, bins=config.bins)}
    if config.calibrated and calibration is not None:
        scaled = with_calibration(table, calibration)
        write_table(scaled, folder / f"predictions_{part}_calibrated.csv")
        measured["calibrated"] = judged(scaled, **sampled, bins=config.bins)
    write_json(folder / f"metrics_{part}.json", measured)
    scored = challenge(table, **sampled)
    write_json(folder / f"report_{part}.json", {**report(table), "challenge": scored})
    _draw(table, models[0], config, folder)
    show_metrics(
        f"{part} part, {config.level:.0%} intervals over lesions ({config.interval})", [(beside.name, measured)]
    )
    log.info("Tables and figures: %s", folder)


def _models(config: EvaluateConfig) -> tuple[list["TrainedModel"], Path, str, dict[str, Any] | None]:
    from skinlesion.learning.checkpoint import load_model
    from skinlesion.learning.ensemble import read_ensemble

    if config.checkpoint is not None:
        model = load_model(Path(config.checkpoint))
        return [model], model.path.parent, config.tta or "none", None
    path = Path(str(config.ensemble))
    ensemble = read_ensemble(path)
    beside = path if path.is_dir() else path.parent
    return ensemble.models(), beside, config.tta or ensemble.tta, ensemble.calibration


def _draw(table: "pd.DataFrame", model: "TrainedModel", config: EvaluateConfig, folder: Path) -> None:
    from skinlesion.evaluation.curves import precision_recall, roc
    from skinlesion.evaluation.figures import confusion_matrix, reliability, sample_sheet, save
    from skinlesion.learning.judge import images_of

    part = config.split
    save(confusion_matrix(table), folder / f"confusion_matrix_{part}.png")
    save(precision_recall(table), folder / f"precision_recall_{part}.png")
    save(roc(table), folder / f"roc_{part}.png")
    save(reliability(table, bins=config.bins), folder / f"reliability_{part}.png")
    save(sample_sheet(table, images_of(model, config.data).image), folder / f"sample_sheet_{part}.png")


if __name__ == "__main__":
    launch("evaluate", EvaluateConfig, run)
