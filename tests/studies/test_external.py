"""Images of another source: predictions, known images, localizations, populations, and invalid sources."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed
from PIL import Image
from public_sets import isic2018_test, pad_ufes20
from sklearn.metrics import roc_auc_score

from skinlesion.commands.evaluate import run
from skinlesion.config.inference import EvaluateConfig
from skinlesion.config.overrides import read_words
from skinlesion.config.train import TrainConfig
from skinlesion.data.readers import read_ham10000
from skinlesion.data.splits import from_file
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.studies.external.evaluation import ExternalPredictions, predict_external
from skinlesion.studies.external.populations import compare_populations
from skinlesion.synthetic.dataset import write_synthetic
from skinlesion.training.checkpoint import load_model

pytestmark = pytest.mark.filterwarnings("ignore:No positive class found", "ignore:Only one class is present")


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw small figures, which nobody looks at here."""
    monkeypatch.setattr("skinlesion.plots.style.DOTS_PER_INCH", 30)


@pytest.fixture(scope="module")
def source(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty new images of two shapes, one of training under its own id, one under another, one of test."""
    root = tmp_path_factory.mktemp("source")
    write_synthetic(root / "new", n=100, image_size=(40, 40), seed=9)
    rows = pd.read_csv(root / "new" / "HAM10000_metadata").sort_values("image_id").iloc[:40]
    (root / "images").mkdir()
    labels = []
    for place, row in enumerate(rows.itertuples()):
        (path,) = (root / "new").glob(f"*/{row.image_id}.jpg")
        name = f"X_{place:02d}"
        Image.open(path).resize((90, 50) if place % 2 else (50, 70)).save(root / "images" / f"{name}.png")
        labels.append((name, row.dx))
    split = pd.read_csv(Path(trained.out) / "split.csv")
    known = pd.read_csv(Path(trained.data.root) / "HAM10000_metadata").set_index("image_id")["dx"]
    train, test = (split.loc[split["split"] == part, "image_id"].tolist() for part in ("train", "test"))
    for old, new in ((train[0], train[0]), (train[1], "copy"), (test[0], test[0])):
        (path,) = Path(trained.data.root).glob(f"*/{old}.jpg")
        Image.open(path).resize((80, 60)).save(root / "images" / f"{new}.jpg", quality=90)
        labels.append((new, known[old]))
    pd.DataFrame(labels, columns=["image", "dx"]).to_csv(root / "labels.csv", index=False)
    facts = {"image": "X_00", "age_approx": 50.0, "anatom_site_general": "posterior torso", "sex": "male"}
    pd.DataFrame([facts, {**facts, "image": "X_01", "anatom_site_general": "tail"}]).to_csv(
        root / "facts.csv", index=False
    )
    return root


def config(source: Path, trained: TrainConfig, out: Path, *overrides: str) -> EvaluateConfig:
    return composed(
        "evaluate",
        EvaluateConfig,
        f"checkpoint={trained.out}",
        f"external.images={source / 'images'}",
        f"external.labels={source / 'labels.csv'}",
        f"data.cache_dir={trained.data.cache_dir}",
        f"out={out}",
        "resamples=100",
        *overrides,
    )


def test_new_images_are_predicted_and_known_ones_left_out(source: Path, trained: TrainConfig, tmp_path: Path) -> None:
    run(config(source, trained, tmp_path, f"external.metadata={source / 'facts.csv'}"))
    table = Predictions.read(tmp_path / "predictions_external.csv").to_frame().set_index("image_id")
    about = json.loads((tmp_path / "report_external.json").read_text())["external"]
    assert about["of_own_test_part"] == 1, "it is evaluated and reported"
    seen = pd.read_csv(tmp_path / "seen.csv").set_index("image_id")
    assert sorted(seen["found_by"]) == ["hash", "id"]
    assert seen.loc["copy", "found_by"] == "hash"
    assert len(table) == 41
    assert not set(seen.index) & set(table.index)

    model, predictor = load_model(Path(trained.out)), Predictor.load(str(trained.out))
    facts = {"age": 50.0, "sex": "male", "localization": "back"}
    for name, known in (("X_00", facts), ("X_01", {**facts, "localization": None}), ("X_02", {})):
        expected = predictor.predict(source / "images" / f"{name}.png", known).probabilities[0]
        np.testing.assert_allclose(table.loc[name, list(CODES)].to_numpy(dtype=float), expected, atol=2e-6)

    report = json.loads((tmp_path / "report_external.json").read_text())
    assert report["images"] == 41
    about = report["external"]
    assert (about["labelled"], about["judged"]) == (43, 41)
    assert about["localizations"]["posterior torso"] == {"images": 1, "read_as": "back"}
    assert about["localizations"]["tail"] == {"images": 1, "read_as": "unknown"}
    assert (about["seen"]["choice"], about["seen"]["by_id"], about["seen"]["by_hash"]) == ("drop", 1, 1)
    assert (
        about["seen"]["compared_by_id"]
        == about["seen"]["compared_by_hash"]
        == len(model.split["train"] + model.split["val"])
    )
    assert set(report["challenge"]["balanced_accuracy"]) >= {"value", "low", "high"}
    metrics = json.loads((tmp_path / "metrics_external.json").read_text())
    assert metrics["intervals"]["accuracy"][0] <= metrics["accuracy"] <= metrics["intervals"]["accuracy"][1]
    found = json.loads((tmp_path / "populations.json").read_text())["populations"]
    frame = read_ham10000(
        Path(trained.data.root),
        table="HAM10000_metadata",
        images=trained.data.images,
        missing_images="error",
        extra_images="error",
    )
    split = from_file(frame, Path(trained.out) / "split.csv")
    assert found["training"]["images"] == (split["split"] == "train").sum()
    assert found["these images"]["images"] == 41
    assert (tmp_path / "populations.png").exists()


def predicted(source: Path, trained: TrainConfig, tmp_path: Path, *overrides: str) -> ExternalPredictions:
    made = config(source, trained, tmp_path, *overrides)
    return predict_external(Predictor.load(str(trained.out)), made.external, source=made.data)


MALIGNANT = ["akiec", "bcc", "mel"]


@pytest.mark.parametrize(
    ("column", "words", "target", "own"),
    [
        ("target", ("0", "1"), None, MALIGNANT),
        ("benign_malignant", ("benign", "malignant"), None, MALIGNANT),
        ("diagnosis", ("Benign", "Malignant"), None, MALIGNANT),
        ("malignant", ("False", "True"), "bcc", ["bcc"]),
        ("Melanoma", ("0", "1"), None, ["mel"]),
        ("dx", None, "mel", ["mel"]),
    ],
)
def test_labels_that_say_no_more_than_benign_or_malignant(
    column: str,
    words: tuple[str, str] | None,
    target: str | None,
    own: list[str],
    source: Path,
    trained: TrainConfig,
    tmp_path: Path,
) -> None:
    known = pd.read_csv(source / "labels.csv").set_index("image")["dx"]
    labels = tmp_path / "labels.csv"
    judged = target or ("mel" if own == ["mel"] else "malignant")
    positive = known.isin(own if own == ["mel"] else MALIGNANT)
    written = known if words is None else positive.map(dict(zip((False, True), words, strict=True)))
    written.rename(column).to_csv(labels)
    overrides = [f"external.labels={labels}", *([f"external.target={target}"] if target else [])]
    run(config(source, trained, tmp_path, *overrides))
    table = pd.read_csv(tmp_path / "predictions_external.csv").set_index("image_id")
    new = [f"X_{place:02d}" for place in range(5)]
    seven = Predictor.load(str(trained.out)).predict([source / "images" / f"{name}.png" for name in new])
    expected = seven.probabilities[:, [CODES.index(code) for code in own]].sum(axis=1)
    np.testing.assert_allclose(table.loc[new, judged], expected, atol=3e-6)
    metrics = json.loads((tmp_path / "metrics_external.json").read_text())
    area = roc_auc_score(positive.loc[table.index], table[judged])
    assert metrics["numbers"][f"auroc_{judged}"]["value"] == pytest.approx(area)
    shown = json.loads((tmp_path / "populations.json").read_text())["populations"]
    counts = known[known.index.isin(table.index)].isin(own if own == ["mel"] else MALIGNANT).sum()
    assert shown["these images"]["diagnoses"][judged]["images"] == counts
    assert sum(each["share"] for each in shown["training"]["diagnoses"].values()) == pytest.approx(1)


def test_labels_of_one_diagnosis_judge_no_other(source: Path, trained: TrainConfig, tmp_path: Path) -> None:
    labels = pd.read_csv(source / "labels.csv")
    labels.assign(mel=(labels["dx"] == "mel").astype(int))[["image", "mel"]].to_csv(tmp_path / "mel.csv", index=False)
    given = config(source, trained, tmp_path, f"external.labels={tmp_path / 'mel.csv'}", "external.target=malignant")
    with pytest.raises(DataError, match=r"external\.target=malignant: the labels say no more than mel or not"):
        run(given)


def test_known_images_are_kept_on_demand(
    source: Path, trained: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = predicted(source, trained, tmp_path, "external.leakage=keep")
    assert len(found.predictions) == 43
    assert "evaluated all the same" in caplog.text
    assert "copy (train, by hash)" in caplog.text
    seen = found.source.seen
    assert (seen.choice, seen.by_id, seen.by_hash) == ("keep", 1, 1)


def test_without_the_training_images_only_ids_are_compared(
    source: Path, trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinlesion.studies.external import evaluation as external

    def gone(data: object, **_: object) -> None:
        raise DataError("the data set is not there")

    monkeypatch.setattr(external, "read_data", gone)
    found = predicted(source, trained, tmp_path)
    assert "copy" in found.predictions.image_id.tolist()
    assert found.source.seen.by_hash is None
    assert "not compared by hash" in found.source.seen.note
    described = compare_populations(*found.populations)
    assert described.populations["training"].images > 0
    assert described.apart["brightness"] is None
    with pytest.raises(DataError, match="not there"):
        predicted(source, trained, tmp_path, f"data.root={tmp_path}")


@pytest.mark.parametrize("images", [1, 4])
def test_one_image_and_one_class(source: Path, trained: TrainConfig, tmp_path: Path, images: int) -> None:
    labels = pd.read_csv(source / "labels.csv")
    rows = labels[(labels["dx"] == "nv") & labels["image"].str.startswith("X_")].iloc[:images]
    assert len(rows) == images
    rows.to_csv(tmp_path / "few.csv", index=False)
    run(config(source, trained, tmp_path / "out", f"external.labels={tmp_path / 'few.csv'}"))
    text = (tmp_path / "out" / "report_external.json").read_text()
    assert "NaN" not in text
    report = json.loads(text)
    assert report["per_diagnosis"]["nv"]["auroc"] is None
    assert "not computable" in report["challenge"]["per_category"]["NV"]["auc"]["note"]
    assert len(Predictions.read(tmp_path / "out" / "predictions_external.csv")) == images


def test_invalid_sources_are_refused(source: Path, trained: TrainConfig, tmp_path: Path) -> None:
    labels = pd.read_csv(source / "labels.csv")
    labels[labels["image"] == "copy"].to_csv(tmp_path / "copy.csv", index=False)
    with pytest.raises(DataError, match="no image is left: all 1 are in the training or validation data"):
        run(config(source, trained, tmp_path / "out", f"external.labels={tmp_path / 'copy.csv'}"))
    labels.assign(image="Z_" + labels["image"]).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(DataError, match="no row would be left"):
        run(config(source, trained, tmp_path / "out", f"external.labels={tmp_path / 'other.csv'}"))
    assert not (tmp_path / "out").exists()


def test_several_sets_at_once(
    source: Path, trained: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set measures what it measures alone; the same images, sorted into folders by diagnosis, measure the same."""
    for row in pd.read_csv(source / "labels.csv").itertuples():
        (path,) = (source / "images").glob(f"{row.image}.*")
        (tmp_path / "sorted" / row.dx).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sorted" / row.dx / path.name).write_bytes(path.read_bytes())
    labels = source / "labels.csv"
    whole = composed(
        "evaluate",
        EvaluateConfig,
        *(f"checkpoint={trained.out}", f"data.cache_dir={trained.data.cache_dir}", f"out={tmp_path / 'sets'}"),
        *("resamples=100", "interval=percentile"),
        f"+external_sets.flat={{images: {source / 'images'}, labels: {labels}, leakage: keep}}",
        f"+external_sets.sorted={{images: {tmp_path / 'sorted'}, labels: folders}}",
    )
    (tmp_path / "bad.csv").write_text("image,dx\nISIC_1,wart\n")
    bad = {name: {"images": str(source / "images"), "labels": str(tmp_path / "bad.csv")} for name in ("x", "y")}
    with pytest.raises(DataError, match=r"(?s)external_sets\.x: .*'wart' \(line 2\).*external_sets\.y: .*'wart'"):
        run(replace(whole, external_sets={**whole.external_sets, **bad}))
    assert not (tmp_path / "sets").exists()  # refused before the sound ones are evaluated
    run(whole)
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "sets" / "external_sets.json").read_text())["sets"]
    assert [*found] == ["flat", "sorted"]
    assert "flat (43 images)" in shown
    assert "sorted (41 images)" in shown
    run(config(source, trained, tmp_path / "alone", "interval=percentile"))
    alone = json.loads((tmp_path / "alone" / "metrics_external.json").read_text())
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        assert found["sorted"][name] == alone[name]
    written = json.loads((tmp_path / "sets" / "flat" / "metrics_external.json").read_text())
    assert found["flat"]["accuracy"] == written["accuracy"]


def test_a_public_set_by_one_word(
    trained: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its usual folder is, and elsewhere beside another set; facts and words count as named by hand."""
    monkeypatch.chdir(tmp_path)
    isic2018_test(tmp_path / "data" / "isic2018_test", n=16)
    pad_ufes20(tmp_path / "pad", n=12)
    given = (
        f"checkpoint={trained.out}",
        f"data.cache_dir={trained.data.cache_dir}",
        "resamples=100",
        "interval=percentile",
    )
    words = read_words([*given, "data=isic2018_test", f"out={tmp_path / 'one'}"], "evaluate", EvaluateConfig)
    run(composed("evaluate", EvaluateConfig, *words.overrides))
    assert "no image file for 1 of 16 rows (ISIC_0035068): these rows are dropped" in caplog.text
    found = Predictions.read(tmp_path / "one" / "predictions_external.csv")
    assert len(found) == 15
    table = pd.read_csv(tmp_path / "data" / "isic2018_test" / "ISIC2018_Task3_Test_GroundTruth.tab", sep="\t")
    expected = table[table["image_id"] != "ISIC_0035068"]
    assert list(found.image_id) == expected["image_id"].tolist()
    assert list(found.actual) == expected["dx"].tolist()
    assert list(found.lesion_id) == expected["lesion_id"].tolist()
    path = tmp_path / "data" / "isic2018_test" / "ISIC2018_Task3_Test_Images" / f"{found.image_id[0]}.jpg"
    alone = Predictor.load(trained.out).predict(path, age=45, sex="female", localization="back")
    np.testing.assert_allclose(found.probabilities[0], alone.probabilities[0], atol=1e-5)
    pad = f"+external_sets.pad={{data: pad_ufes20, root: {tmp_path / 'pad'}}}"
    run(
        composed(
            "evaluate", EvaluateConfig, *given, "+external_sets.test={data: isic2018_test}", pad, f"out={tmp_path}"
        )
    )
    sets = json.loads((tmp_path / "external_sets.json").read_text())["sets"]
    one = json.loads((tmp_path / "one" / "metrics_external.json").read_text())
    assert sets["test"]["accuracy"] == one["accuracy"]
    assert sets["pad"]["external"]["classes"]["sek"] == {"images": 2, "counts_as": "bkl"}
    assert sets["pad"]["external"]["facts"]["sex"] == "gender"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+external_sets.a={data: ham}", "external.data=ham: expected one of bcn20000"),
        ("+external_sets.a={images: x}", "external_sets.a={'images': 'x'}: expected {images: FOLDER, labels: CSV}"),
        ("+external_sets.a={images: x, labels: y, torm: drop}", "external_sets.a.KEY=torm: expected"),
        ("+external_sets.a={images: x, labels: y, torn: no}", "external_sets.a.torn=no: expected"),
    ],
)
def test_faulty_sets_are_refused_by_key(override: str, said: str, trained: TrainConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("evaluate", EvaluateConfig, f"checkpoint={trained.out}", override)
    assert said in str(caught.value)
