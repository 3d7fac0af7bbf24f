"""The summary of an audit, counted by hand."""

import json

import numpy as np
import pandas as pd

from skinlesion.data.near_duplicates import COLUMNS
from skinlesion.studies.audit.summary import implausible_ages, leaking_pairs, lesions_in_several_splits, summarize

FRAME = pd.DataFrame(
    {
        "image_id": ["a", "b", "c", "d", "e"],
        "lesion_id": ["1", "1", "2", "3", "4"],
        "diagnosis": ["mel", "mel", "nv", "nv", "vasc"],
        "age": [60.0, 60.0, 0.0, np.nan, 30.0],
        "sex": ["male", "male", "unknown", "female", "female"],
        "localization": ["back", "back", "unknown", "unknown", "face"],
        "dx_type": "histo",
        "dataset": "",
        "patient_id": "",
        "group_id": ["1", "1", "2", "3", "4"],
    }
)
SPLIT = pd.DataFrame(
    {
        "image_id": ["a", "b", "c", "e"],
        "lesion_id": ["1", "1", "2", "4"],
        "split": ["train", "train", "val", "test"],
    }
)
PAIRS = pd.DataFrame(
    [
        ("a", "b", 0, 1.0, True, True, "train", "train"),
        ("a", "c", 2, 0.99, False, False, "train", "val"),
        ("a", "d", 4, 0.97, False, False, "train", ""),
        ("d", "e", 4, 0.96, False, False, "", "test"),
    ],
    columns=list(COLUMNS),
)
SHORTCUTS = {"majority": {"accuracy": 0.5, "macro_f1": 0.1, "balanced_accuracy": 0.2}, "dataset": None}


def test_summary_by_hand() -> None:
    found = summarize(FRAME, SPLIT, pairs=PAIRS, shortcuts=SHORTCUTS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["images"], found["lesions"], found["age_zero"]) == (5, 4, 1)
    assert found["diagnoses"]["mel"] == {"images": 2, "lesions": 1}
    assert list(found["diagnoses"]) == ["mel", "nv", "vasc"]
    assert found["images_per_lesion"] == {"1": 3, "2": 1}
    assert found["missing"] == {"age": 1, "sex": 1, "localization": 2, "dx_type": 0, "dataset": 5}
    assert {name: part["images"] for name, part in found["splits"].items()} == {
        "left_out": 1, "test": 1, "train": 2, "val": 1,
    }  # fmt: skip
    assert found["splits"]["train"]["diagnoses"]["mel"] == 2
    assert found["torn_lesions"] == []
    assert found["shortcuts"] == SHORTCUTS
    assert found["implausible_ages"] == []  # half of the nevi with an age are a child's


def test_children_with_a_diagnosis_of_adults_are_named() -> None:
    ages = {"bkl": [0.0, 5.0, *[70.0] * 250, np.nan], "nv": [0.0, *[40.0] * 60], "mel": [17.0, *[60.0] * 99]}
    rows = [(code, age) for code, own in ages.items() for age in own]
    frame = pd.DataFrame(rows, columns=["diagnosis", "age"])
    frame = frame.assign(image_id=[f"i{k:03d}" for k in range(len(frame))], lesion_id="l")
    found = implausible_ages(frame)  # 2 of 252; 1 of 61 and 1 of 100 are not below 1 %
    assert found[["image_id", "diagnosis", "age"]].to_numpy().tolist() == [["i000", "bkl", 0.0], ["i001", "bkl", 5.0]]


def test_duplicates_are_counted_by_lesion_and_split() -> None:
    found = summarize(FRAME, SPLIT, pairs=PAIRS, shortcuts={})["duplicates"]
    assert found["exact"] == {
        "pairs": 1, "same_lesion": 1, "other_lesion": 0, "other_lesion_within_split": 0, "across_splits": 0,
    }  # fmt: skip
    assert found["near"] == {
        "pairs": 3, "same_lesion": 0, "other_lesion": 3, "other_lesion_within_split": 0, "across_splits": 1,
    }  # fmt: skip
    assert [(pair["image_a"], pair["image_b"]) for pair in found["suspicious"]] == [
        ("a", "c"), ("a", "d"), ("d", "e"),
    ]  # fmt: skip


def test_a_lesion_in_two_splits_is_named_and_its_pair_leaks() -> None:
    divided = SPLIT.assign(split=["train", "val", "val", "test"])
    assert lesions_in_several_splits(divided) == ["1"]
    pairs = PAIRS.head(1).assign(split_b="val")
    assert len(leaking_pairs(pairs)) == 1
    assert summarize(FRAME, divided, pairs=pairs, shortcuts={})["duplicates"]["exact"]["across_splits"] == 1


def test_no_pairs_at_all() -> None:
    found = summarize(FRAME, SPLIT, pairs=PAIRS[:0], shortcuts={})["duplicates"]
    assert found["near"]["pairs"] == 0
    assert found["suspicious"] == []
