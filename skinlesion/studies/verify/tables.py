"""Recompute published tables from predictions tables: each row some predictions, or the difference of two."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from omegaconf import MISSING, DictConfig, OmegaConf
from yaml import YAMLError

from skinlesion.config.schema import Share
from skinlesion.config.validation import typed
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.operating_points import highest_threshold
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import ABOUT, read_columns
from skinlesion.metrics.bootstrap import bootstrap
from skinlesion.metrics.compare import metric_differences
from skinlesion.metrics.decision import flag_metrics
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates
from skinlesion.metrics.summary import metrics_statistic

BINS = 10  # of the calibration errors
_PERCENT = ("accuracy",)  # shown as percentages


@dataclass
class PublishedThreshold:
    """The highest threshold that finds a share of the target's images on validation, chosen fold by fold."""

    validation: str = MISSING  # name of the predictions table of the folds' validation parts
    target: str = MISSING  # code, or malignant
    sensitivity: Share = MISSING  # wanted on validation


@dataclass
class PublishedRow:
    """A row of a published table: predictions and which of them, a difference, a mean, or cells of others."""

    label: str = MISSING
    predictions: str | None = None  # name of a predictions table
    mean_of: list[str] = field(default_factory=list)  # names of tables, such as of several split seeds; no interval
    minus: str | None = None  # name of the table whose metrics are subtracted
    only: dict[str, str] = field(default_factory=dict)  # column and its value, or `not VALUE`
    threshold: PublishedThreshold | None = None
    cells: list[str] | None = None  # of a row that others published

    def __post_init__(self) -> None:
        if sum((self.predictions is not None, self.cells is not None, bool(self.mean_of))) != 1:
            raise ConfigError(f"{self.label}: expected one of predictions, mean_of, and cells that others published")


@dataclass
class PublishedTable:
    """A table and the pages that show it."""

    pages: list[str] = MISSING  # paths below the repository's root
    metrics: dict[str, str] = MISSING  # metric and its heading
    rows: list[PublishedRow] = MISSING
    heading: str = "model"  # of the first column


@dataclass
class _File:
    tables: dict[str, PublishedTable] = MISSING  # by the name in the comment before each table


def read_tables(path: Path) -> dict[str, PublishedTable]:
    """Read which tables are published, by the name in the comment before each.

    Raises:
        ConfigError: The file is missing or no YAML, or a key of it is unknown, missing or wrong.
    """
    try:
        content = OmegaConf.load(path)
        if not isinstance(content, DictConfig):
            raise ConfigError(f"tables={path}: expected a mapping with the key tables")
        return typed(content, _File).tables
    except (OSError, YAMLError) as error:
        raise ConfigError(f"tables={path}: no readable YAML file ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@cache
def read(path: Path) -> tuple[Predictions, pd.DataFrame]:
    """A shipped table, sorted by image: the predictions of N images, and (N, ...) strings of the columns of `ABOUT`.

    Raises:
        DataError: The file is missing or cannot be right.
    """
    frame = read_columns(path, Predictions.taxonomy)[0].sort_values("image_id", kind="stable")
    about = frame[[name for name in ABOUT if name in frame]].reset_index(drop=True)
    return Predictions.from_frame(frame, source=str(path)), about


def recompute(
    table: PublishedTable, folder: Path, config: BootstrapConfig, *, known: dict[tuple[object, ...], Estimates]
) -> list[list[str]]:
    """The cells of a published table, its headings first.

    Args:
        table: Its rows and metrics.
        folder: Folder of the predictions tables.
        config: Settings of the intervals.
        known: Rows that have been measured, for other tables too; new ones are added.

    Raises:
        ConfigError: A row names a metric, a column or a value that there is not.
        DataError: A predictions table cannot be read, or two are of different images.
    """
    rows = [[table.heading, *table.metrics.values()]]
    for row in table.rows:
        key = (folder, row.predictions, *row.mean_of, row.minus, *sorted(row.only.items()), str(row.threshold), config)
        if not row.cells and key not in known:
            known[key] = _measured(row, folder, config)
        found = known.get(key, {})
        if unknown := [name for name in table.metrics if not row.cells and name not in found]:
            raise ConfigError(f"{row.label}: unknown metric {', '.join(unknown)}; expected some of {', '.join(found)}")
        own = row.cells or [_cell(name, found[name], sign=row.minus is not None) for name in table.metrics]
        rows.append([row.label, *own])
    return rows


def _measured(row: PublishedRow, folder: Path, config: BootstrapConfig) -> Estimates:
    if row.mean_of:
        tables = [_rows(row, name, folder)[0] for name in row.mean_of]
        statistics = [metrics_statistic(each, bins=BINS).resampled(np.ones((1, each.lesions))) for each in tables]
        means = {name: Estimate(float(np.mean([each[name] for each in statistics]))) for name in statistics[0]}
        return {**means, "images": Estimate(round(np.mean([len(each) for each in tables])))}
    own, about = _rows(row, row.predictions, folder)
    found = {"images": Estimate(len(own)), "lesions": Estimate(own.lesions), **_estimates(own, row, folder, config)}
    if row.threshold is not None:
        flags = _flags(own, about, row.threshold, folder)
        found |= flag_metrics(own, flags, row.threshold.target, config).metrics
    return found


def _estimates(own: Predictions, row: PublishedRow, folder: Path, config: BootstrapConfig) -> Estimates:
    """All metrics of some predictions; less those of others for the same images where the row names such."""
    if row.minus is None:
        return bootstrap(metrics_statistic(own, bins=BINS), config, lesions=own.groups)
    second, _ = _rows(row, row.minus, folder)
    if list(second.image_id) != list(own.image_id):
        raise DataError(f"{row.label}: {row.predictions} and {row.minus} are of different images; give the same ones")
    return metric_differences(own, second, config, bins=BINS)


def _rows(row: PublishedRow, name: str | None, folder: Path) -> tuple[Predictions, pd.DataFrame]:
    """The part of a table, as from `read`, that a row is about."""
    predictions, about = read(folder / f"{name}.csv.gz")
    kept = np.ones(len(predictions), dtype=bool)
    for column, wanted in row.only.items():
        if column not in about:
            raise ConfigError(f"{row.label}: only.{column}: no such column in {name}; expected one of {list(about)}")
        values, excluded = about[column], wanted.startswith("not ")
        value = wanted.removeprefix("not ")
        if value not in set(values):
            raise ConfigError(f"{row.label}: only.{column}: {name} has no {value}; it has {sorted(set(values))}")
        kept &= ((values != value) if excluded else (values == value)).to_numpy()
    return predictions.select(kept), about[kept]


def _flags(
    predictions: Predictions, about: pd.DataFrame, rule: PublishedThreshold, folder: Path
) -> npt.NDArray[np.bool_]:
    """Whether each image is flagged at the threshold that its fold's own validation part chooses: (N,)."""
    path = folder / f"{rule.validation}.csv.gz"
    validation, _ = read_columns(path, predictions.taxonomy)
    for name, columns in ((str(path), validation), ("the row's predictions", about)):
        if "fold" not in columns:
            raise DataError(f"{name}: no column fold; a threshold is chosen on the validation part of the same fold")
    score = predictions.target_score(rule.target)
    flags = np.zeros(len(predictions), dtype=bool)
    for fold in sorted(set(about["fold"])):
        part = Predictions.from_frame(validation[validation["fold"] == fold], source=f"{path}, fold {fold}")
        is_target = part.taxonomy.mask(rule.target)[part.targets]
        threshold = highest_threshold(part.target_score(rule.target)[is_target], wanted=rule.sensitivity)
        rows = (about["fold"] == fold).to_numpy()
        flags[rows] = score[rows] >= threshold
    return flags


def _cell(name: str, number: Estimate, *, sign: bool) -> str:
    """A number with its interval as it is printed in a table."""
    if name in ("images", "lesions"):
        return f"{number.value:,}"
    scale, digits = (100, 1) if name in _PERCENT else (1, 3)
    return number.text(f"{'+' if sign else ''}.{digits}f", scale=scale)
