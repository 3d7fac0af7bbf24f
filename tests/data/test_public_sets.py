"""Each public data set by one word, from its published layout to the checked frame."""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import composed
from public_sets import WRITERS

from skinlesion.config.inference import EvaluateConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.columns import Layout
from skinlesion.data.metadata import DEFAULT_FACTS
from skinlesion.data.readers import read_data, read_labelled
from skinlesion.files import config_dir
from skinlesion.taxonomy import BENIGN, MALIGNANT, Taxonomy

CODES = {
    "pad_ufes20": ["ack", "bcc", "mel", "nev", "scc", "sek"],
    "milk10k": ["mel", "sccka", "inf", "mel", "sccka", "inf"],
    "bcn20000": ["nv", "mel", "bcc", "bkl", "bkl", "ak", "scc", "df", "vasc", "mel"],
    "isic2019": ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "akiec"],
    "isic2020": ["other", "other", "mel", "other"],
    "isic2024": ["benign", "malignant", "benign"],
    "isic_archive": ["nevus", "nevus", "melanoma_invasive"],
    "derm7pt": ["nev", "mel", "bcc", "misc", "sk"],
    "fitzpatrick17k": ["non_neoplastic", "malignant", "benign"],
    "ddi": ["benign", "malignant", "benign"],
    "dermamnist": ["akiec", "akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "akiec", "bcc"],
    "isic2018_test": ["akiec", "akiec", "bcc", "bcc", "bkl", "bkl", "df"],
}
"""Of the images in the order of their ids."""

FIRST = {  # image, lesion, patient, and facts in their order
    "pad_ufes20": ("PAT_0_700_0", "700", "PAT_0", [40, "male", "forearm", "yes", "no", "unknown", "no", "yes", "no"]),
    "milk10k": ("ISIC_0000800", "IL_0000000", "", [45, "female", "lower_extremity", "0"]),
    "bcn20000": ("BCN_0000000000", "BCN_0000000", "", [55, "female", "anterior torso"]),
    "isic2019": ("ISIC_0000000", "ISIC_0000000", "", [np.nan, "male", "head/neck"]),
    "isic2020": ("ISIC_0000000", "IL_0000000", "IP_0000000", [45, "female", "upper extremity"]),
    "isic2024": ("ISIC_0000000", "ISIC_0000000", "IP_0000000", [60, "male", "posterior torso", 3.5]),
    "isic_archive": ("ISIC_0000000", "IL_0000000", "IP_0000000", [30, "female", "head/neck"]),
    "derm7pt": ("Nal000", "0", "", [np.nan, "male", "lower limbs"]),
    "fitzpatrick17k": (f"{0:032x}", f"{0:032x}", "", ["3"]),
    "ddi": ("000001", "000001", "", ["56"]),
    "dermamnist": ("test_00000", "test_00000", "", [np.nan, "unknown", "unknown"]),
    "isic2018_test": ("ISIC_0034524", "HAMTEST_0000000", "", [45, "female", "back"]),
}
SAID = {
    "pad_ufes20": (
        "age from age, sex from gender, localization from region, itch from itch",
        "itch 'TRUE' as yes",
        "Unknown among 6 images: sex of 3, hurt of 6.",
        "6 images of 6 lesions of 3 patients, kept together by patient: 3 groups.",
    ),
    "milk10k": (
        "sex from sex, localization from site, skin_type from skin_tone_class",
        "of 3 lesions; the table names no",
    ),
    "bcn20000": ("scar as drop (1)", "localization from anatom_site_general"),
    "isic2019": ("ak as akiec (1)", "2 of 8 images have no lesion_id"),
    "isic2020": ("Diagnoses from benign_malignant: benign as other (3), malignant as mel (1).", "of 2 patients"),
    "isic2024": ("Diagnoses from target: 0 as benign (2), 1 as malignant (1).", "diameter from clin_size_long_diam_mm"),
    "isic_archive": ("dataset from attribution", "dx_type from diagnosis_confirm_type", "of 2 patients"),
    "derm7pt": ("clark nevus as nev (1)", "No column of age", "localization from location"),
    "fitzpatrick17k": (
        "Diagnoses from three_partition_label: non-neoplastic",
        "no image file for 1 of 4 rows",
        "skin_type '-1' as unknown",
        "skin_type from fitzpatrick_scale",
    ),
    "ddi": ("skin_type from skin_tone", "Diagnoses from malignant: false as benign (2), true as malignant (1)."),
    "dermamnist": ("Unpacking 10 images", "4 as mel (1)"),
    "isic2018_test": ("no image file for 1 of 8 rows (ISIC_0035068): these rows are dropped", "7 images of 4 lesions"),
}


def test_every_preset_of_a_public_set_is_tested() -> None:
    presets = {path.stem for path in (config_dir() / "data").glob("*.yaml")} - {"ham10000"}
    assert presets == {*CODES} == {*FIRST} == {*SAID} == {*WRITERS}


@pytest.mark.parametrize("name", WRITERS)
def test_one_word_reads_it(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    WRITERS[name](tmp_path / "set")
    caplog.set_level(logging.INFO)
    config = composed(
        "train", TrainConfig, f"data={name}", f"data.root={tmp_path / 'set'}", f"data.cache_dir={tmp_path}"
    )
    frame = read_data(config.data, taxonomy=Taxonomy.configured(asdict(config.taxonomy)))
    assert frame["diagnosis"].tolist() == CODES[name]
    assert all(Path(path).is_file() for path in frame["path"])
    image, lesion, patient, facts = FIRST[name]
    first = frame.iloc[0]
    assert first[["image_id", "lesion_id", "patient_id"]].tolist() == [image, lesion, patient]
    np.testing.assert_equal(first[list(config.data.facts)].tolist(), facts)
    for text in SAID[name]:
        assert text in caplog.text


@pytest.mark.parametrize("name", ["isic2020", "isic2024", "fitzpatrick17k", "ddi"])
def test_sets_that_say_benign_or_malignant_are_judged_so(name: str, tmp_path: Path) -> None:
    """By a model of HAM10000's diagnoses, none of which the table names for all images."""
    WRITERS[name](tmp_path)
    words = ("checkpoint=best.ckpt", f"external.data={name}", f"external.root={tmp_path}")
    external = composed("evaluate", EvaluateConfig, *words).external
    found = read_labelled(
        Path(str(external.labels)),
        images=external.folders,
        metadata=None,
        classes=external.classes,
        layout=Layout.of(external.columns, DEFAULT_FACTS, external.facts, key="external"),
        missing_images=external.missing_images,
        key="external",
        binary=True,
    )
    malignant = {"mel": MALIGNANT, MALIGNANT: MALIGNANT}
    assert found.frame["diagnosis"].tolist() == [malignant.get(code, BENIGN) for code in CODES[name]]
