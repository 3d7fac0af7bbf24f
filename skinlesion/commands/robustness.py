"""`skinlesion robustness`: how far a model stays right when images or facts are disturbed, and what it flags."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from skinlesion.config.studies import RobustnessConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from skinlesion.data.datamodule import Part
    from skinlesion.inference.loaded_ensemble import LoadedEnsemble
    from skinlesion.inference.ood import Fitted
    from skinlesion.inference.sample import Sample
    from skinlesion.studies.robustness.summary import Judged

    Numbers = Callable[[Judged], dict[str, Any]]

log = logging.getLogger(__name__)


def run(config: RobustnessConfig) -> None:
    """Write robustness.json, robustness.csv and the figures, and print what matters.

    Raises:
        SkinlesionError: The model or the data cannot be used, or a step cannot be taken.
    """
    from skinlesion.files import write_json, write_text
    from skinlesion.inference.loaded_ensemble import voters
    from skinlesion.inference.sample import read_sample
    from skinlesion.studies.robustness.corruptions import check_steps
    from skinlesion.studies.robustness.summary import rows
    from skinlesion.training.forward import device_of

    check_steps(config.steps)
    chosen = voters(config.checkpoint, config.ensemble, tta=config.tta)
    device = device_of(config.accelerator)
    part = cast("Part", config.split)
    sample = read_sample(chosen.models[0], part, images=config.images, seed=config.seed, source=config.data)
    fitted = _fitted(chosen, config, device)
    found, scores = _measure(chosen, sample, fitted, config, device)
    folder = Path(config.out) if config.out else chosen.folder / "robustness"
    write_json(folder / "robustness.json", found)
    write_text(folder / "robustness.csv", rows(found).to_csv(index=False))
    _draw(found, scores, folder)
    _show(found)
    log.info("Tables and figures: %s", folder)


def _fitted(chosen: "LoadedEnsemble", config: RobustnessConfig, device: "torch.device") -> "Fitted | None":
    """What the ensemble's file knows of training images, if it was made with the same `passing`; else learned now."""
    from skinlesion.inference.ood_fit import fit_novelty

    if config.id_pass_rate is None:
        return None
    if chosen.novelty is not None and float(chosen.novelty["passing"]) == config.id_pass_rate:
        return chosen.novelty
    return fit_novelty(chosen.models, source=config.data, device=device, passing=config.id_pass_rate, seed=config.seed)


def _measure(
    chosen: "LoadedEnsemble",
    sample: "Sample",
    fitted: "Fitted | None",
    config: RobustnessConfig,
    device: "torch.device",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All numbers; and by kind of picture, dermoscopy first, how novel each is, where that is judged."""
    from skinlesion.inference.predictions import group_index
    from skinlesion.studies.robustness.runner import judge
    from skinlesion.studies.robustness.summary import compared, told_apart, without_images

    undisturbed, scores = judge(chosen, sample, fitted, device=device, label="as they are")

    sampled: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed, "level": config.level}
    sampled["method"] = config.interval

    def numbers(judged: "Judged") -> dict[str, Any]:
        return compared(judged, undisturbed, **sampled)

    found = {
        "part": config.split,
        "images_judged": len(sample.frame),
        "lesions_judged": int(sample.frame["lesion_id"].nunique()),
        "tta": chosen.tta,
        "level": config.level,
        "undisturbed": {"numbers": numbers(undisturbed)},
        "without_images": without_images(undisturbed.table),
        "images": _images(chosen, sample, fitted, numbers, config, device),
        "facts": _facts(chosen, sample, numbers, config, device),
    }
    if fitted is None or scores is None:
        return found, {}
    threshold = float(fitted["threshold"])
    by_kind = {"dermoscopy": scores, **_pictures(chosen, sample, fitted, config, device)}
    index = group_index(sample.frame["image_id"].tolist(), sample.frame["lesion_id"].tolist())
    told = {
        kind: told_apart(scores, each, index, threshold=threshold, **sampled)
        for kind, each in by_kind.items()
        if each is not scores
    }
    return {**found, "novelty": {"passing": config.id_pass_rate, "threshold": threshold, "pictures": told}}, by_kind


def _images(
    chosen: "LoadedEnsemble",
    sample: "Sample",
    fitted: "Fitted | None",
    numbers: "Numbers",
    config: RobustnessConfig,
    device: "torch.device",
) -> dict[str, Any]:
    from skinlesion.studies.robustness.corruptions import DISTURBANCES
    from skinlesion.studies.robustness.runner import disturbed

    judged = disturbed(chosen, sample, fitted, steps=config.steps, device=device, seed=config.seed)
    return {
        name: {
            "unit": DISTURBANCES[name].unit,
            "neutral": DISTURBANCES[name].neutral,
            "steps": [{"step": step, "numbers": numbers(one)} for step, one in each.items()],
        }
        for name, each in judged.items()
    }


def _facts(
    chosen: "LoadedEnsemble", sample: "Sample", numbers: "Numbers", config: RobustnessConfig, device: "torch.device"
) -> dict[str, Any]:
    from skinlesion.inference.sample import read_sample
    from skinlesion.studies.robustness.altered_facts import altered_facts
    from skinlesion.studies.robustness.runner import other_facts

    train = read_sample(chosen.models[0], "train", images=None, seed=config.seed, source=config.data)
    altered = altered_facts(sample.frame, train.frame, seed=config.seed)
    judged = other_facts(chosen, sample, altered, device=device)
    return {name: {"steps": [{"step": 1.0, "numbers": numbers(one)}]} for name, one in judged.items()}


def _pictures(
    chosen: "LoadedEnsemble", sample: "Sample", fitted: "Fitted", config: RobustnessConfig, device: "torch.device"
) -> dict[str, Any]:
    from skinlesion.studies.robustness.other_images import ALTERED, OTHERS
    from skinlesion.studies.robustness.runner import other_pictures

    return other_pictures(chosen, sample, fitted, {**OTHERS, **ALTERED}, device=device, seed=config.seed)


def _draw(found: dict[str, Any], scores: dict[str, Any], folder: Path) -> None:
    from skinlesion.plots import robustness as figures
    from skinlesion.plots.style import save

    if set(found["images"]) - {figures.REMOVED}:
        save(figures.curves(found), folder / "disturbed.png")
    if figures.REMOVED in found["images"]:
        save(figures.lesion_removed(found), folder / "lesion_removed.png")
    save(figures.facts(found), folder / "facts.png")
    if scores:
        told = found["novelty"]
        save(figures.novelty(scores, told["pictures"], threshold=told["threshold"]), folder / "novelty.png")


def _show(found: dict[str, Any]) -> None:
    """The worst step of each disturbance, by balanced accuracy."""
    from skinlesion.commands.console import show_table

    def cell(measured: dict[str, Any]) -> str:
        if measured["low"] is None:
            return "not computable" if measured["value"] is None else f"{measured['value']:.3f}"
        return f"{measured['value']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}]"

    shown = ("balanced_accuracy", "change_balanced_accuracy", "same")
    lines = [("as they are", "", *(cell(found["undisturbed"]["numbers"][name]) for name in shown))]
    for kind in ("images", "facts"):
        for name, each in found[kind].items():
            worst = min(each["steps"], key=lambda step: step["numbers"]["balanced_accuracy"]["value"] or 0.0)
            step = f"{worst['step']:g}" if kind == "images" else ""
            lines.append((name, step, *(cell(worst["numbers"][number]) for number in shown)))
    title = f"{found['part']} part, {found['level']:.0%} intervals over lesions: the worst step of each disturbance"
    show_table(title, ("disturbance", "step", "balanced accuracy", "change", "same diagnosis"), lines)
    if "novelty" in found:
        told = found["novelty"]["pictures"]
        cells = [(kind, cell(each["auroc"]), cell(each["flagged"])) for kind, each in told.items()]
        show_table("Told apart from dermoscopy", ("pictures", "AUROC", "flagged"), cells)
