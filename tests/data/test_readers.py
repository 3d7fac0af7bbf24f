import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import composed
from PIL import Image

from skinlesion.config.train import TrainConfig
from skinlesion.data.columns import COLUMNS
from skinlesion.data.readers import NAMES, read_data, read_ham10000, read_labelled
from skinlesion.errors import ConfigError, DataError
from skinlesion.taxonomy import Taxonomy

FOLDERS = ["HAM10000_images_part_1", "HAM10000_images_part_2"]
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
ROWS = [
    "HAM_2,ISIC_3,bkl,histo,80.0,male,scalp,vidir_modern",
    "HAM_2,ISIC_1,bkl,histo,80.0,male,scalp,vidir_modern",
    "HAM_1,ISIC_2,nv,follow_up,,unknown,unknown,rosendahl",
    "HAM_3,ISIC_4,mel,histo,0.0,female,back,vidir_molemax",
]
IDS = ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 150, 130)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound data set of four images."""
    for image_id, folder in zip(IDS, [*FOLDERS, *FOLDERS], strict=True):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{image_id}.jpg").write_bytes(jpeg())
    write(tmp_path, [HEADER, *ROWS])
    return tmp_path


def write(root: Path, lines: list[str], name: str = "HAM10000_metadata") -> None:
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(root: Path, **changes: Any) -> pd.DataFrame:
    settings = {"table": "HAM10000_metadata", "images": FOLDERS}
    return read_ham10000(root, **(settings | {"missing_images": "error", "extra_images": "error"} | changes))


def lines_of_error(root: Path, **changes: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(root, **changes)
    return str(caught.value).split("\n- ")[1:]


def test_one_row_an_image_sorted_by_id(root: Path) -> None:
    frame = read(root)
    assert tuple(frame.columns) == COLUMNS
    assert frame.index.equals(pd.RangeIndex(4))
    assert frame["image_id"].tolist() == IDS
    assert frame["lesion_id"].tolist() == ["HAM_2", "HAM_1", "HAM_2", "HAM_3"]
    assert frame["diagnosis"].tolist() == ["bkl", "nv", "bkl", "mel"]
    assert frame["dx_type"].tolist() == ["histo", "follow_up", "histo", "histo"]
    assert frame["sex"].tolist() == ["male", "unknown", "male", "female"]
    assert frame["localization"].tolist() == ["scalp", "unknown", "scalp", "back"]
    assert frame["dataset"].tolist() == ["vidir_modern", "rosendahl", "vidir_modern", "vidir_molemax"]
    assert [Path(path).name for path in frame["path"]] == [f"{image_id}.jpg" for image_id in IDS]
    assert all(Path(path).is_file() for path in frame["path"])


def test_a_missing_age_is_nan_and_an_age_of_zero_is_zero(root: Path) -> None:
    ages = read(root)["age"]
    assert ages.dtype == np.float64
    np.testing.assert_array_equal(ages, [80.0, np.nan, 80.0, 0.0])


@pytest.mark.parametrize("name", ["HAM10000_metadata" + suffix for suffix in ("", ".csv", ".tab", ".tsv", ".txt")])
@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: text.replace(",", "\t"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: '"' + text.strip().replace(",", '","').replace("\n", '"\n"') + '"',
        lambda text: text.replace("bkl", " BKL ").replace("male", "Male"),
    ],
    ids=["commas", "tabs", "windows", "quoted", "capitals"],
)
def test_the_same_table_in_other_dress(root: Path, name: str, form: Callable[[str], str]) -> None:
    expected = read(root)
    (root / "HAM10000_metadata").unlink()
    (root / name).write_text(form("\n".join([HEADER, *ROWS]) + "\n"), encoding="utf-8", newline="")
    pd.testing.assert_frame_equal(read(root), expected)


def test_dataset_and_dx_type_may_be_absent(root: Path) -> None:
    whole = read(root)
    fields = [line.split(",") for line in [HEADER, *ROWS]]
    write(root, [",".join([*line[:3], *line[4:7]]) for line in fields])
    pd.testing.assert_frame_equal(read(root), whole.assign(dx_type="", dataset=""))


def test_columns_may_stand_in_any_order_beside_others(root: Path) -> None:
    expected = read(root)
    table = pd.read_csv(root / "HAM10000_metadata")
    table[[*table.columns[::-1]]].assign(note="x").to_csv(root / "HAM10000_metadata")  # with an index column
    pd.testing.assert_frame_equal(read(root), expected)


@pytest.mark.parametrize("blank", ["", "NA", "nan", "NaN", " ", "None", "unknown"])
def test_blank_facts_are_unknown(root: Path, blank: str) -> None:
    write(root, [HEADER, *ROWS[:3], f"HAM_3,ISIC_4,mel,histo,{blank},{blank},{blank},x"])
    last = read(root).iloc[3]
    assert np.isnan(last["age"])
    assert (last["sex"], last["localization"]) == ("unknown", "unknown")


def test_the_row_order_does_not_matter(root: Path) -> None:
    expected = read(root)
    write(root, [HEADER, *ROWS[::-1]])
    pd.testing.assert_frame_equal(read(root), expected)


def test_the_home_folder_may_be_a_tilde(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(read(Path("~") / root.name)) == 4


# What is wrong with the rows


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("HAM_3,ISIC_4,wart,histo,0,female,back,x", ["unknown dx 'wart' (line 5)", "akiec, bcc, bkl"]),
        ("HAM_3,ISIC_4,,histo,0,female,back,x", ["images of 'unknown' (line 5)"]),
        ("HAM_3,ISIC_4,mel,histo,0,q,back,x", ["unknown sex: 'q' (line 5)", "female, male, unknown"]),
        ("HAM_2,ISIC_4,mel,histo,0,female,back,x", ["more than one diagnosis", "HAM_2 (bkl, mel)"]),
        ("HAM_3,ISIC_4,mel,histo,old,female,back,x", ["faulty age: 'old' (line 5)", "0 to 120"]),
        ('HAM_3,ISIC_4,mel,histo,"80,000",female,back,x', ["faulty age: '80,000' (line 5)", "55.0"]),
        ("HAM_3,ISIC_4,mel,histo,-1,female,back,x", ["faulty age: '-1' (line 5)"]),
        ("HAM_3,ISIC_4,mel,histo,120.5,female,back,x", ["faulty age: '120.5' (line 5)"]),
        ("HAM_3,ISIC_4,mel,histo,inf,female,back,x", ["faulty age: 'inf' (line 5)"]),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(root: Path, row: str, expected: list[str]) -> None:
    write(root, [HEADER, *ROWS[:3], row])
    problems = lines_of_error(root)
    assert len(problems) == 1
    assert problems[0].startswith("HAM10000_metadata: ")
    assert all(text in problems[0] for text in expected), problems


@pytest.mark.parametrize("age", ["0", "120", "55", "80.0"])
def test_ages_from_0_to_120_are_taken(root: Path, age: str) -> None:
    write(root, [HEADER, *ROWS[:3], f"HAM_3,ISIC_4,mel,histo,{age},female,back,x"])
    assert read(root)["age"][3] == float(age)


@pytest.mark.parametrize("empty", ["", "NA"])
def test_an_image_without_lesion_is_a_lesion_of_its_own(
    root: Path, empty: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(root, [HEADER, *ROWS[:3], f"{empty},ISIC_4,mel,histo,0,female,back,x"])
    assert read(root)["lesion_id"].tolist() == ["HAM_2", "HAM_1", "HAM_2", "ISIC_4"]
    assert "1 of 4 images have no lesion_id: each counts as a lesion of its own" in caplog.text


def test_the_way_on_is_that_of_the_table_at_hand(root: Path) -> None:
    """Neither HAM10000's address nor its names stand in the errors of another table."""
    (root / "photos.zip").write_bytes(b"PK")
    (root / "mine.csv").write_text("image,diagnosis\nISIC_1,wart\n")
    folder, word = lines_of_error(root, table="mine", images=["photos"])
    assert folder == "no image folder photos; data.images names them; unpack photos.zip."
    assert "unknown diagnosis 'wart' (line 2)" in word


def test_duplicate_image_ids(root: Path) -> None:
    write(root, [HEADER, *ROWS, ROWS[0]])
    assert "image_id in more than one row: 'ISIC_3' (line 2, 6)" in lines_of_error(root)[0]


def test_blank_image_ids_are_not_called_missing_images(root: Path) -> None:
    (root / FOLDERS[1] / "ISIC_4.jpg").unlink()
    write(root, [HEADER, *ROWS[:3], "HAM_3,,mel,histo,0,female,back,x"])
    problems = lines_of_error(root)
    assert len(problems) == 1
    assert "no image_id in line 5" in problems[0]


def test_only_the_first_five_are_named(root: Path) -> None:
    more = [f"HAM_{n},ISIC_{n},d{n},histo,0,female,back,x" for n in range(10, 22)]
    write(root, [HEADER, *ROWS, *more])
    (line,) = [line for line in lines_of_error(root) if "unknown dx" in line]
    assert "'d14' (line 10) (first 5 of 12)" in line
    assert "d15" not in line


def test_everything_wrong_is_said_at_once(root: Path) -> None:
    write(
        root,
        [
            HEADER,
            "HAM_1,ISIC_1,nv,histo,200,male,back,x",
            "HAM_1,ISIC_2,MEL,histo,x,male,back,x",
            "HAM_1,ISIC_2,wart,histo,5,q,back,x",
            ",ISIC_9,nv,histo,5,male,back,x",
            ",,nv,histo,5,male,back,x",
        ],
    )
    (root / FOLDERS[0] / "ISIC_1.jpg").write_bytes(jpeg()[:-2])
    (root / FOLDERS[1] / "ISIC_1.png").write_bytes(b"")
    expected = [
        "no image_id in line 6",
        "image_id in more than one row: 'ISIC_2' (line 3, 4)",
        "unknown dx 'wart' (line 4)",
        "faulty age: '200' (line 2), 'x' (line 3)",
        "unknown sex: 'q' (line 4)",
        "more than one diagnosis of a lesion: HAM_1 (mel, nv)",
        "no image file for 1 of 3 rows (ISIC_9)",
        "no row for 2 image files",
        "more than one file for 1 images",
        "2 faulty image files",
    ]
    problems = lines_of_error(root)
    assert len(problems) == len(expected)
    for text, problem in zip(expected, problems, strict=True):
        assert text in problem


# What is wrong with the form of the table


def test_missing_columns_are_named_with_the_other_problems(root: Path) -> None:
    write(root, ["shot,dx,age,sex,localization", "ISIC_1,wart,5,male,back"])
    first, second = lines_of_error(root)
    assert "no column image_id;" in first
    assert "'shot'" in first
    assert "unknown dx 'wart' (line 2)" in second


@pytest.mark.parametrize("content", ["", HEADER + "\n", HEADER + "\n,,,,,,,\n"])
def test_an_empty_table(root: Path, content: str) -> None:
    (root / "HAM10000_metadata").write_text(content)
    problems = lines_of_error(root)
    assert len(problems) == 1
    assert "HAM10000_metadata: " in problems[0]
    assert "empty" in problems[0] or "no rows" in problems[0]


def test_broken_lines_are_named_and_not_blamed_on_the_images(root: Path) -> None:
    write(root, [HEADER, *ROWS[:3], "HAM_3,ISIC_4,mel"])
    problems = lines_of_error(root)
    assert len(problems) == 1
    assert "not 8 fields" in problems[0]
    assert "line 5" in problems[0]


# Where things lie


def test_a_missing_root_says_where_to_get_the_data(tmp_path: Path) -> None:
    problems = lines_of_error(tmp_path / "gone")
    assert "gone is not there" in problems[0]
    assert "https://doi.org/10.7910/DVN/DBW86T" in problems[-1]
    assert str(tmp_path / "gone" / FOLDERS[0]) in problems[-1]


def test_a_root_that_is_a_file(root: Path) -> None:
    assert "HAM10000_metadata is a file; expected a folder" in lines_of_error(root / "HAM10000_metadata")[0]


def test_an_empty_root_names_table_and_folders_at_once(tmp_path: Path) -> None:
    problems = lines_of_error(tmp_path)
    assert "no table HAM10000_metadata (nor with .csv, .tsv, .tab, .txt)" in problems[0]
    assert "no image folder HAM10000_images_part_1 or HAM10000_images_part_2" in problems[1]
    assert "doi.org" in problems[2]
    assert len(problems) == 3


def test_bad_rows_and_missing_folders_are_said_together(root: Path) -> None:
    write(root, [HEADER, "HAM_1,ISIC_1,wart,histo,5,male,back,x"])
    folder, source, row = lines_of_error(root, images=["elsewhere"])
    assert "no image folder elsewhere" in folder
    assert "doi.org" in source
    assert "'wart' (line 2)" in row


def test_two_tables_that_differ_are_refused(root: Path) -> None:
    write(root, [HEADER, *ROWS[:3]], "HAM10000_metadata.csv")
    assert "HAM10000_metadata and HAM10000_metadata.csv differ" in lines_of_error(root)[0]
    (root / FOLDERS[1] / "ISIC_4.jpg").unlink()
    assert len(read(root, table="HAM10000_metadata.csv")) == 3  # the way out that the message names


def test_two_equal_tables_are_one(root: Path) -> None:
    expected = read(root)
    (root / "HAM10000_metadata.csv").write_bytes((root / "HAM10000_metadata").read_bytes())
    pd.testing.assert_frame_equal(read(root), expected)


def test_a_folder_of_the_table_name_is_no_table(root: Path) -> None:
    (root / "HAM10000_metadata").rename(root / "HAM10000_metadata.csv")
    (root / "HAM10000_metadata").mkdir()
    assert len(read(root)) == 4


def test_folders_unpacked_into_themselves(root: Path) -> None:
    (root / FOLDERS[0]).rename(root / "inner")
    (root / FOLDERS[0]).mkdir()
    (root / "inner").rename(root / FOLDERS[0] / FOLDERS[0])
    assert Path(read(root)["path"][0]) == root / FOLDERS[0] / FOLDERS[0] / "ISIC_1.jpg"


def test_all_images_in_one_folder(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in sorted((root / FOLDERS[1]).iterdir()):
        path.rename(root / FOLDERS[0] / path.name)
    assert len(read(root)) == 4
    (root / FOLDERS[1]).rmdir()
    caplog.set_level(logging.INFO)
    assert len(read(root)) == 4
    assert "there is no folder HAM10000_images_part_2" in caplog.text


def test_a_missing_folder_is_named_beside_the_missing_images(root: Path) -> None:
    (root / FOLDERS[1]).rename(root / "part_2")
    (line,) = lines_of_error(root)
    assert "no image file for 2 of 4 rows (ISIC_2, ISIC_4; there is no folder HAM10000_images_part_2)" in line


# Rows without image, images without row


def test_rows_without_image_are_an_error_or_dropped_aloud(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = read(root)
    (root / FOLDERS[1] / "ISIC_2.jpg").unlink()
    (line,) = lines_of_error(root)
    assert "no image file for 1 of 4 rows (ISIC_2)" in line
    assert "data.missing_images=drop" in line
    frame = read(root, missing_images="drop")
    pd.testing.assert_frame_equal(frame, whole[whole["image_id"] != "ISIC_2"].reset_index(drop=True))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no image file for 1 of 4 rows (ISIC_2): these rows are dropped" in caplog.text


def test_dropping_every_row_is_an_error(root: Path) -> None:
    for path in sorted(root.glob("*/*.jpg")):
        path.unlink()
    (line,) = lines_of_error(root, missing_images="drop")
    assert "no row would be left" in line


def test_images_without_row_are_an_error_or_passed_over(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = read(root)
    (root / FOLDERS[0] / "ISIC_7.jpg").write_bytes(b"")  # not used, so not probed either
    (line,) = lines_of_error(root)
    assert f"no row for 1 image files ({FOLDERS[0]}/ISIC_7.jpg)" in line
    assert "data.extra_images=ignore" in line
    caplog.set_level(logging.INFO)
    pd.testing.assert_frame_equal(read(root, extra_images="ignore"), expected)
    assert "no row for 1 image files" in caplog.text


@pytest.mark.parametrize("key", ["missing_images", "extra_images"])
def test_unknown_policies_are_refused(root: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{key}=maybe: expected"):
        read(root, **{key: "maybe"})


# The real one

SHARED = os.environ.get("SKINLESION_SHARED")


@pytest.mark.real_data
@pytest.mark.skipif(SHARED is None, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_ham10000_is_read_as_published() -> None:
    assert SHARED is not None
    start = time.perf_counter()
    frame = read(Path(SHARED) / "ham10000")
    assert time.perf_counter() - start < 20  # well under a second where the disk has the files at hand
    assert len(frame) == 10_015
    assert frame["lesion_id"].nunique() == 7_470
    counts = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
    assert frame["diagnosis"].value_counts().to_dict() == counts
    assert (int(frame["age"].isna().sum()), int((frame["age"] == 0).sum())) == (57, 39)
    assert frame["sex"].value_counts().to_dict() == {"male": 5406, "female": 4552, "unknown": 57}
    assert (frame["localization"] == "unknown").sum() == 234
    assert frame["localization"].nunique() == 15
    assert frame["image_id"].is_monotonic_increasing
    assert frame["image_id"].is_unique


def test_names_of_diagnoses_are_read_and_other_words_lead_to_the_key(root: Path) -> None:
    write(root, [HEADER, *(row.replace(",mel,", ",Melanoma,") for row in ROWS)])
    assert read(root)["diagnosis"].tolist() == ["bkl", "nv", "bkl", "mel"]
    write(root, [HEADER, *(row.replace(",mel,", ",naevus maligna,") for row in ROWS)])
    (line,) = lines_of_error(root)
    assert "unknown dx 'naevus maligna' (line 5)" in line
    assert "'+data.classes={naevus maligna: VALUE}'" in line


def test_a_table_of_0_and_1_or_without_header_is_read_without_a_key(root: Path) -> None:
    """`data.table` names any form of labels; the images lie in HAM10000's folders."""
    forms = {
        "onehot.csv": "image,MEL,NV\nISIC_1,0,1\nISIC_2,0,1\nISIC_3,1,0\nISIC_4,0,1\n",
        "export.csv": "isic_id,diagnosis_1,diagnosis_3\n"
        + "".join(f"ISIC_{n},Benign,{'Melanoma in situ' if n == 3 else 'Nevus'}\n" for n in range(1, 5)),
        "bare.csv": "ISIC_1.jpg,nevus\nISIC_2.jpg,mole\nISIC_3.jpg,Melanoma\nISIC_4.jpg,nv\n",
    }
    for name, text in forms.items():
        (root / name).write_text(text)
        config = composed("train", TrainConfig, f"data.root={root}", f"data.table={name}").data
        assert read_data(config)["diagnosis"].tolist() == ["nv", "nv", "mel", "nv"], name
    (root / "none.csv").write_text("image,outcome\nISIC_1,mel\nISIC_2,nv\n")
    config = composed("train", TrainConfig, f"data.root={root}", "data.table=none.csv").data
    with pytest.raises(DataError, match=r"or data\.columns\.diagnosis=NAME \('outcome' holds known words\)"):
        read_data(config)


def test_inferred_diagnoses_keep_the_spelling_of_the_table(root: Path) -> None:
    named = [row.replace(",mel,", ",Non-Melanoma,").replace(",nv,", ",Spitz/Reed nevus,") for row in ROWS]
    write(root, [HEADER, *named])
    frame = read(root, taxonomy=(infer := Taxonomy.load("infer")))
    found = infer.found_in(frame["diagnosis"], frame.attrs[NAMES])
    spelt = {"bkl": "bkl", "non_melanoma": "non-melanoma", "spitz_reed_nevus": "spitz/reed nevus"}
    assert {each.code: each.name for each in found.diagnoses} == spelt


def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    """A tenth of them, in processor time: a second here, five before words and lesions were read once each."""
    lines = [f"L{n // 2},I{n},{'nv' if n // 2 % 7 else 'mel'},x,{n % 18 * 5}.0,male,back,y" for n in range(100_000)]
    write(tmp_path, [HEADER, *lines])
    start = time.process_time()
    found = read_labelled(tmp_path / "HAM10000_metadata", images=None, metadata=None, classes={}, key="data")
    assert time.process_time() - start < 4
    assert len(found.frame) == 100_000


def test_images_in_folders_by_diagnosis_need_no_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Folders may have codes or names of diagnoses, and files of two folders the same name."""
    for folder, names in {"mel": "12", "melanocytic nevus": "134", "BCC": "5"}.items():
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "photos" / folder / f"{name}.jpg").write_bytes(jpeg())
    found = read_labelled(Path("folders"), images=[tmp_path / "photos"], metadata=None, classes={}, key="external")
    assert dict(zip(found.frame["image_id"], found.frame["diagnosis"], strict=True)) == {
        "photos/mel/1": "mel",
        "photos/mel/2": "mel",
        "photos/BCC/5": "bcc",
        **{f"photos/melanocytic nevus/{name}": "nv" for name in "134"},
    }
    assert set(found.frame["path"]) == {str(path) for path in (tmp_path / "photos").rglob("*.jpg")}
    (tmp_path / "photos" / "wart").mkdir()
    (tmp_path / "photos" / "wart" / "6.jpg").write_bytes(jpeg())
    with pytest.raises(DataError, match=r"unknown diagnosis 'wart'.*external.classes.wart=VALUE"):
        read_labelled(Path("folders"), images=[tmp_path / "photos"], metadata=None, classes={}, key="external")
    (tmp_path / "photos" / "wart" / "6.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 faulty image files: .*6.jpg: empty file"):
        read_labelled(
            Path("folders"), images=[tmp_path / "photos"], metadata=None, classes={"wart": "bkl"}, key="external"
        )


def test_dicom_files_fill_in_facts_that_the_table_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"a": {"age": 40.0, "sex": "male"}, "b": {"age": 30.0}}
    monkeypatch.setattr("skinlesion.data.dicom.dicom_facts", lambda path: said[path.stem])
    monkeypatch.setattr("skinlesion.data.image_files.file_faults", lambda *_: {})
    for name in "ab":
        (tmp_path / f"{name}.dcm").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("image,dx,age\na.dcm,mel,\nb,nv,61\n")
    found = read_labelled(tmp_path / "labels.csv", images=[tmp_path], metadata=None, classes={}, key="external").frame
    assert found[["image_id", "age", "sex"]].to_numpy().tolist() == [["a", 40.0, "male"], ["b", 61.0, "unknown"]]
