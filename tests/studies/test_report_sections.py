"""Sections of a report on robustness, explanations and external data, against numbers made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.image_statistics import STATISTICS
from skinlesion.errors import DataError
from skinlesion.files import write_json
from skinlesion.metrics.estimate import MARK_NOTE, Estimate
from skinlesion.studies.external.populations import Population, compare_populations
from skinlesion.studies.report.formats import Table, ranged_percent, unbroken
from skinlesion.studies.report.robustness import robustness_section
from skinlesion.studies.report.sections import explanations_section, populations_table
from skinlesion.studies.report.tables import points_table


def number(value: float, spread: float = 0.02) -> dict[str, Any]:
    return {"value": value, "low": value - spread, "high": value + spread, "method": "bca"}


def numbers(balanced: float, before: float = 0.7) -> dict[str, Any]:
    return {
        "balanced_accuracy": number(balanced),
        "change_balanced_accuracy": number(balanced - before),
        "recall_mel": number(0.5),
        "same": number(0.9),
        "novel": number(0.05),
    }


FOUND: dict[str, Any] = {
    "part": "test",
    "images_judged": 40,
    "lesions_judged": 30,
    "undisturbed": {"numbers": numbers(0.7)},
    "without_images": {"balanced_accuracy": 1 / 7},
    "images": {
        "ruler": {"unit": "of the width", "steps": [{"step": 1, "numbers": numbers(0.69)}]},
        "hair": {
            "unit": "hairs",
            "steps": [{"step": 10, "numbers": numbers(0.6)}, {"step": 60, "numbers": numbers(0.4)}],
        },
        "lesion_removed": {
            "unit": "share",
            "steps": [{"step": 1, "numbers": numbers(0.25)}, {"step": 0.8, "numbers": numbers(0.3)}],
        },
    },
    "facts": {"nothing_known": {"steps": [{"step": 1.0, "numbers": numbers(0.65)}]}},
    "novelty": {
        "pictures": {
            "noise": {"pictures": 40, "auroc": number(1.0), "flagged": number(0.98)},
            "blue_skin": {"pictures": 40, "auroc": number(0.8), "flagged": number(0.4)},
        }
    },
}


def written(folder: Path, name: str, found: dict[str, Any]) -> Path:
    (folder / f"{name}.json").write_text(json.dumps(found))
    return folder


def test_harmful_corruptions_are_weaknesses(tmp_path: Path) -> None:
    section = robustness_section(written(tmp_path, "robustness", FOUND))
    strengths, weaknesses = " ".join(section.strengths), " ".join(section.weaknesses)
    assert "ruler" in strengths
    assert "ruler" not in weaknesses
    assert "hair (-0.300 [-0.320, -0.280])" in weaknesses  # of the worst step
    assert "80\u00a0%" in weaknesses  # of the lesion: all of the image is painted at step 1
    assert "0.300 [0.280, 0.320]" in weaknesses
    assert "0.143" in weaknesses
    assert "without any fact -0.050 [-0.070, -0.030]" in weaknesses


def test_detected_images_are_strengths(tmp_path: Path) -> None:
    section = robustness_section(written(tmp_path, "robustness", FOUND))
    (detected,) = [sentence for sentence in section.strengths if "noise" in sentence]
    assert "98\u00a0%" in detected
    assert "5.0\u00a0% [3.0, 7.0]" in detected  # dermoscopic images
    assert "blue skin" not in detected
    assert any("blue skin (40.0\u00a0% [38.0, 42.0])" in sentence for sentence in section.weaknesses)


def test_the_tables_have_a_row_for_each_step(tmp_path: Path) -> None:
    table, detection = robustness_section(written(tmp_path, "robustness", FOUND)).tables
    assert [row[1] for row in table.rows] == ["", "1", "10", "60", "1", "0.8", ""]
    assert "of the width" in str(table.rows[1][0])
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert detection.shown()[1] == ["blue skin", "40", "0.800 [0.780, 0.820]", "0.400 [0.380, 0.420]"]


def test_invalid_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"robustness\.json: not readable"):
        robustness_section(tmp_path)
    incomplete = {key: value for key, value in FOUND.items() if key not in ("images", "facts")}
    with pytest.raises(DataError, match=r"robustness\.json: no images, facts"):
        robustness_section(written(tmp_path, "robustness", incomplete))


@pytest.mark.parametrize(
    ("kind", "area", "is_strength"),
    [("deletion", -0.1, True), ("deletion", 0.01, False), ("deletion", 0.1, False),
     ("insertion", 0.1, True), ("insertion", 0.01, False), ("insertion", -0.1, False)],
)  # fmt: skip
def test_maps_better_than_random_order_are_strengths(kind: str, area: float, is_strength: bool, tmp_path: Path) -> None:
    found = {
        "part": "val",
        "images_judged": 9,
        "lesions_judged": 8,
        "randomisation": {"members": {"a": [{"part": "stem", "correlation": number(0.03)}]}},
        kind: {"area_less_random": number(area)},
    }
    section = explanations_section(written(tmp_path, "explanations", found), samples=False)
    assert section is not None
    passed, *strengths = section.strengths
    assert "sanity check of the saliency maps passes" in passed
    (sentence,) = [*strengths, *section.weaknesses]
    assert f"{area:+.3f} [{area - 0.02:+.3f}, {area + 0.02:+.3f}]" in sentence
    assert (sentence in strengths) == is_strength
    assert section.tables[0].shown()[0][1:] == ["0.030 [0.010, 0.050]", "passes"]
    outcome = "passes" if is_strength else "undecided" if abs(area) < 0.02 else "fails"
    assert section.tables[0].shown()[1][2] == outcome
    assert section.tables[0].notes[1], "no masks were given"


@pytest.mark.parametrize(
    ("correlation", "outcome"),
    [(0.835, "FAILS"), (-0.835, "FAILS"), (0.31, "is undecided"), (0.2, "passes")],
)
def test_maps_that_survive_random_weights_are_a_weakness(correlation: float, outcome: str, tmp_path: Path) -> None:
    steps = {"a": (0.0,), "b": (0.9, correlation)}
    members = {name: [{"part": "x", "correlation": number(each)} for each in own] for name, own in steps.items()}
    found = {"part": "val", "images_judged": 9, "lesions_judged": 8, "randomisation": {"members": members}}
    section = explanations_section(written(tmp_path, "explanations", found), samples=False)
    assert section is not None
    (sentence,) = [*section.weaknesses, *section.strengths]
    assert f"sanity check of the saliency maps {outcome}" in sentence
    assert f"b {correlation:.3f} [" in sentence
    assert ("a 0.000" in sentence) == (outcome == "passes"), "the members with the worst verdict are named"
    assert (sentence in section.strengths) == (outcome == "passes")


def test_populations_side_by_side(tmp_path: Path) -> None:
    facts = {"lesion_id": list("abcd"), "age": [10.0, 20.0, 30.0, np.nan], "sex": "male", "localization": "back"}
    training = Population("training", {"nv": 1, "mel": 1}, None, None)
    statistics = np.full((4, len(STATISTICS)), 0.25, np.float32)
    others = Population("these images", {"nv": 3, "akiec": 1}, pd.DataFrame(facts), statistics)
    write_json(tmp_path / "populations.json", compare_populations(training, others))
    about = {
        "of_own_test_part": 2,
        "seen": {"choice": "drop", "by_id": 3, "by_hash": None, "note": "not compared by hash: no images"},
        "classes": {"nv": {"images": 3, "counts_as": "nv"}, "scc": {"images": 1, "counts_as": "akiec"}},
    }
    table = populations_table(tmp_path, about)
    assert table is not None
    assert list(table.headings[1:3]) == ["training", "these images"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["share of melanocytic nevus"] == [0.5, 0.75, ""]
    assert rows["all diagnoses"] == ["", "", 0.5]
    assert rows["median age"] == [None, 20.0, None]
    assert rows["median brightness"] == [None, 0.25, None]
    own, known, hashes, other = table.notes
    assert own.startswith("2 ")
    assert known.startswith("3 ")
    assert "not compared by hash" in hashes
    assert "scc" in other


def test_populations_are_optional(tmp_path: Path) -> None:
    assert populations_table(tmp_path, {}) is None
    (tmp_path / "populations.json").write_text("{}")
    with pytest.raises(DataError, match=r"populations\.json: no populations, apart"):
        populations_table(tmp_path, {})


def test_exact_intervals_are_marked_and_explained_below_the_table() -> None:
    exact = Estimate(1.0, 0.398, 1.0, method="clopper_pearson")
    assert ranged_percent(exact) == "100.0\u00a0% [39.8, 100.0]†"
    table = Table("t", "T", ("a", "b", "c"), [["x", exact, Estimate(0.5)]], ["first"])
    assert table.shown() == [["x", "1.000 [0.398, 1.000]†", "0.500 [–]"]]
    assert table.footnotes() == ["first", MARK_NOTE]
    assert Table("t", "T", ("a",), [["x"]]).footnotes() == []
    assert " " not in unbroken("0.500 [–]") + unbroken("1.000 [0.398, 1.000]†"), "no line ends within a number"


def test_operating_points_of_one_threshold_share_a_row() -> None:
    points = [({"target": "mel", "sensitivity": wanted, "threshold": threshold}, None, {})
              for wanted, threshold in ((0.8, 0.3), (0.85, 0.3), (0.9, 0.1))]  # fmt: skip
    rows = points_table(points, name="points", title="Points").shown()
    assert [row[1:3] for row in rows] == [["0.800 to 0.850", "0.300"], ["0.900", "0.100"]]


def test_groups_that_are_flagged_often_are_a_weakness(tmp_path: Path) -> None:
    number = {"value": 0.05, "low": 0.03, "high": 0.08}
    measured = dict.fromkeys(("balanced_accuracy", "change_balanced_accuracy", "recall_mel", "same", "novel"), number)
    often = {"value": 0.4, "low": 0.2, "high": 0.6}
    found = {
        "part": "val",
        "images_judged": 7,
        "lesions_judged": 6,
        "undisturbed": {"numbers": measured},
        "without_images": {"balanced_accuracy": 0.1},
        "images": {},
        "facts": {},
        "novelty": {
            "pictures": {"noise": {"pictures": 4, "auroc": often, "flagged": often}},
            "flag_rates": {"dataset": {"here": number, "there": often}},
        },
    }
    write_json(tmp_path / "robustness.json", found)
    section = robustness_section(tmp_path)
    (rates,) = (table for table in section.tables if table.name == "flag_rates")
    assert [row[:2] for row in rates.rows] == [["dataset", "here"], ["dataset", "there"]]
    (alarm,) = (text for text in section.weaknesses if text.startswith("Flagged as unlike"))
    assert "image source there" in alarm
    assert "here (" not in alarm.replace("there (", "")
