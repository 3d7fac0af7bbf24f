"""Columns of the public sets' tables, found by their usual names or by key, on miniatures in their layout."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skinlesion.config.data import ColumnsConfig
from skinlesion.data.columns import Layout
from skinlesion.data.metadata import CATEGORY, DEFAULT_FACTS, NUMBER, FactSpec
from skinlesion.data.readers import LabelledData, read_labelled
from skinlesion.errors import DataError

Read = Callable[..., LabelledData]

MEL_NV = {"nevus": "nv", "melanoma": "mel", "ack": "akiec", "clark nevus": "nv", "0": "nv", "1": "mel"}


@pytest.fixture
def read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Read:
    """Read a label file, and a metadata file where one is given; no images."""
    caplog.set_level(logging.INFO)

    def run(labels: str, metadata: str | None = None, *, key: str = "external", **options: object) -> LabelledData:
        (tmp_path / "labels.csv").write_text(labels)
        if metadata is not None:
            (tmp_path / "facts.csv").write_text(metadata)
        columns = ColumnsConfig(**options.pop("columns", {}))  # type: ignore[arg-type]
        facts = options.pop("facts", DEFAULT_FACTS)
        layout = Layout.of(columns, facts, options.pop("named", {}), key=key)  # type: ignore[arg-type]
        return read_labelled(
            tmp_path / "labels.csv",
            images=None,
            metadata=None if metadata is None else tmp_path / "facts.csv",
            classes=MEL_NV,
            key=key,
            binary=True,
            layout=layout,
            **options,  # type: ignore[arg-type]
        )

    return run


SETS = {
    "pad_ufes20": (
        "patient_id,lesion_id,smoke,age,gender,fitspatrick,region,diagnostic,itch,biopsed,img_id\n"
        "PAT_1,7,False,40,MALE,3.0,FACE,ACK,TRUE,FALSE,PAT_1_7_10.png\n",
        ("PAT_1_7_10", "7", "PAT_1", 40, "male", "face"),
    ),
    "isic2020": (
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
        "ISIC_7,IP_0,female,40.0,torso,nevus,benign,0\n",
        ("ISIC_7", "ISIC_7", "IP_0", 40, "female", "torso"),
    ),
    "isic2024": (
        "isic_id,target,patient_id,age_approx,sex,anatom_site_general,clin_size_long_diam_mm,iddx_full\n"
        "ISIC_9,1,IP_9,65.0,male,posterior torso,3.5,x\n",
        ("ISIC_9", "ISIC_9", "IP_9", 65, "male", "posterior torso"),
    ),
    "isic_archive": (
        "isic_id,attribution,age_approx,anatom_site_general,diagnosis_3,diagnosis_confirm_type,lesion_id,patient_id,sex\n"
        "ISIC_1,Hospital A,40,anterior torso,Nevus,histopathology,IL_0,IP_0,female\n",
        ("ISIC_1", "IL_0", "IP_0", 40, "female", "anterior torso"),
    ),
    "bcn20000": (
        "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split\n"
        "BCN_0001.jpg,55,head/neck,nevus,BCN_L1,2015-01-02,female,train\n",
        ("BCN_0001", "BCN_L1", "", 55, "female", "head/neck"),
    ),
    "derm7pt": (
        "case_num,diagnosis,seven_point_score,location,sex,management,derm,clinic\n"
        "3,clark nevus,1,abdomen,female,excision,A0l/Aal000.jpg,A0l/Acl000.jpg\n",
        ("Aal000", "3", "", None, "female", "abdomen"),
    ),
    "fitzpatrick17k": (
        "md5hash,fitzpatrick_scale,label,three_partition_label\n00ab,3,melanoma,malignant\n",
        ("00ab", "00ab", "", None, "unknown", "unknown"),
    ),
    "ddi": (
        ",DDI_ID,DDI_file,skin_tone,malignant,disease\n0,1,000001.png,56,False,melanoma\n",
        ("000001", "000001", "", None, "unknown", "unknown"),
    ),
    "one_hot_with_patients": (
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC,patient_id,age\nA0,0,1,0,0,0,0,0,P0,50\n",
        ("A0", "A0", "P0", 50, "unknown", "unknown"),
    ),
    "clinic": (
        "Image;Diagnosis;Patient ID;Age (years);Sex ;Localisation\na.jpg;nevus;12;85+;M;Back\n",
        ("a", "a", "12", 85, "male", "back"),
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_the_public_sets_are_recognised(read: Read, name: str) -> None:
    text, (image, lesion, patient, age, sex, site) = SETS[name]
    (row,) = read(text).frame.to_dict("records")
    assert (row["image_id"], row["lesion_id"], row["patient_id"]) == (image, lesion, patient)
    assert (row["sex"], row["localization"]) == (sex, site)
    np.testing.assert_equal(row["age"], np.nan if age is None else age)
    assert row["group_id"] == (patient or lesion)


def test_the_truth_of_a_lesion_is_that_of_both_its_images(read: Read) -> None:
    labels = "lesion_id,MEL,NV\nIL_0,1,0\nIL_1,0,1\n"
    rows = "IL_0,clinical: close-up,ISIC_0,40,male,3,trunk\nIL_0,dermoscopic,ISIC_5,40,male,3,trunk\n"
    metadata = f"lesion_id,image_type,isic_id,age_approx,sex,skin_tone_class,site\n{rows}IL_1,dermoscopic,ISIC_1,,,,\n"
    found = read(labels, metadata, facts=(*DEFAULT_FACTS, FactSpec("skin_type", CATEGORY))).frame
    assert found["image_id"].tolist() == ["ISIC_0", "ISIC_1", "ISIC_5"]
    assert found["diagnosis"].tolist() == ["mel", "nv", "mel"]
    assert found["lesion_id"].tolist() == ["IL_0", "IL_1", "IL_0"]
    assert found["skin_type"].tolist() == ["3", "unknown", "3"]
    assert found["localization"].tolist() == ["trunk", "unknown", "trunk"]


def test_columns_are_named_by_key(read: Read) -> None:
    labels = "file,truth,mole,who,clinic,how,width,years,image,dx\nx.png,melanoma,L1,P1,Graz,histo,4 mm,60,other,nv\n"
    columns = {"image": "file", "diagnosis": "Truth", "lesion": "mole", "patient": "who"}
    columns |= {"source": "clinic", "confirmation": "how"}
    facts = (*DEFAULT_FACTS, FactSpec("diameter", NUMBER, unit="mm"))
    (row,) = read(labels, columns=columns, facts=facts, named={"diameter": "width", "age": "years"}).frame.to_dict(
        "records"
    )
    assert (row["image_id"], row["diagnosis"], row["lesion_id"], row["patient_id"]) == ("x", "mel", "L1", "P1")
    assert (row["dataset"], row["dx_type"], row["diameter"], row["age"]) == ("Graz", "histo", 4.0, 60.0)


@pytest.mark.parametrize(
    ("columns", "named", "key"), [({"lesion": "mole"}, {}, "columns.lesion"), ({}, {"age": "mole"}, "facts.age")]
)
def test_a_column_that_is_named_and_not_there_is_an_error(
    read: Read, columns: dict[str, str], named: dict[str, str], key: str
) -> None:
    with pytest.raises(DataError, match=rf"external\.{key}=mole: no such column; the header is 'image', 'dx'"):
        read("image,dx\na,nv\n", columns=columns, named=named)


def test_a_fact_without_a_column_is_said_beside_the_columns_that_were_not_used(
    read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    read("image,dx,sex,Years of life,spot\na,nv,f,40,x\nb,nv,,50,y\n")
    assert "No column of age, localization, unknown for all images; not read: years of life, spot." in caplog.text
    assert "Name its column with external.facts.age=NAME." in caplog.text
    assert "sex 'f' as female" in caplog.text
    assert "Unknown among 2 images: sex of 1." in caplog.text


def test_a_further_number_out_of_range_is_named_by_line(read: Read) -> None:
    facts = (*DEFAULT_FACTS, FactSpec("diameter", NUMBER, unit="mm", low=0.0, high=100.0))
    with pytest.raises(DataError, match=r"faulty diameter_1: '450' \(line 3\); expected mm from 0 to 100"):
        read("image,dx,diameter_1\na,nv,4\nb,nv,450\n", facts=facts)


def test_a_yes_or_no_column_that_is_a_fact_is_no_diagnosis(read: Read) -> None:
    labels = "image,MEL,NV,itch\na,1,0,1\nb,0,1,0\n"
    with pytest.raises(DataError, match="unknown column itch"):
        read(labels)
    found = read(labels, facts=(*DEFAULT_FACTS, FactSpec("itch", CATEGORY))).frame
    assert found["itch"].tolist() == ["1", "0"]
