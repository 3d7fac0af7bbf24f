import hashlib
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, NEVUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from skinlesion.data.readers import read_ham10000
from skinlesion.data.splits import (
    assign,
    fingerprint,
    from_file,
    from_folds,
    grouped,
    published,
    set_apart,
    write_split,
)
from skinlesion.errors import ConfigError, DataError
from skinlesion.taxonomy import Taxonomy

Policy = Callable[[pd.DataFrame, int], pd.DataFrame]
Made = tuple[pd.DataFrame, pd.DataFrame, Path]
Sizes = dict[str, list[int]]  # of each diagnosis, the numbers of images of its lesions


def table(sizes: Sizes) -> pd.DataFrame:
    """Lay out lesions; ids are shuffled, so that neither order nor number tells the diagnosis."""
    lesions = [(code, n) for code, found in sizes.items() for n in found]
    order = np.random.default_rng(0).permutation(len(lesions))
    rows = [(f"HAM_{name:05d}", code) for name, (code, n) in zip(order, lesions, strict=True) for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["lesion_id", "diagnosis"])
    ids = np.random.default_rng(1).permutation(len(frame))
    frame["image_id"] = [f"ISIC_{image:05d}" for image in ids]
    return frame.sort_values("image_id", ignore_index=True)


SMALL: Sizes = {"nv": [1] * 60 + [2, 3], "mel": [1] * 14 + [2] * 4 + [6], "df": [1] * 5 + [2]}

several = st.lists(st.integers(1, 4), min_size=5, max_size=30)
tables = st.dictionaries(st.sampled_from(CODES), several.map(lambda more: [1, 1, 1, *more]), min_size=1).map(table)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=30, deadline=None)  # each builds a table and splits it
policies = st.sampled_from(
    [
        lambda frame, seed: published(frame, seed=seed),
        lambda frame, seed: grouped(frame, seed=seed, folds=3, fold=1, val_fraction=0.2),
    ]
)


def with_diagnosis(split: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    return split.merge(frame[["image_id", "diagnosis"]], on="image_id", validate="one_to_one")


# What holds for every split


@few
@given(frame=tables, seed=seeds, policy=policies)
def test_no_lesion_is_in_two_splits(frame: pd.DataFrame, seed: int, policy: Policy) -> None:
    split = policy(frame, seed)
    assert tuple(split.columns) == ("image_id", "lesion_id", "split")
    assert split["image_id"].is_monotonic_increasing
    assert split["image_id"].is_unique
    assert split.index.equals(pd.RangeIndex(len(split)))
    assert len(split[["lesion_id", "split"]].drop_duplicates()) == split["lesion_id"].nunique()
    lesion_of = dict(zip(frame["image_id"], frame["lesion_id"], strict=True))
    assert split["lesion_id"].tolist() == [lesion_of[image_id] for image_id in split["image_id"]]


@few
@given(frame=tables, seed=seeds, policy=policies)
def test_every_diagnosis_is_in_every_split(frame: pd.DataFrame, seed: int, policy: Policy) -> None:
    split = with_diagnosis(policy(frame, seed), frame)
    parts = split.groupby("diagnosis")["split"].unique()
    assert {code: set(found) for code, found in parts.items()} == {
        code: {"train", "val", "test"} for code in frame["diagnosis"].unique()
    }


@few
@given(frame=tables, seed=seeds, policy=policies, order=st.randoms(use_true_random=False))
def test_the_row_order_does_not_matter(frame: pd.DataFrame, seed: int, policy: Policy, order: random.Random) -> None:
    shuffled = frame.iloc[order.sample(range(len(frame)), len(frame))]
    before = shuffled.copy()
    pd.testing.assert_frame_equal(policy(shuffled, seed), policy(frame, seed))
    pd.testing.assert_frame_equal(shuffled, before)


@settings(few, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=tables, seed=seeds, policy=policies)
def test_a_split_comes_back_from_its_file(frame: pd.DataFrame, seed: int, policy: Policy, tmp_path: Path) -> None:
    split = policy(frame, seed)
    write_split(split, tmp_path / "split.csv")
    again = from_file(frame, tmp_path / "split.csv")
    pd.testing.assert_frame_equal(again, split)
    assert fingerprint(again) == fingerprint(split)


@few
@given(frame=tables, seed=seeds, policy=policies, data=st.data())
def test_the_fingerprint_changes_with_the_assignment_alone(
    frame: pd.DataFrame, seed: int, policy: Policy, data: st.DataObject
) -> None:
    split = policy(frame, seed)
    mark = fingerprint(split)
    assert fingerprint(split.iloc[::-1].assign(lesion_id="x", note=1)) == mark
    row = data.draw(st.integers(0, len(split) - 1))
    other = {"train": "val", "val": "test", "test": "train"}
    moved = split.assign(split=[other[s] if n == row else s for n, s in enumerate(split["split"])])
    assert fingerprint(moved) != mark
    assert fingerprint(split.drop(index=row)) != mark
    renamed = split.assign(image_id=[f"{i}b" if n == row else i for n, i in enumerate(split["image_id"])])
    assert fingerprint(renamed) != mark


@pytest.mark.parametrize("policy", ["published", "grouped"])
def test_seeds_differ(policy: str) -> None:
    frame = table(SMALL)
    make = {
        "published": published,
        "grouped": lambda frame, seed: grouped(frame, seed=seed, folds=3, fold=0, val_fraction=0.2),
    }[policy]
    assert len({fingerprint(make(frame, seed=seed)) for seed in range(20)}) == 20


def test_the_fingerprint_is_a_sha256_of_sorted_lines() -> None:
    split = pd.DataFrame({"image_id": ["B", "A"], "lesion_id": ["y", "x"], "split": ["test", "train"]})
    assert fingerprint(split) == hashlib.sha256(b"A,train\nB,test\n").hexdigest()


def test_a_split_of_today_is_the_split_of_tomorrow() -> None:
    # written down once: a change would make the checkpoints of one ensemble refuse each other
    lesions = [(f"HAM_{n}", "mel" if n % 4 else "nv", 1 + (n % 7 == 0)) for n in range(80)]
    rows = [(f"{lesion}_{k}", lesion, code) for lesion, code, images in lesions for k in range(images)]
    frame = pd.DataFrame(rows, columns=["image_id", "lesion_id", "diagnosis"])
    assert fingerprint(published(frame, seed=7))[:16] == "d0f08fb37253ae92"
    assert fingerprint(grouped(frame, seed=7, folds=3, fold=0, val_fraction=0.2))[:16] == "743fe25e15139553"


# Published


def test_published_by_hand() -> None:
    frame = table({"nv": [1] * 40 + [2, 2], "mel": [1] * 20 + [3]})
    split = with_diagnosis(published(frame, seed=0), frame)
    # 60 lesions with one image: 43 + 17 held out (16.8), of which 10 are val and 7 test (6.8).
    # 43 as 40 : 20 is 28.67 + 14.33, so 29 + 14; left are 11 + 6; 10 as 11 : 6 is 6.47 + 3.53, so 6 + 4.
    assert Counter(zip(split["diagnosis"], split["split"], strict=True)) == {
        ("nv", "train"): 29, ("nv", "val"): 6, ("nv", "test"): 5,
        ("mel", "train"): 14 + 3, ("mel", "val"): 4, ("mel", "test"): 2,
    }  # fmt: skip


@few
@given(frame=tables, seed=seeds)
def test_published_leaves_out_nevi_with_several_images_alone(frame: pd.DataFrame, seed: int) -> None:
    split = published(frame, seed=seed)
    images = frame.groupby("lesion_id")["image_id"].transform("size")
    left_out = (frame["diagnosis"] == NEVUS) & (images > 1)
    assert split["image_id"].tolist() == frame.loc[~left_out, "image_id"].tolist()
    several = frame.loc[(frame["diagnosis"] != NEVUS) & (images > 1), "image_id"]
    assert set(split.loc[split["image_id"].isin(several), "split"]) <= {"train"}


@few
@given(counts=st.lists(st.integers(11, 400), min_size=1, max_size=7), seed=st.integers(0, 2**31))
def test_published_sizes_are_those_of_scikit_learn(counts: list[int], seed: int) -> None:
    frame = table({code: [1] * n for code, n in zip(CODES, counts, strict=False)})
    split = with_diagnosis(published(frame, seed=seed), frame)
    train, rest = train_test_split(frame, test_size=0.28, stratify=frame["diagnosis"], random_state=seed)
    val, test = train_test_split(rest, test_size=0.4, stratify=rest["diagnosis"], random_state=seed)
    for name, reference in (("train", train), ("val", val), ("test", test)):
        part = split[split["split"] == name]
        assert len(part) == len(reference)
        ours = part["diagnosis"].value_counts().reindex(CODES, fill_value=0)
        theirs = reference["diagnosis"].value_counts().reindex(CODES, fill_value=0)
        # where remainders tie, scikit-learn draws who gets the odd lesion
        assert (ours - theirs).abs().max() <= 1


def test_published_sizes_do_not_depend_on_the_seed() -> None:
    frame = table(SMALL)
    sizes = {
        tuple(with_diagnosis(published(frame, seed=seed), frame).groupby(["split", "diagnosis"]).size())
        for seed in range(10)
    }
    assert len(sizes) == 1


def test_published_tells_how_many_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    published(table(SMALL), seed=0)
    assert "5 of 100 images left out" in caplog.text


def test_published_refuses_a_diagnosis_without_enough_lesions() -> None:
    with pytest.raises(DataError, match=r"diagnosis df \(1 lesion in all\): none in train and val"):
        published(table({**SMALL, "df": [1]}), seed=0)
    with pytest.raises(DataError, match=r"diagnosis df \(3 lesions in all\): none in val and test"):
        published(table({**SMALL, "df": [2, 2, 3]}), seed=0)


def test_published_refuses_data_without_single_images() -> None:
    with pytest.raises(DataError, match="no image in val and test"):
        published(table({"mel": [2] * 30}), seed=0)


# Grouped


@few
@given(frame=tables, seed=seeds, folds=st.integers(2, 5), val_fraction=st.floats(0.1, 0.5))
def test_grouped_tests_every_image_once_and_evenly(
    frame: pd.DataFrame, seed: int, folds: int, val_fraction: float
) -> None:
    splits = [grouped(frame, seed=seed, folds=folds, fold=fold, val_fraction=val_fraction) for fold in range(folds)]
    assert all(split["image_id"].tolist() == frame["image_id"].tolist() for split in splits)
    tested = pd.concat([split[split["split"] == "test"].assign(fold=n) for n, split in enumerate(splits)])
    assert sorted(tested["image_id"]) == frame["image_id"].tolist()
    tested = with_diagnosis(tested, frame)
    counts = pd.crosstab(tested["diagnosis"], tested["fold"])
    assert (counts.max(axis=1) - counts.min(axis=1) <= 4).all()  # images of the biggest lesion
    assert counts.sum().max() - counts.sum().min() <= 4 * len(counts)


@few
@given(frame=tables, seed=seeds, val_fraction=st.floats(0.1, 0.5))
def test_grouped_validates_on_about_its_fraction_of_each_diagnosis(
    frame: pd.DataFrame, seed: int, val_fraction: float
) -> None:
    split = with_diagnosis(grouped(frame, seed=seed, folds=2, fold=0, val_fraction=val_fraction), frame)
    rest = split[split["split"] != "test"]
    for _, part in rest.groupby("diagnosis"):
        # the first lesion may overfill val, the last may underfill it, by no more than the biggest lesion
        assert abs((part["split"] == "val").sum() - val_fraction * len(part)) <= 4


@pytest.mark.parametrize("seed", range(8))
def test_each_diagnosis_of_a_patient_counts(seed: int) -> None:
    """Patients have two or three diagnoses each; all five rare ones are in each part of each fold."""
    rows = [
        {"image_id": f"{patient}-{code}", "lesion_id": f"{patient}-{code}", "diagnosis": code, "group_id": patient}
        for place, patient in enumerate(f"P{number}" for number in range(24))
        for code in ("nv", ("mel", "bcc", "df", "bkl")[place % 4], *(["vasc"] if place % 3 == 0 else []))
    ]
    frame = pd.DataFrame(rows)
    splits = [grouped(frame, seed=seed, folds=3, fold=fold, val_fraction=0.3) for fold in range(3)]
    for split in splits:
        found = with_diagnosis(split, frame)
        assert (found.groupby("diagnosis")["split"].nunique() == 3).all()
        test = found[found["split"] == "test"]["diagnosis"].value_counts()
        assert test["vasc"] in (2, 3, 4)
        patients = found["image_id"].str.partition("-")[0]
        assert found.groupby(patients)["split"].nunique().max() == 1


def test_grouped_sizes_do_not_depend_on_the_seed() -> None:
    frame = table(SMALL)
    sizes = {
        tuple(
            with_diagnosis(grouped(frame, seed=seed, folds=3, fold=2, val_fraction=0.2), frame)
            .groupby(["split", "diagnosis"])
            .size()
        )
        for seed in range(10)
    }
    assert len(sizes) == 1


def test_grouped_refuses_more_folds_than_lesions() -> None:
    with pytest.raises(DataError, match=r"diagnosis df \(6 lesions in all\): none in test.*fewer split.folds"):
        grouped(table(SMALL), seed=0, folds=7, fold=6, val_fraction=0.2)


@pytest.mark.parametrize(
    ("folds", "fold", "val_fraction", "key"),
    [(1, 0, 0.2, "folds"), (3, 3, 0.2, "fold"), (3, -1, 0.2, "fold"), (3, 0, 0.0, "val_fraction"), (3, 0, 1.0, "val")],
)
def test_grouped_refuses_numbers_out_of_range(folds: int, fold: int, val_fraction: float, key: str) -> None:
    with pytest.raises(ConfigError, match=f"split.{key}"):
        grouped(table(SMALL), seed=0, folds=folds, fold=fold, val_fraction=val_fraction)


# From a file


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A table, a split of it, and where to write a file."""
    frame = table(SMALL)
    split = published(frame, seed=0)
    return frame, split, tmp_path / "split.csv"


def test_a_file_is_plain_csv(made: Made) -> None:
    _, split, path = made
    write_split(split, path)
    lines = path.read_bytes().split(b"\n")
    first = split.iloc[0]
    assert lines[0] == b"image_id,lesion_id,split"
    assert lines[1].decode() == f"{first['image_id']},{first['lesion_id']},{first['split']}"
    assert len(lines) == 1 + len(split) + 1
    assert [path.name for path in path.parent.iterdir()] == ["split.csv"]


def test_a_file_made_by_other_means_is_read(made: Made) -> None:
    frame, split, path = made
    text = split.iloc[::-1][["split", "image_id"]].to_csv(sep="\t", index=False, lineterminator="\r\n")
    path.write_text("\ufeff" + text.replace("train", " Train"), newline="", encoding="utf-8")
    pd.testing.assert_frame_equal(from_file(frame, path), split)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda s: s.assign(split=s["split"].replace("val", "dev")),
            ["unknown split: 'dev' (line", "train, val, test"],
        ),
        (lambda s: s.assign(split=s["split"].replace("val", "train")), ["no image in val"]),
        (lambda s: s.drop(columns="split"), ["no column split"]),
        (lambda s: pd.concat([s, s.tail(1)]), ["image_id in more than one row", "keep one"]),
        (lambda s: s.assign(image_id="X" + s["image_id"]), ["not in the table: 'XISIC_0", "(first 5 of 95)"]),
        (lambda s: s.assign(lesion_id="HAM_0"), ["another lesion_id than the table's: 'ISIC_"]),
        (lambda s: s.iloc[:0], ["no rows below the header"]),
    ],
)
def test_files_that_do_not_fit_are_refused(
    made: Made, change: Callable[[pd.DataFrame], pd.DataFrame], expected: list[str]
) -> None:
    frame, split, path = made
    change(split).to_csv(path, index=False)
    with pytest.raises(DataError) as caught:
        from_file(frame, path)
    assert str(path) in str(caught.value)
    assert all(text in str(caught.value) for text in expected), caught.value


def test_images_that_the_reader_leaves_out_may_stand_in_a_file(
    synthetic_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of some diagnoses is trained on the split of one of all, and no other id passes for such an image."""
    options = {"table": "HAM10000_metadata", "missing_images": "error", "extra_images": "error"}
    images = ["HAM10000_images_part_1", "HAM10000_images_part_2"]
    whole, kept = (
        read_ham10000(synthetic_root, images=images, taxonomy=Taxonomy.load(name), **options)
        for name in ("ham10000", "ham10000_melanoma_lookalikes")
    )
    split = published(whole, seed=1)
    path = tmp_path / "split.csv"
    write_split(split, path)
    part_of = dict(zip(split["image_id"], split["split"], strict=True))
    expected = whole.loc[whole["diagnosis"].isin(["mel", "nv", "bkl"]), "image_id"]
    with caplog.at_level("INFO"):
        found = from_file(kept, path)
    assert found["image_id"].tolist() == [each for each in expected if each in part_of]
    assert found["split"].tolist() == [part_of[each] for each in found["image_id"]]
    assert f"{len(split) - len(found)} of the file's {len(split)} images are left out" in caplog.text
    pd.concat([split, split.head(1).assign(image_id="ISIC_9")]).to_csv(path, index=False)
    with pytest.raises(DataError, match="not in the table: 'ISIC_9'"):
        from_file(kept, path)


def test_a_file_that_tears_a_lesion_apart_is_refused(made: Made) -> None:
    frame, split, path = made
    lesion = split["lesion_id"].value_counts().index[0]
    row = split.index[split["lesion_id"] == lesion][0]
    split.loc[row, "split"] = "test"
    write_split(split, path)
    with pytest.raises(DataError, match=rf"lesions in more than one split: {lesion} \(test, train\)"):
        from_file(frame, path)


def test_a_file_without_a_diagnosis_in_a_split_is_refused(made: Made) -> None:
    frame, split, path = made
    df = with_diagnosis(split, frame)["diagnosis"] == "df"
    write_split(split[~(df & (split["split"] == "test"))], path)
    with pytest.raises(DataError, match=r"diagnosis df \(6 lesions in all\): none in test"):
        from_file(frame, path)


def test_everything_wrong_with_a_file_is_said_at_once(made: Made) -> None:
    frame, split, path = made
    bad = pd.concat([split.assign(lesion_id="HAM_0"), split.tail(1)])
    bad.assign(image_id=["?", *bad["image_id"][1:]], split=["dev", *bad["split"][1:]]).to_csv(path, index=False)
    with pytest.raises(DataError) as caught:
        from_file(frame, path)
    assert len(str(caught.value).split("\n- ")) == 1 + 4


def test_a_file_that_is_not_there(made: Made) -> None:
    frame, _, path = made
    with pytest.raises(DataError, match="No such file"):
        from_file(frame, path)


def test_images_that_a_file_does_not_name_are_left_out_aloud(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    frame, split, path = made
    caplog.set_level(logging.INFO)
    fewer = split.drop(index=split.index[split["split"] == "train"][:2]).reset_index(drop=True)
    write_split(fewer, path)
    pd.testing.assert_frame_equal(from_file(frame, path), fewer)
    assert "7 of 100 images left out" in caplog.text


# Folds from a file


@pytest.fixture
def folded(tmp_path: Path) -> Made:
    """A table, folds of its lesions by hand, and the file of them."""
    frame = table(SMALL)
    lesions = frame.drop_duplicates("lesion_id").groupby("diagnosis")["lesion_id"]
    fold_of = {lesion: n % 3 for _, found in lesions for n, lesion in enumerate(found)}
    folds = frame[["image_id", "lesion_id"]].assign(fold=frame["lesion_id"].map(fold_of))
    folds.to_csv(tmp_path / "folds.csv", index=False)
    return frame, folds, tmp_path / "folds.csv"


@pytest.mark.parametrize("column", ["image_id", "image"])
def test_a_fold_of_a_file_is_the_test_part(folded: Made, column: str) -> None:
    frame, folds, path = folded
    folds.rename(columns={"image_id": column}).drop(columns="lesion_id").to_csv(path, index=False)
    for fold in range(3):
        split = from_folds(frame, path, fold=fold, seed=0, val_fraction=0.2)
        options = {"seed": 0, "folds": 5, "fold": fold, "val_fraction": 0.2, "file": str(path)}
        pd.testing.assert_frame_equal(assign(frame, policy="file", **options), split)
        assert split["image_id"].tolist() == frame["image_id"].tolist()
        test = split.loc[split["split"] == "test", "image_id"]
        assert set(test) == set(folds.loc[folds["fold"] == fold, "image_id"])
        assert split.groupby("lesion_id")["split"].nunique().max() == 1
        rest = with_diagnosis(split[split["split"] != "test"], frame)
        for _, part in rest.groupby("diagnosis"):
            assert abs((part["split"] == "val").sum() - 0.2 * len(part)) <= 6  # the biggest lesion


def test_the_seed_decides_which_lesions_of_the_other_folds_validate(folded: Made) -> None:
    frame, _, path = folded
    first, again, other = (from_folds(frame, path, fold=1, seed=seed, val_fraction=0.2) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert fingerprint(first) != fingerprint(other)
    assert set(first.loc[first["split"] == "test", "image_id"]) == set(other.loc[other["split"] == "test", "image_id"])


def test_a_split_is_no_file_of_folds(made: Made) -> None:
    frame, split, path = made
    split.assign(fold=0).to_csv(path, index=False)
    options = {"seed": 0, "folds": 5, "fold": 0, "val_fraction": 0.2, "file": str(path)}
    pd.testing.assert_frame_equal(assign(frame, policy="file", **options), from_file(frame, path))


@pytest.mark.parametrize(
    ("change", "fold", "expected"),
    [
        (lambda f: f.iloc[3:], 0, r"images of the table that the file lacks: ISIC_00000, ISIC_00001, ISIC_00002; add"),
        (lambda f: f, 3, r"no fold 3; the file has 0, 1, 2: give one of these as split.fold"),
        (lambda f: f.drop(columns="image_id"), 0, r"no column image_id or image; expected image_id and fold"),
        (lambda f: f.assign(fold="a"), 0, r"fold that is not a whole number: 'a' \(line 2, 3 and \d+ more\)"),
        (lambda f: pd.concat([f, f.tail(1)]), 0, r"image_id in more than one row: 'ISIC_000"),
        (lambda f: f.assign(image_id="X" + f["image_id"]), 0, r"image_id that is not in the table: 'XISIC_00000'"),
        (lambda f: f.assign(fold=range(len(f))), 0, r"lesions in more than one fold: HAM_\d+ \(\d+, \d+"),
    ],
)
def test_folds_that_do_not_fit_are_refused(
    folded: Made, change: Callable[[pd.DataFrame], pd.DataFrame], fold: int, expected: str
) -> None:
    frame, folds, path = folded
    change(folds).to_csv(path, index=False)
    with pytest.raises(DataError, match=expected) as caught:
        from_folds(frame, path, fold=fold, seed=0, val_fraction=0.2)
    assert str(path) in str(caught.value)


# The real table

real_data = pytest.mark.skipif(
    "SKINLESION_SHARED" not in os.environ, reason="SKINLESION_SHARED is not set: real HAM10000 needed"
)


@cache
def ham10000() -> pd.DataFrame:
    path = Path(os.environ["SKINLESION_SHARED"]) / "ham10000" / "HAM10000_metadata"
    return pd.read_csv(path).rename(columns={"dx": "diagnosis"})


@pytest.mark.real_data
@real_data
@pytest.mark.parametrize("seed", [0, 1, 42, 2**31])
def test_published_counts_of_ham10000(seed: int) -> None:
    split = with_diagnosis(published(ham10000(), seed=seed), ham10000())
    assert len(split) == 7_725
    assert split["split"].value_counts().to_dict() == {"train": 6_181, "val": 926, "test": 618}
    test = split.loc[split["split"] == "test", "diagnosis"].value_counts().to_dict()
    assert test == {"nv": 495, "bkl": 49, "mel": 26, "bcc": 20, "akiec": 17, "vasc": 7, "df": 4}
    assert round((split["diagnosis"] == "nv").mean(), 3) == 0.572


@pytest.mark.real_data
@real_data
@pytest.mark.parametrize("seed", [0, 1, 42])
@pytest.mark.parametrize("folds", [5, 10])
def test_grouped_folds_of_ham10000_are_even(seed: int, folds: int) -> None:
    whole = ham10000()["diagnosis"].value_counts()
    for fold in (0, folds - 1):
        made = grouped(ham10000(), seed=seed, folds=folds, fold=fold, val_fraction=0.15)
        split = with_diagnosis(made, ham10000())
        assert len(split) == 10_015
        test = split[split["split"] == "test"]["diagnosis"].value_counts()
        assert (test - whole / folds).abs().max() < 1
        val = split[split["split"] == "val"]["diagnosis"].value_counts()
        assert (val - 0.15 * (whole - test)).abs().max() < 1.5


@pytest.mark.real_data
@real_data
def test_seeds_give_other_splits_of_ham10000_of_the_same_sizes() -> None:
    splits = [published(ham10000(), seed=seed) for seed in range(3)]
    assert len({fingerprint(split) for split in splits}) == 3
    tests = [set(split.loc[split["split"] == "test", "image_id"]) for split in splits]
    # two independent draws of 618 of 5,514 share 69 on average, with a deviation of about 7.3
    assert all(30 < len(a & b) < 110 for a, b in pairwise(tests))


# Patients


def with_patients(frame: pd.DataFrame, *, lesions: int = 3) -> pd.DataFrame:
    """Give each patient some lesions, of any diagnosis; every tenth patient is unknown."""
    owner = {lesion: place // lesions for place, lesion in enumerate(sorted(frame["lesion_id"].unique()))}
    numbers = frame["lesion_id"].map(owner)
    frame = frame.assign(patient_id=[f"P{number}" if number % 10 else "" for number in numbers])
    return frame.assign(group_id=frame["patient_id"].where(frame["patient_id"] != "", frame["lesion_id"]))


def patients_by_part(frame: pd.DataFrame, split: pd.DataFrame) -> "pd.Series[int]":
    joined = split.merge(frame[["image_id", "patient_id"]], on="image_id")
    return joined[joined["patient_id"] != ""].groupby("patient_id")["split"].nunique()


def test_folds_keep_the_lesions_of_a_patient_together() -> None:
    frame = with_patients(table({code: [1] * 40 + [2] * 5 for code in CODES}))
    tested: list[str] = []
    for fold in range(3):
        split = grouped(frame, seed=1, folds=3, fold=fold, val_fraction=0.2)
        assert patients_by_part(frame, split).max() == 1
        assert len(split) == len(frame)
        tested += split.loc[split["split"] == "test", "image_id"].tolist()
        in_test = (
            with_diagnosis(split, frame).assign(test=split["split"].eq("test")).groupby("diagnosis")["test"].mean()
        )
        assert in_test.between(0.15, 0.55).all(), "still spread over the diagnoses"
    assert sorted(tested) == frame["image_id"].tolist()


def test_unknown_patients_change_nothing() -> None:
    frame = table(SMALL)
    settings = {"seed": 3, "folds": 3, "fold": 0, "val_fraction": 0.2}
    pd.testing.assert_frame_equal(
        grouped(frame.assign(patient_id="", group_id=frame["lesion_id"]), **settings), grouped(frame, **settings)
    )


def test_patients_in_several_parts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    frame = with_patients(table({code: [1] * 40 for code in CODES}))
    split = published(frame, seed=1)
    several = int((patients_by_part(frame, split) > 1).sum())
    assert several > 10
    crossing = patients_by_part(frame, split)
    owners = split["image_id"].map(dict(zip(frame["image_id"], frame["patient_id"], strict=True)))
    images = int(owners.isin(crossing.index[crossing > 1]).sum())
    groups = frame["group_id"].nunique()
    assert f"{several} of {groups} patients or groups, {images} images, are in more than one part" in caplog.text
    assert "split.policy=grouped keeps them together" in caplog.text


def test_diagnoses_without_an_image_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assign(table(SMALL), policy="grouped", seed=1, folds=3, fold=0, val_fraction=0.2, file=None)
    assert "No image of akiec, bcc, bkl, vasc: training needs images of all 7 diagnoses." in caplog.text


def test_a_split_with_formulas_for_ids_is_read_back(tmp_path: Path) -> None:
    frame = table(SMALL)
    names = {
        old: f"{sign}{old}" for old, sign in zip(frame["image_id"], ["=", "+", "-", "@", "'=", ""] * 50, strict=False)
    }
    frame = frame.assign(image_id=frame["image_id"].map(names)).sort_values("image_id", ignore_index=True)
    split = grouped(frame, seed=1, folds=3, fold=0, val_fraction=0.2)
    write_split(split, tmp_path / "split.csv")
    lines = (tmp_path / "split.csv").read_text().splitlines()
    assert not [line for line in lines if line[0] in "=+-@"]
    pd.testing.assert_frame_equal(from_file(frame, tmp_path / "split.csv"), split)


# A calibration part


def test_a_share_of_the_validation_lesions_is_set_apart(tmp_path: Path) -> None:
    frame = table({"nv": [1] * 300 + [2] * 30, "mel": [1] * 60 + [3] * 20, "df": [1] * 40})
    options = {"policy": "grouped", "seed": 3, "folds": 5, "fold": 0, "val_fraction": 0.25, "file": None}
    whole, split = assign(frame, **options), assign(frame, calibration_fraction=0.4, **options)
    before, after = whole.set_index("image_id")["split"], split.set_index("image_id")["split"]
    moved = after[after == "calibration"].index
    assert (before[moved] == "val").all()
    assert (after.drop(moved) == before.drop(moved)).all()
    assert len(split[["lesion_id", "split"]].drop_duplicates()) == split["lesion_id"].nunique()
    shares = with_diagnosis(split, frame).query("split != 'train' and split != 'test'").groupby("diagnosis")["split"]
    for _, parts in shares:
        assert (parts == "calibration").mean() == pytest.approx(0.4, abs=0.1)
    pd.testing.assert_frame_equal(
        assign(frame.sample(frac=1, random_state=0), calibration_fraction=0.4, **options), split
    )
    write_split(split, tmp_path / "split.csv")
    pd.testing.assert_frame_equal(from_file(frame, tmp_path / "split.csv"), split)
    with pytest.raises(DataError, match="has a calibration part already"):
        set_apart(frame, split, fraction=0.4, seed=3)


def test_a_diagnosis_stays_in_validation() -> None:
    frame = table({"df": [1] * 3, "nv": [1] * 3})  # one validation lesion each
    split = published(frame, seed=1)
    with pytest.raises(
        DataError, match=r"calibration_fraction=0\.9\).*\n.*diagnosis nv \(3 lesions in all\): none in val"
    ):
        set_apart(frame, split, fraction=0.9, seed=1)
