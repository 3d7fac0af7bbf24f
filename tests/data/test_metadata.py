import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skinlesion.data.metadata import AGE, CATEGORY, DEFAULT_FACTS, NUMBER, FactSpec, MetadataEncoder, normalize_words
from skinlesion.errors import CheckpointError, DataError

FACTS = ("age", "sex", "localization")
NOTHING = ["", " ", "NA", "n/a", "nan", "None", "null", "?", "unknown", "Unknown ", None, float("nan"), pd.NA]


def facts(*rows: tuple[Any, Any, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(FACTS), dtype=object)


TRAIN = facts((20.0, "male", "back"), (60.0, "female", "face"), (40.0, "female", "back"), (np.nan, "male", "unknown"))


def encoder() -> MetadataEncoder:
    return MetadataEncoder.fit(TRAIN)


def test_columns_are_named_and_belong_to_facts() -> None:
    assert encoder().columns == (
        "age", "age=unknown",
        "sex=female", "sex=male", "sex=unknown",
        "localization=back", "localization=face", "localization=unknown",
    )  # fmt: skip
    assert encoder().width == 8
    assert encoder().fact_of_column == (0, 0, 1, 1, 1, 2, 2, 2)


def test_encoding_by_hand() -> None:
    # mean 40, population variance (20² + 20² + 0²) / 3
    deviation = (800 / 3) ** 0.5
    given = facts((60, "male", "face"), (None, "unknown", "ear"))
    expected = [[20 / deviation, 0, 0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0, 0, 1]]
    npt.assert_allclose(encoder().encode(given), expected, rtol=1e-6)
    assert encoder().encode(given).dtype == np.float32


def test_an_age_of_zero_is_an_age() -> None:
    (newborn,) = encoder().encode(facts((0, "male", "back")))
    npt.assert_allclose(newborn[:2], [-40 / (800 / 3) ** 0.5, 0], rtol=1e-6)


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_nothing_known_is_the_row_of_missing(nothing: Any) -> None:
    npt.assert_array_equal(encoder().encode(facts((nothing, nothing, nothing)))[0], encoder().missing())


def test_missing_has_flag_and_unknowns_only() -> None:
    row = dict(zip(encoder().columns, encoder().missing(), strict=True))
    assert {name for name, value in row.items() if value} == {
        "age=unknown", "sex=unknown", "localization=unknown",
    }  # fmt: skip
    assert set(row.values()) == {np.float32(0), np.float32(1)}


def test_a_dropped_fact_is_its_columns_taken_from_missing() -> None:
    # what training does to a batch must be what encoding does to a patient without that fact
    fact_of_column = np.array(encoder().fact_of_column)
    whole = encoder().encode(facts((60, "male", "face")))[0]
    for position, fact in enumerate(FACTS):
        dropped = np.where(fact_of_column == position, encoder().missing(), whole)
        without = facts((60, "male", "face")).assign(**{fact: [None]})
        npt.assert_array_equal(dropped, encoder().encode(without)[0])


def test_unseen_values_are_unknown_and_case_does_not_matter() -> None:
    given = facts((40, "MALE ", " Back"), (40, "other", "tail"))
    first, second = encoder().encode(given)
    npt.assert_array_equal(first, encoder().encode(facts((40, "male", "back")))[0])
    npt.assert_array_equal(second[2:], encoder().missing()[2:])


def test_unknown_has_a_column_even_if_training_knew_everything() -> None:
    fitted = MetadataEncoder.fit(facts((40, "male", "back"), (50, "female", "back")))
    assert [fact.categories for fact in fitted.facts[1:]] == [("female", "male", "unknown"), ("back", "unknown")]


@pytest.mark.parametrize("age", [33.0, None])
def test_ages_without_spread_are_not_scaled(age: float | None) -> None:
    fitted = MetadataEncoder.fit(facts((age, "male", "back"), (age, "male", "back")))
    assert fitted.facts[0].std == 1.0
    npt.assert_array_equal(fitted.encode(facts((age, "male", "back")))[0, 0], 0)


def test_encoding_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    sites, sexes = ["back", "ear", "face", "unknown"], ["female", "male", "unknown"]
    frame = pd.DataFrame(
        {
            "age": rng.integers(0, 86, 200).astype(float),
            "sex": rng.choice(sexes, 200),
            "localization": rng.choice(sites, 200),
        }
    )
    got = MetadataEncoder.fit(frame).encode(frame)
    npt.assert_allclose(got[:, :1], StandardScaler().fit_transform(frame[["age"]].to_numpy()), atol=1e-6)
    reference = OneHotEncoder(sparse_output=False).fit_transform(frame[["sex", "localization"]].to_numpy(object))
    npt.assert_array_equal(got[:, 2:], reference)  # alphabetical order has unknown last here too


def test_only_the_facts_reach_the_encoder() -> None:
    rng = np.random.default_rng(1)
    frame = pd.concat([TRAIN] * 5, ignore_index=True)
    labelled = frame.assign(
        image_id=[f"ISIC_{n}" for n in range(20)],
        lesion_id=[f"HAM_{n // 2}" for n in range(20)],
        diagnosis=rng.choice(["mel", "nv"], 20),
        dx_type=rng.choice(["histo", "follow_up", "consensus"], 20),
        dataset=rng.choice(["rosendahl", "vidir_modern"], 20),
        path=[f"/data/{n}.jpg" for n in range(20)],
    )
    others = [column for column in labelled.columns if column not in FACTS]
    shuffled = labelled.assign(**{column: rng.permutation(labelled[column].to_numpy(object)) for column in others})
    assert not shuffled.equals(labelled)
    expected = MetadataEncoder.fit(frame)
    for table in (
        labelled,
        shuffled,
        labelled[labelled.columns[::-1]],
        *(labelled.drop(columns=column) for column in others),
    ):
        assert MetadataEncoder.fit(table) == expected
        npt.assert_array_equal(expected.encode(table), expected.encode(frame))


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.floats(0, 120),
            st.sampled_from(["female", "male", "unknown", "", None]),
            st.none() | st.text(max_size=5),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_one_hot_parts_and_state_hold_for_any_patients(rows: list[tuple[Any, Any, Any]]) -> None:
    frame = facts(*rows)
    fitted = MetadataEncoder.fit(frame)
    encoded = fitted.encode(frame)
    fact_of_column = np.array(fitted.fact_of_column)
    assert encoded.shape == (len(rows), fitted.width)
    assert np.isfinite(encoded).all()
    npt.assert_array_equal(encoded[:, fact_of_column == 1].sum(axis=1), 1)
    npt.assert_array_equal(encoded[:, fact_of_column == 2].sum(axis=1), 1)
    npt.assert_array_equal(encoded[:, 1], [age is None for age, _, _ in rows])
    again = MetadataEncoder.from_state(json.loads(json.dumps(fitted.state())))
    assert again == fitted


def test_rows_are_encoded_one_by_one() -> None:
    together = encoder().encode(TRAIN)
    apart = [encoder().encode(TRAIN.iloc[[n]])[0] for n in range(len(TRAIN))]
    npt.assert_array_equal(together, np.stack(apart))


def test_the_frame_is_left_as_it_was() -> None:
    frame = TRAIN.copy()
    encoder().encode(frame)
    pd.testing.assert_frame_equal(frame, TRAIN)


def test_an_empty_frame_encodes_to_no_rows() -> None:
    assert encoder().encode(TRAIN.iloc[:0]).shape == (0, 8)


def test_state_is_plain() -> None:
    (age, sex, _) = encoder().state()["facts"]
    assert {key: type(value) for key, value in age.items()} == {
        "name": str, "kind": str, "column": type(None), "unit": str, "low": float, "high": float, "mean": float,
        "std": float, "categories": list,
    }  # fmt: skip
    assert sex["categories"] == ["female", "male", "unknown"]


EARLIER = {
    "age_mean": 40.0,
    "age_std": (800 / 3) ** 0.5,
    "sexes": ["female", "male", "unknown"],
    "localizations": ["back", "face", "unknown"],
}


def test_a_state_of_earlier_versions_encodes_as_it_did() -> None:
    assert MetadataEncoder.from_state(EARLIER) == encoder()
    npt.assert_array_equal(MetadataEncoder.from_state(EARLIER).encode(TRAIN), encoder().encode(TRAIN))


@pytest.mark.parametrize(
    "change",
    [
        {"age_std": 0.0},
        {"age_std": float("nan")},
        {"age_mean": "old"},
        {"age_mean": None},
        {"sexes": None},
        {"sexes": []},
        {"sexes": ["unknown", "male"]},
        {"sexes": ["male", "male", "unknown"]},
        {"dataset": ["rosendahl"]},
    ],
    ids=str,
)
def test_earlier_states_that_fit_no_encoder_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="metadata encoder: expected the name, kind, mean"):
        MetadataEncoder.from_state(EARLIER | change)


@pytest.mark.parametrize(
    "change", [{"std": 0.0}, {"mean": "x"}, {"kind": "length"}, {"categories": []}, {"more": 1}], ids=str
)
def test_states_that_fit_no_encoder_are_refused(change: dict[str, Any]) -> None:
    first, *others = encoder().state()["facts"]
    for state in ({"facts": [first | change, *others]}, {"facts": []}, {}):
        with pytest.raises(CheckpointError, match="metadata encoder: expected the name, kind, mean"):
            MetadataEncoder.from_state(state)


def test_an_earlier_state_with_a_key_missing_is_refused() -> None:
    with pytest.raises(CheckpointError, match="metadata encoder: expected"):
        MetadataEncoder.from_state({key: value for key, value in EARLIER.items() if key != "localizations"})


# Further facts

DIAMETER = FactSpec("diameter", NUMBER, unit="mm", low=0.0, high=100.0)
ITCH = FactSpec("itch", CATEGORY)
SKIN = FactSpec("skin_type", CATEGORY)


def test_further_facts_are_encoded_by_hand() -> None:
    frame = TRAIN.assign(
        diameter=["4", "6 mm", "5-7", ""], itch=["True", "no", "UNK", "yes"], skin_type=["3.0", "2", "", "3"]
    )
    fitted = MetadataEncoder.fit(frame, (*DEFAULT_FACTS, DIAMETER, ITCH, SKIN))
    assert fitted.columns[8:] == (
        "diameter", "diameter=unknown", "itch=no", "itch=yes", "itch=unknown",
        "skin_type=2", "skin_type=3", "skin_type=unknown",
    )  # fmt: skip
    assert fitted.fact_of_column == (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5)
    deviation = (8 / 9) ** 0.5  # of 4, 6 and 6 about their mean 16 / 3
    expected = [
        [(4 - 16 / 3) / deviation, 0, 0, 1, 0, 0, 1, 0],
        [(6 - 16 / 3) / deviation, 0, 1, 0, 0, 1, 0, 0],
        [(6 - 16 / 3) / deviation, 0, 0, 0, 1, 0, 0, 1],
        [0, 1, 0, 1, 0, 0, 1, 0],
    ]
    npt.assert_allclose(fitted.encode(frame)[:, 8:], expected, rtol=1e-6)
    npt.assert_array_equal(fitted.encode(frame)[:, :8], encoder().encode(TRAIN))
    patient = fitted.encode_patient({"diameter": 6, "itch": True, "skin_type": 3})
    npt.assert_allclose(patient[8:], [(6 - 16 / 3) / deviation, 0, 0, 1, 0, 0, 1, 0], rtol=1e-6)
    assert MetadataEncoder.from_state(json.loads(json.dumps(fitted.state()))) == fitted


def test_a_fact_may_be_left_out() -> None:
    fitted = MetadataEncoder.fit(TRAIN[["age", "localization"]], (DEFAULT_FACTS[0], DEFAULT_FACTS[2]))
    npt.assert_array_equal(fitted.encode(TRAIN), encoder().encode(TRAIN)[:, [0, 1, 5, 6, 7]])


def test_a_number_out_of_its_range_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 faulty diameter\(s\), the first '101'; expected mm from 0 to 100"):
        MetadataEncoder.fit(pd.DataFrame({"diameter": ["4", "101"]}), (DIAMETER,))


@pytest.mark.parametrize(
    ("entry", "years"),
    [
        *(("85+", 85), ("> 89", 89), (">=90", 90), ("70-79", 74.5), ("70 – 79", 74.5), ("70 to 79", 74.5)),
        *(
            ("45-49", 47),
            ("<20", 20),
            ("under 20", 20),
            ("85 or older", 85),
            ("over 85 years", 85),
            ("85 years and over", 85),
        ),
        *(("[40, 45)", 42.5), ("(20-30]", 25), ("45,5", 45.5), ("45 yo", 45), ("45 y/o", 45), ("45 years old", 45)),
        *(("45 years", 45), ("45y", 45), ("UNK", np.nan), ("not reported", np.nan)),
        *(
            ("79-70", None),
            ("45 months", 3.75),
            ("6 mo", 0.5),
            ("45 weeks", None),
            ("1e3-5", None),
            ("40s", None),
            ("1,234", None),
            ("-1", None),
        ),
    ],
)
def test_ages_as_tables_write_them(entry: str, years: float | None) -> None:
    (found,), (faulty,) = AGE.numbers([entry])
    assert faulty == (years is None)
    if years is not None:
        npt.assert_equal(found, years)


def test_sexes_as_tables_write_them() -> None:
    given = ["M", "f", "W", "Man", "woman", "FEMALE ", "Boy", "girl", "unk", None, "U", "Other", "diverse"]
    expected = ["male", "female", "female", "male", "female", "female", "male", "female", *["unknown"] * 5]
    assert DEFAULT_FACTS[1].words(given) == expected
    assert DEFAULT_FACTS[2].words(["M"]) == ["m"], "a localization is no sex"


@pytest.mark.parametrize("fact", FACTS)
def test_a_missing_column_is_named(fact: str) -> None:
    frame = TRAIN.drop(columns=fact)
    with pytest.raises(DataError, match=f"no column {fact}"):
        encoder().encode(frame)
    with pytest.raises(DataError, match=f"no column {fact}"):
        MetadataEncoder.fit(frame)


@pytest.mark.parametrize("age", ["old", -1, 121, float("inf"), "80,000"])
def test_faulty_ages_are_refused(age: Any) -> None:
    with pytest.raises(DataError, match=r"1 faulty age.*0 to 120"):
        encoder().encode(facts((40, "male", "back"), (age, "male", "back")))


def test_there_is_nothing_to_learn_from_no_rows() -> None:
    with pytest.raises(DataError, match="no rows to learn from"):
        MetadataEncoder.fit(TRAIN.iloc[:0])


def test_ages_as_text_or_number() -> None:
    years, faulty = AGE.numbers(["80.0", " 5 ", 0, 120, "", None, "NA", "x", "-3", "1e3"])
    npt.assert_array_equal(years[:7], [80, 5, 0, 120, np.nan, np.nan, np.nan])
    npt.assert_array_equal(faulty, [False] * 7 + [True] * 3)


def test_words_of_any_kind_of_column() -> None:
    expected = ["back", "unknown", "unknown"]
    for values in (
        pd.Series(["Back ", None, ""]),
        pd.Series(["Back ", None, ""], dtype=object),
        pd.Series(["Back ", None, ""], dtype="string"),
        pd.Series(["Back ", None, ""], dtype="category"),
        ["Back ", None, ""],
    ):
        assert normalize_words(values) == expected


@pytest.mark.real_data
@pytest.mark.skipif("SKINLESION_SHARED" not in os.environ, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_ham10000_has_twenty_columns() -> None:
    table = pd.read_csv(Path(os.environ["SKINLESION_SHARED"]) / "ham10000" / "HAM10000_metadata")
    fitted = MetadataEncoder.fit(table)
    encoded = fitted.encode(table)
    assert fitted.width == 2 + 3 + 15
    known = table["age"].dropna()
    assert (fitted.facts[0].mean, fitted.facts[0].std) == (
        pytest.approx(known.mean()),
        pytest.approx(known.std(ddof=0)),
    )
    counts = dict(zip(fitted.columns, encoded.sum(axis=0), strict=True))
    assert counts["age=unknown"] == counts["sex=unknown"] == 57
    assert counts["localization=unknown"] == 234
    assert counts["localization=acral"] == 7


@given(
    st.one_of(st.none(), st.floats(0, 120), st.just("unknown")),
    st.sampled_from([None, "male", "Female ", "other"]),
    st.sampled_from([None, "back", "FACE", "ear", ""]),
)
def test_a_patient_is_encoded_as_a_row(age: Any, sex: Any, localization: Any) -> None:
    row = encoder().encode(facts((age, sex, localization)))[0]
    given = {"age": age, "sex": sex, "localization": localization}
    npt.assert_array_equal(encoder().encode_patient(given), row)
    npt.assert_array_equal(
        encoder().encode_patient({fact: given[fact] for fact in FACTS if given[fact]}),
        row if age != 0 else encoder().encode(facts((None, sex, localization)))[0],
    )


def test_a_faulty_age_of_a_patient_is_refused() -> None:
    with pytest.raises(DataError, match="the first 130"):
        encoder().encode_patient({"age": 130})


@given(st.text(st.sampled_from("0123456789.e_x ٣"), max_size=6))
def test_ages_are_the_numbers_that_pandas_reads(entry: str) -> None:
    years, faulty = AGE.numbers([entry])
    expected = pd.to_numeric(pd.Series(normalize_words([entry]), dtype=object), errors="coerce").iloc[0]
    npt.assert_array_equal(years, [expected])
    known = normalize_words([entry]) != ["unknown"]
    assert faulty[0] == (known and not 0 <= expected <= 120)


def test_pixels_and_facts_need_neither_torch_nor_pandas() -> None:
    code = (
        "import sys\n"
        "from skinlesion.data import image_io, metadata\n"
        "heavy = {'torch', 'pandas', 'albumentations', 'scipy', 'sklearn', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr


def test_what_one_encoder_encodes_becomes_what_another_one_would_have() -> None:
    known = {"age": [61, None, 20], "sex": ["female", "male", None], "localization": ["back", None, "face"]}
    age, sex, place = AGE, FactSpec("sex", CATEGORY), FactSpec("localization", CATEGORY)
    own = MetadataEncoder(
        (
            replace(age, mean=50.0, std=17.0),
            replace(sex, categories=("female", "male", "unknown")),
            replace(place, categories=("back", "face", "unknown")),
        )
    )
    fewer = replace(place, categories=("back", "unknown"))
    for other in (
        MetadataEncoder((replace(own.facts[0], mean=43.0, std=9.0), own.facts[1], fewer)),
        MetadataEncoder((fewer, own.facts[0])),  # in another order, and less
    ):
        matrix, shift = own.translation(other)
        npt.assert_allclose(own.encode(known) @ matrix + shift, other.encode(known), atol=1e-6)
