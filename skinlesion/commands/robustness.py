"""`skinlesion robustness`: measure a model on corrupted images, altered facts and out-of-distribution images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from skinlesion.config.studies import RobustnessConfig

if TYPE_CHECKING:
    import torch

    from skinlesion.data.datamodule import Part
    from skinlesion.inference.loaded_ensemble import LoadedEnsemble
    from skinlesion.inference.ood import Fitted
    from skinlesion.metrics.estimate import Estimate
    from skinlesion.studies.robustness.study import RobustnessResult

log = logging.getLogger(__name__)


def run(config: RobustnessConfig) -> None:
    """Write robustness.json, robustness.csv and the figures, and print the main results.

    Raises:
        SkinlesionError: The model or the data are invalid, or a step is out of range.
    """
    from skinlesion.files import write_json, write_text
    from skinlesion.inference.loaded_ensemble import voters
    from skinlesion.inference.sample import read_sample
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.studies.robustness.corruptions import check_steps
    from skinlesion.studies.robustness.study import study_robustness
    from skinlesion.training.forward import device_of

    check_steps(config.steps)
    ensemble = voters(config.checkpoint, config.ensemble, tta=config.tta)
    device, model, part = device_of(config.accelerator), ensemble.models[0], cast("Part", config.split)
    found = study_robustness(
        ensemble,
        read_sample(model, part, images=config.images, seed=config.seed, source=config.data),
        read_sample(model, "train", images=None, seed=config.seed, source=config.data).frame,
        _detector(ensemble, config, device),
        part=part,
        steps=config.steps,
        seed=config.seed,
        device=device,
        config=BootstrapConfig.of(config),
    )
    folder = Path(config.out) if config.out else ensemble.folder / "robustness"
    write_json(folder / "robustness.json", found)
    write_text(folder / "robustness.csv", found.to_frame().to_csv(index=False))
    _draw(found, folder)
    _show(found)
    log.info("Tables and figures: %s", folder)


def _detector(ensemble: "LoadedEnsemble", config: RobustnessConfig, device: "torch.device") -> "Fitted | None":
    """The ensemble's own detector if it has the same `id_pass_rate`, otherwise a newly fitted one."""
    from skinlesion.inference.ood_fit import fit_novelty

    rate, own = config.id_pass_rate, ensemble.novelty
    if rate is None or (own is not None and float(own["passing"]) == rate):
        return None if rate is None else own
    return fit_novelty(ensemble.models, source=config.data, device=device, passing=rate, seed=config.seed)


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


def _show(found: "RobustnessResult") -> None:
    """Print the worst step of each corruption by balanced accuracy."""
    from skinlesion.commands.console import show_table, with_interval

    shown = ("balanced_accuracy", "change_balanced_accuracy", "same")
    rows = [("original", "", found.undisturbed)]
    rows += [(name, f"{each.worst:g}", each.steps[each.worst]) for name, each in found.corruptions.items()]
    rows += [(name, "", numbers) for name, numbers in found.facts.items()]

    def cell(number: "Estimate") -> str:
        return with_interval(number.to_dict())

    show_table(
        f"{found.part} part, {found.level:.0%} intervals over lesions: the worst step of each corruption",
        ("images or facts", "step", "balanced accuracy", "change", "same prediction"),
        [(name, step, *(cell(numbers[number]) for number in shown)) for name, step, numbers in rows],
    )
    if found.ood is not None:
        cells = [(kind, cell(each.auroc), cell(each.flagged)) for kind, each in found.ood.pictures.items()]
        show_table("Detection of out-of-distribution images", ("images", "AUROC", "flagged"), cells)


if __name__ == "__main__":
    launch("robustness", RobustnessConfig, run)
