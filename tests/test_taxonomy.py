"""Diagnoses come from YAML and travel as plain data."""

import json

import pytest
from conftest import CODES

from skinlesion.errors import ConfigError, DataError
from skinlesion.files import config_dir
from skinlesion.inference.predictions import Predictions
from skinlesion.taxonomy import CATEGORIES, HAM10000, Taxonomy, _broader_words, read_taxonomy


def test_the_class_order_is_alphabetical_as_it_has_always_been() -> None:
    assert CODES == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def test_it_survives_plain_data() -> None:
    assert Taxonomy.from_dict(json.loads(json.dumps(HAM10000.to_dict()))) == HAM10000


def test_a_target_is_a_diagnosis_or_a_category() -> None:
    assert HAM10000.mask("mel").tolist() == [code == "mel" for code in CODES]
    assert HAM10000.mask("malignant").tolist() == [code in ("akiec", "bcc", "mel") for code in CODES]
    table = Predictions.build(["a"], probabilities=[[0.1, 0.2, 0.3, 0, 0.25, 0.05, 0.1]])
    assert table.target_score("malignant").tolist() == pytest.approx([0.55])
    with pytest.raises(ValueError, match="expected malignant or one of akiec"):
        HAM10000.mask("cancer")


def test_unknown_codes_are_minus_one() -> None:
    assert HAM10000.indices(["nv", "?", "akiec"]).tolist() == [5, -1, 0]


def test_wrong_taxonomies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown choice; expected one of .*ham10000"):
        Taxonomy.load("ham1000")
    state = HAM10000.to_dict()
    with pytest.raises(ConfigError, match="melanom is neither a code nor a category"):
        Taxonomy.from_dict({**state, "targets": ["melanom"]})
    with pytest.raises(ConfigError, match="targets"):
        Taxonomy.from_dict({key: value for key, value in state.items() if key != "targets"})
    with pytest.raises(ConfigError, match="at least two different codes"):
        Taxonomy.from_dict({**state, "diagnoses": {"mel": state["diagnoses"]["mel"]}})


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_dir() / "taxonomy").glob("*.yaml")))
def test_every_taxonomy_knows_its_own_codes_and_names_and_means_what_it_has(name: str) -> None:
    taxonomy = Taxonomy.load(name)
    for each in taxonomy.diagnoses:
        assert taxonomy.meaning(each.code.upper()) == taxonomy.meaning(each.name.replace(" ", "_")) == each.code
        assert each.category in CATEGORIES
    assert {*taxonomy.words.values()} <= {*taxonomy.codes, "drop", "error"}
    assert taxonomy.infer or Taxonomy.configured(taxonomy.to_dict()) == taxonomy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "ham10000",
            "Melanoma in situ=mel, pigmented_benign_keratosis=bkl, Solar or actinic keratosis=akiec, ACK=akiec, "
            "SEK=bkl, melanocytic_Nevi=nv, Melanoma - NOS=mel, Hemangioma=vasc, Bowen's disease=akiec, BEN_OTH=None",
        ),
        (
            "isic2019",
            "AK=ak, Bowen disease=scc, squamous cell carcinoma - invasive=scc, akiec=None, UNK=drop, nevus=nv",
        ),
        ("pad_ufes20", "ACK=ack, NEV=nev, SEK=sek, BOD=scc, pigmented benign keratosis=None, melanoma NOS=mel"),
        ("milk10k", "SCCKA=sccka, MAL_OTH=mal_oth, solar lentigo=bkl, Bowen's disease=akiec, verruca=ben_oth, INF=inf"),
        ("isic2020", "1.0=mel, 0=other, malignant=mel, lentigo NOS=other, melanoma=mel, BCC=error, unknown=error"),
        ("isic2024", "1=malignant, 0.0=benign, TRUE=malignant, BCC=malignant, nevus=benign, actinic keratosis=None"),
        ("derm7pt", "reed or spitz nevus=nev, melanoma (less than 0.76 mm)=mel, lentigo=misc, dermatofibroma=misc"),
        ("dermamnist", "0=akiec, 5=nv, 6.0=vasc, melanoma=mel"),
        ("bcn20000", "MEL=mel, scar=drop, seborrheic keratosis=bkl"),
    ],
)
def test_words_of_the_public_sets_are_known(name: str, words: str) -> None:
    taxonomy = Taxonomy.load(name)
    for word, code in (pair.split("=") for pair in words.split(", ")):
        assert str(taxonomy.meaning(word)) == code, word


def test_accents_do_not_count_and_other_scripts_stay() -> None:
    infer = Taxonomy.load("infer")
    assert [infer.meaning(word) for word in ("Nävus", "NÆVUS", "queratosis actínica", "黑色素瘤", "ไฝ")] == [
        *("navus", "nævus", "queratosis_actinica", "黑色素瘤", "ไฝ")
    ]
    assert Taxonomy.load("ham10000").meaning("Mélanoma") == "mel"


def test_the_broader_words_lead_to_no_circle() -> None:
    for word in _broader_words():
        passed = [word]
        while (broader := _broader_words().get(passed[-1])) is not None:
            assert broader not in passed
            passed.append(broader)


def test_premalignant_diagnoses_count_as_the_taxonomy_says() -> None:
    isic, pad = Taxonomy.load("isic2019"), Taxonomy.load("pad_ufes20")
    assert dict(zip(isic.codes, isic.mask("malignant"), strict=True))["ak"]
    assert not dict(zip(pad.codes, pad.mask("malignant"), strict=True))["ack"]
    assert dict(zip(pad.codes, pad.mask("benign"), strict=True))["ack"]


def test_a_diagnosis_that_is_taken_away_goes_with_its_words_and_targets() -> None:
    state = read_taxonomy("ham10000")
    del state["diagnoses"]["mel"], state["diagnoses"]["nv"]
    without = Taxonomy.configured(state)
    assert without.codes == ("akiec", "bcc", "bkl", "df", "vasc")
    assert without.targets == ("malignant",)
    assert without.submission_order == ("bcc", "akiec", "bkl", "df", "vasc")
    assert [without.meaning(word) for word in ("mel", "melanoma in situ", "nevus", "bcc")] == ["drop"] * 3 + ["bcc"]
    with pytest.raises(ConfigError, match="melanom is neither"):
        Taxonomy.configured({**state, "targets": ["melanom"]})


def test_diagnoses_are_inferred_from_a_table() -> None:
    given = {"diagnoses": {"b": {"name": "big", "category": "malignant"}, "z": {}}}
    found = Taxonomy.configured({**read_taxonomy("infer"), **given}).found_in(["c_d", "b", "a", "b"], {"c_d": "c-d"})
    assert [(each.code, each.name, each.category) for each in found.diagnoses] == [
        ("b", "big", "malignant"),
        ("a", "a", "unknown"),
        ("c_d", "c-d", "unknown"),
    ]
    assert found.targets == ("malignant",)
    assert found.meaning("C-D") == "c_d"
    assert found.meaning("other") is None
    with pytest.raises(DataError, match="two diagnoses or more in the table, got a"):
        Taxonomy.load("infer").found_in(["a", "a"], {})


@pytest.mark.parametrize(
    ("category", "words"),
    [
        ("malignant", "Melanoma, mel, Melanomas, basal cell carcinoma, BCC, Squamous_Cell_Carcinoma, SCC, malignant"),
        ("malignant", "Bowen's disease, Merkel cell carcinoma, superficial spreading melanoma, sccka, mal_oth"),
        ("premalignant", "actinic keratosis, AK, ACK, Solar or actinic keratosis, akiec"),
        ("benign", "nevus, Naevi, NV, seborrheic keratosis, SEK, solar lentigo, dermatofibroma, vasc, wart, benign"),
        ("unknown", "non-melanoma, not melanoma, melanoma?suspected, psoriasis, indeterminate, 1"),
    ],
)
def test_an_inferred_diagnosis_has_the_category_of_a_known_word_and_no_guess(category: str, words: str) -> None:
    infer = Taxonomy.load("infer")
    codes = [str(infer.meaning(word)) for word in words.split(", ")]
    found = infer.found_in([*codes, "x"], {})
    assert {code: found.diagnosis(code).category for code in codes} == dict.fromkeys(codes, category)
    assert found.targets == (("malignant",) if "malignant" in category else ())


def test_what_is_not_known_as_benign_or_malignant_is_said_with_the_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Taxonomy.load("infer").found_in(["melanoma", "x", "x"], {})
    assert "melanoma (1, malignant), x (2, unknown)" in caplog.text
    assert "Not known as benign or malignant: x; say so" in caplog.text
    assert "'+taxonomy.diagnoses={x: {category: malignant}}'" in caplog.text
    said = Taxonomy.configured({**read_taxonomy("infer"), "diagnoses": {"x": {"category": "malignant"}, "mel": {}}})
    assert [each.category for each in said.found_in(["mel", "x"], {}).diagnoses] == ["malignant", "malignant"]


def test_a_checkpoint_of_before_words_travelled_keeps_its_diagnoses_and_learns_the_words() -> None:
    state = {
        key: value for key, value in HAM10000.to_dict().items() if key not in ("words", "infer", "premalignant_as")
    }
    before = Taxonomy.from_dict({**state, "group": "lesion_id"})
    assert before == HAM10000
    assert before.meaning("pigmented benign keratosis") == "bkl"


def test_codes_alone_find_their_taxonomy() -> None:
    assert Taxonomy.of_codes(Taxonomy.load("milk10k").codes[::-1]).name == "milk10k"
    some = Taxonomy.of_codes(["nv", "mel"])
    assert (some.codes, some.targets, some.diagnosis("mel").category) == (
        ("nv", "mel"),
        ("mel", "malignant"),
        "malignant",
    )
    assert Taxonomy.of_codes(["x", "y"]).diagnosis("y").category == "unknown"
