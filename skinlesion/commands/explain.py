"""`skinlesion explain`: explain the prediction for one image, or check the saliency maps on a part of the split."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from skinlesion.config.studies import ExplainConfig
from skinlesion.errors import DataError, first_five

if TYPE_CHECKING:
    from skinlesion.data.datamodule import Part
    from skinlesion.data.image_io import Image
    from skinlesion.inference.predictor import Predictor
    from skinlesion.studies.explain.saliency_checks import SaliencyChecks
    from skinlesion.studies.probe.cases import Case

log = logging.getLogger(__name__)


def run(config: ExplainConfig) -> None:
    """Explain one image, or check the maps on a part of the split.

    Raises:
        SkinlesionError: The model, the image or the data are invalid, or the model does not know a fact.
    """
    if config.image is not None:
        _explain_image(config, Path(config.image))
    else:
        _check_maps(config, cast("Part", config.split))


def _explain_image(config: ExplainConfig, path: Path) -> None:
    """Write the page IMAGE.CLASS.png and its numbers IMAGE.CLASS.json."""
    from skinlesion.files import write_json
    from skinlesion.inference.inputs import check_facts, to_array, with_file_facts
    from skinlesion.inference.predictor import Predictor
    from skinlesion.plots.saliency import explanation_page, nearest_cases
    from skinlesion.plots.style import save
    from skinlesion.studies.explain.explanation import explain

    if not path.is_file() and path.parent.suffix != ".npz":
        reason = "is a folder; expected one image" if path.is_dir() else "no such file"
        raise DataError(f"image={config.image}: {reason}")
    predictor = Predictor.from_config(config)
    given = {"age": config.age, "sex": config.sex, "localization": config.localization, **config.fact}
    facts = with_file_facts(predictor.encoder, path, check_facts(predictor.encoder, given))
    found = explain(predictor, to_array(path), facts, name=path.name, target=config.class_)
    folder = Path(config.out) if config.out else predictor.folder / "explanations"
    nearest = [] if config.cases is None else _nearest(config, predictor, found.image, name=path.stem)
    if nearest:
        save(nearest_cases(nearest), folder / f"{path.stem}.nearest.png")
    write_json(folder / f"{path.stem}.{found.target}.json", {**found.to_dict(), "nearest": list(map(vars, nearest))})
    save(explanation_page(found), folder / f"{path.stem}.{found.target}.png")
    log.info("%s: %s, %.0f %%", path.name, found.predicted, 100 * found.probabilities.max())
    if found.is_ood:
        log.warning("%s is unlike the training images: the prediction is unreliable", path.name)
    log.info("Page and numbers: %s", folder / f"{path.stem}.{found.target}.png")


def _nearest(config: ExplainConfig, predictor: "Predictor", image: "Image", *, name: str) -> "list[Case]":
    """The training images of a model that are most like an image, by the networks of a probe; they are printed.

    Raises:
        CheckpointError: There are no cases, or their networks are others by now.
    """
    from skinlesion.commands.console import show_table
    from skinlesion.inference.split_part import with_split
    from skinlesion.studies.probe.cases import Cases

    cases, networks = Cases.read(Path(str(config.cases))), predictor.networks
    models = [with_split(model, config.data) for model in networks.models]
    trained_on = {image_id for model in models for image_id in model.split.get("train", [])}
    found = cases.nearest(image, cases.embedders(networks.device), among=trained_on, without=name)
    rows = [(each.image_id, each.diagnosis, each.dx_type or "unknown", f"{each.similarity:.3f}") for each in found]
    show_table("Nearest training images", ("image", "diagnosis", "confirmed by", "similarity"), rows)
    return found


def _check_maps(config: ExplainConfig, part: "Part") -> None:
    """Write explanations.json and the figures of the checks, and print the main results."""
    from skinlesion.commands.console import resampled
    from skinlesion.files import write_json
    from skinlesion.inference.ledger import Examined
    from skinlesion.inference.predictor import Predictor
    from skinlesion.inference.split_part import read_part
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.plots import saliency as figures
    from skinlesion.plots.style import save
    from skinlesion.studies.explain.saliency_checks import check_maps

    predictor = Predictor.from_config(replace(config, tta="none"))
    frame = read_part(predictor.networks.models[0], part, config.data, images=config.images, seed=config.seed).frame
    Examined.named_by(config, predictor).note(part, "explain")
    masks = None if config.masks is None else Path(config.masks)
    checks = check_maps(predictor, frame, masks=masks, config=BootstrapConfig.of(config))
    folder = Path(config.out) if config.out else predictor.folder / "explanations"
    write_json(folder / "explanations.json", {"part": part, **checks.to_dict()})
    save(figures.randomisation(checks.randomisation), folder / "randomisation.png")
    save(figures.randomised_maps(checks.example, checks.example_maps), folder / "sample_randomisation.png")
    save(figures.deletion_insertion(checks.deletion, checks.insertion), folder / "deletion_insertion.png")
    over = resampled(frame["lesion_id"], frame["group_id"])
    _show(checks, f"{part} part, {checks.images} images, {checks.level:.0%} intervals over {over}")
    if checks.lesion is not None:
        save(figures.on_lesion(checks.lesion), folder / "on_lesion.png")
        if missing := checks.lesion.without_mask:
            log.warning("%d images have no mask in %s: %s.", len(missing), config.masks, first_five(missing))
    log.info("Numbers and figures: %s", folder)


def _show(checks: "SaliencyChecks", title: str) -> None:
    from skinlesion.commands.console import show_table, with_interval
    from skinlesion.metrics.saliency_verdict import verdict

    last = {name: list(steps.values())[-1] for name, steps in checks.randomisation.items()}
    judged = {f"{name}: rank correlation of maps, all weights randomised": ("randomisation", each)
              for name, each in last.items()}  # fmt: skip
    judged["deletion: area minus that of random order"] = ("deletion", checks.deletion.area_less_random)
    judged["insertion: area minus that of random order"] = ("insertion", checks.insertion.area_less_random)
    rows = [(name, with_interval(each), verdict(kind, each)) for name, (kind, each) in judged.items()]
    if (found := checks.lesion) is not None:
        overlaps = {
            f"maps whose maximum lies in the lesion ({found.masks} masks)": found.peak_inside,
            "share of the map in the lesion": found.energy_inside,
            "lesion's share of the image": found.lesion_area,
        }
        rows += [(name, with_interval(each), "") for name, each in overlaps.items()]
    show_table(title, ("check", "value", "verdict"), rows)
    worst, sentence = checks.verdict
    log.log(logging.INFO if worst == "passes" else logging.WARNING, "%s", sentence)
