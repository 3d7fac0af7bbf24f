"""`skinlesion compare`: predictions tables of the same images, each against the first, on the same resamples."""

import logging
from pathlib import Path
from typing import Any

from skinlesion.config.compare import CompareConfig
from skinlesion.launch import launch

log = logging.getLogger(__name__)


def run(config: CompareConfig) -> None:
    """Print, and write where asked to, each table's numbers and its differences from the first table.

    Raises:
        SkinlesionError: A table is missing, broken, or of other images than the first.
    """
    from skinlesion.evaluation.comparison import compared, names_of, read_pooled
    from skinlesion.files import write_json

    names = names_of(config.tables)
    tables = {name: read_pooled(pattern) for name, pattern in zip(names, config.tables, strict=True)}
    found = compared(
        tables,
        resamples=config.resamples,
        seed=config.seed,
        level=config.level,
        method=config.interval,  # type: ignore[arg-type]
        bins=config.bins,
    )
    _show(found, config.level)
    if config.out:
        write_json(Path(config.out), {"level": config.level, "interval": config.interval, **found})
        log.info("All numbers: %s", config.out)


def _show(found: dict[str, Any], level: float) -> None:
    from skinlesion.evaluation.console import show_table, with_interval

    shown = {"accuracy": "accuracy", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}
    rows = [(name, *(with_interval(numbers[key]) for key in shown)) for name, numbers in found["tables"].items()]
    show_table(f"{level:.0%} intervals over lesions", ("table", *shown.values()), rows)
    rows = [
        (name, *(f"{with_interval(numbers[key], sign=True)}{_p(numbers[key])}" for key in shown))
        for name, numbers in found["differences"].items()
    ]
    show_table(f"Differences from {found['reference']}", ("table", *shown.values()), rows)


def _p(difference: dict[str, Any]) -> str:
    return "" if difference["p"] is None else f" p {difference['p']:.3f}"


if __name__ == "__main__":
    launch("compare", CompareConfig, run)
