"""`skinlesion compare`: predictions tables of the same images, each against the first, on the same resamples."""

import logging
from pathlib import Path

from skinlesion.config.inference import CompareConfig

log = logging.getLogger(__name__)


def run(config: CompareConfig) -> None:
    """Print each table's metrics and its differences from the first table, and write them where asked to.

    Test parts that `ensemble` wrote are measured at the operating points of their ensembles too.

    Raises:
        SkinlesionError: A table is missing, broken, or of other images than the first.
    """
    from skinlesion.commands.console import HEADLINE, show_metrics, show_points, show_table, with_interval
    from skinlesion.files import write_json
    from skinlesion.inference.posthoc import pooled_points
    from skinlesion.metrics.compare import compare_tables, divide, names_of, paths_of, read_pooled
    from skinlesion.metrics.estimate import BootstrapConfig

    bootstrap = BootstrapConfig.of(config)
    divided = divide(config.tables)
    patterns = dict(zip(names_of(divided), divided, strict=True))
    tables = {name: read_pooled(pattern) for name, pattern in patterns.items()}
    found = compare_tables(tables, bootstrap, bins=config.bins)
    pooled = {name: pooled_points(paths_of(pattern), bootstrap) for name, pattern in patterns.items()}
    pooled = {name: points for name, points in pooled.items() if points}
    show_metrics(f"{config.level:.0%} intervals over lesions", list(found.tables.items()), heading="table")
    differences = [
        (name, *(with_interval(each[metric], sign=True) for metric in HEADLINE))
        for name, each in found.differences.items()
    ]
    show_table(f"Differences from {found.reference}", ("table", *HEADLINE.values()), differences)
    for name, points in pooled.items():
        title = f"Operating points of {name}, each part at the thresholds of its own ensemble"
        show_points(title, [(each.target, each.sensitivity, each.found) for each in points])
    if config.out:
        written = {name: [point.to_dict() for point in points] for name, points in pooled.items()}
        settings = {"level": config.level, "interval": config.interval}
        write_json(Path(config.out), {**settings, **found.to_dict(), "operating_points": written})
        log.info("All numbers: %s", config.out)
