"""The report's table of two populations: what it says, also where something is not at hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.image_statistics import STATISTICS
from skinlesion.errors import DataError
from skinlesion.studies.external.populations import Population, populations
from skinlesion.studies.report.external import compared

ABOUT = {
    "of_own_test_part": 2,
    "seen": {"choice": "drop", "by_id": 2, "by_hash": None, "note": "not compared by hash: they are not there"},
    "classes": {"nv": {"images": 3, "counts_as": "nv"}, "scc": {"images": 1, "counts_as": "akiec"}},
}


def test_both_populations_stand_side_by_side(tmp_path: Path) -> None:
    looks = np.full((4, len(STATISTICS)), 0.25, np.float32)
    facts = {"lesion_id": list("abcd"), "age": [10.0, 20.0, 30.0, np.nan], "sex": "male", "localization": "back"}
    training = Population("training", {"nv": 1, "mel": 1}, None, None)
    others = Population("these images", {"nv": 3, "akiec": 1}, pd.DataFrame(facts), looks)
    (tmp_path / "populations.json").write_text(json.dumps(populations(training, others)))
    table = compared(tmp_path, ABOUT)
    assert table is not None
    assert table.headings == ("of the images", "training", "these images", "apart, 0 to 1")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["share of melanocytic nevus"] == [0.5, 0.75, ""]
    assert rows["all diagnoses"] == ["", "", 0.5]
    assert rows["median age"] == [None, 20.0, None]
    assert rows["median brightness"] == [None, 0.25, None]
    assert table.notes == [
        "2 images are of the test part of the model's own data set: no data from elsewhere.",
        "2 images are among those of training or validation: left out.",
        "Images are not compared by hash: they are not there.",
        "1 images of scc: akiec.",
    ]
    assert len(table.shown()) == len(table.rows)


def test_without_populations_and_with_a_broken_file(tmp_path: Path) -> None:
    assert compared(tmp_path, {}) is None
    (tmp_path / "populations.json").write_text("{}")
    with pytest.raises(DataError, match=r"populations\.json: no populations, apart"):
        compared(tmp_path, {})
