"""`skinlesion robustness`: measure a model on corrupted images, altered facts and out-of-distribution images."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from skinlesion.config.studies import RobustnessConfig

if TYPE_CHECKING:
    from skinlesion.data.datamodule import Part
    from skinlesion.inference.predictor import Predictor
    from skinlesion.studies.robustness.study import RobustnessResult

log = logging.getLogger(__name__)


def run(config: RobustnessConfig) -> None:
    """Write robustness.json, robustness.csv and the figures, and print the main results.

    Raises:
        SkinlesionError: The model or the data are invalid, or a step is out of range.
    """
    from skinlesion.commands.console import resampled
    from skinlesion.files import write_json, write_text
    from skinlesion.inference.ledger import Examined
    from skinlesion.inference.predictor import Predictor
    from skinlesion.inference.split_part import read_part
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.studies.robustness.corruptions import check_steps
    from skinlesion.studies.robustness.study import study_robustness

    check_steps(config.steps)
    predictor = _with_detector(Predictor.from_config(config), config)
    model, part = predictor.networks.models[0], cast("Part", config.split)
    Examined.named_by(config, predictor).note(part, "robustness")
    frame = read_part(model, part, config.data, images=config.images, seed=config.seed).frame
    found = study_robustness(
        predictor,
        frame,
        read_part(model, "train", config.data).frame,
        part=part,
        steps=config.steps,
        seed=config.seed,
        config=BootstrapConfig.of(config),
    )
    folder = Path(config.out) if config.out else predictor.folder / "robustness"
    write_json(folder / "robustness.json", found)
    write_text(folder / "robustness.csv", found.to_frame().to_csv(index=False))
    _draw(found, folder)
    _show(found, over=resampled(frame["lesion_id"], frame["group_id"]))
    log.info("Tables and figures: %s", folder)


def _with_detector(predictor: "Predictor", config: RobustnessConfig) -> "Predictor":
    """The predictor with an out-of-distribution detector of the wanted `id_pass_rate`: its own, a new one, or none."""
    from skinlesion.inference import ood
    from skinlesion.inference.members import PostHoc
    from skinlesion.inference.posthoc import fit_ood
    from skinlesion.inference.split_part import read_part

    rate, detector = config.id_pass_rate, predictor.posthoc.ood
    if rate is None:
        detector = None
    elif detector is None or float(detector["passing"]) != rate:
        model = predictor.networks.models[0]
        train, val = (
            read_part(model, part, config.data, images=ood.IMAGES, seed=config.seed).frame for part in ("train", "val")
        )
        detector = fit_ood(predictor, train=train, val=val, id_pass_rate=rate)
    return replace(predictor, posthoc=PostHoc(ood=detector, specialist=predictor.posthoc.specialist))


def _draw(found: "RobustnessResult", folder: Path) -> None:
    from skinlesion.plots import robustness as figures
    from skinlesion.plots.style import save

    if set(found.corruptions) - {figures.REMOVED}:
        save(figures.curves(found), folder / "disturbed.png")
    if figures.REMOVED in found.corruptions:
        save(figures.lesion_removed(found), folder / "lesion_removed.png")
    save(figures.facts(found), folder / "facts.png")
    if found.ood is not None:
        save(figures.ood_scores(found.ood), folder / "novelty.png")


def _show(found: "RobustnessResult", *, over: str) -> None:
    """Print the worst step of each corruption by balanced accuracy."""
    from skinlesion.commands.console import show_table, with_interval

    shown = ("balanced_accuracy", "change_balanced_accuracy", "same")
    rows = [("original", "", found.undisturbed)]
    rows += [(name, f"{each.worst:g}", each.steps[each.worst]) for name, each in found.corruptions.items()]
    rows += [(name, "", numbers) for name, numbers in found.facts.items()]

    show_table(
        f"{found.part} part, {found.level:.0%} intervals over {over}: the worst step of each corruption",
        ("images or facts", "step", "balanced accuracy", "change", "same prediction"),
        [(name, step, *(with_interval(numbers[number]) for number in shown)) for name, step, numbers in rows],
    )
    if found.ood is not None:
        cells = [
            (kind, with_interval(each.auroc), with_interval(each.flagged)) for kind, each in found.ood.pictures.items()
        ]
        show_table("Detection of out-of-distribution images", ("images", "AUROC", "flagged"), cells)
