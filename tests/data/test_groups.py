"""Groups of images that are kept together."""

from pathlib import Path

import pandas as pd
import pytest

from skinlesion.data.groups import describe_groups, duplicate_groups, group_ids, read_groups
from skinlesion.errors import DataError


def frame(**columns: list[str]) -> pd.DataFrame:
    rows = {"image_id": list("abcdef"), "lesion_id": ["L1", "L1", "L2", "L3", "L4", "5"], "patient_id": [""] * 6}
    return pd.DataFrame({**rows, **columns})


def test_lesions_alone_are_their_own_groups() -> None:
    assert group_ids(frame(), {}) == frame()["lesion_id"].tolist()
    assert "6 images of 5 lesions; the table names no patients" in describe_groups(
        frame().assign(group_id=frame()["lesion_id"])
    )


def test_patients_join_lesions_and_an_unknown_patient_joins_nothing() -> None:
    found = group_ids(frame(patient_id=["P", "P", "P", "", "", "Q"]), {})
    assert found == ["P", "P", "P", "L3", "L4", "Q"]


def test_a_file_joins_lesions_and_patients_through_others() -> None:
    found = group_ids(frame(patient_id=["P", "P", "", "", "", "Q"]), {"b": "1", "c": "1", "d": "2", "c2": "2"})
    assert found == ["P", "P", "P", "L3", "L4", "Q"]
    chained = group_ids(frame(), {"b": "1", "c": "1"} | {"d": "2"} | {"e": "2"})
    assert chained == ["L1", "L1", "L1", "L3", "L3", "5"]


def test_a_patient_and_a_lesion_of_one_name_are_two_groups() -> None:
    assert group_ids(frame(patient_id=["5", "5", "", "", "", ""]), {}) == ["5", "5", "L2", "L3", "L4", "lesion 5"]


def test_near_doubles_of_other_lesions_are_grouped_and_read_back(tmp_path: Path) -> None:
    pairs = pd.DataFrame(
        [("a", "c", False), ("c", "d", False), ("a", "b", True)], columns=["image_a", "image_b", "same_lesion"]
    )
    groups = duplicate_groups(pairs)
    assert groups.to_dict("list") == {"image_id": ["a", "c", "d"], "group": ["a", "a", "a"]}
    groups.to_csv(tmp_path / "groups.csv", index=False)
    read = read_groups(tmp_path / "groups.csv", frame()["image_id"])
    assert group_ids(frame(), read) == ["L1", "L1", "L1", "L1", "L4", "5"]
    assert duplicate_groups(pairs[pairs["same_lesion"]]).empty


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_id\na\n", "no column group"),
        ("image_id,group\nx,1\n", "no group for any image"),
        ("image_id,group\na,1\na,2\n", "more than one row"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DataError, match=rf"data\.groups=.*groups\.csv cannot be used:(.|\n)*{said}"):
        read_groups(tmp_path / "groups.csv", frame()["image_id"])
