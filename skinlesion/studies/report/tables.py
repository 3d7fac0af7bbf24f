"""Tables of a report, made from its results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from skinlesion.inference.posthoc import Decisions
from skinlesion.metrics.decision import SetMetrics
from skinlesion.metrics.estimate import Estimate, Estimates
from skinlesion.metrics.selective import KeptShare
from skinlesion.metrics.summary import ALL, Subgroups
from skinlesion.studies.report.formats import Cell, Rows, Table, change, decimal, ranged
from skinlesion.studies.report.results import ENSEMBLE, RejectionResult, Results
from skinlesion.taxonomy import Taxonomy

HEADLINE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "macro_auroc": "macro AUROC",
    "macro_ap": "macro average precision",
}
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
_TARGET_CALIBRATION = {"slope": "slope (1)", "intercept": "intercept (0)", "oe": "observed to expected, O:E (1)"}
SHOWN = 0.8  # share of validation images kept at the reject option that is shown by diagnosis
_SETS = ("coverage", "size", "single")


def option_of(rejection: RejectionResult) -> KeptShare:
    """The reject option by confidence that is shown by diagnosis."""
    return next(each for each in rejection.kept["confidence"] if each.wanted == SHOWN)


def make_tables(results: Results) -> dict[str, Table]:
    """All tables that the results allow, by name."""
    found = [
        _headline(results),
        _sources(results),
        _diagnoses(results),
        *_members(results),
        *_calibration(results),
        *_operating_points(results),
        *_rejection(results),
        *_prediction_sets(results.decisions),
        *_subgroups(results.subgroups, results.taxonomy),
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
    vote, notes = results.performance.vote, []
    columns = {"test, per image": vote["test"].metrics}
    columns |= {f"test, {name}": each.metrics[ENSEMBLE] for name, each in results.strata.items() if name != ALL}
    if len(columns) == 1:
        notes.append("Not computable within source or on histology alone: no metadata table tells them apart.")
    if vote["test"].per_lesion is None:
        notes.append("Each test lesion has one image: results per lesion equal those per image.")
    else:
        columns["test, per lesion"] = vote["test"].per_lesion
    columns["validation, per image"] = vote["val"].metrics
    rows: Rows = [
        [title, *_column(columns, name)] for name, title in {**HEADLINE, **_ranking(results.taxonomy)}.items()
    ]
    return Table("headline", "Main results", ("metric", *columns), rows, notes)


def _column(columns: Mapping[str, Mapping[str, Estimate]], name: str) -> list[Cell]:
    return [metrics[name] for metrics in columns.values()]


def _sources(results: Results) -> Table:
    strata = results.strata
    shown = {name: HEADLINE[name] for name in ("accuracy", "macro_f1")} | _ranking(results.taxonomy)
    rows: Rows = [
        [f"{name} ({each.images})", model, *_cells(metrics, shown)]
        for name, each in strata.items()
        for model, metrics in each.metrics.items()
    ]
    note = (
        "Alone: a logistic regression that knows the camera and clinic (dataset), or age, sex and localization, but no "
        "image, fitted to all other lesions of the metadata table."
        if len(rows) > len(strata)
        else "No baselines without the image: no metadata table of other lesions with lesion_id, dx and dataset."
    )
    title = "The ensemble within source and on histology alone, beside baselines without the image (test part)"
    return Table("sources", title, ("images (number)", "model", *shown.values()), rows, [note])


def _diagnoses(results: Results) -> Table:
    names = {"sensitivity": "recall", "precision": "precision", "F1": "f1", "AUROC": "auroc", "average precision": "ap"}
    columns = {title: (results.test, name) for title, name in names.items()}
    return _by_diagnosis(results, columns, name="diagnoses", title="Results by diagnosis, test part")


def _by_diagnosis(
    results: Results, columns: Mapping[str, tuple[Mapping[str, Estimate], str]], *, name: str, title: str
) -> Table:
    """Table of a metric in each column, of which `columns` has the numbers and the name without the code."""
    counts = results.counts["test"].by_diagnosis
    rows: Rows = [
        [
            f"{each.name} ({each.code})",
            counts[each.code],
            *(own[f"{metric}_{each.code}"] for own, metric in columns.values()),
        ]
        for each in results.taxonomy.diagnoses
    ]
    return Table(name, title, ("diagnosis", "images", *columns), rows)


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
    title = f"Ensemble minus {performance.best_member}, the best member on validation"
    yield _differences("gain", title, performance.gains["test"], {})
    if performance.correction:
        code = results.corrected
        named = {f"auroc_{code}": f"AUROC of {code}", f"recall_{code}": f"sensitivity to {code}"}
        yield _differences("correction", "Corrected minus plain vote", performance.correction["test"], named)


def _differences(name: str, title: str, found: Estimates, more: Mapping[str, str]) -> Table:
    """Table of paired differences on the test part."""
    return Table(
        name,
        f"{title} (paired, test part)",
        ("metric", "difference"),
        [[label, change(found[metric])] for metric, label in {**HEADLINE, **more, **SCORES}.items()],
        [
            "Intervals and p values come from one paired permutation test over lesions (of accuracy: McNemar's exact "
            "test): zero is outside where p is below 1 - level. For log-likelihood, Brier score and ECE, lower is "
            "better."
        ],
    )


def _calibration(results: Results) -> Iterator[Table]:
    columns = {
        f"{title}, {kind}": parts[part].metrics
        for part, title in (("val", "validation"), ("test", "test"))
        for kind, parts in (("before", results.performance.vote), ("after", results.performance.calibrated))
    }
    rows: Rows = []
    for name, title in SCORES.items():
        rows.append([title, *_column(columns, name)])
        if f"{name}_floor" in results.test:
            rows.append([f"{title}: noise floor", *_column(columns, f"{name}_floor")])
    title = "Calibration scores before and after calibration (lower is better)"
    note = "Noise floor: the error that perfectly calibrated probabilities would show on as many images, and its range."
    yield Table("calibration", title, ("score", *columns), rows, [note])
    rows = [
        [target, title, *_column(columns, f"{name}_{code}")]
        for code, target in _target_names(results.taxonomy).items()
        for name, title in _TARGET_CALIBRATION.items()
    ]
    if rows:
        names = " and of ".join(
            target if code in results.taxonomy.codes else f"any {target} diagnosis"
            for code, target in _target_names(results.taxonomy).items()
        )
        title = f"Calibration of the probabilities of {names}"
        yield Table("calibration_targets", title, ("probability of", "measure (ideal)", *columns), rows)
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
    tables = []
    for each in results.strata.values():
        points = [
            (point, share, found.metrics if found else {}) for point, share, found in each.decisions.operating_points
        ]
        title = "Operating points chosen on validation, test part"
        tables.append(points_table(points, name="operating_points", title=title))
    rows: Rows = [
        [*row[:2], name, *row[2:]]
        for same in zip(*(table.rows for table in tables), strict=True)
        for name, row in zip(results.strata, same, strict=True)
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
    columns = {
        "share kept": (kept, "kept"),
        "sensitivity, all images": (results.test, "recall"),
        "sensitivity, kept images": (kept, "recall"),
    }
    title = f"What is kept at the threshold of confidence that keeps {SHOWN:.0%} of the validation images, test part"
    yield _by_diagnosis(results, columns, name="rejection_diagnoses", title=title)


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
        notes.append(f"In every set, because validation has no or too few images: {', '.join(fitted['always'])}.")
    if pooled := fitted.get("pooled"):
        rare = f"{', '.join(pooled)} share a threshold: validation has too few images for one each."
        notes.append(f"{rare} The nominal coverage holds for them together.")
    yield Table("prediction_sets", "Prediction sets, test part", ("sets", *headings), rows, notes)
    grouped: Rows = [
        [fact, name, *_set_cells(each)] for fact, groups in first.by_group.items() for name, each in groups.items()
    ]
    if grouped:
        title = "Prediction sets by group, test part"
        yield Table("prediction_sets_groups", title, ("fact", "group", *headings), grouped)


def recall_title(taxonomy: Taxonomy) -> dict[str, str]:
    """The heading of the main target's sensitivity by its name among the metrics; {}: there is no such target."""
    return {f"recall_{code}": f"sensitivity for {taxonomy.diagnosis(code).name}"
            for code in [taxonomy.main_target] if code is not None}  # fmt: skip


def _target_names(taxonomy: Taxonomy) -> dict[str, str]:
    """The targets in words, by code or category."""
    return {each: taxonomy.diagnosis(each).name if each in taxonomy.codes else each for each in taxonomy.targets}


def _ranking(taxonomy: Taxonomy) -> dict[str, str]:
    return {f"auroc_{code}": f"AUROC of {name}" for code, name in _target_names(taxonomy).items()}


def _subgroups(found: Subgroups | None, taxonomy: Taxonomy) -> Iterator[Table]:
    if found is None:
        return
    metrics = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro-F1",
        **recall_title(taxonomy),
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
