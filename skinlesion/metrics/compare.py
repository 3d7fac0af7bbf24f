"""Predictions of the same images against one another: tables against the first, an ensemble against its members."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from skinlesion.errors import DataError, counted, first_five
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import headline
from skinlesion.metrics.estimate import BootstrapConfig, Estimates, estimates_to_dict
from skinlesion.metrics.permutation import paired_differences
from skinlesion.metrics.summary import Summary, metrics_statistic, metrics_with_ci, summarize_predictions

Parts = dict[str, Summary]
"""Metrics by part of the split, "val" or "test"."""


def metric_differences(first: Predictions, second: Predictions, config: BootstrapConfig, *, bins: int) -> Estimates:
    """Estimate each metric of the first predictions minus that of the second, as `paired_differences` does."""
    return paired_differences(first, second, partial(metrics_statistic, bins=bins), config)


@dataclass(frozen=True)
class Comparison:
    """Metrics of several tables by name, and their differences from the reference, the first of them."""

    reference: str
    tables: dict[str, Estimates]
    differences: dict[str, Estimates]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "reference": self.reference,
            "tables": {name: estimates_to_dict(each) for name, each in self.tables.items()},
            "differences": {name: estimates_to_dict(each, difference=True) for name, each in self.differences.items()},
        }


def compare_tables(tables: Mapping[str, Predictions], config: BootstrapConfig, *, bins: int) -> Comparison:
    """Measure each of at least one table, and how each but the first differs from the first.

    Raises:
        DataError: A table is of other images than the first.
    """
    (reference, first), *others = tables.items()
    measured = {name: metrics_with_ci(table, config, bins=bins) for name, table in tables.items()}
    differences = {name: metric_differences(table, first, config, bins=bins) for name, table in others}
    return Comparison(reference, measured, differences)


@dataclass(frozen=True)
class EnsembleMetrics:
    """An ensemble, and where its members' predictions are known, the members.

    Attributes:
        chosen: Names of the members that vote.
        config: Settings of the intervals.
        vote: Metrics of the vote, by part.
        calibrated: Metrics of the calibrated vote, by part.
        all_members: Metrics of the vote of all members, by part; empty where the members are not known.
        members: By name, then part, likewise.
        best_member: Name of the best on validation by macro-F1, likewise "".
        gains: By part, each metric of the vote minus that of the best member, likewise empty.
        correction: By part, each metric of the vote minus that without its specialist; empty: it has none.
    """

    chosen: list[str]
    config: BootstrapConfig
    vote: Parts
    calibrated: Parts
    all_members: Parts
    members: dict[str, Parts]
    best_member: str
    gains: dict[str, Estimates]
    correction: dict[str, Estimates] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = {
            "chosen": self.chosen,
            "level": self.config.level,
            "interval": self.config.method,
            **_plain(self.vote),
            "calibrated": _plain(self.calibrated),
        }
        if self.correction:
            found["against_plain_vote"] = _differences(self.correction)
        if not self.members:
            return found
        return {
            **found,
            "all_members": _plain(self.all_members),
            "members": {name: _plain(parts) for name, parts in self.members.items()},
            "against_best_member": {"name": self.best_member, **_differences(self.gains)},
        }


def ensemble_metrics(
    vote: Mapping[str, Predictions],
    calibrated: Mapping[str, Predictions],
    members: Mapping[str, Mapping[str, Predictions]],
    config: BootstrapConfig,
    *,
    chosen: Sequence[str],
    bins: int,
    plain: Mapping[str, Predictions] | None = None,
) -> EnsembleMetrics:
    """Measure an ensemble, all its members together, each of them, and the ensemble against the best of them.

    Args:
        vote: By part, "val" among them, the predictions of the ensemble.
        calibrated: The same, calibrated.
        members: By name, then part, the predictions of each member; empty: not known.
        config: Settings of the intervals.
        chosen: Names of the members that vote.
        bins: Number of bins of the calibration errors.
        plain: By part, the vote without its specialist; None: it has none.
    """

    def parts(tables: Mapping[str, Predictions]) -> Parts:
        return {part: summarize_predictions(each, config, bins=bins) for part, each in tables.items()}

    def against(others: Mapping[str, Predictions]) -> dict[str, Estimates]:
        return {part: metric_differences(vote[part], each, config, bins=bins) for part, each in others.items()}

    everyone = {part: Predictions.soft_vote([each[part] for each in members.values()]) for part in vote if members}
    best = max(members, key=lambda name: headline(members[name]["val"])["macro_f1"], default="")
    return EnsembleMetrics(
        chosen=list(chosen),
        config=config,
        vote=parts(vote),
        calibrated=parts(calibrated),
        all_members=parts(everyone),
        members={name: parts(each) for name, each in members.items()},
        best_member=best,
        gains=against({part: members[best][part] for part in vote if members}),
        correction=against(plain or {}),
    )


def paths_of(pattern: str) -> list[Path]:
    """The file of that name, or the files that it names as a pattern, in the order of their names.

    Raises:
        DataError: It is a folder.
    """
    path = Path(pattern)
    if path.is_dir():
        tables = sorted(path.rglob("predictions_*.csv"))
        example = f", such as {tables[0]}" if tables else ""
        raise DataError(f"tables={pattern}: a folder; expected predictions tables{example}")
    return [path] if path.exists() else sorted(map(Path, glob.glob(pattern))) or [path]


def divide(patterns: Sequence[str]) -> list[str]:
    """The tables to compare: the files of a pattern that hold the same images are compared, others are pooled."""
    found: list[str] = []
    for pattern in patterns:
        paths = paths_of(pattern)
        images = {frozenset(Predictions.read(path).image_id) for path in paths} if len(paths) > 1 else ()
        found += map(str, paths) if len(images) == 1 else [pattern]
    return list(dict.fromkeys(found))


def read_pooled(pattern: str, *, like: Predictions | None = None) -> Predictions:
    """One table of all files that a pattern names, such as the test parts of all folds: runs/*/predictions_test.csv.

    `like` gives lesions and actual diagnoses to tables without them.

    Raises:
        DataError: There is no such file, one cannot be read, or an image is in two of them.
    """
    paths = paths_of(pattern)
    pooled = Predictions.concatenate([Predictions.read(path, like=like) for path in paths]).sorted()
    twice = [first for first, second in pairwise(pooled.image_id) if first == second]
    if twice:
        found = f"{counted(len(twice), 'image')} in two of {', '.join(map(str, paths))}"
        raise DataError(f"{found} ({first_five(twice)}); expected different images")
    return pooled


def names_of(patterns: Sequence[str]) -> list[str]:
    """A name for each table: its path, less what all have in common."""
    if len(patterns) == 1:
        return [Path(patterns[0]).parent.name or patterns[0]]
    parts = [Path(pattern).parts for pattern in patterns]
    same = [len(set(column)) == 1 for column in zip(*parts, strict=False)]
    before = same.index(False) if False in same else len(same)
    after = 1 if len({each[-1] for each in parts}) == 1 else 0
    return ["/".join(each[before : len(each) - after]) for each in parts]


def _differences(parts: Mapping[str, Estimates]) -> dict[str, Any]:
    return {part: estimates_to_dict(each, difference=True) for part, each in parts.items()}


def _plain(parts: Parts) -> dict[str, Any]:
    return {part: each.to_dict() for part, each in parts.items()}
