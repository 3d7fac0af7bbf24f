"""`skinlesion compare`: predictions tables of the same images, each against the first, on the same resamples."""

import logging
from pathlib import Path
from typing import Any

from skinlesion.config.evaluate import CompareConfig

log = logging.getLogger(__name__)


def run(config: CompareConfig) -> None:
    """Print, and write where asked to, each table's numbers and its differences from the first table.

    Tables that `ensemble` wrote of test parts are judged at the operating points of their ensembles too.

    Raises:
        SkinlesionError: A table is missing, broken, or of other images than the first.
    """
    from skinlesion.files import write_json
    from skinlesion.inference.pooled_points import pooled_points
    from skinlesion.metrics.compare import compared, names_of, paths_of, read_pooled

    names = names_of(config.tables)
    tables = {name: read_pooled(pattern) for name, pattern in zip(names, config.tables, strict=True)}
    settings: dict[str, Any] = {
        "resamples": config.resamples,
        "seed": config.seed,
        "level": config.level,
        "method": config.interval,
    }
    found = compared(tables, **settings, bins=config.bins)
    points = {
        name: pooled_points(paths_of(pattern), **settings) for name, pattern in zip(names, config.tables, strict=True)
    }
    found["operating_points"] = {name: each for name, each in points.items() if each}
    _show(found, config.level)
    if config.out:
        write_json(Path(config.out), {"level": config.level, "interval": config.interval, **found})
        log.info("All numbers: %s", config.out)


def _show(found: dict[str, Any], level: float) -> None:
    from skinlesion.commands.console import show_points, show_table, with_interval

    shown = {"accuracy": "accuracy", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}
    rows = [(name, *(with_interval(numbers[key]) for key in shown)) for name, numbers in found["tables"].items()]
    show_table(f"{level:.0%} intervals over lesions", ("table", *shown.values()), rows)
    rows = [
        (name, *(f"{with_interval(numbers[key], sign=True)}{_p(numbers[key])}" for key in shown))
        for name, numbers in found["differences"].items()
    ]
    show_table(f"Differences from {found['reference']}", ("table", *shown.values()), rows)
    for name, points in found["operating_points"].items():
        show_points(f"Operating points of {name}, each part at the thresholds of its own ensemble", points)


def _p(difference: dict[str, Any]) -> str:
    return "" if difference["p"] is None else f" p {difference['p']:.3f}"
