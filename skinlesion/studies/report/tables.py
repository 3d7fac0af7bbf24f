"""Tables of a report, formatted with intervals for the page and as plain numbers for CSV."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from skinlesion.inference.posthoc import Decisions
from skinlesion.metrics.decision import SetMetrics
from skinlesion.metrics.estimate import MARK, MARK_NOTE, NONE, NOT_COMPUTABLE, Estimate
from skinlesion.metrics.selective import KeptShare
from skinlesion.metrics.summary import ALL, Subgroups
from skinlesion.studies.report.results import ENSEMBLE, RejectionResult, Results, Stratum
from skinlesion.taxonomy import DIAGNOSES, MALIGNANT, MELANOMA

_INTERVAL = re.compile(r" ?\[[^\[\]]*\]")


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return NOT_COMPUTABLE if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage, with one decimal unless it is whole."""
    return NOT_COMPUTABLE if value is None else f"{100 * value:.1f}".removesuffix(".0") + "\u00a0%"


def ranged(number: Estimate | None) -> str:
    """A number with its interval, with three decimals."""
    return NOT_COMPUTABLE if number is None else number.text()


def ranged_percent(number: Estimate | None) -> str:
    """A share with its interval, as percentages with one decimal."""
    return NOT_COMPUTABLE if number is None else number.text(".1f", scale=100, unit="\u00a0%")


def change(number: Estimate) -> str:
    """A difference with sign, interval and p value."""
    p = "" if number.p is None else f", p = {number.p:.3f}"
    return number.text("+.3f") + ("" if number.low is None else p)


def unbroken(text: str) -> str:
    """The same text without line breaks in numbers with intervals."""
    return _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def listed(items: Sequence[str]) -> str:
    """Items in a sentence: a, b and c."""
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


Cell = str | float | Estimate | None
Rows = list[list[Cell]]

HEADLINE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "macro_auroc": "macro AUROC",
    "macro_ap": "macro average precision",
}
RANKING = {f"auroc_{MELANOMA}": "AUROC of melanoma", f"auroc_{MALIGNANT}": "AUROC of malignant"}
SCORES = {
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "ECE, bins of equal width",
    "ece_mass": "ECE, bins of equal mass",
    "classwise_ece": "classwise ECE, mean",
}
_RATES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ppv_at_prevalence": "PPV at prevalence",
    "npv_at_prevalence": "NPV at prevalence",
}
SHOWN = 0.8  # share of validation images kept at the reject option that is shown by diagnosis
_SETS = ("coverage", "size", "single")


@dataclass(frozen=True)
class Table:
    """A named table."""

    name: str  # name of the CSV file
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def shown(self) -> list[list[str]]:
        """Formatted cells."""
        return [[_format(cell) for cell in row] for row in self.rows]

    def footnotes(self) -> list[str]:
        """The notes, and one on marked intervals where there are any."""
        marked = any(MARK in cell or NONE in cell for row in self.shown() for cell in row)
        return [*self.notes, *([MARK_NOTE] if marked else [])]

    def csv(self) -> str:
        """Plain numbers; a column with intervals becomes three: value, low and high."""
        wide = [any(isinstance(row[k], Estimate) for row in self.rows) for k in range(len(self.headings))]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        ends = ("", " low", " high")
        columns = list(zip(self.headings, wide, strict=True))
        writer.writerow([heading + end for heading, is_wide in columns for end in (ends if is_wide else ends[:1])])
        for row in self.rows:
            writer.writerow([value for cell, is_wide in zip(row, wide, strict=True) for value in _plain(cell, is_wide)])
        return buffer.getvalue()


def option_of(rejection: RejectionResult) -> KeptShare:
    """The reject option by confidence that is shown by diagnosis."""
    return next(each for each in rejection.kept["confidence"] if each.wanted == SHOWN)


def make_tables(results: Results) -> dict[str, Table]:
    """All tables that the results allow, by name."""
    found = [
        _headline(results),
        _sources(results.strata),
        _diagnoses(results),
        *_members(results),
        *_calibration(results),
        *_operating_points(results),
        *_rejection(results),
        *_prediction_sets(results.decisions),
        *_subgroups(results.subgroups),
    ]
    return {each.name: each for each in found}


def points_table(
    points: Sequence[tuple[Mapping[str, Any], float | None, Mapping[str, Estimate]]], *, name: str, title: str
) -> Table:
    """Table of operating points: each with the prevalence of its target, or None, and its metrics.

    Neighbours of the same threshold share a row.
    """
    prevalences = {point["target"]: prevalence for point, prevalence, _ in points if prevalence}
    rates = dict(_RATES if prevalences else list(_RATES.items())[:4])
    rows: Rows = []
    for (target, threshold), same in groupby(points, lambda each: (each[0]["target"], each[0]["threshold"])):
        wanted, metrics = zip(*((point["sensitivity"], metrics) for point, _, metrics in same), strict=True)
        span = wanted[0] if len(wanted) == 1 else f"{decimal(wanted[0])} to {decimal(wanted[-1])}"
        rows.append([target, span, threshold, *_cells(metrics[0], rates)])
    notes = [f"Prevalence of {target}: {share:g}." for target, share in prevalences.items()]
    notes.append("PPV and NPV apply to the share of the target among these images, unless a prevalence is given.")
    return Table(name, title, ("target", "desired sensitivity", "threshold", *rates.values()), rows, notes)


def _headline(results: Results) -> Table:
    vote, others = results.performance.vote, [name for name in results.strata if name != ALL]
    columns = {"test, per image": vote["test"].metrics}
    columns |= {f"test, {name}": results.strata[name].metrics[ENSEMBLE] for name in others}
    notes = (
        [] if others else ["Not computable within source or on histology alone: no metadata table tells them apart."]
    )
    if vote["test"].per_lesion is None:
        notes.append("Each test lesion has one image: results per lesion equal those per image.")
    else:
        columns["test, per lesion"] = vote["test"].per_lesion
    columns["validation, per image"] = vote["val"].metrics
    rows: Rows = [[title, *_column(columns, name)] for name, title in {**HEADLINE, **RANKING}.items()]
    return Table("headline", "Main results", ("metric", *columns), rows, notes)


def _column(columns: Mapping[str, Mapping[str, Estimate]], name: str) -> list[Cell]:
    return [metrics[name] for metrics in columns.values()]


def _sources(strata: Mapping[str, Stratum]) -> Table:
    shown = {**{name: HEADLINE[name] for name in ("accuracy", "macro_f1")}, **RANKING}
    rows: Rows = [
        [f"{name} ({each.images})", model, *_cells(metrics, shown)]
        for name, each in strata.items()
        for model, metrics in each.metrics.items()
    ]
    notes = [
        "Alone: a logistic regression that knows the camera and clinic (dataset), or age, sex and localization, but no "
        "image, fitted to all other lesions of the metadata table."
    ]
    if len(next(iter(strata.values())).metrics) == 1:
        notes = ["No baselines without the image: no metadata table of other lesions with lesion_id, dx and dataset."]
    title = "The ensemble within source and on histology alone, beside baselines without the image (test part)"
    return Table("sources", title, ("images (number)", "model", *shown.values()), rows, notes)


def _diagnoses(results: Results) -> Table:
    counts, metrics = results.counts["test"].by_diagnosis, ("recall", "precision", "f1", "auroc", "ap")
    rows: Rows = [
        [f"{each.name} ({each.code})", counts[each.code], *(results.test[f"{name}_{each.code}"] for name in metrics)]
        for each in DIAGNOSES
    ]
    headings = ("diagnosis", "images", "sensitivity", "precision", "F1", "AUROC", "average precision")
    return Table("diagnoses", "Results by diagnosis, test part", headings, rows)


def _members(results: Results) -> Iterator[Table]:
    performance = results.performance
    if not performance.members:
        return
    models = {
        (name, "yes" if name in performance.chosen else "no"): parts["test"].metrics
        for name, parts in performance.members.items()
    }
    models |= {("mean of all members", ""): performance.all_members["test"].metrics, ("ensemble", ""): results.test}
    shown = list(HEADLINE)[:4]
    rows: Rows = [[*model, *_cells(metrics, shown)] for model, metrics in models.items()]
    headings = ("model", "in the ensemble", *(HEADLINE[name] for name in shown))
    yield Table("members", "Members, test part", headings, rows)
    gains = performance.gains["test"]
    yield Table(
        "gain",
        f"Ensemble minus {performance.best_member}, the best member on validation (paired, test part)",
        ("metric", "difference"),
        [[title, change(gains[name])] for name, title in {**HEADLINE, **SCORES}.items()],
        [
            "Intervals are of differences on the same resamples of lesions. For log-likelihood, Brier score and ECE, "
            "lower is better."
        ],
    )


def _calibration(results: Results) -> Iterator[Table]:
    columns = {
        f"{title}, {kind}": parts[part].metrics
        for part, title in (("val", "validation"), ("test", "test"))
        for kind, parts in (("before", results.performance.vote), ("after", results.performance.calibrated))
    }
    rows: Rows = [[title, *_column(columns, name)] for name, title in SCORES.items()]
    title = "Calibration scores before and after calibration (lower is better)"
    yield Table("calibration", title, ("score", *columns), rows)
    folds = (results.calibration.fitted or {}).get("folds")
    if folds:
        yield Table(
            "calibration_folds",
            "Scaling methods, cross-validated over the validation lesions",
            ("scaling", *(SCORES[name] for name in ("nll", "brier", "ece"))),
            [[name, *_cells(each, ("nll", "brier", "ece"))] for name, each in folds.items() if each],
        )


def _operating_points(results: Results) -> Iterator[Table]:
    """The operating points on all test images, and below each point on those within source and of histology."""
    if not results.decisions.operating_points:
        return
    found = {name: each.decisions.operating_points for name, each in results.strata.items()}
    title = "Operating points chosen on validation, test part"
    tables = [
        points_table(
            [(point, share, metrics.metrics if metrics else {}) for point, share, metrics in points],
            name="operating_points",
            title=title,
        )
        for points in found.values()
    ]
    rows: Rows = [
        [*row[:2], name, *row[2:]]
        for same in zip(*(table.rows for table in tables), strict=True)
        for name, row in zip(found, same, strict=True)
    ]
    target, wanted, *others = tables[0].headings
    yield replace(tables[0], headings=(target, wanted, "images of", *others), rows=rows)


def _rejection(results: Results) -> Iterator[Table]:
    found = results.rejection
    rows: Rows = [
        [name, f"{each.wanted:.0%}", each.threshold, each.metrics["coverage"], each.metrics["risk"]]
        for name, kept in found.kept.items()
        for each in kept
    ]
    areas = ", ".join(f"{name} {ranged(found.areas[name])}" for name in found.kept)
    best, chance = (ranged(found.areas[name]) for name in ("best", "chance"))
    notes = [
        f"Error rate if all images are kept: {chance}. The intervals take the threshold as given.",
        f"Area under the risk-coverage curve: {areas}; with all errors last {best}; in random order {chance}.",
    ]
    headings = ("confidence score", "kept on validation", "threshold", "kept on test", "error rate of the kept")
    yield Table("rejection", "Reject option with thresholds of validation, test part", headings, rows, notes)
    kept = option_of(found).metrics
    counts, test = results.counts["test"].by_diagnosis, results.test
    rows = [
        [f"{each.name} ({each.code})", counts[each.code], kept[f"kept_{each.code}"], test[f"recall_{each.code}"],
         kept[f"recall_{each.code}"]]
        for each in DIAGNOSES
    ]  # fmt: skip
    title = f"What is kept at the threshold of confidence that keeps {SHOWN:.0%} of the validation images, test part"
    headings = ("diagnosis", "images", "share kept", "sensitivity, all images", "sensitivity, kept images")
    yield Table("rejection_diagnoses", title, headings, rows)


def _prediction_sets(decisions: Decisions) -> Iterator[Table]:
    if not decisions.conformal:
        return
    headings = ("images", "coverage", "mean size", "single diagnosis")
    rows: Rows = [
        [f"all, nominal {1 - fitted['alpha']:.0%}", *_set_cells(found.overall)] for fitted, found in decisions.conformal
    ]
    fitted, first = decisions.conformal[0]
    rows += [[code, *_set_cells(each)] for code, each in first.by_diagnosis.items()]
    notes = [f"Rows of diagnoses: sets with a nominal coverage of {1 - fitted['alpha']:.0%}."]
    if fitted["always"]:
        notes.append(f"In every set, because validation has too few images: {', '.join(fitted['always'])}.")
    yield Table("prediction_sets", "Prediction sets, test part", ("sets", *headings), rows, notes)
    grouped: Rows = [
        [fact, name, *_set_cells(each)] for fact, groups in first.by_group.items() for name, each in groups.items()
    ]
    if grouped:
        title = "Prediction sets by group, test part"
        yield Table("prediction_sets_groups", title, ("fact", "group", *headings), grouped)


def _subgroups(found: Subgroups | None) -> Iterator[Table]:
    if found is None:
        return
    metrics = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro-F1",
        "recall_mel": "sensitivity for melanoma",
        "ece": "ECE",
    }
    rows: Rows = [
        [fact, name, each.images, each.lesions, *_cells(each.metrics, metrics), "few lesions" if each.note else ""]
        for fact, groups in found.items()
        for name, each in groups.items()
    ]
    headings = ("fact", "group", "images", "lesions", *metrics.values(), "note")
    yield Table("subgroups", "Groups of patients and images, test part", headings, rows)


def _cells(metrics: Mapping[str, Any], names: Sequence[str] | Mapping[str, str]) -> list[Cell]:
    return [metrics.get(name) for name in names]


def _set_cells(found: SetMetrics) -> list[Cell]:
    return [found.images, *_cells(found.metrics, _SETS)]


def _format(cell: Cell) -> str:
    if cell is None:
        return NOT_COMPUTABLE
    if isinstance(cell, Estimate):
        return ranged(cell)
    return decimal(cell) if isinstance(cell, float) else str(cell)


def _plain(cell: Cell, is_wide: bool) -> list[Any]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    return [cell, None, None] if is_wide else [cell]
