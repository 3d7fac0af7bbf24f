"""The predictions table: building, writing, reading, refusing and averaging."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import group_index

COLUMNS = ("image_id", "lesion_id", *CODES, "actual", "predicted")


def random_table(rows: int, *, seed: int, concentration: float = 0.3) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions.build(
        [f"ISIC_{number:07d}" for number in range(rows)],
        [f"HAM_{number // 2:07d}" for number in range(rows)],
        probabilities=rng.dirichlet([concentration] * 7, size=rows),
        actual=[CODES[k % 7] for k in range(rows)],
    )


def assert_equal(first: Predictions, second: Predictions) -> None:
    pd.testing.assert_frame_equal(first.to_frame(), second.to_frame(), check_exact=True)


def lines_of(table: Predictions, path: Path) -> list[str]:
    table.write(path)
    return path.read_text(encoding="utf-8").splitlines()


def test_a_table_by_hand() -> None:
    values = [[0.1, 0.2, 0.3, 0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.75, 0.25]]
    table = Predictions.build(["b", "a"], ["", "H"], probabilities=values, actual=["", "vasc"])
    assert tuple(table.to_frame().columns) == COLUMNS
    assert len(table) == 2
    assert "2 images" in repr(table)
    assert "Predictions of 1 image, " in repr(Predictions.build(["b"], [""], probabilities=values[:1], actual=[""]))
    assert table.image_id.tolist() == ["a", "b"]
    assert table.lesion_id.tolist() == ["H", ""]
    assert table.actual.tolist() == ["vasc", ""]
    assert table.predicted.tolist() == ["nv", "mel"]
    np.testing.assert_array_equal(table.probabilities, np.array(values[::-1], dtype=np.float32))
    assert table.probabilities.dtype == np.float32
    assert table.predicted_targets.tolist() == [5, 4]


def test_of_equal_probabilities_the_first_in_class_order_is_predicted() -> None:
    table = Predictions.build(["a"], [""], probabilities=[[0, 0.4, 0.1, 0, 0.4, 0.1, 0]], actual=["mel"])
    assert table.predicted.tolist() == ["bcc"]


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = random_table(40, seed=1)
    mixed = table.select(np.random.default_rng(2).permutation(40))
    assert mixed.image_id.tolist() != table.image_id.tolist()
    assert_equal(mixed.sorted(), table)
    assert_equal(mixed.with_probabilities(mixed.probabilities), table)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Predictions.build(["a", "b"], ["", ""], probabilities=np.eye(7)[:1], actual=["nv", "nv"])
    with pytest.raises(ValueError, match="do not fit"):
        Predictions.build(["a"], [""], probabilities=np.ones((1, 6)) / 6, actual=["nv"])


def test_probabilities_come_back_bit_by_bit(tmp_path: Path) -> None:
    table = random_table(3000, seed=3, concentration=0.02)  # many tiny numbers, where fewer digits fail
    table.write(tmp_path / "new" / "predictions.csv")
    assert_equal(Predictions.read(tmp_path / "new" / "predictions.csv"), table)


def test_awkward_names_come_back(tmp_path: Path) -> None:
    names = ["007", 'a "quoted", name', "NA", "ü", "1e3"]
    table = Predictions.build(names, ["", "NaN", "a,b", "1", "x"], probabilities=np.eye(7)[:5], actual=[""] * 5)
    table.write(tmp_path / "t.csv")
    assert_equal(Predictions.read(tmp_path / "t.csv"), table)


def test_a_file_in_another_order_of_rows_and_columns_is_the_same_table(tmp_path: Path) -> None:
    table = random_table(20, seed=4)
    columns = random.Random(5).sample(COLUMNS, len(COLUMNS))
    other = table.to_frame().sample(frac=1, random_state=6)[columns]
    other.to_csv(tmp_path / "t.csv", index=False, encoding="utf-8-sig")  # as a spreadsheet would save it
    assert_equal(Predictions.read(tmp_path / "t.csv"), table)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    before = lines_of(random_table(3, seed=7), path)
    with pytest.raises(ValueError, match="length"):
        replace(random_table(5, seed=8), lesion_id=np.array(["H"], dtype=object)).write(path)
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
        Predictions.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_small_deviations_of_the_sum_are_accepted(tmp_path: Path) -> None:
    pd.DataFrame([{**ROW, "nv": "0.99995"}]).to_csv(tmp_path / "t.csv", index=False)
    assert Predictions.read(tmp_path / "t.csv").probabilities[0, 5] == np.float32(0.99995)


def test_one_error_names_all_faults_and_cuts_long_lists(tmp_path: Path) -> None:
    rows = [{**ROW, "image_id": f"I{k}", "actual": "x"} for k in range(8)] + [{**ROW, "nv": "0.5"}]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"row 5 \(I4\) and 3 more") as caught:
        Predictions.read(tmp_path / "t.csv")
    assert "do not sum to 1: row 9 (ISIC_5)" in str(caught.value)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = "\n".join(lines_of(random_table(9, seed=9), path))
    for length in range(20, len(text) - 5, 7):  # the cut is in a number, a name, or at a line's end
        path.write_text(text[:length], encoding="utf-8")
        if text[length] != "\n" and text[length - 1] != "\n":
            with pytest.raises(DataError):
                Predictions.read(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01\x80", b"a,b\n1,2,3\n1,2,3,4,5\n", b"\x00" * 50])
def test_what_is_no_table_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv: "):
        Predictions.read(path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv.*skinlesion evaluate"):
        Predictions.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="skinlesion evaluate"):
        Predictions.read(tmp_path)


def test_other_columns_are_named(tmp_path: Path) -> None:
    random_table(3, seed=10).to_frame().rename(columns={"mel": "scc"}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"missing columns \['mel'\], unknown columns \['scc'\]"):
        Predictions.read(tmp_path / "t.csv")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        Predictions.build([], [], probabilities=np.zeros((0, 7)), actual=[])
    random_table(1, seed=11).to_frame().iloc[:0].to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="no rows"):
        Predictions.read(tmp_path / "t.csv")


def test_nan_is_refused_when_a_table_is_built() -> None:
    values = np.eye(7)[:2]
    values[1, 3] = np.nan
    with pytest.raises(DataError, match=r"no number from 0 to 1: row 2 \(b\)"):
        Predictions.build(["a", "b"], ["", ""], probabilities=values, actual=["nv", "nv"])


def test_targets_are_positions_in_the_class_order() -> None:
    table = Predictions.build(list("abcdefg"), [""] * 7, probabilities=np.eye(7)[::-1], actual=CODES)
    assert table.targets.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert table.targets.dtype == np.int64
    assert table.predicted_targets.tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_targets_of_unknown_diagnoses_are_refused() -> None:
    table = Predictions.build(["a", "b"], ["", ""], probabilities=np.eye(7)[:2], actual=["nv", ""])
    with pytest.raises(DataError, match=r"row 2 \(b\)"):
        table.targets  # noqa: B018


def test_a_vote_by_hand() -> None:
    one = Predictions.build(["a"], ["H"], probabilities=[[0.5, 0.25, 0.25, 0, 0, 0, 0]], actual=["bcc"])
    two = Predictions.build(["a"], ["H"], probabilities=[[0, 0.75, 0, 0, 0.25, 0, 0]], actual=["bcc"])
    vote = Predictions.soft_vote([one, two])
    assert vote.probabilities.tolist() == [[0.25, 0.5, 0.125, 0, 0.125, 0, 0]]
    assert vote.to_frame()[["image_id", "lesion_id", "actual", "predicted"]].to_numpy().tolist() == [
        ["a", "H", "bcc", "bcc"]
    ]


@pytest.mark.parametrize("copies", [1, 2, 3, 7])
def test_an_ensemble_of_copies_is_the_copy(copies: int) -> None:
    table = random_table(200, seed=12, concentration=0.05)
    assert_equal(Predictions.soft_vote([table] * copies), table)


def test_a_vote_is_the_mean_whatever_the_order() -> None:
    tables = [random_table(50, seed=seed) for seed in range(3)]
    vote = Predictions.soft_vote(tables)
    mean = sum(table.probabilities.astype(np.float64) for table in tables) / 3
    np.testing.assert_allclose(vote.probabilities, mean, rtol=1e-6)
    shuffled = [table.select(np.random.default_rng(seed).permutation(50)) for seed, table in enumerate(tables[::-1])]
    assert_equal(Predictions.soft_vote(shuffled), vote)


def test_members_for_other_images_are_refused() -> None:
    table = random_table(6, seed=13)
    with pytest.raises(DataError, match=r"Tables 1 and 3 hold 6 and 5 images, 1 in one table only .*ISIC_0000005"):
        Predictions.soft_vote([table, table, table.select(np.arange(5))])
    other = replace(table, lesion_id=np.array(["H", *table.lesion_id[1:]], dtype=object))
    with pytest.raises(DataError, match=r"differ in lesion_id: row 1 \(ISIC_0000000\)"):
        Predictions.soft_vote([table, other])
    with pytest.raises(DataError, match=r"differ in actual: row 1 .* and 1 more"):
        Predictions.soft_vote([table, replace(table, actual=np.full(6, "", dtype=object))])
    with pytest.raises(DataError, match="at least one"):
        Predictions.soft_vote([])


def test_lesions_are_numbered_by_their_first_image() -> None:
    assert group_index(list("dabc"), ["X", "Y", "", "X"]).tolist() == [2, 0, 1, 2]
    assert group_index(list("ab"), ["", ""]).tolist() == [0, 1]
    table = random_table(40, seed=15)
    mixed = table.select(np.random.default_rng(0).permutation(40))
    assert dict(zip(mixed.image_id, mixed.group, strict=True)) == {f"ISIC_{k:07d}": k // 2 for k in range(40)}
    assert table.lesions == 20


def test_images_of_a_lesion_vote() -> None:
    table = replace(random_table(30, seed=16), actual=np.repeat(CODES[:5], 6).astype(object))
    voted = table.select(np.arange(30)[::-1]).by_group()
    assert voted.image_id.tolist() == table.image_id[::2].tolist()
    assert voted.actual.tolist() == table.actual[::2].tolist()
    np.testing.assert_allclose(voted.probabilities, table.probabilities.reshape(15, 2, 7).mean(axis=1), atol=1e-6)
    mixed = np.array(["nv" if row else "mel" for row in range(30)], dtype=object)
    with pytest.raises(DataError, match=r"differ in their actual diagnosis: row 2 \(ISIC_0000001\)"):
        replace(table, actual=mixed).by_group()


def test_tables_are_joined_one_after_the_other() -> None:
    table = replace(random_table(10, seed=17), ood_score=np.arange(10.0))
    parts = [table.select(np.arange(6, 10)), table.select(np.arange(6))]
    joined = Predictions.concatenate(parts)
    assert joined.ood_score.tolist() == [6, 7, 8, 9, 0, 1, 2, 3, 4, 5]
    assert_equal(joined.sorted(), table)
    decided = replace(parts[0], scores=np.eye(7)[[2, 2, 2, 2]])
    for several in ([decided, parts[1]], [parts[1], decided]):
        mixed = Predictions.concatenate(several).sorted()
        assert mixed.predicted[:6].tolist() == table.predicted[:6].tolist()
        assert mixed.predicted[6:].tolist() == ["bkl"] * 4
    np.testing.assert_allclose(
        table.target_score("malignant"), table.probabilities[:, [0, 1, 4]].sum(axis=1), atol=1e-6
    )


def test_the_table_for_people_shows_what_the_model_adds(tmp_path: Path) -> None:
    paths = [f"/a/very/long/folder/of/many/photographs/of/skin/{name}.jpg" for name in ("one", "two")]
    plain = Predictions.build(paths, probabilities=[[0.1, 0.2, 0.0, 0.0, 0.4, 0.3, 0.0]] * 2)
    held = plain.probabilities >= 0.2
    full = replace(plain, uncalibrated=plain.probabilities, prediction_set=held, ood_score=np.ones(2), ood=held[:, 0])
    frame = full.to_frame()
    assert frame["prediction_set"].tolist() == ["mel nv bcc"] * 2
    assert frame["uncalibrated_nv"].tolist() == frame["nv"].tolist()
    assert frame["ood"].tolist() == [False, False]
    for shown in (repr(full), full._repr_html_()):
        assert "skin/one.jpg" in shown
        assert "/a/very" not in shown
        assert "mel nv bcc" in shown
        assert "lesion_id" not in shown
    full.write(tmp_path / "full.csv")
    plain.write(tmp_path / "plain.csv")
    assert (tmp_path / "full.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
