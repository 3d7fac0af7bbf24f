"""Diagnoses come from YAML and travel as plain data."""

import json

import pytest
from conftest import CODES

from skinlesion.errors import ConfigError
from skinlesion.inference.predictions import Predictions
from skinlesion.taxonomy import HAM10000, Taxonomy


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
