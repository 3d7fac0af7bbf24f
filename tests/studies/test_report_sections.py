"""What a report says of robustness and of maps, against numbers made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from skinlesion.errors import DataError
from skinlesion.studies.report.explanations import explanations
from skinlesion.studies.report.robustness import robustness


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


def test_disturbances_that_cost_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    extra = robustness(written(tmp_path, "robustness", FOUND), given=True)
    assert extra is not None
    can, fails = " ".join(extra.can), " ".join(extra.fails)
    assert "at any step tried, under a ruler." in can
    assert "hair (-0.300 [-0.320, -0.280])" in fails
    assert "With 80\u00a0% of the image painted over from its middle, balanced accuracy is 0.300" in fails
    assert "always the commonest diagnosis: 0.143" in fails
    assert "without any fact -0.050 [-0.070, -0.030]" in fails
    assert "98\u00a0% each of noise, and 5.0\u00a0% [3.0, 7.0] of the dermoscopic" in can
    assert "blue skin (40.0\u00a0% [38.0, 42.0])" in fails


def test_every_step_stands_in_the_table(tmp_path: Path) -> None:
    extra = robustness(written(tmp_path, "robustness", FOUND), given=True)
    assert extra is not None
    table, novelty = extra.tables
    assert [row[1] for row in table.rows] == ["", "1 of the width", "10 hairs", "60 hairs", "1 share", "0.8 share", ""]
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert novelty.shown()[1] == ["blue skin", "40", "0.800 [0.780, 0.820]", "0.400 [0.380, 0.420]"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert robustness(tmp_path / "none", given=False) is None
    with pytest.raises(DataError, match="no such folder"):
        robustness(tmp_path / "none", given=True)
    with pytest.raises(DataError, match=r"robustness\.json: not readable"):
        robustness(tmp_path, given=True)
    with pytest.raises(DataError, match=r"robustness\.json: no images, facts; it is of an older version"):
        robustness(
            written(tmp_path, "robustness", {k: FOUND[k] for k in FOUND if k not in ("images", "facts")}), given=True
        )


def test_maps_that_point_at_what_matters_and_maps_that_do_not(tmp_path: Path) -> None:
    found = {
        "part": "val",
        "images_judged": 9,
        "lesions_judged": 8,
        "randomisation": {"members": {"a": [{"part": "stem", "correlation": number(0.03)}]}},
        "deletion": {"area_less_random": number(-0.1)},
        "insertion": {"area_less_random": number(0.01)},
    }
    extra = explanations(written(tmp_path, "explanations", found), given=True, samples=False)
    assert extra is not None
    assert extra.can == [
        "When pixels are blurred away in the order of the maps, the probability falls faster than in random order "
        "(area -0.100 [-0.120, -0.080])."
    ]
    assert "rises no sooner than in random order" in extra.fails[0]
    found["deletion"] = {"area_less_random": number(0.1)}
    worse = explanations(written(tmp_path, "explanations", found), given=True, samples=False)
    assert worse is not None
    assert "falls later than in random order (area +0.100" in worse.fails[0]
    assert extra.tables[0].shown()[0][1] == "0.030 [0.010, 0.050]"
    assert "none were given" in extra.tables[0].notes[0]
