"""`skinlesion ensemble`: the members of a sweep vote; the best subset is chosen on validation, test is read once."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.ensemble import EnsembleConfig
from skinlesion.launch import launch

if TYPE_CHECKING:
    import pandas as pd

    from skinlesion.data.datamodule import Part
    from skinlesion.learning.checkpoint import TrainedModel

log = logging.getLogger(__name__)


def run(config: EnsembleConfig) -> None:
    """Search the subsets, write ensemble.json, both predictions tables and metrics.json, and print the table.

    Raises:
        SkinlesionError: Members that are missing, broken, unfinished, too few or do not go together.
    """
    from skinlesion.evaluation.predictions import soft_vote, write_table
    from skinlesion.files import write_json
    from skinlesion.learning.checkpoint import load_model
    from skinlesion.learning.ensemble import check_count, check_together, describe, find_members, unique_names

    paths, announced = find_members(config.members)
    check_count(paths, announced if config.expected is None else config.expected)
    models = [load_model(path) for path in paths]
    check_together(models)
    folder = Path(config.out) if config.out else Path(str(config.members)) / "ensemble"
    val = [_predictions(model, "val", config) for model in models]
    chosen = _choose(val, config)
    test = [_predictions(model, "test", config) for model in models]  # read only now that the choice is made
    for part, tables in (("val", val), ("test", test)):
        write_table(soft_vote([tables[position] for position in chosen]), folder / f"predictions_{part}.csv")
    write_json(folder / "ensemble.json", describe(models, chosen, folder, tta=config.tta))
    names = unique_names(models)
    measured = _measure({"val": val, "test": test}, chosen, names, config)
    write_json(folder / "metrics.json", measured)
    _show(measured, names)
    log.info("Ensemble: %s", folder / "ensemble.json")
    log.info("Figures: skinlesion evaluate ensemble=%s split=test", folder / "ensemble.json")


def _predictions(model: "TrainedModel", part: "Part", config: EnsembleConfig) -> "pd.DataFrame":
    from skinlesion.learning.ensemble import own_predictions
    from skinlesion.learning.judge import judge_model

    table = own_predictions(model, part) if config.tta == "none" else None  # a run judges images as they are
    if table is not None:
        return table
    settings, accelerator = config.loader, config.accelerator
    return judge_model(model, part, source=config.data, settings=settings, accelerator=accelerator, tta=config.tta)


def _choose(tables: list["pd.DataFrame"], config: EnsembleConfig) -> list[int]:
    import numpy as np

    from skinlesion.evaluation.predictions import probabilities, targets
    from skinlesion.evaluation.subsets import search

    smallest, largest = min(config.smallest, len(tables)), min(config.largest, len(tables))
    stacked = np.stack([probabilities(table) for table in tables])  # (M, N, K)
    best = search(stacked, targets(tables[0]), smallest=smallest, largest=largest)[0]
    return list(best.members)


def _measure(
    tables: dict[str, list["pd.DataFrame"]], chosen: list[int], names: list[str], config: EnsembleConfig
) -> dict[str, Any]:
    from skinlesion.evaluation.bootstrap import intervals
    from skinlesion.evaluation.metrics import headline
    from skinlesion.evaluation.predictions import soft_vote

    def judged(table: "pd.DataFrame") -> dict[str, Any]:
        ranges = intervals(table, resamples=config.resamples, seed=config.seed, level=config.level)
        return {**headline(table), "intervals": ranges}

    measured: dict[str, Any] = {"chosen": [names[position] for position in chosen], "level": config.level}
    for part, members in tables.items():
        measured[part] = judged(soft_vote([members[position] for position in chosen]))
    measured["all_members"] = {part: judged(soft_vote(members)) for part, members in tables.items()}
    measured["members"] = {
        name: {part: judged(members[position]) for part, members in tables.items()}
        for position, name in enumerate(names)
    }
    return measured


def _show(measured: dict[str, Any], names: list[str]) -> None:
    from skinlesion.evaluation.console import show_metrics

    rows = [(name, measured["members"][name]["test"]) for name in names]
    rows.append((f"mean of all {len(names)}", measured["all_members"]["test"]))
    rows.append((f"chosen on validation: {len(measured['chosen'])}", measured["test"]))
    show_metrics(f"Test part, {measured['level']:.0%} intervals over lesions", rows)


if __name__ == "__main__":
    launch("ensemble", EnsembleConfig, run)
