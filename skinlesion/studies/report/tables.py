"""The tables of a report: the same rows for the page, with intervals in words, and for CSV, as plain numbers."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from skinlesion.studies.report.formatting import change, decimal, ranged
from skinlesion.taxonomy import CODES, DIAGNOSES

HEADLINE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "macro_auroc": "macro AUROC",
    "macro_ap": "macro average precision",
}
SCORES = {
    "nll": "negative log-likelihood",
    "brier": "Brier",
    "ece": "ECE, equal width",
    "ece_mass": "ECE, equal mass",
    "classwise_ece": "classwise ECE, mean",
}
_PARTS = {"val": "validation", "test": "test"}
_PER_DIAGNOSIS = ("recall", "precision", "f1", "auroc", "ap")


@dataclass(frozen=True)
class Table:
    """A named table; a cell is text, a number, None, or a number with its interval (`value`, `low`, `high`)."""

    name: str  # of its CSV
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = field(default_factory=tuple)

    def shown(self) -> list[list[str]]:
        """The cells as a page writes them."""
        return [[_shown(cell) for cell in row] for row in self.rows]

    def csv(self) -> str:
        """The cells as numbers: three columns, value, low and high, where a column holds intervals."""
        ranges = [any(isinstance(row[place], dict) for row in self.rows) for place in range(len(self.headings))]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        header = [
            name
            for heading, wide in zip(self.headings, ranges, strict=True)
            for name in ([heading, f"{heading} low", f"{heading} high"] if wide else [heading])
        ]
        writer.writerow(header)
        for row in self.rows:
            writer.writerow([value for cell, wide in zip(row, ranges, strict=True) for value in _plain(cell, wide)])
        return buffer.getvalue()


def tables(evidence: dict[str, Any]) -> dict[str, Table]:
    """All tables that the evidence allows, by name."""
    found = [
        _headline(evidence),
        _diagnoses(evidence),
        *_members(evidence),
        *_calibration(evidence),
        *_points(evidence["operating_points"]),
        _kept(evidence["rejection"]),
        *_sets(evidence["conformal"]),
        *_groups(evidence),
    ]
    return {each.name: each for each in found}


def points_table(points: list[dict[str, Any]], name: str, title: str) -> Table:
    """What operating points do on some images, as from `applied.evaluate_operating_points`."""
    names = ["sensitivity", "specificity", "ppv", "npv", "flagged"]
    given = [each.get("prevalence") for each in points if each.get("prevalence")]
    names += ["ppv_at_prevalence", "npv_at_prevalence"] if given else []
    rows = [
        [each["target"], each["sensitivity"], each["threshold"], *(each["numbers"].get(name) for name in names)]
        for each in points
    ]
    titles = ["sensitivity", "specificity", "PPV", "NPV", "flagged", "PPV at prevalence", "NPV at prevalence"]
    shares = dict.fromkeys((each["target"], each["prevalence"]) for each in points if each.get("prevalence"))
    notes = [f"Prevalence of {target}: {share:g}." for target, share in shares]
    notes.append("PPV and NPV hold for the share of the target among these images, unless a prevalence is given.")
    headings = ("target", "wanted", "threshold", *titles[: len(names)])
    return Table(name, title, headings, rows, notes)


def _headline(evidence: dict[str, Any]) -> Table:
    performance = evidence["performance"]
    kinds = [
        ("test, per image", performance["test"]["numbers"]),
        ("validation, per image", performance["val"]["numbers"]),
    ]
    if performance["test"]["per_lesion"]:
        kinds.insert(1, ("test, per lesion", performance["test"]["per_lesion"]))
    rows = [[title, *(numbers[name] for _, numbers in kinds)] for name, title in HEADLINE.items()]
    alike = not performance["test"]["per_lesion"]
    notes = ["Each test lesion has one image: results per lesion are those per image."] if alike else []
    return Table("headline", "Main numbers", ("number", *(name for name, _ in kinds)), rows, notes)


def _diagnoses(evidence: dict[str, Any]) -> Table:
    numbers, counts = evidence["performance"]["test"]["numbers"], evidence["counts"]["test"]["by_diagnosis"]
    names = {each.code: f"{each.name} ({each.code})" for each in DIAGNOSES}
    rows = [[names[code], counts[code], *(numbers[f"{name}_{code}"] for name in _PER_DIAGNOSIS)] for code in CODES]
    headings = ("diagnosis", "images", "sensitivity", "precision", "F1", "AUROC", "average precision")
    return Table("diagnoses", "By diagnosis, test part", headings, rows)


def _members(evidence: dict[str, Any]) -> Iterator[Table]:
    performance = evidence["performance"]
    if "members" not in performance:
        return
    shown = list(HEADLINE)[:4]
    rows = [
        [name, "yes" if name in performance["chosen"] else "no", *(each["test"]["numbers"][key] for key in shown)]
        for name, each in performance["members"].items()
    ]
    everyone, voted = performance["all_members"]["test"]["numbers"], performance["test"]["numbers"]
    rows.append(["mean of all members", "", *(everyone[key] for key in shown)])
    rows.append(["the ensemble", "", *(voted[key] for key in shown)])
    yield Table("members", "Members, test part", ("model", "votes", *(HEADLINE[key] for key in shown)), rows)
    versus = performance["against_best_member"]
    gains = [[title, change(versus["test"][key])] for key, title in {**HEADLINE, **SCORES}.items()]
    yield Table(
        "gain",
        f"The ensemble less {versus['name']}, the best member on validation (paired, test part)",
        ("number", "difference"),
        gains,
        ["The intervals are of differences on the same resamples of lesions; of the scores below, less is better."],
    )


def _calibration(evidence: dict[str, Any]) -> Iterator[Table]:
    performance = evidence["performance"]
    parts = [(title, performance[part], performance["calibrated"][part]) for part, title in _PARTS.items()]
    rows = [
        [title, *(kind["numbers"][key] for _, before, after in parts for kind in (before, after))]
        for key, title in SCORES.items()
    ]
    headings = ["score", *(f"{title}, {kind}" for title in _PARTS.values() for kind in ("as voted", "calibrated"))]
    yield Table("calibration", "Calibration scores (less is better)", headings, rows)
    folds = (evidence["calibration"]["fitted"] or {}).get("folds")
    if folds:
        tried = [[name, *(each[key] for key in ("nll", "brier", "ece"))] for name, each in folds.items() if each]
        yield Table(
            "calibration_folds",
            "Kinds of scaling, tried on validation lesions that they were not fitted to",
            ("scaling", "negative log-likelihood", "Brier", "ECE"),
            tried,
        )


def _points(points: Any) -> Iterator[Table]:
    if isinstance(points, list):
        yield points_table(points, "operating_points", "Operating points, chosen on validation, on the test part")


def _kept(found: dict[str, Any]) -> Table:
    rows = [[name, *(row["risk"] for row in kept), found["areas"][name]] for name, kept in found["kept"].items()]
    shares = [f"{row['wanted']:.0%}" for row in next(iter(found["kept"].values()))]
    best, chance = (found["areas"][name] for name in ("best", "chance"))
    notes = ["Equally sure images are kept together, so that a little more than the share may be kept."]
    notes += [f"Area with all errors last: {ranged(best)}; in random order: {ranged(chance)}."]
    headings = ("surest by", *(f"wrong of the surest {share}" for share in shares), "area (AURC)")
    return Table("rejection", "The reject option, test part", headings, rows, notes)


def _sets(sets: Any) -> Iterator[Table]:
    if not isinstance(sets, list):
        return
    columns = ("coverage", "size", "single")
    headings = ("images", "of them", "coverage", "mean size", "one diagnosis only")
    rows = [
        [f"all, wanted {each['wanted']:.0%}", each["all"]["images"], *_cells(each["all"], columns)] for each in sets
    ]
    rows += [[code, row["images"], *_cells(row, columns)] for code, row in sets[0]["by_diagnosis"].items()]
    always = sets[0]["always"]
    notes = [f"Rows of diagnoses: sets that were wanted to hold the actual diagnosis in {sets[0]['wanted']:.0%}."]
    notes += [f"In every set, for want of validation images: {', '.join(always)}."] if always else []
    yield Table("prediction_sets", "Prediction sets, test part", headings, rows, notes)
    grouped = [
        [fact, name, row["images"], *_cells(row, columns)]
        for fact, groups in sets[0]["by_group"].items()
        for name, row in groups.items()
    ]
    if grouped:
        title = "Prediction sets by group, test part"
        yield Table("prediction_sets_groups", title, ("fact", "group", "images", *headings[2:]), grouped)


def _groups(evidence: dict[str, Any]) -> Iterator[Table]:
    found = evidence["subgroups"]
    if "note" in found:
        return
    shown = ("accuracy", "balanced_accuracy", "macro_f1", "recall_mel", "ece")
    rows = [
        [fact, name, each["images"], each["lesions"], *_cells(each["numbers"], shown), each.get("note", "")]
        for fact, groups in found.items()
        for name, each in groups.items()
    ]
    headings = ("fact", "group", "images", "lesions", "accuracy", "balanced accuracy", "macro-F1", "sensitivity mel")
    yield Table("subgroups", "Groups of patients and images, test part", (*headings, "ECE", "note"), rows)


def _cells(numbers: dict[str, Any], names: Sequence[str]) -> list[Any]:
    return [numbers.get(name) for name in names]


def _shown(cell: Any) -> str:
    if cell is None:
        return "not computable"
    if isinstance(cell, dict):
        return ranged(cell)
    return decimal(cell) if isinstance(cell, float) else str(cell)


def _plain(cell: Any, wide: bool) -> list[Any]:
    if isinstance(cell, dict):
        return [cell["value"], cell["low"], cell["high"]]
    return [cell, None, None] if wide else [cell]
