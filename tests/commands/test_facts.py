"""Further facts, end to end: a table in PAD-UFES-20's layout is trained on, exported, predicted with and served."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL, composed
from fastapi.testclient import TestClient
from service_doubles import limits

import skinlesion
from skinlesion.commands.export import run as export
from skinlesion.commands.predict import run as predict
from skinlesion.commands.train import run as train
from skinlesion.config.deploy import ExportConfig
from skinlesion.config.inference import PredictConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.image_io import read
from skinlesion.deploy.service.app import asset, build
from skinlesion.errors import ConfigError
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.studies.explain.explanation import metadata_ablation
from skinlesion.studies.robustness.study import altered_facts
from skinlesion.training.checkpoint import load_model

KNOWN = {"age": "85+", "sex": "M", "localization": "back", "skin_type": 2, "diameter": "5-7 mm", "itch": True}
SAME = {"age": 85, "sex": "male", "localization": "back", "skin_type": "2", "diameter": 6.0, "itch": "yes"}


@pytest.fixture(scope="module")
def table(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic images with a table of other names and spellings, three lesions a patient."""
    root = tmp_path_factory.mktemp("pad")
    for folder in synthetic_root.glob("HAM10000_images_*"):
        (root / folder.name).symlink_to(folder)
    rows = pd.read_csv(synthetic_root / "HAM10000_metadata").sort_values("image_id", ignore_index=True)
    rng = np.random.default_rng(1)
    place = {lesion: number // 3 for number, lesion in enumerate(rng.permutation(rows["lesion_id"].unique()))}
    draw = lambda *words: rng.choice(words, len(rows))  # noqa: E731
    made = pd.DataFrame(
        {
            "patient_id": [f"PAT_{place[lesion]}" for lesion in rows["lesion_id"]],
            "lesion_id": rows["lesion_id"],
            "age": rows["age"].map(lambda age: "85+" if age >= 85 else "" if np.isnan(age) else f"{age:.0f}"),
            "gender": rows["sex"].map({"male": "M", "female": "F"}),
            "fitspatrick": draw("1.0", "2.0", "3.0", ""),
            "region": rows["localization"].str.upper(),
            "diagnostic": rows["dx"],
            "diameter_1": draw("2", "4.5", "12", ""),
            "itch": draw("TRUE", "False", "UNK"),
            "img_id": rows["image_id"] + ".jpg",
        }
    )
    made.to_csv(root / "metadata.csv", index=False)
    return root


@pytest.fixture(scope="module")
def run_folder(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("facts") / "run"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        patch.setattr(logging.getLogger("skinlesion.data.columns"), "handlers", [handler])
        patch.setattr(logging.getLogger("skinlesion.data.columns"), "level", logging.INFO)
        logging.getLogger("skinlesion.data.columns").manager._clear_cache()  # type: ignore[attr-defined]
        train(
            composed(
                "train",
                TrainConfig,
                *(
                    *SMALL,
                    "schedule=head_only",
                    "split.policy=grouped",
                    f"data.root={table}",
                    "data.table=metadata.csv",
                ),
                "+data.facts.skin_type={kind: category}",
                "+data.facts.diameter={kind: number, column: diameter_1, unit: mm, low: 0, high: 100}",
                "+data.facts.itch={kind: category}",
                *(f"data.cache_dir={out.parent / 'cache'}", f"out={out}"),
            )
        )
    (out / "said.txt").write_text("\n".join(said))
    return out


@pytest.fixture(scope="module")
def bundle(run_folder: Path) -> Path:
    export(composed("export", ExportConfig, f"checkpoint={run_folder}", f"out={run_folder.parent / 'bundle'}"))
    return run_folder.parent / "bundle"


@pytest.fixture
def image(table: Path) -> Path:
    return sorted(table.glob("HAM10000_images_part_1/*.jpg"))[0]


def test_what_was_recognised_is_said(run_folder: Path, table: Path) -> None:
    said = (run_folder / "said.txt").read_text()
    assert (
        "Facts: lesion_id from lesion_id, patient_id from patient_id, age from age, sex from gender, localization from "
        "region, skin_type from fitspatrick, diameter from diameter_1, itch from itch."
    ) in said
    assert "sex 'F' as female" in said or "sex 'M' as male" in said
    rows = pd.read_csv(table / "metadata.csv")
    assert f"diameter of {rows['diameter_1'].isna().sum()}" in said
    assert f"{rows['lesion_id'].nunique()} lesions of {rows['patient_id'].nunique()} patients" in said


def test_patients_stay_together_and_are_resampled(run_folder: Path, table: Path) -> None:
    patients = pd.read_csv(table / "metadata.csv").assign(image_id=lambda rows: rows["img_id"].str[:-4])
    split = pd.read_csv(run_folder / "split.csv").merge(patients[["image_id", "patient_id"]], on="image_id")
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    found = Predictions.read(run_folder / "predictions_val.csv")
    own = split[split["split"] == "val"]
    assert (found.groups, found.lesions) == (own["patient_id"].nunique(), own["lesion_id"].nunique())
    assert found.groups < found.lesions


def test_the_network_gets_the_facts_as_the_table_spells_them(run_folder: Path, table: Path) -> None:
    """The encoding is made anew from the table by hand, for the images of the run's own predictions."""
    encoder = load_model(run_folder).encoder
    assert encoder.names == ("age", "sex", "localization", "skin_type", "diameter", "itch")
    rows = pd.read_csv(table / "metadata.csv", dtype=str, keep_default_na=False)
    rows = rows.set_index(rows["img_id"].str[:-4])
    split = pd.read_csv(run_folder / "split.csv").set_index("image_id")["split"]
    learned = pd.to_numeric(rows.loc[split.index[split == "train"], "diameter_1"], errors="coerce").dropna()
    found = Predictions.read(run_folder / "predictions_val.csv")
    model = Predictor.load(run_folder)
    for place, name in enumerate(found.image_id[:3]):
        row = rows.loc[name]
        facts = {"age": row["age"], "sex": row["gender"], "localization": row["region"]}
        facts |= {"skin_type": row["fitspatrick"], "itch": row["itch"], "diameter": row["diameter_1"]}
        encoded = dict(zip(encoder.columns, encoder.encode_patient(facts), strict=True))
        known = row["diameter_1"] != ""
        expected = (float(row["diameter_1"]) - learned.mean()) / learned.std(ddof=0) if known else 0
        assert encoded["diameter"] == pytest.approx(expected, rel=1e-5)
        assert encoded["itch=yes"] == (row["itch"] == "TRUE")
        assert encoded["skin_type=2"] == (row["fitspatrick"] == "2.0")
        (path,) = table.glob(f"*/{name}.jpg")
        np.testing.assert_allclose(model.predict(path, facts).probabilities[0], found.probabilities[place], atol=1e-5)


def test_each_fact_counts_and_is_read_as_it_is_spelt(run_folder: Path, image: Path) -> None:
    model = skinlesion.load(run_folder)
    given = model.predict(image, **KNOWN)
    np.testing.assert_array_equal(given.probabilities, model.predict(image, SAME).probabilities)
    effects = metadata_ablation(model, read(image), SAME)
    assert list(effects) == list(SAME)
    without = model.predict(image, {**SAME, "diameter": None}).probabilities[0]
    np.testing.assert_array_equal(effects["diameter"], given.probabilities[0] - without)
    assert np.abs(effects["diameter"]).max() > 0
    with pytest.raises(ConfigError, match=r"diametre=5: not a fact that the model knows; did you mean diameter\?"):
        model.predict(image, diametre=5)
    with pytest.raises(ConfigError, match="diameter=500: expected mm from 0 to 100, or unknown"):
        model.predict(image, diameter=500)
    with pytest.raises(ConfigError, match="itch=maybe: not known to the model; expected one of no, yes, unknown"):
        model.predict(image, itch="maybe")


def test_a_bundle_predicts_as_the_checkpoint(
    run_folder: Path, bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = skinlesion.load(run_folder).predict(image, SAME).probabilities
    model = skinlesion.load(bundle)
    assert model.encoder == load_model(run_folder).encoder
    np.testing.assert_allclose(model.predict(image, SAME).probabilities, expected, atol=1e-4)
    words = ("age=85+", "sex=m", "localization=back", "fact.skin_type=2", "fact.diameter=6", "fact.itch=true")
    for source in (f"checkpoint={run_folder}", f"bundle={bundle}"):
        words_ = [word.replace("fact.", "++fact.") for word in words]
        predict(composed("predict", PredictConfig, source, f"image='{image}'", *words_, "format=json"))
        (row,) = json.loads(capsys.readouterr().out)["predictions"]
        np.testing.assert_allclose(list(row["probabilities"].values()), expected[0], atol=1e-4)


def test_the_service_asks_for_the_facts_of_its_bundle(bundle: Path, image: Path) -> None:
    model = Predictor.load_bundle(bundle)
    with TestClient(build(model, limits())) as client:
        card = client.get("/v1/model").json()["facts"]
        assert [fact["name"] for fact in card] == list(SAME)
        assert card[4] == {"name": "diameter", "kind": "number", "unit": "mm", "low": 0, "high": 100, "categories": []}
        assert card[3]["categories"] == ["1", "2", "3", "unknown"]
        body = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
        fields = body["multipart/form-data"]["schema"]["properties"]
        assert (fields["diameter"]["maximum"], fields["itch"]["enum"]) == (100, ["no", "yes", "unknown"])
        send = {
            "files": {"image": image.read_bytes()},
            "data": {**{k: str(v) for k, v in KNOWN.items()}, "effects": "true"},
        }
        answer = client.post("/v1/predict", **send).json()
        assert answer["facts"] == SAME
        assert [effect["fact"] for effect in answer["images"][0]["effects"]] == list(SAME)
        expected = model.predict(image, SAME).probabilities[0]
        np.testing.assert_allclose(list(answer["images"][0]["probabilities"].values()), expected, atol=2e-6)
        refused = client.post("/v1/predict", files={"image": image.read_bytes()}, data={"diameter": "500"})
        assert "diameter=500: expected mm from 0 to 100" in refused.json()["detail"]
    page = asset("page.js").decode()
    assert "model.facts.map(factField)" in page
    assert 'id="patient"' in asset("index.html").decode()


def test_facts_are_altered_one_by_one(run_folder: Path, table: Path) -> None:
    from skinlesion.config.data import SourceConfig
    from skinlesion.inference.split_part import read_part

    model = load_model(run_folder)
    frame = read_part(model, "val", SourceConfig(None, None)).frame
    altered = altered_facts(frame, frame, seed=1, facts=model.encoder.facts)
    assert {"no_diameter", "no_itch", "no_skin_type"} < set(altered)
    assert altered["no_diameter"]["diameter"].isna().all()
    assert (altered["no_itch"]["itch"] == "unknown").all()
    assert altered["no_itch"]["diameter"].equals(frame["diameter"])
