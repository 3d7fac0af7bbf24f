"""`skinlesion ensemble`: the members of a sweep vote; the best subset is chosen on validation, test is read once."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from skinlesion.config.ensemble import EnsembleConfig
from skinlesion.errors import DataError
from skinlesion.terminal import log_to

if TYPE_CHECKING:
    import pandas as pd

    from skinlesion.data.datamodule import Part
    from skinlesion.inference.conformal import Score
    from skinlesion.training.checkpoint import TrainedModel

log = logging.getLogger(__name__)

NOVELTY = "novelty.npz"  # beside ensemble.json


def run(config: EnsembleConfig) -> None:
    """Search the subsets, write ensemble.json, all predictions tables and metrics.json, and print the table.

    Raises:
        SkinlesionError: Members that are missing, broken, unfinished, too few or do not go together.
    """
    from skinlesion.files import write_json
    from skinlesion.inference.ensemble import check_count, check_together, describe, find_members, unique_names
    from skinlesion.inference.member_metrics import measure
    from skinlesion.inference.predictions import soft_vote, write_table
    from skinlesion.training.checkpoint import load_model

    paths, announced = find_members(config.members)
    check_count(paths, announced if config.expected is None else config.expected)
    models = [load_model(path) for path in paths]
    check_together(models)
    folder = Path(config.out) if config.out else Path(str(config.members)) / "ensemble"
    log_to(folder)
    names = unique_names(models)
    val = _predictions(models, "val", config)
    chosen = _choose(val, config)
    fitted = _fit(val, chosen, names, config)
    test = _predictions(models, "test", config)  # read only now that all choices are made
    tables = {"val": val, "test": test}
    for part, each in tables.items():
        write_table(soft_vote([each[position] for position in chosen]), folder / f"predictions_{part}.csv")
        for name, table in zip(names, each, strict=True):
            write_table(table, folder / "members" / name.replace("/", "-") / f"predictions_{part}.csv")
    fitted["novelty"] = _fit_novelty([models[position] for position in chosen], folder, config)
    write_json(folder / "ensemble.json", describe(models, chosen, folder, tta=config.tta, fitted=fitted))
    measured = measure(tables, chosen, names, fitted["calibration"], **_settings(config))
    write_json(folder / "metrics.json", measured)
    _show(measured, names)
    log.info("Ensemble: %s", folder / "ensemble.json")
    log.info("Figures: skinlesion evaluate ensemble=%s split=test", folder / "ensemble.json")


def _predictions(models: list["TrainedModel"], part: "Part", config: EnsembleConfig) -> list["pd.DataFrame"]:
    from skinlesion.inference.ensemble import own_predictions
    from skinlesion.inference.predict_images import predict_images, read_part

    # a run judges images as they are
    tables = [own_predictions(model, part) if config.tta == "none" else None for model in models]
    if all(table is not None for table in tables):
        return [table for table in tables if table is not None]
    images = read_part(models[0], part, config.data)

    def judged(model: "TrainedModel") -> "pd.DataFrame":
        cache, settings = images.cache(model.spec.size), config.loader
        return predict_images(
            model, images.frame, cache, settings=settings, accelerator=config.accelerator, tta=config.tta
        )

    pairs = zip(models, tables, strict=True)
    return [judged(model) if table is None else table for model, table in pairs]


def _choose(tables: list["pd.DataFrame"], config: EnsembleConfig) -> list[int]:
    import numpy as np

    from skinlesion.inference.predictions import probabilities, targets
    from skinlesion.inference.subset_search import search

    smallest, largest = min(config.smallest, len(tables)), min(config.largest, len(tables))
    stacked = np.stack([probabilities(table) for table in tables])  # (M, N, K)
    best = search(stacked, targets(tables[0]), smallest=smallest, largest=largest)[0]
    return list(best.members)


def _fit(val: list["pd.DataFrame"], chosen: list[int], names: list[str], config: EnsembleConfig) -> dict[str, Any]:
    """What the file keeps of validation: calibration, operating points, prediction sets."""
    from skinlesion.inference.posthoc_fit import fit_calibration, fit_decisions, with_calibration, worsens_nll
    from skinlesion.inference.predictions import soft_vote

    voted = soft_vote([val[position] for position in chosen])
    calibration = fit_calibration(voted, method=config.calibration, bins=config.bins)
    if "note" in calibration:
        log.warning("Not calibrated: %s", calibration["note"])
    elif worsens_nll(calibration):
        log.warning(
            "calibration=%s makes the likelihood of left-out lesions worse; compare `folds` in ensemble.json, and "
            "consider calibration=none",
            config.calibration,
        )
    each = [fit_calibration(table, method=config.calibration, bins=config.bins) for table in val]
    members = [
        {"name": name, "temperature": found.get("temperature"), "vector": found.get("vector")}
        for name, found in zip(names, each, strict=True)
    ]
    decisions = fit_decisions(
        with_calibration(voted, calibration),
        sensitivities=config.sensitivities,
        alphas=config.alphas,
        score=cast("Score", config.conformal),
    )
    return {"calibration": {**calibration, "members": members}, **decisions}


def _fit_novelty(models: list["TrainedModel"], folder: Path, config: EnsembleConfig) -> dict[str, Any] | None:
    """Write what training images look like to novelty.npz; None where that is not asked for, or they are not there."""
    from skinlesion.files import file_digest
    from skinlesion.inference import ood
    from skinlesion.inference.ood_fit import fit_novelty
    from skinlesion.training.forward import device_of

    if config.id_pass_rate is None:
        return None
    device = device_of(config.accelerator)
    try:
        fitted = fit_novelty(models, source=config.data, device=device, passing=config.id_pass_rate, seed=config.seed)
    except DataError as error:
        log.warning("Novelty will not be judged: %s", str(error).splitlines()[0])
        return None
    ood.write(fitted, folder / NOVELTY)
    threshold, digest = float(fitted["threshold"]), file_digest(folder / NOVELTY)
    return {"file": NOVELTY, "sha256": digest, "passing": config.id_pass_rate, "threshold": threshold}


def _settings(config: EnsembleConfig) -> dict[str, Any]:
    return {
        "resamples": config.resamples,
        "seed": config.seed,
        "level": config.level,
        "method": config.interval,
        "bins": config.bins,
    }


def _show(measured: dict[str, Any], names: list[str]) -> None:
    from skinlesion.commands.console import show_metrics, show_table
    from skinlesion.metrics.classification import HEADLINE

    rows = [(name, measured["members"][name]["test"]) for name in names]
    rows.append((f"mean of all {len(names)}", measured["all_members"]["test"]))
    rows.append((f"chosen on validation: {len(measured['chosen'])}", measured["test"]))
    show_metrics(f"Test part, {measured['level']:.0%} intervals over lesions ({measured['interval']})", rows)
    versus = measured["against_best_member"]
    gains = [(metric, _gain(versus["test"][metric])) for metric in HEADLINE]
    show_table(f"Test part, more than {versus['name']}, the best member on validation", ("metric", "gain"), gains)


def _gain(found: dict[str, Any]) -> str:
    from skinlesion.commands.console import with_interval

    return with_interval(found, sign=True) + ("" if found["p"] is None else f", p = {found['p']:.3f}")
