"""The predictions table: building, writing, reading, refusing and averaging."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion.errors import DataError
from skinlesion.inference.predictions import (
    COLUMNS,
    build_table,
    predicted_targets,
    probabilities,
    read_predictions,
    soft_vote,
    targets,
    write_table,
)
from skinlesion.taxonomy import CODES


def random_table(rows: int, *, seed: int, concentration: float = 0.3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return build_table(
        [f"ISIC_{number:07d}" for number in range(rows)],
        [f"HAM_{number // 2:07d}" for number in range(rows)],
        probabilities=rng.dirichlet([concentration] * 7, size=rows),
        actual=[CODES[k % 7] for k in range(rows)],
    )


def lines_of(table: pd.DataFrame, path: Path) -> list[str]:
    write_table(table, path)
    return path.read_text(encoding="utf-8").splitlines()


def test_a_table_by_hand() -> None:
    values = [[0.1, 0.2, 0.3, 0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.75, 0.25]]
    table = build_table(["b", "a"], ["", "H"], probabilities=values, actual=["", "vasc"])
    assert tuple(table.columns) == COLUMNS
    assert table["image_id"].tolist() == ["a", "b"]
    assert table["lesion_id"].tolist() == ["H", ""]
    assert table["actual"].tolist() == ["vasc", ""]
    assert table["predicted"].tolist() == ["nv", "mel"]
    np.testing.assert_array_equal(probabilities(table), np.array(values[::-1], dtype=np.float32))
    assert probabilities(table).dtype == np.float32
    assert predicted_targets(table).tolist() == [5, 4]


def test_of_equal_probabilities_the_first_in_class_order_is_predicted() -> None:
    table = build_table(["a"], [""], probabilities=[[0, 0.4, 0.1, 0, 0.4, 0.1, 0]], actual=["mel"])
    assert table["predicted"].tolist() == ["bcc"]


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = random_table(40, seed=1)
    mixed = table.sample(frac=1, random_state=2)
    again = build_table(
        mixed["image_id"].tolist(),
        mixed["lesion_id"].tolist(),
        probabilities=probabilities(mixed),
        actual=mixed["actual"].tolist(),
    )
    pd.testing.assert_frame_equal(again, table)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        build_table(["a", "b"], ["", ""], probabilities=np.eye(7)[:1], actual=["nv", "nv"])
    with pytest.raises(ValueError, match="do not fit"):
        build_table(["a"], [""], probabilities=np.ones((1, 6)) / 6, actual=["nv"])


def test_probabilities_come_back_bit_by_bit(tmp_path: Path) -> None:
    table = random_table(3000, seed=3, concentration=0.02)  # many tiny numbers, where fewer digits fail
    write_table(table, tmp_path / "new" / "predictions.csv")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "new" / "predictions.csv"), table, check_exact=True)


def test_awkward_names_come_back(tmp_path: Path) -> None:
    names = ["007", 'a "quoted", name', "NA", "ü", "1e3"]
    table = build_table(names, ["", "NaN", "a,b", "1", "x"], probabilities=np.eye(7)[:5], actual=[""] * 5)
    write_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "t.csv"), table)


def test_a_file_in_another_order_of_rows_and_columns_is_the_same_table(tmp_path: Path) -> None:
    table = random_table(20, seed=4)
    columns = random.Random(5).sample(COLUMNS, len(COLUMNS))
    other = table.sample(frac=1, random_state=6)[columns]
    other.to_csv(tmp_path / "t.csv", index=False, encoding="utf-8-sig")  # as a spreadsheet would save it
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "t.csv"), table)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    before = lines_of(random_table(3, seed=7), path)
    with pytest.raises(KeyError):
        write_table(random_table(5, seed=8).drop(columns="predicted"), path)
    assert path.read_text(encoding="utf-8").splitlines() == before
    assert list(tmp_path.iterdir()) == [path]


ROW = {
    "image_id": "ISIC_5",
    "lesion_id": "H",
    **dict.fromkeys(CODES, "0"),
    "nv": "1",
    "actual": "nv",
    "predicted": "nv",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": ""}, "image_id is empty: row 2"),
        ({"image_id": "ISIC_1"}, r"image_id appears more than once: row 1 \(ISIC_1\), row 2 \(ISIC_1\)"),
        ({"nv": "nan"}, r"no number from 0 to 1: row 2 \(ISIC_5\)"),
        ({"nv": ""}, "no number from 0 to 1: row 2"),
        ({"nv": "high"}, "no number from 0 to 1: row 2"),
        ({"nv": "inf", "mel": "-inf"}, "no number from 0 to 1: row 2"),
        ({"nv": "1e300"}, "no number from 0 to 1: row 2"),
        ({"nv": "1.2", "mel": "-0.2"}, "no number from 0 to 1: row 2"),
        ({"nv": "0.9998"}, "do not sum to 1: row 2"),
        ({"mel": "0.0002"}, "do not sum to 1: row 2"),
        ({"actual": "melanoma"}, "the actual diagnosis is neither empty nor one of akiec, .*: row 2"),
        ({"predicted": ""}, "the predicted diagnosis is none of akiec, .*: row 2"),
        ({"predicted": "mel"}, "the predicted diagnosis is not the likeliest: row 2"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame([{**ROW, "image_id": "ISIC_1"}, {**ROW, **change}]).to_csv(path, index=False)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_small_deviations_of_the_sum_are_accepted(tmp_path: Path) -> None:
    pd.DataFrame([{**ROW, "nv": "0.99995"}]).to_csv(tmp_path / "t.csv", index=False)
    assert read_predictions(tmp_path / "t.csv")["nv"].tolist() == [np.float32(0.99995)]


def test_all_faults_are_told_at_once_and_long_lists_cut(tmp_path: Path) -> None:
    rows = [{**ROW, "image_id": f"I{k}", "actual": "x"} for k in range(8)] + [{**ROW, "nv": "0.5"}]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"row 5 \(I4\) and 3 more") as caught:
        read_predictions(tmp_path / "t.csv")
    assert "do not sum to 1: row 9 (ISIC_5)" in str(caught.value)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = "\n".join(lines_of(random_table(9, seed=9), path))
    for length in range(20, len(text) - 5, 7):  # the cut is in a number, a name, or at a line's end
        path.write_text(text[:length], encoding="utf-8")
        if text[length] != "\n" and text[length - 1] != "\n":
            with pytest.raises(DataError):
                read_predictions(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01\x80", b"a,b\n1,2,3\n1,2,3,4,5\n", b"\x00" * 50])
def test_what_is_no_table_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv: "):
        read_predictions(path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv.*skinlesion evaluate"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(DataError, match="skinlesion evaluate"):
        read_predictions(tmp_path)


def test_other_columns_are_named(tmp_path: Path) -> None:
    random_table(3, seed=10).rename(columns={"mel": "scc"}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"missing columns \['mel'\], unknown columns \['scc'\]"):
        read_predictions(tmp_path / "t.csv")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        build_table([], [], probabilities=np.zeros((0, 7)), actual=[])
    random_table(1, seed=11).iloc[:0].to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="no rows"):
        read_predictions(tmp_path / "t.csv")


def test_nan_is_refused_when_a_table_is_built() -> None:
    values = np.eye(7)[:2]
    values[1, 3] = np.nan
    with pytest.raises(DataError, match=r"no number from 0 to 1: row 2 \(b\)"):
        build_table(["a", "b"], ["", ""], probabilities=values, actual=["nv", "nv"])


def test_probabilities_may_be_changed_without_changing_the_table() -> None:
    table = random_table(3, seed=14)
    probabilities(table)[:] = 0
    assert table[list(CODES)].to_numpy().sum() == pytest.approx(3)


def test_targets_are_positions_in_the_class_order() -> None:
    table = build_table(list("abcdefg"), [""] * 7, probabilities=np.eye(7)[::-1], actual=CODES)
    assert targets(table).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert targets(table).dtype == np.int64
    assert predicted_targets(table).tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_targets_of_unknown_diagnoses_are_refused() -> None:
    table = build_table(["a", "b"], ["", ""], probabilities=np.eye(7)[:2], actual=["nv", ""])
    with pytest.raises(DataError, match=r"row 2 \(b\)"):
        targets(table)


def test_a_vote_by_hand() -> None:
    one = build_table(["a"], ["H"], probabilities=[[0.5, 0.25, 0.25, 0, 0, 0, 0]], actual=["bcc"])
    two = build_table(["a"], ["H"], probabilities=[[0, 0.75, 0, 0, 0.25, 0, 0]], actual=["bcc"])
    vote = soft_vote([one, two])
    assert probabilities(vote).tolist() == [[0.25, 0.5, 0.125, 0, 0.125, 0, 0]]
    assert vote[["image_id", "lesion_id", "actual", "predicted"]].to_numpy().tolist() == [["a", "H", "bcc", "bcc"]]


@pytest.mark.parametrize("copies", [1, 2, 3, 7])
def test_an_ensemble_of_copies_is_the_copy(copies: int) -> None:
    table = random_table(200, seed=12, concentration=0.05)
    pd.testing.assert_frame_equal(soft_vote([table] * copies), table, check_exact=True)


def test_a_vote_is_the_mean_whatever_the_order() -> None:
    tables = [random_table(50, seed=seed) for seed in range(3)]
    vote = soft_vote(tables)
    mean = sum(probabilities(table).astype(np.float64) for table in tables) / 3
    np.testing.assert_allclose(probabilities(vote), mean, rtol=1e-6)
    shuffled = [table.sample(frac=1, random_state=seed) for seed, table in enumerate(tables[::-1])]
    pd.testing.assert_frame_equal(soft_vote(shuffled), vote)


def test_members_for_other_images_are_refused() -> None:
    table = random_table(6, seed=13)
    with pytest.raises(DataError, match=r"Tables 1 and 3 hold 6 and 5 images, 1 in one table only .*ISIC_0000005"):
        soft_vote([table, table, table.iloc[:5]])
    other = table.assign(lesion_id=["H", *table["lesion_id"][1:]])
    with pytest.raises(DataError, match=r"differ in lesion_id: row 1 \(ISIC_0000000\)"):
        soft_vote([table, other])
    with pytest.raises(DataError, match=r"differ in actual: row 1 .* and 1 more"):
        soft_vote([table, table.assign(actual="")])
    with pytest.raises(DataError, match="at least one"):
        soft_vote([])
