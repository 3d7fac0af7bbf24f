"""Every number that is reported of a predictions table, with its interval; and the difference of two tables."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.errors import DataError
from skinlesion.inference.predictions import build_table, predicted_targets, probabilities, targets
from skinlesion.metrics.auroc import AurocStatistic
from skinlesion.metrics.bootstrap import (
    Difference,
    JointStatistic,
    Method,
    Replicates,
    SumStatistic,
    bootstrap,
    draws,
    lesion_index,
    sign_test,
    sums_of,
)
from skinlesion.metrics.calibration import bin_edges, bin_of, brier, negative_log_likelihood
from skinlesion.metrics.classification import (
    Floats,
    accuracy,
    balanced_accuracy,
    f1,
    macro_f1,
    precision,
    ratio,
    recall,
)
from skinlesion.taxonomy import CODES

_CELLS = len(CODES) ** 2


def with_intervals(
    table: pd.DataFrame, *, resamples: int, seed: int, level: float, method: Method, bins: int
) -> dict[str, dict[str, Any]]:
    """Give every reported number of a table with its interval over lesions.

    Args:
        table: A predictions table with known actual diagnoses.
        resamples: Of the bootstrap.
        seed: Of its draws.
        level: Of the intervals, for example 0.95.
        method: "percentile" or "bca".
        bins: Of the calibration errors.

    Returns:
        By name, as `bootstrap` gives them: `accuracy`, `macro_f1`, `balanced_accuracy`, `macro_auroc`, `macro_ap`,
        `ece`, `ece_mass`, `classwise_ece` (mean), `brier`, `nll`, and `precision_CODE`, `recall_CODE`, `f1_CODE`,
        `auroc_CODE`, `ap_CODE` for each diagnosis. The bins of equal mass are those of the table in every resample.
    """
    index = lesion_index(table)
    found = bootstrap(
        statistic(table, index, bins=bins),
        lesions=int(index.max()) + 1,
        resamples=resamples,
        seed=seed,
        level=level,
        method=method,
    )
    return {name: _explained(name, each, table) for name, each in found.items()}


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
    bins: int,
) -> dict[str, dict[str, Any]]:
    """Give how much more each number is for the first table than for the second, on the same resamples of lesions.

    Args:
        first: A predictions table with known actual diagnoses.
        second: Of the same images.
        resamples: Of the bootstrap.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".
        bins: Of the calibration errors.

    Returns:
        As of `with_intervals`, and `p`, two-sided, of the difference (None where it cannot be computed).

    Raises:
        DataError: The tables hold other images, lesions or actual diagnoses.
    """
    pair = [table.sort_values("image_id", ignore_index=True) for table in (first, second)]
    _refuse_others(*pair)
    index = lesion_index(pair[0])
    lesions = int(index.max()) + 1
    difference = Difference(*(statistic(table, index, bins=bins) for table in pair))
    settings = {"lesions": lesions, "resamples": resamples, "seed": seed}
    found = bootstrap(difference, **settings, level=level, method=method)
    blocks = [difference.resampled(drawn) for drawn in draws(**settings)]
    for name, each in found.items():
        replicates = np.concatenate([block[name] for block in blocks])
        each["p"] = None if each["low"] is None else sign_test(replicates)
    return found


def statistic(table: pd.DataFrame, index: Any, *, bins: int) -> JointStatistic:
    """All reported numbers of a table as functions of how often each lesion counts.

    Args:
        table: A predictions table with known actual diagnoses.
        index: (N,) numbers of the lesions, as from `lesion_index`.
        bins: Of the calibration errors.
    """
    return JointStatistic(
        (_counted(table, index), _calibrated(table, index, bins=bins), AurocStatistic(*_ranked(table), index))
    )


def by_lesion(table: pd.DataFrame) -> pd.DataFrame:
    """Let the images of a lesion vote: a predictions table with one row a lesion, named by its first image.

    The probabilities are the mean of its images'. An image of unknown lesion stands for itself.

    Raises:
        DataError: Images of one lesion have different actual diagnoses.
    """
    ordered = table.sort_values("image_id", ignore_index=True)
    index = lesion_index(ordered)
    codes = ordered.groupby(index)["actual"]
    torn = codes.min() != codes.max()
    if torn.any():
        names = ordered.loc[np.isin(index, torn.index[torn]), "lesion_id"].unique()
        raise DataError(f"lesions of several actual diagnoses: {', '.join(names[:5])}; correct them in the table")
    firsts = ordered.groupby(index).first()
    mean = sums_of(probabilities(ordered), index) / np.bincount(index)[:, None]
    return build_table(
        firsts["image_id"].tolist(),
        firsts["lesion_id"].tolist(),
        probabilities=mean,
        actual=firsts["actual"].tolist(),
    )


def _ranked(table: pd.DataFrame) -> tuple[Any, Any]:
    return targets(table), probabilities(table)


def _counted(table: pd.DataFrame, index: Any) -> SumStatistic:
    cells = np.eye(_CELLS)[targets(table) * len(CODES) + predicted_targets(table)]

    def finish(sums: Floats) -> Replicates:
        confusion = sums.reshape(len(sums), len(CODES), len(CODES))
        found = {
            "accuracy": accuracy(confusion),
            "macro_f1": macro_f1(confusion),
            "balanced_accuracy": balanced_accuracy(confusion),
        }
        for name, of in (("precision", precision), ("recall", recall), ("f1", f1)):
            values = of(confusion)  # (R, K)
            found |= {f"{name}_{code}": values[:, k] for k, code in enumerate(CODES)}
        return found

    return SumStatistic(sums_of(cells, index), finish)


def _calibrated(table: pd.DataFrame, index: Any, *, bins: int) -> SumStatistic:
    """Calibration errors from the gap summed in each bin; Brier and log-likelihood from means."""
    values = probabilities(table).astype(np.float64)
    confidence = values.max(axis=1)
    gap = (targets(table) == predicted_targets(table)) - confidence
    columns, ends = [np.ones(len(table)), brier(table), negative_log_likelihood(table)], [3]
    for edges in ("width", "mass"):
        limits = bin_edges(confidence, bins=bins, edges=edges)
        columns += list((np.eye(len(limits) - 1)[bin_of(confidence, limits)] * gap[:, None]).T)
        ends.append(len(columns))
    limits = bin_edges(values, bins=bins, edges="width")
    for own, value in zip(np.eye(len(CODES))[targets(table)].T, values.T, strict=True):
        columns += list((np.eye(bins)[bin_of(value, limits)] * (own - value)[:, None]).T)

    def finish(sums: Floats) -> Replicates:
        images = sums[:, 0]
        errors = [np.abs(sums[:, low:high]).sum(axis=1) for low, high in pairwise(ends)]
        classwise = np.abs(sums[:, ends[-1] :]).sum(axis=1) / len(CODES)
        totals = {"ece": errors[0], "ece_mass": errors[1], "classwise_ece": classwise}
        totals |= {"brier": sums[:, 1], "nll": sums[:, 2]}
        return {name: ratio(total, images) for name, total in totals.items()}

    return SumStatistic(sums_of(np.stack(columns, axis=1), index), finish)


def _explained(name: str, each: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """Say why a number of a diagnosis cannot be computed."""
    code = name.rpartition("_")[2]
    if each["value"] is not None or code not in CODES:
        return each
    without = (table["actual"] != code).all()
    why = f"no image of {code}" if without else f"{code} is never predicted" if "precision" in name else f"only {code}"
    return {**each, "note": f"not computable: {why}"}


def _refuse_others(first: pd.DataFrame, second: pd.DataFrame) -> None:
    for column in ("image_id", "lesion_id", "actual"):
        if first[column].tolist() != second[column].tolist():
            raise DataError(
                f"the two tables differ in {column} ({len(first)} and {len(second)} images); compare tables of the "
                "same images"
            )
