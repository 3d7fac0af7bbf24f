"""The synthetic HAM10000: layout, proportions, equal files for equal settings, folders in use."""

import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES
from PIL import Image
from sklearn.model_selection import train_test_split

from skinlesion.data.readers import read_ham10000
from skinlesion.data.splits import grouped, published
from skinlesion.errors import ConfigError, DataError
from skinlesion.synthetic import dataset as synthetic_module
from skinlesion.synthetic.dataset import REAL, SyntheticData, synthetic_table, write_synthetic
from skinlesion.synthetic.images import Photograph

N = 120
SETTINGS = {"n": N, "image_size": (40, 30), "seed": 5}
PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]


def table_of(n: int, seed: int = 0) -> pd.DataFrame:
    return synthetic_table(n, np.random.default_rng(seed))


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SyntheticData:
    return write_synthetic(tmp_path_factory.mktemp("data") / "synthetic", **SETTINGS)


def test_folder_has_the_layout_of_ham10000(written: SyntheticData) -> None:
    table = pd.read_csv(written.root / "HAM10000_metadata")
    assert list(table.columns) == COLUMNS
    images = {path.stem: path for part in PARTS for path in (written.root / part).glob("*.jpg")}
    assert sorted(images) == [f"ISIC_{24306 + k:07d}" for k in range(N)] == sorted(table["image_id"])
    assert len(list((written.root / PARTS[0]).iterdir())) == N // 2
    for path in images.values():
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((40, 30), "RGB", "JPEG")
    assert table["lesion_id"].str.fullmatch(r"HAM_\d{7}").all()


def test_masks_show_the_lesion(written: SyntheticData) -> None:
    """Every image has one; inside it the skin is darker or redder than outside, on the whole."""
    masks = sorted((written.root / "masks").glob("*.png"))
    images = {path.stem: path for part in PARTS for path in (written.root / part).glob("*.jpg")}
    assert [path.stem for path in masks] == sorted(images)
    apart, shares = [], []
    for path in masks:
        lesion = np.asarray(Image.open(path).convert("L")) > 127
        green = np.asarray(Image.open(images[path.stem]))[..., 1].astype(float)
        assert lesion.shape == green.shape
        shares.append(lesion.mean())
        if lesion.any() and not lesion.all():
            apart.append(green[~lesion].mean() - green[lesion].mean())
    assert np.mean(np.array(apart) > 0) > 0.9
    assert 0.05 < np.mean(shares) < 0.6


def test_table_is_accepted_as_ham10000(written: SyntheticData) -> None:
    frame = read_ham10000(
        written.root, table="HAM10000_metadata", images=PARTS, missing_images="error", extra_images="error"
    )
    assert dict(frame["diagnosis"].value_counts()) == written.images
    assert dict(frame.drop_duplicates("lesion_id")["diagnosis"].value_counts()) == written.lesions
    assert sum(written.images.values()) == N
    assert not written.already_there


def test_same_settings_give_the_same_files(written: SyntheticData, tmp_path: Path) -> None:
    np.random.seed(3)  # noqa: NPY002 - other randomness must not matter
    random.seed(3)
    write_synthetic(tmp_path / "again", **SETTINGS)
    assert files_of(tmp_path / "again") == files_of(written.root)


def test_another_seed_gives_other_images(written: SyntheticData, tmp_path: Path) -> None:
    other = write_synthetic(tmp_path / "other", **{**SETTINGS, "seed": 6})
    here, there = files_of(written.root), files_of(other.root)
    assert all(here[name] != there[name] for name in here)


def test_already_there_is_left_alone(written: SyntheticData) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.root.rglob("*")}
    again = write_synthetic(written.root, **SETTINGS)
    assert again.already_there
    assert (again.images, again.lesions) == (written.images, written.lesions)
    assert {path: path.stat().st_mtime_ns for path in written.root.rglob("*")} == before


def test_other_settings_are_refused(written: SyntheticData) -> None:
    before = files_of(written.root)
    with pytest.raises(DataError, match="other settings"):
        write_synthetic(written.root, **{**SETTINGS, "seed": 6})
    assert files_of(written.root) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("HAM10000_metadata.csv", "not synthetic"), ("HAM10000_images_part_1", "not synthetic"), ("notes", "files")],
)
def test_folders_in_use_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=message):
        write_synthetic(tmp_path, **SETTINGS)
    assert files_of(tmp_path) == {name: b"mine"}


def test_a_damaged_marker_is_no_licence_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(DataError, match="other settings"):
        write_synthetic(tmp_path, **SETTINGS)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fails_late(*arguments: object, **keywords: object) -> Photograph:
        calls.append(1)
        if len(calls) == 10:
            raise OSError("disk full")
        return Photograph(np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.bool_))

    monkeypatch.setattr(synthetic_module, "photograph", fails_late)
    with pytest.raises(OSError, match="disk full"):
        write_synthetic(tmp_path / "synthetic", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_synthetic(tmp_path / "empty", **{**SETTINGS, "n": 91, "image_size": (16, 16)})
    assert len(list(tmp_path.rglob("*.jpg"))) == 91


@pytest.mark.parametrize(
    ("change", "message"), [({"n": 90}, "91"), ({"image_size": (40, 15)}, "16"), ({"seed": -1}, "seed")]
)
def test_settings_out_of_range(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_synthetic(tmp_path / "synthetic", **{**SETTINGS, **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [91, 92, 150, 600])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_diagnosis_can_be_in_every_split(n: int, seed: int) -> None:
    table = table_of(n, seed)
    sizes = table.groupby("lesion_id")["dx"].agg(["first", "size"])
    assert len(table) == n
    assert set(sizes.loc[sizes["size"] > 1, "first"]) == set(CODES)
    single = sizes.loc[sizes["size"] == 1, "first"]
    for state in range(5):  # the split of the publication, as scikit-learn makes it
        train, rest = train_test_split(single, test_size=0.28, stratify=single, random_state=state)
        val, test = train_test_split(rest, test_size=0.4, stratify=rest, random_state=state)
        assert set(train) == set(val) == set(test) == set(CODES)
    frame = table.rename(columns={"dx": "diagnosis"})
    published(frame, seed=seed)  # both raise DataError where a diagnosis is missing in a split
    grouped(frame, seed=seed, folds=5, fold=0, val_fraction=0.15)


def test_proportions_are_those_of_ham10000() -> None:
    table = table_of(10_015)
    counts = table["dx"].value_counts()
    assert dict(counts) == {code: real.images for code, real in REAL.items()}
    sizes = table["lesion_id"].value_counts()
    assert 0.2 < (sizes > 1).mean() < 0.3  # 26 % in HAM10000
    ages = table.groupby("dx")["age"].mean()
    assert 15 < ages["akiec"] - ages["nv"] < 25  # 20.1
    sites = table.groupby("dx")["localization"].value_counts(normalize=True)
    assert 0.5 < sites["df", "lower extremity"] < 0.9  # 0.71
    assert 0.2 < sites["bkl", "face"] < 0.4  # 0.29
    assert (table.loc[table["dx"].isin(["akiec", "bcc", "mel"]), "dx_type"] == "histo").all()
    assert set(table.loc[table["dx_type"] == "follow_up", "dx"]) == {"nv"}


def test_some_facts_are_missing_and_some_patients_are_infants() -> None:
    for n in (91, 3000):
        table = table_of(n)
        shares = {
            "no age": table["age"].isna().mean(),
            "age zero": (table["age"] == 0).mean(),
            "no sex": (table["sex"] == "unknown").mean(),
            "no site": (table["localization"] == "unknown").mean(),
        }
        assert all(0 < share < 0.05 for share in shares.values()), shares
        assert (table["age"].dropna() % 5 == 0).all()
        assert table["age"].dropna().between(0, 85).all()
        facts = ["dx", "dx_type", "age", "sex", "localization", "dataset"]
        assert len(table.drop_duplicates(["lesion_id", *facts])) == table["lesion_id"].nunique()


def test_tables_of_real_sums_agree() -> None:
    for real in REAL.values():
        assert sum(real.sources) == real.images
        assert 0.96 * real.images < sum(real.sites) <= real.images  # the rest is unknown
        assert all(unproven <= source for unproven, source in zip(real.unproven, real.sources, strict=True))
    assert sum(real.images for real in REAL.values()) == 10_015


def test_the_demo_has_enough_lesions_of_each_diagnosis_for_sets_and_operating_points() -> None:
    (command,) = re.findall(
        r"synthetic data\.root=demo/data (.+)", (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    )
    settings = {key: int(value) for key, value in (part.split("=") for part in command.split())}
    rng = np.random.default_rng([1, 0])
    table = synthetic_table(settings["n"], rng, min_per_class=settings["min_per_class"])
    assert len(table) == settings["n"]
    assert table["dx"].value_counts().min() == settings["min_per_class"]
    parts = table.merge(published(table.rename(columns={"dx": "diagnosis"}), seed=666)[["image_id", "split"]])
    counts = pd.crosstab(parts["dx"], parts["split"])
    assert counts["val"].min() >= 9, "fewer cannot leave a diagnosis out of a set at 90 %"
    assert counts["test"].min() >= 8


@pytest.mark.parametrize("change", [{"min_per_class": 12}, {"min_per_class": 30}])
def test_too_few_images_of_a_diagnosis_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="min_per_class"):
        write_synthetic(tmp_path / "synthetic", **{**SETTINGS, **change})
