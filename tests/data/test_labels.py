"""Label files of other data sets: one-hot or dx, facts here or there, words mapped, and what is refused."""

import logging
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import composed
from PIL import Image

from skinlesion.config.inference import EvaluateConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.columns import COLUMNS, Layout
from skinlesion.data.readers import LabelledData, read_data, read_labelled
from skinlesion.data.splits import assign
from skinlesion.errors import ConfigError, DataError
from skinlesion.taxonomy import Taxonomy

CLASSES = {"ak": "akiec", "scc": "akiec", "unk": "error", "unknown": "error"}
HEADER = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
SHARED = os.environ.get("SKINLESION_SHARED")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., LabelledData]:
    """Write images and tables, and read them."""

    def make(
        labels: str,
        metadata: str | None = None,
        *,
        images: str = "abc",
        folders: list[Path] | None = None,
        **others: object,
    ) -> LabelledData:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for name in images:
            Image.fromarray(np.full((4, 6, 3), ord(name), np.uint8)).save(folder / f"{name}.png")
        (tmp_path / "labels.csv").write_text(labels)
        (tmp_path / "facts.csv").write_text(metadata or "")
        settings = {"classes": CLASSES, "images": folders or [folder], "key": "external", **others}
        facts = None if metadata is None else tmp_path / "facts.csv"
        return read_labelled(tmp_path / "labels.csv", metadata=facts, **settings)

    return make


def one_hot(**rows: str) -> str:
    names = HEADER.split(",")[1:]
    lines = [",".join([image, *("1.0" if name == word else "0.0" for name in names)]) for image, word in rows.items()]
    return "\n".join([HEADER, *lines, ""])


def test_one_hot_with_isics_facts(read: Callable[..., LabelledData]) -> None:
    facts = "image,age_approx,anatom_site_general,lesion_id,sex\na,55.0,Head/Neck,L1,male\nc,,,,\n"
    found = read(one_hot(c="SCC", a="AK", b="MEL"), facts)
    frame = found.frame
    assert tuple(frame.columns) == COLUMNS
    assert frame["image_id"].tolist() == ["a", "b", "c"]
    assert frame["diagnosis"].tolist() == ["akiec", "mel", "akiec"]
    assert frame["lesion_id"].tolist() == ["L1", "b", "c"]
    assert frame["age"].iloc[0] == 55
    assert frame["age"].isna().tolist() == [False, True, True]
    assert frame["sex"].tolist() == ["male", "unknown", "unknown"]
    assert frame["localization"].tolist() == ["head/neck", "unknown", "unknown"]
    assert found.without_lesion_id == 2
    assert found.label_counts == {
        "ak": {"images": 1, "counts_as": "akiec"},
        "mel": {"images": 1, "counts_as": "mel"},
        "scc": {"images": 1, "counts_as": "akiec"},
    }


def test_dx_with_facts_in_the_same_file(read: Callable[..., LabelledData]) -> None:
    frame = read(
        "lesion_id,image_id,dx,age,sex,localization\nH1,a.jpg,NV,0,female,back\nH1,b,nv,,,\nH2,c,Melanoma,3,,\n"
    ).frame
    assert frame["diagnosis"].tolist() == ["nv", "nv", "mel"]
    assert frame["lesion_id"].tolist() == ["H1", "H1", "H2"]
    assert frame["age"].tolist()[::2] == [0, 3]
    assert frame["localization"].tolist() == ["back", "unknown", "unknown"]


def test_facts_of_the_metadata_file_win_where_it_has_any(read: Callable[..., LabelledData]) -> None:
    frame = read("image,dx,sex,age\na,nv,male,1\nb,nv,male,2\nc,nv,male,3\n", "image,sex\na,female\nb,\n").frame
    assert frame["sex"].tolist() == ["female", "male", "male"]
    assert frame["age"].tolist() == [1, 2, 3]


def test_words_are_dropped_or_mapped_by_choice(read: Callable[..., LabelledData]) -> None:
    labels = one_hot(a="SCC", b="UNK", c="NV")
    found = read(labels, classes={**CLASSES, "scc": "drop", "unk": "drop"})
    assert found.frame["image_id"].tolist() == ["c"]
    assert found.label_counts["scc"] == {"images": 1, "counts_as": "dropped"}
    with pytest.raises(DataError, match=r"images of 'unk' \(line 3\).*external\.classes\.unk=drop"):
        read(labels)


def test_images_without_row_and_rows_without_image(read: Callable[..., LabelledData]) -> None:
    labels = "image,dx\na,nv\nz,mel\n"
    with pytest.raises(DataError) as caught:
        read(labels)
    assert "no image file for 1 of 2 rows (z)" in str(caught.value)
    assert "external.missing_images=drop" in str(caught.value)
    assert "no row for 2 image files (b.png, c.png)" in str(caught.value)
    found = read(labels, missing_images="drop", extra_images="ignore")
    assert found.frame["image_id"].tolist() == ["a"]
    with pytest.raises(DataError, match="no row would be left"):
        read("image,dx\ny,nv\nz,mel\n", missing_images="drop", extra_images="ignore")


@pytest.mark.parametrize(
    ("labels", "metadata", "said"),
    [
        ("image,dx\na,nv\nb,wart\nc,nv\n", None, "unknown diagnosis 'wart' (line 3); say what it stands for with"),
        ("image,dx\na,nv\na,nv\nc,nv\n", None, "image_id in more than one row: 'a' (line 2, 3)"),
        ("image,dx\na,nv\nb,\nc,nv\n", None, "external.classes.unknown=drop"),
        ("name,dx\na,nv\n", None, "no column of image ids"),
        ("image,age\na,3\n", None, "no column dx and none that is named after a diagnosis"),
        ("image,MEL,NV,WART\na,1,0,0\nb,0,1,0\nc,0,0,1\n", None, "unknown column wart; say what it stands for"),
        ("image,MEL,NV\na,1,0\nb,nan,1\nc,0,1\n", None, "neither 0 nor 1 in line 3"),
        ("image,MEL,NV\na,1,1\nb,0,1\nc,0,0\n", None, "no diagnosis or more than one in line 2, 4"),
        ("image,dx,sex\na,nv,mann\nb,nv,\nc,nv,\n", None, "labels.csv: unknown sex: 'mann' (line 2)"),
        ("image,dx\na,nv\nb,nv\nc,nv\n", "image,age\na,200\n", "facts.csv: faulty age: '200' (line 2)"),
        ("image,dx\na,nv\nb,nv\nc,nv\n", "image,age\nx,20\n", "facts.csv: no row for any image of the label file"),
        ("image,dx\na,nv\nb,nv\nc,nv\n", "image,age\na,2\na,3\n", "facts.csv: image_id in more than one row"),
        ("image,dx\na,nv\nb,nv\nc,nv\n", "age\n2\n", "facts.csv: no column of image ids"),
        ("image,dx,lesion_id\na,nv,L\nb,mel,L\nc,nv,M\n", None, "more than one diagnosis of a lesion: L (mel, nv)"),
        ("", None, "the file is empty"),
        ("image,dx\n", None, "no rows below the header"),
    ],
)
def test_what_is_wrong_is_named(
    labels: str, metadata: str | None, said: str, read: Callable[..., LabelledData]
) -> None:
    with pytest.raises(DataError) as caught:
        read(labels, metadata)
    assert said in str(caught.value)


def test_missing_places_and_broken_images(read: Callable[..., LabelledData], tmp_path: Path) -> None:
    read("image,dx\na,nv\nb,nv\nc,nv\n")
    settings = {"metadata": None, "classes": {}, "key": "external"}
    with pytest.raises(DataError, match=r"no image folder .*external\.images"):
        read_labelled(tmp_path / "labels.csv", images=[tmp_path / "none"], **settings)
    with pytest.raises(DataError, match="cannot be read as text"):
        read_labelled(tmp_path / "none.csv", images=[tmp_path / "images"], **settings)
    (tmp_path / "images" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 faulty image files: .*b\.png: empty file"):
        read_labelled(tmp_path / "labels.csv", images=[tmp_path / "images"], **settings)


def test_meanings_are_checked(read: Callable[..., LabelledData]) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes\.scc=carcinoma: expected one of akiec"):
        composed("train", TrainConfig, "data=isic2019", "+data.classes.scc=carcinoma")
    with pytest.raises(ConfigError, match=r"data\.metadata=facts\.csv: expected null"):
        composed("train", TrainConfig, "data.metadata=facts.csv")
    with pytest.raises(ConfigError, match=r"external\.classes\.scc=cancer: expected one of akiec"):
        read("image,dx\na,nv\nb,nv\nc,scc\n", classes={"scc": "cancer"})
    assert composed("train", TrainConfig, "data=isic2019", "+data.classes.wart=drop").data.classes["wart"] == "drop"


def places(*overrides: str) -> TrainConfig:
    parts = ",".join(f"{SHARED}/ham10000/HAM10000_images_part_{part}" for part in (1, 2))
    return composed(
        "train", TrainConfig, "data=isic2019", f"data.root={SHARED}/isic2019", f"data.images=[{parts}]", *overrides
    )


def words_read(read: Callable[..., LabelledData], labels: str, **others: object) -> list[str]:
    return read(labels, classes=isic_words(), **others).frame["diagnosis"].tolist()


def isic_words() -> dict[str, str]:
    return dict(composed("evaluate", EvaluateConfig, "checkpoint=x", "split=val").external.classes)


@pytest.mark.parametrize(
    ("column", "words", "codes"),
    [
        ("diagnosis", ("pigmented benign keratosis", "angioma", "nevus"), ["bkl", "vasc", "nv"]),
        ("diagnosis_3", ("Nevus", "Melanoma, NOS", "Basal cell carcinoma"), ["nv", "mel", "bcc"]),
        ("diagnostic", ("ACK", "NEV", "SEK"), ["akiec", "nv", "bkl"]),
        ("cell_type", ("Melanomas", "Moles", "Cherry angiomas"), ["mel", "nv", "vasc"]),
        ("Histology", ("Bowen", "Basalioma", "Histiocytoma"), ["akiec", "bcc", "df"]),
        ("disease", ("melanocytic-nevi", "basal-cell-carcinoma", "vascular_lesions"), ["nv", "bcc", "vasc"]),
        ("dx", ("melanocytic_Nevi", "benign_keratosis-like_lesions", "dermatofibroma"), ["nv", "bkl", "df"]),
    ],
)
def test_common_words_and_columns_are_known(
    read: Callable[..., LabelledData], column: str, words: tuple[str, ...], codes: list[str]
) -> None:
    rows = "".join(f'{image},"{word}"\n' for image, word in zip("abc", words, strict=True))
    assert words_read(read, f"isic_id,{column}\n{rows}") == codes


@pytest.mark.parametrize("word", ["odd kind", "carcinoma (basal), nos", "reader's", "a:b=c", "x.y", "rare", "a\\b{c}"])
def test_the_advice_for_an_unknown_word_works_when_typed(read: Callable[..., LabelledData], word: str) -> None:
    labels = f'image,dx\na,"{word}"\nb,nv\nc,mel\n'
    with pytest.raises(DataError) as caught:
        read(labels)
    (found,) = re.findall(r"say what it stands for with (.*), VALUE one of", str(caught.value))
    (typed,) = shlex.split(found.replace("VALUE", "vasc"))
    classes = composed("evaluate", EvaluateConfig, "checkpoint=x", "split=val", typed).external.classes
    assert read(labels, classes=dict(classes)).frame["diagnosis"].tolist() == ["vasc", "nv", "mel"]


def test_no_one_in_a_row_may_stand_for_a_diagnosis(read: Callable[..., LabelledData]) -> None:
    labels = "image_id,melanoma,seborrheic_keratosis\na,0,0\nb,1,0\nc,0,1\n"
    with pytest.raises(DataError, match=r"'\+external\.classes\.none=VALUE'"):
        words_read(read, labels)
    found = read(labels, classes={**isic_words(), "none": "nv"})
    assert found.frame["diagnosis"].tolist() == ["nv", "mel", "bkl"]


def test_empty_cells_stand_for_0_where_no_0_is_written(
    read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for taxonomy in ("infer", "ham10000"):
        options = {"taxonomy": Taxonomy.load(taxonomy)} | ({"classes": {}} if taxonomy == "infer" else {})
        found = read("image,MEL,NV,BCC\na,1,,\nb,NaN,1.0,nan\nc,,,1\n", **options)
        assert found.frame["diagnosis"].tolist() == ["mel", "nv", "bcc"]
    assert "not read" not in caplog.text
    for row, lines in {"b,,,": "3", "b,0.6,,0.4": "3", "b,1,1,": "3", "b,0,1,": "2, 3, 4"}.items():
        with pytest.raises(DataError, match=f"in line {lines};"):
            read(f"image,MEL,NV,BCC\na,1,,\n{row}\nc,,,1\n")


def test_numbers_for_ids_match_however_a_program_wrote_them(read: Callable[..., LabelledData]) -> None:
    """Beside empty cells pandas writes whole numbers with `.0`."""
    found = read("lesion_id,dx\n7,mel\n8,nv\n", "image,lesion_id\n1.0,7.0\n2.0,8.0\n3.0,7.0\n", images="123")
    assert dict(zip(found.frame["image_id"], found.frame["diagnosis"], strict=True)) == {
        "1": "mel",
        "2": "nv",
        "3": "mel",
    }
    assert found.frame["lesion_id"].nunique() == 2


def test_columns_that_are_not_0_or_1_are_passed_over(read: Callable[..., LabelledData]) -> None:
    labels = "image,MEL,NV,patient_id,age,clinic\na,1,0,P0,50,x\nb,0,1,P0,50,y\nc,0,1,P1,,z\n"
    frame = read(labels).frame
    assert frame["diagnosis"].tolist() == ["mel", "nv", "nv"]
    assert frame["patient_id"].tolist() == ["P0", "P0", "P1"]
    with pytest.raises(DataError, match=r"unknown column other; say .*external\.classes\.other=VALUE"):
        read("image,MEL,NV,OTHER\na,1,0,0\nb,0,1,0\nc,0,1,0\n")


def test_truth_by_lesion_is_joined_through_the_metadata(read: Callable[..., LabelledData]) -> None:
    labels = "lesion_id,MEL,NV\nL0,1,0\nL1,0,1\n"
    facts = "lesion_id,isic_id,age_approx,sex,site\nL0,a,40,female,trunk\nL0,b,40,female,trunk\nL1,c,,male,back\n"
    frame = read(labels, facts).frame
    assert frame["diagnosis"].tolist() == ["mel", "mel", "nv"]
    assert frame["lesion_id"].tolist() == ["L0", "L0", "L1"]
    assert frame["localization"].tolist() == ["trunk", "trunk", "back"]
    with pytest.raises(DataError, match="no column of image ids"):
        read(labels)


def test_facts_under_other_names_are_read_and_named(
    read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = "a,nv,40,FEMALE,FACE\nb,nv,50,MALE,ARM\nc,mel,,,\n"
    found = read(f"img_id,dx,age_at_diagnosis,gender,region\n{rows}")
    assert found.frame["age"].tolist()[:2] == [40, 50]
    assert found.frame["sex"].tolist() == ["female", "male", "unknown"]
    assert found.frame["localization"].tolist() == ["face", "arm", "unknown"]
    assert found.fact_columns == {"age": "age_at_diagnosis", "sex": "gender", "localization": "region"}
    assert "Facts: age from age_at_diagnosis, sex from gender, localization from region." in caplog.text
    assert "No column" not in caplog.text


def test_facts_that_are_not_there_are_named_beside_the_columns_that_are_not_read(
    read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture
) -> None:
    read("image,dx,years,sex,spot\na,nv,40,,back\nb,nv,50,,back\nc,mel,,,\n")
    assert "No column of age, localization, unknown for all images; not read: years, spot." in caplog.text


def test_images_of_a_patient_are_counted(read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    read("image,dx,patient_id\na,nv,P0\nb,mel,P0\nc,nv,P1\n")
    assert "3 images of 3 lesions of 2 patients, kept together by patient: 2 groups." in caplog.text


def test_lesions_of_two_diagnoses_are_left_out_on_demand(read: Callable[..., LabelledData]) -> None:
    labels = "image,dx,lesion_id\na,nv,L0\nb,mel,L0\nc,nv,L1\n"
    with pytest.raises(DataError, match=r"L0 \(mel, nv\).*leave them out with external\.torn=drop"):
        read(labels)
    found = read(labels, torn="drop")
    assert found.frame["image_id"].tolist() == ["c"]
    assert {*found.dropped} == {"a", "b"}


@pytest.mark.parametrize("labels", ["image,target\na,0\nb,1\n", "image,benign_malignant\na,benign\nb,malignant\n"])
def test_benign_or_malignant_alone_is_no_diagnosis(read: Callable[..., LabelledData], labels: str) -> None:
    with pytest.raises(DataError, match="benign or malignant alone is no diagnosis of ham10000"):
        read(labels)
    with pytest.raises(DataError, match="is no diagnosis of ham10000; expected a column that names one"):
        read("image,dx\na,benign\nb,malignant\n")
    assert read(labels, binary=True, extra_images="ignore").frame["diagnosis"].tolist() == ["benign", "malignant"]
    with pytest.raises(DataError, match="is no diagnosis of ham10000"):
        read("image,dx\na,benign\nb,malignant\nc,nv\n", binary=True)


def test_a_column_without_a_name_is_passed_over(read: Callable[..., LabelledData]) -> None:
    assert read(",image,dx\n0,a,nv\n1,b,mel\n2,c,nv\n").frame["diagnosis"].tolist() == ["nv", "mel", "nv"]


def test_a_header_without_ids_and_ids_with_a_folder(read: Callable[..., LabelledData]) -> None:
    with pytest.raises(DataError, match=r"expected a header such as image,dx, got 'row', 'nv'"):
        read("row,nv\nb,nv\n")
    assert read("image,dx\nx/a.jpg,nv\nx/b.jpg,nv\nx/c.jpg,mel\n").frame["image_id"].tolist() == ["a", "b", "c"]


@pytest.mark.real_data
@pytest.mark.skipif(SHARED is None, reason="SKINLESION_SHARED is not set")
def test_isic2019_agrees_with_ham10000_on_the_images_they_share(caplog: pytest.LogCaptureFixture) -> None:
    frame = read_data(places("data.missing_images=drop").data)
    assert "no image file for 15,316 of 25,331 rows" in caplog.text
    ham = read_data(composed("train", TrainConfig, f"data.root={SHARED}/ham10000").data)
    for column in ("image_id", "diagnosis", "lesion_id"):
        assert frame[column].tolist() == ham[column].tolist()
    same = (frame["age"] == ham["age"]) | (frame["age"].isna() & ham["age"].isna())
    assert (~same).sum() == 6  # their tables differ in six ages
    back = frame["localization"] == "posterior torso"
    assert back.equals(ham["localization"] == "back")
    for policy in ("published", "grouped"):
        split = assign(frame, **asdict(composed("train", TrainConfig, f"split.policy={policy}").split))
        assert len(split.drop_duplicates(["lesion_id", "split"])) == split["lesion_id"].nunique()


@pytest.mark.real_data
@pytest.mark.skipif(SHARED is None, reason="SKINLESION_SHARED is not set")
def test_all_of_isic2019s_rows_are_understood() -> None:
    """All 25,331 rows, by the tables alone: most of the images are not there."""
    labels, metadata = (
        Path(f"{SHARED}/isic2019/ISIC_2019_Training_{name}.csv") for name in ("GroundTruth", "Metadata")
    )
    found = read_labelled(labels, images=None, metadata=metadata, classes=CLASSES, key="data")
    counts = {word: each["images"] for word, each in found.label_counts.items()}
    expected = pd.read_csv(labels).drop(columns=["image", "UNK"])
    assert counts == {name.lower(): int(total) for name, total in expected.sum().items()}
    assert (found.frame["diagnosis"] == "akiec").sum() == 867 + 628
    assert found.without_lesion_id == 2084
    without = read_labelled(labels, images=None, metadata=metadata, classes={**CLASSES, "scc": "drop"}, key="data")
    ham = pd.read_csv(f"{SHARED}/ham10000/HAM10000_metadata")
    akiec = ham.loc[ham["dx"] == "akiec", "image_id"]
    assert akiec.isin(without.dropped).sum() == 197


HIERARCHY = (
    "isic_id,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5\n"
    'a,Benign,Benign melanocytic proliferations,Nevus,"Nevus, Atypical, Dysplastic, or Clark",\n'
    "b,Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma in situ,Lentigo maligna,\n"
    "c,{},,\n"
)


def test_the_archives_hierarchy_gives_the_finest_word_that_is_known(
    read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    vascular = HIERARCHY.format("Benign,Benign soft tissue proliferations - Vascular,Some rare kind")
    assert read(vascular).frame["diagnosis"].tolist() == ["nv", "mel", "vasc"]
    assert "lentigo maligna as mel (1)" in caplog.text
    with pytest.raises(DataError, match=r"unknown diagnosis 'verruca' \(line 4\).*\+external\.classes\.verruca=VALUE"):
        read(HIERARCHY.format("Benign,Inflammatory or infectious diseases,Verruca"))
    two = read(HIERARCHY.format("Benign,,"), classes={}, taxonomy=Taxonomy.load("isic2024"))
    assert two.frame["diagnosis"].tolist() == ["benign", "malignant", "benign"]


def test_a_column_whose_words_are_all_known_goes_before_one_that_says_less(read: Callable[..., LabelledData]) -> None:
    rows = (
        "image_name,diagnosis,benign_malignant,target\na,nevus,benign,0\nb,melanoma,malignant,1\nc,unknown,benign,0\n"
    )
    found = read(rows, classes={}, taxonomy=Taxonomy.load("isic2020"))
    assert found.frame["diagnosis"].tolist() == ["other", "mel", "other"]
    with pytest.raises(DataError, match=r"images of 'unknown' \(line 4\).*external\.classes\.unknown=drop"):
        read(rows, classes={})


def test_inferred_diagnoses_are_the_words_or_the_columns_of_0_and_1(read: Callable[..., LabelledData]) -> None:
    options = {"classes": {}, "taxonomy": Taxonomy.load("infer")}
    assert read("image,dx\na,Mole\nb,old-age wart\nc,Mole\n", **options).frame["diagnosis"].tolist() == [
        "mole",
        "old_age_wart",
        "mole",
    ]
    one_hot = read("image,Wart,Mole,age\na,1,0,50\nb,0,1,60\nc,0,1,70\n", **options)
    assert one_hot.frame["diagnosis"].tolist() == ["wart", "mole", "mole"]
    chosen = read("image,dx\na,Mole\nb,naevus\nc,wart\n", **{**options, "classes": {"naevus": "mole", "wart": "drop"}})
    assert chosen.frame["diagnosis"].tolist() == ["mole", "mole"]


def test_the_nearest_codes_of_an_unknown_word_are_named(read: Callable[..., LabelledData]) -> None:
    with pytest.raises(DataError, match=r"'basal cell carcinom' \(line 3\).*VALUE one of akiec, .*\(nearest: bcc"):
        read("image,dx\na,nv\nb,basal cell carcinom\nc,nv\n")


def test_a_column_of_diagnoses_with_an_unusual_name_is_named_not_guessed(read: Callable[..., LabelledData]) -> None:
    labels = "image,outcome,notes\na,mel,x\nb,nv,y\nc,bcc,z\n"
    with pytest.raises(DataError, match=r"or external\.columns\.diagnosis=NAME \('outcome' holds known words\)"):
        read(labels)
    layout = Layout(given={"diagnosis": "outcome"}, key="external")
    assert read(labels, layout=layout).frame["diagnosis"].tolist() == ["mel", "nv", "bcc"]


@pytest.mark.parametrize(
    ("words", "code"),
    [(("benign", "malignant", "benign"), "malignant"), (("nv", "melanoma", "nv"), "mel")],
)
def test_a_table_of_two_columns_may_lack_the_header(
    read: Callable[..., LabelledData],
    caplog: pytest.LogCaptureFixture,
    words: tuple[str, ...],
    code: str,
    tmp_path: Path,
) -> None:
    """ISIC 2016's form; where the first line is no image of the folder, the table is refused."""
    caplog.set_level(logging.INFO)
    rows = [f"{image}.jpg;{word}" for image, word in zip("abc", words, strict=True)]
    assert read("\r\n".join(rows), binary=True).frame["diagnosis"].tolist() == [words[0], code, words[0]]
    assert "labels.csv has no header: image and diagnosis of each line are read" in caplog.text
    with pytest.raises(DataError, match="no column of image ids"):
        read("\n".join(["x;benign", *rows]), binary=True)
    with pytest.raises(DataError, match=r"no image folder .*/none; external\.images names it"):
        read("\n".join(rows), binary=True, folders=[tmp_path / "none"])


@pytest.mark.parametrize(
    ("column", "words", "answers", "said"),
    [
        ("malignant", ("yes", "No", "no"), "malignant", "No as benign (1), no as benign (1)"),
        ("is_malignant", ("TRUE", "FALSE", "0"), "malignant", "0 as benign (1), FALSE as benign (1)"),
        ("Class", ("Malignant", "benign", "benign"), "malignant", "from class: Malignant as malignant (1)"),
        ("Melanoma", ("1", "0.0", "0"), "mel", "from melanoma: 0 as not mel (1), 0.0 as not mel (1), 1 as mel (1)"),
        ("mel", ("True", "False", "False"), "mel", "False as not mel (2), True as mel (1)"),
    ],
)
def test_labels_that_tell_two_kinds_apart(
    read: Callable[..., LabelledData],
    caplog: pytest.LogCaptureFixture,
    column: str,
    words: tuple[str, ...],
    answers: str,
    said: str,
) -> None:
    caplog.set_level(logging.INFO)
    rows = "".join(f"{image},{word}\n" for image, word in zip("abc", words, strict=True))
    other = "benign" if answers == "malignant" else f"not {answers}"
    assert read(f"image,{column}\n{rows}", binary=True).frame["diagnosis"].tolist() == [answers, other, other]
    assert said in caplog.text


def test_images_that_are_neither_benign_nor_malignant_are_named_and_may_be_left_out(
    read: Callable[..., LabelledData],
) -> None:
    labels = "image,benign_malignant\na,benign\nb,indeterminate\nc,malignant\n"
    with pytest.raises(
        DataError, match=r"neither .* in benign_malignant: 'indeterminate' \(line 3\); leave such"
    ) as caught:
        read(labels, binary=True)
    assert "'+external.classes.indeterminate=drop'" in str(caught.value)
    found = read(labels, binary=True, classes={**CLASSES, "indeterminate": "drop"})
    assert found.frame[["image_id", "diagnosis"]].to_numpy().tolist() == [["a", "benign"], ["c", "malignant"]]


def test_true_and_false_are_1_and_0_of_a_diagnosis_and_no_other_column(read: Callable[..., LabelledData]) -> None:
    labels = "image,MEL,NV,biopsed\na,True,False,TRUE\nb,False,True,FALSE\nc,FALSE,TRUE,FALSE\n"
    assert read(labels).frame["diagnosis"].tolist() == ["mel", "nv", "nv"]


def test_facts_by_patient_are_joined_to_the_images(
    read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    labels = "image,dx,Patient ID\na,nv,P0\nb,mel,P1\nc,nv,P0\n"
    frame = read(labels, "patient,Age,Gender\nP1,60,f\nP0,40,M\n").frame
    assert frame["age"].tolist() == [40, 60, 40]
    assert frame["sex"].tolist() == ["male", "female", "male"]
    assert "2 rows are joined to images by patient." in caplog.text
    with pytest.raises(DataError, match=r"It has A, B, and labels\.csv a, b\."):
        read(labels, "image,age\nA,60\nB,40\n")


def test_columns_that_are_not_read_are_said_and_how_to_name_patients(
    read: Callable[..., LabelledData], caplog: pytest.LogCaptureFixture
) -> None:
    """A column that may name patients is never lost without a word, though no fact lacks a column."""
    caplog.set_level(logging.INFO)
    labels = "image,dx,age,sex,site,proband\na,nv,40,f,back,P0\nb,mel,50,m,face,P1\nc,nv,60,f,back,P0\n"
    read(labels, layout=Layout(key="external"))
    assert "Columns not read: proband." in caplog.text
    assert "If a column names patients, give it as external.columns.patient=NAME." in caplog.text
    caplog.clear()
    frame = read(labels, layout=Layout(given={"patient_id": "proband"}, key="external")).frame
    assert frame["group_id"].tolist() == ["P0", "P1", "P0"]
    assert "not read" not in caplog.text


def test_dashes_are_no_patient(read: Callable[..., LabelledData]) -> None:
    frame = read("image,dx,pat_id\na,nv,-\nb,mel,-\nc,nv,not known\n").frame
    assert frame["patient_id"].tolist() == ["", "", ""]
    assert frame["group_id"].nunique() == 3


def test_ids_with_folders_tell_files_of_one_name_apart(read: Callable[..., LabelledData], tmp_path: Path) -> None:
    """Below the image folder, or with its own name before; Windows' separators and suffixes do not count."""
    shades = {"p1": 10, "p2": 20, "p3": 30}
    for patient, shade in shades.items():
        (tmp_path / "photos" / patient).mkdir(parents=True)
        Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(tmp_path / "photos" / patient / "left.png")
    for start in ("", "photos/", "photos\\"):
        labels = f"file,dx\n{start}p1/left.PNG,mel\n{start}p2/left.png,nv\n{start}p3/left,nv\n"
        frame = read(labels, images="", folders=[tmp_path / "photos"]).frame
        assert [np.asarray(Image.open(path))[0, 0, 0] for path in frame["path"]] == [10, 20, 30]
        assert frame["diagnosis"].tolist() == ["mel", "nv", "nv"]
