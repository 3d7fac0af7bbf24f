"""Prediction for files and folders, with facts and without, for people and for programs."""

import io
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed
from PIL import Image as PillowImage
from public_sets import dermamnist
from scipy.special import softmax

from skinlesion.commands.explain import run as explain
from skinlesion.commands.predict import records, run, show
from skinlesion.config.inference import PredictConfig
from skinlesion.config.studies import ExplainConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data import image_io
from skinlesion.data.image_io import Image
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.torch_members import TorchMembers


def predict(*overrides: str) -> None:
    run(composed("predict", PredictConfig, *overrides))


@pytest.fixture
def checkpoint(trained: TrainConfig) -> str:
    return f"checkpoint={Path(trained.out) / 'best.ckpt'}"


@pytest.fixture
def images(synthetic_root: Path) -> Path:
    return synthetic_root / "HAM10000_images_part_1"


def answers(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, object]]]:
    return json.loads(capsys.readouterr().out)


def test_gives_what_training_gave(
    checkpoint: str, images: Path, trained: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same image with the same facts has the same probabilities as in the run's own table."""
    table = pd.read_csv(Path(trained.data.root) / "HAM10000_metadata").set_index("image_id")
    own = pd.read_csv(Path(trained.out) / "predictions_test.csv")
    own = own[[(images / f"{image_id}.jpg").exists() for image_id in own["image_id"]]].iloc[0]
    facts = table.loc[own["image_id"]]
    age = "null" if pd.isna(facts["age"]) else str(facts["age"])
    image = f"image={images / own['image_id']}.jpg"
    place = f"localization='{facts['localization']}'"
    predict(checkpoint, image, f"age={age}", f"sex={facts['sex']}", place, "format=json")
    (answer,) = answers(capsys)["predictions"]
    assert answer["predicted"] == own["predicted"]
    np.testing.assert_allclose([answer["probabilities"][code] for code in CODES], own[list(CODES)].tolist(), atol=1e-5)


def test_missing_facts_are_fine_and_facts_matter(
    checkpoint: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = f"image={sorted(images.iterdir())[0]}"
    predict(checkpoint, image, "format=json")
    without = answers(capsys)["predictions"][0]["probabilities"]
    predict(checkpoint, image, "age=85", "sex=male", "localization=face", "format=json")
    known = answers(capsys)["predictions"][0]["probabilities"]
    assert sum(without.values()) == pytest.approx(1, abs=1e-5)
    assert without != known


def test_a_folder_goes_on_past_unreadable_images(
    checkpoint: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted(images.iterdir())[:3]
    for path in good:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.jpg").write_bytes(good[0].read_bytes()[:300])
    (tmp_path / "notes.txt").write_text("not an image")
    predict(checkpoint, f"image={tmp_path}", "format=json")
    answer = answers(capsys)
    assert [Path(row["image"]).name for row in answer["predictions"]] == [path.name for path in good]
    assert len(answer["unreadable"]) == 1
    assert "broken.jpg" in answer["unreadable"][0]
    assert "not a medical device" in answer["note"]


def test_a_folder_is_read_a_batch_at_a_time(
    checkpoint: str, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(checkpoint, f"image={images}", "format=json", "loader.batch_size=256")
    at_once = answers(capsys)["predictions"]
    sizes: list[int] = []
    full: list[weakref.ref[Image]] = []
    run_members, read = TorchMembers.run, image_io.read

    def counted(members: TorchMembers, prepared: Any, *others: Any, **named: Any) -> Any:
        sizes.append(len(prepared))
        assert sum(each() is not None for each in full) <= 1, "images wait at their full size"
        return run_members(members, prepared, *others, **named)

    def kept(path: Path) -> Image:
        image = np.repeat(read(path), 2, axis=1)
        full.append(weakref.ref(image))
        return image

    monkeypatch.setattr(TorchMembers, "run", counted)
    predict(checkpoint, f"image={images}", "format=json", "loader.batch_size=50")
    batches = answers(capsys)["predictions"]
    monkeypatch.setattr("skinlesion.inference.inputs.read", kept)
    predict(checkpoint, f"image={images}", "format=csv", "loader.batch_size=16")
    assert len(full) == len(at_once)
    sizes = sizes[: -(-len(at_once) // 50)]
    assert len(sizes) > 2
    assert set(sizes[:-1]) == {50}
    assert sum(sizes) == len(at_once)
    assert [row["image"] for row in batches] == [row["image"] for row in at_once]
    for row, other in zip(batches, at_once, strict=True):
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=2e-6)


def test_the_table_for_people(checkpoint: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sorted(images.iterdir())[0]
    predict(checkpoint, f"image={path}")
    shown = capsys.readouterr().out
    assert path.name in shown
    assert "not a medical device" in shown
    assert all(code in shown for code in CODES)


def test_the_table_fits_80_columns_and_names_are_shown_as_they_are(
    checkpoint: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = sorted(images.iterdir())[0].read_bytes()
    for name in ("[red].jpg", "a\x1b[31m.jpg", "a long name of an image of a patient's left arm.jpg"):
        (tmp_path / name).write_bytes(pixels)
    predict(checkpoint, f"image={tmp_path}")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "[red].jpg" in shown
    assert "\x1b" not in shown
    assert shown.count("…") == 0


def test_csv_has_a_row_for_each_image_and_a_column_for_each_diagnosis(
    checkpoint: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(checkpoint, f"image={images}", "format=json")
    expected = answers(capsys)["predictions"]
    predict(checkpoint, f"image={images}", "format=csv")
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert table["image"].tolist() == [row["image"] for row in expected]
    assert table[list(CODES)].to_dict("records") == [row["probabilities"] for row in expected]


def test_csv_holds_no_formula(
    checkpoint: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = sorted(images.iterdir())[0]
    monkeypatch.chdir(tmp_path)
    Path(f"=1+2{first.suffix}").write_bytes(first.read_bytes())
    predict(checkpoint, "image=.", "format=csv")
    assert pd.read_csv(io.StringIO(capsys.readouterr().out))["image"].tolist() == [f"'=1+2{first.suffix}"]


def test_an_ensemble_predicts_the_mean(sweep_folder: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from conftest import composed as compose

    from skinlesion.commands.ensemble import run as ensemble
    from skinlesion.config.inference import EnsembleConfig

    members = [sweep_folder / name for name in ("first", "second")]
    out = sweep_folder.parent / "pair"
    listed = ",".join(str(member) for member in members)
    ensemble(
        compose(
            "ensemble", EnsembleConfig, f"members=[{listed}]", f"out={out}", "resamples=100", "calibration=temperature"
        )
    )
    capsys.readouterr()
    image = f"image={sorted(images.iterdir())[0]}"
    votes = []
    whole = f"ensemble={out / 'ensemble.json'}"
    for model in (*(f"checkpoint={member}" for member in members), whole):
        predict(model, image, "format=json", "calibrated=false")
        probabilities = answers(capsys)["predictions"][0]["probabilities"]
        votes.append([probabilities[code] for code in CODES])
    np.testing.assert_allclose(votes[2], np.mean(votes[:2], axis=0), atol=2e-6)
    predict(whole, image, "format=json")
    answer = answers(capsys)["predictions"][0]
    assert list(answer["uncalibrated"].values()) == votes[2]
    temperature = json.loads((out / "ensemble.json").read_text())["calibration"]["temperature"]
    expected = softmax(np.log(votes[2]) / temperature)
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-4)
    assert answer["predicted"] in answer["prediction_set"]
    assert answer["coverage_wanted"] == 0.9
    predict(whole, image)
    assert "set (90%)" in capsys.readouterr().out


def test_the_table_says_what_is_unlike_the_training_images(capsys: pytest.CaptureFixture[str]) -> None:
    ids, blank = np.array(["a", "b"], object), np.array(["", ""], object)
    parts = [
        Predictions(
            ids, np.eye(7)[[k, k]], blank, blank, ood_score=np.array([0.5, 2.0 + k]), ood=np.array([False, k == 1])
        )
        for k in (0, 1)
    ]
    rows = records(Predictions.concatenate(parts))
    assert [row["out_of_distribution"] for row in rows] == [
        {"flag": False, "score": 0.5},
        {"flag": False, "score": 2.0},
        {"flag": False, "score": 0.5},
        {"flag": True, "score": 3.0},
    ]
    show(rows)
    shown = capsys.readouterr().out
    marks = [line.split()[0] for line in shown.splitlines() if line.split()[:1] in (["a"], ["b"], ["!"])]
    assert [mark for mark in marks if mark != "!"] == ["a", "b", "a"]
    assert "! b" in shown
    assert "do not rely on its probabilities" in shown
    show(rows[:3])
    assert "do not rely" not in capsys.readouterr().out
    show(records(Predictions(ids[:1], np.eye(7)[:1], blank[:1], blank[:1])))
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["localization=bck"], "localization=bck: not known to the model; expected one of"),
        (["sex=men"], "sex=men"),
        (["age=200"], "age=200"),
    ],
)
def test_typos_in_facts_are_refused(overrides: list[str], said: str, checkpoint: str, images: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        predict(checkpoint, f"image={images}", *overrides)
    assert said in str(caught.value)


def test_nothing_to_predict(checkpoint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        predict(checkpoint, f"image={tmp_path / 'none.jpg'}")
    with pytest.raises(DataError, match="no image in this folder"):
        predict(checkpoint, f"image={tmp_path}")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image can be read \(1 tried\)"):
        predict(checkpoint, f"image={tmp_path}")


def test_a_table_of_unlabelled_images(
    checkpoint: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each image has the probabilities that its facts give it when it is predicted alone."""
    caplog.set_level("INFO")
    (first, second, third), folder = sorted(images.iterdir())[:3], tmp_path / "photos"
    (folder / "may").mkdir(parents=True)
    for path, place in ((first, folder), (second, folder / "may"), (third, folder)):
        (place / path.name).write_bytes(path.read_bytes())
    (folder / "sketch.avif").write_bytes(b"")
    table = tmp_path / "patients.csv"
    rows = f"isic_id,age_approx,sex,site\n{first.name},85,male,face\n{second.stem},20,female,moon\nother,50,,\n"
    table.write_text(rows)
    out = tmp_path / "results" / "predictions.csv"
    predict(checkpoint, f"images={folder}", f"facts={table}", f"out={out}")
    assert capsys.readouterr().out == ""
    written = pd.read_csv(out)
    assert [Path(name).name for name in written["image"]] == [first.name, third.name, second.name]
    alone = {}
    for path, facts in (
        (first, ("age=85", "sex=male", "localization=face")),
        (second, ("age=20", "sex=female")),
        (third, ()),
    ):
        predict(checkpoint, f"image={path}", *facts, "format=json")
        alone[path.name] = answers(capsys)["predictions"][0]["probabilities"]
    for row in written.to_dict("records"):
        assert [row[code] for code in CODES] == pytest.approx([*alone[Path(row["image"]).name].values()], abs=2e-6)
    assert "age from age_approx, sex from sex, localization from site" in caplog.text
    assert "does not know these values, which count as unknown: localization moon (1)" in caplog.text
    assert f"Facts are unknown for 1 of 3 images, without a row: {third.name}" in caplog.text
    assert "no image for 1 rows: other" in caplog.text
    predict(checkpoint, f"images={folder}", f"facts={table}", "format=json")
    answer = answers(capsys)
    assert answer["passed_over"] == [str(folder / "sketch.avif")]
    assert (answer["without_facts"], answer["rows_without_image"]) == ([str(folder / third.name)], ["other"])


def test_a_faulty_table_of_facts_is_named_by_line(
    checkpoint: str, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("image,age\na,150\nb,20\nb,30\n")
    with pytest.raises(DataError) as caught:
        predict(checkpoint, f"images={images}", f"facts={table}")
    assert "patients.csv: faulty age: '150' (line 2)" in str(caught.value)
    table.write_text("image,age,gender_of_patient\na,50,f\n")
    predict(checkpoint, f"images={images}", f"facts={table}")
    lost = "no column of sex, localization, unknown for all images; not read: gender_of_patient."
    assert f"patients.csv: {lost}" in caplog.text
    table.write_text("name,age\na,50\n")
    with pytest.raises(DataError, match=r"patients\.csv: no column of image ids"):
        predict(checkpoint, f"images={images}", f"facts={table}")
    with pytest.raises(ConfigError, match=r"facts=.*null beside the facts"):
        predict(checkpoint, f"images={images}", f"facts={table}", "age=50")
    with pytest.raises(ConfigError, match="image: expected an image or a folder"):
        predict(checkpoint)


def test_age_and_sex_of_a_dicom_file_are_facts(
    checkpoint: str,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """For the command, for Python, and for explanations."""
    path = sorted(images.iterdir())[0]
    predict(checkpoint, f"image={path}", "age=85", "sex=male", "format=json")
    wanted = answers(capsys)["predictions"]
    monkeypatch.setattr("skinlesion.inference.inputs.dicom_facts", lambda path: {"age": 85.0, "sex": "female"})
    predict(checkpoint, f"image={path}", "sex=male", "format=json")
    assert answers(capsys)["predictions"] == wanted
    alone = Predictor.load(checkpoint.partition("=")[2]).predict(
        [path, path], [{"sex": "male"}, {"age": 85, "sex": "male"}]
    )
    np.testing.assert_array_equal(alone.probabilities[0], alone.probabilities[1])
    words = (checkpoint, f"image={path}", "sex=male", f"out={tmp_path}")
    explain(composed("explain", ExplainConfig, *words))
    (page,) = tmp_path.glob("*.json")
    told = json.loads(page.read_text())
    assert told["facts"] == {"age": 85.0, "sex": "male", "localization": None}
    assert told["probabilities"] == wanted[0]["probabilities"]


def test_arrays_of_medmnist_are_predicted_as_files(
    checkpoint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dermamnist(tmp_path)
    predict(checkpoint, f"images={tmp_path / 'dermamnist.npz'}", "format=json")
    found = answers(capsys)["predictions"]
    assert [Path(row["image"]).name for row in found[6:8]] == ["train_00006", "val_00000"]
    assert len(found) == 10
    with np.load(tmp_path / "dermamnist.npz") as arrays:
        PillowImage.fromarray(arrays["val_images"][0]).save(tmp_path / "one.png")
    predict(checkpoint, f"image={tmp_path / 'one.png'}", "format=json")
    (one,) = answers(capsys)["predictions"]
    assert one["probabilities"] == pytest.approx(found[7]["probabilities"], abs=2e-6)
    alone = Predictor.load(checkpoint.partition("=")[2]).predict(tmp_path / "dermamnist.npz" / "val_00000")
    np.testing.assert_allclose(alone.probabilities[0], list(one["probabilities"].values()), atol=2e-6)
    with pytest.raises(DataError, match=r"no such image; expected a name such as train_"):
        Predictor.load(checkpoint.partition("=")[2]).predict(tmp_path / "dermamnist.npz" / "val_9")
    (tmp_path / "torn.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"torn.npz: cannot be read as an .npz of MedMNIST"):
        predict(checkpoint, f"images={tmp_path / 'torn.npz'}")
