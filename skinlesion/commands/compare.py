"""`skinlesion compare`: tables of the same images, or recipes of several training seeds, each against the first."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.inference import CompareConfig
from skinlesion.errors import DataError

if TYPE_CHECKING:
    from skinlesion.metrics.estimate import Estimates

log = logging.getLogger(__name__)


def run(config: CompareConfig) -> None:
    """Print metrics and their differences from the first table or recipe, and write them where asked to.

    Raises:
        SkinlesionError: A table is missing, broken, or of other images than the first.
    """
    from skinlesion.files import write_json

    found = _compare_tables(config) if config.tables else _compare_recipes(config)
    if config.out:
        write_json(Path(config.out), {"level": config.level, "interval": config.interval, **found})
        log.info("All numbers: %s", config.out)


def _compare_tables(config: CompareConfig) -> dict[str, Any]:
    """Compare tables; test parts that `ensemble` wrote are measured at the operating points of their ensembles too."""
    from skinlesion.commands.console import resampled, show_metrics, show_points
    from skinlesion.inference.posthoc import pooled_points
    from skinlesion.metrics.compare import compare_tables, divide, names_of, paths_of, read_pooled
    from skinlesion.metrics.estimate import BootstrapConfig

    bootstrap = BootstrapConfig.of(config)
    divided = divide(config.tables)
    patterns = dict(zip(names_of(divided), divided, strict=True))
    first = read_pooled(divided[0])
    others = {name: read_pooled(pattern, like=first) for name, pattern in list(patterns.items())[1:]}
    tables = {next(iter(patterns)): first, **others}
    found = compare_tables(tables, bootstrap, bins=config.bins)
    pooled = {name: pooled_points(paths_of(pattern), bootstrap) for name, pattern in patterns.items()}
    pooled = {name: points for name, points in pooled.items() if points}
    over = resampled(first.lesion_id, first.group_id)
    show_metrics(f"{config.level:.0%} intervals over {over}", list(found.tables.items()), heading="table")
    _show_differences(found.reference, found.differences, "paired permutation test; accuracy: McNemar's")
    if found.differences:
        log.info("These are differences of runs; a claim over recipes needs three training seeds each: recipes=[A,B]")
    for name, points in pooled.items():
        title = f"Operating points of {name}, each part at the thresholds of its own ensemble"
        show_points(title, [(each.target, each.sensitivity, each.found) for each in points])
    written = {name: [point.to_dict() for point in points] for name, points in pooled.items()}
    return {**found.to_dict(), "operating_points": written}


def _compare_recipes(config: CompareConfig) -> dict[str, Any]:
    from skinlesion.commands.console import show_metrics
    from skinlesion.metrics.compare import names_of
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.metrics.recipes import FEWEST, compare_recipes, read_recipe

    for pattern in config.recipes:
        _check_seeds(pattern)
    recipes = {
        name: read_recipe(pattern) for name, pattern in zip(names_of(config.recipes), config.recipes, strict=True)
    }
    found = compare_recipes(recipes, BootstrapConfig.of(config), bins=config.bins)
    if few := [f"{name} ({seeds})" for name, seeds in found.seeds.items() if seeds < FEWEST]:
        log.warning("Fewer than %d training seeds: %s: no interval over seeds", FEWEST, ", ".join(few))
    rows = [(f"{name}, {found.seeds[name]} seeds", each) for name, each in found.recipes.items()]
    show_metrics(f"{config.level:.0%} intervals over training seeds and lesions", rows, heading="recipe")
    _show_differences(found.reference, found.differences, "Student's t over seeds and lesions")
    return found.to_dict()


def _check_seeds(pattern: str) -> None:
    """Refuse runs of a recipe on the same split with the same seed, where the configurations beside them tell it.

    Raises:
        DataError: It names them.
    """
    from skinlesion.metrics.compare import paths_of
    from skinlesion.training.run_folder import read_config

    runs: dict[tuple[str, str], Path] = {}
    for path in paths_of(pattern):
        if (path.parent / "config.yaml").is_file():
            settings = read_config(path.parent)
            key = (str(settings.get("seed")), str(settings.get("split")))
            if key in runs:
                raise DataError(
                    f"recipes={pattern}: {runs[key]} and {path} have the same training seed {key[0]}; "
                    "expected a run a seed"
                )
            runs[key] = path
        else:
            log.warning("%s: no config.yaml beside it: its training seed is not checked", path)


def _show_differences(reference: str, differences: "Mapping[str, Estimates]", test: str) -> None:
    from skinlesion.commands.console import show_table, with_interval
    from skinlesion.metrics.classification import HEADLINE_NAMES

    rows = [
        (name, *(with_interval(each[metric], sign=True) for metric in HEADLINE_NAMES))
        for name, each in differences.items()
    ]
    show_table(f"Differences from {reference} ({test})", ("against it", *HEADLINE_NAMES.values()), rows)
