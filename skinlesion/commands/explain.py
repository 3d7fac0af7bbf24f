"""`skinlesion explain`: what speaks for a diagnosis, on one page; and whether such maps can be trusted."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from skinlesion.config.studies import ExplainConfig
from skinlesion.errors import DataError

if TYPE_CHECKING:
    from skinlesion.data.datamodule import Part
    from skinlesion.studies.explain.saliency_checks import Checked

log = logging.getLogger(__name__)


def run(config: ExplainConfig) -> None:
    """Explain one image, or check the maps of a part of the split.

    Raises:
        SkinlesionError: The model, the image or the data cannot be used, or a fact is not known to the model.
    """
    if config.image is not None:
        _explain(config, Path(config.image))
    else:
        _check(config)


def _explain(config: ExplainConfig, path: Path) -> None:
    """Write IMAGE.CLASS.png, an overlay that can be read without a manual, and IMAGE.CLASS.json, and say where."""
    from skinlesion.data.image_io import read
    from skinlesion.files import write_json
    from skinlesion.inference.loaded_ensemble import check_facts, voters
    from skinlesion.plots.explanation import explanation_page
    from skinlesion.plots.style import save
    from skinlesion.studies.explain.explanation import explain
    from skinlesion.studies.explain.overlays import as_plain
    from skinlesion.training.forward import device_of

    if not path.is_file():
        raise DataError(f"image={config.image}: no such file")
    chosen = voters(config.checkpoint, config.ensemble, tta=config.tta)
    facts = {"age": config.age, "sex": config.sex, "localization": config.localization}
    check_facts(chosen.models, facts)
    device = device_of(config.accelerator)
    found = explain(chosen, read(path), facts, name=path.name, chosen=config.class_, device=device)
    folder = Path(config.out) if config.out else chosen.folder / "explanations"
    write_json(folder / f"{path.stem}.{found.chosen}.json", as_plain(found))
    save(explanation_page(found), folder / f"{path.stem}.{found.chosen}.png")
    log.info("%s: %s, %.0f %%", path.name, found.predicted, 100 * found.probabilities.max())
    if found.novel:
        log.warning("%s does not look like dermoscopy: the answer means little", path.name)
    log.info("Overlay and numbers: %s", folder / f"{path.stem}.{found.chosen}.png")


def _check(config: ExplainConfig) -> None:
    """Write explanations.json and the figures of the sanity checks, and print what matters."""
    from skinlesion.errors import first_five
    from skinlesion.files import write_json
    from skinlesion.inference.loaded_ensemble import voters
    from skinlesion.inference.sample import read_sample
    from skinlesion.studies.explain.saliency_checks import check_maps
    from skinlesion.training.forward import device_of

    chosen = voters(config.checkpoint, config.ensemble, tta="none")
    part = cast("Part", config.split)
    sample = read_sample(chosen.models[0], part, images=config.images, seed=config.seed, source=config.data)
    settings = {"resamples": config.resamples, "seed": config.seed, "level": config.level, "method": config.interval}
    masks = None if config.masks is None else Path(config.masks)
    checked = check_maps(chosen, sample, masks=masks, device=device_of(config.accelerator), settings=settings)
    folder = Path(config.out) if config.out else chosen.folder / "explanations"
    found = {"part": config.split, **checked.found}
    write_json(folder / "explanations.json", found)
    _draw(checked, folder)
    _show(found)
    if unknown := found.get("lesion", {}).get("without_mask"):
        log.warning("%d images have no mask in %s: %s.", len(unknown), config.masks, first_five(unknown))
    log.info("Numbers and figures: %s", folder)


def _draw(checked: "Checked", folder: Path) -> None:
    from skinlesion.plots import saliency as figures
    from skinlesion.plots.style import save

    save(figures.randomisation(checked.found["randomisation"]), folder / "randomisation.png")
    save(figures.cascade_strip(checked.image, checked.strip), folder / "sample_randomisation.png")
    save(figures.deletion_insertion(checked.found), folder / "deletion_insertion.png")
    if "lesion" in checked.found:
        save(figures.on_lesion(checked.found["lesion"]), folder / "on_lesion.png")


def _show(found: dict[str, Any]) -> None:
    from skinlesion.commands.console import show_table, with_interval
    from skinlesion.metrics.estimate import Estimate

    def shown(number: dict[str, Any]) -> str:
        return with_interval(Estimate.from_dict(number))

    lines = [
        (
            f"maps of {name}, all weights randomised: rank correlation",
            shown(steps[-1]["correlation"]),
        )
        for name, steps in found["randomisation"]["members"].items()
    ]
    for kind, wanted in (("deletion", "below 0"), ("insertion", "above 0")):
        lines.append(
            (
                f"{kind}: area less that of random order ({wanted})",
                shown(found[kind]["area_less_random"]),
            )
        )
    if "lesion" in found:
        on = found["lesion"]
        lines.append((f"peak in the lesion ({on['masks']} masks)", shown(on["peak_inside"])))
        lines.append(("share of the map in the lesion", shown(on["energy_inside"])))
        lines.append(("share of the image that the lesion covers", shown(on["lesion_area"])))
    title = f"{found['part']} part, {found['images_judged']} images, {found['level']:.0%} intervals over lesions"
    show_table(title, ("check", "value"), lines)
