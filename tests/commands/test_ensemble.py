"""The ensemble: who may vote, what it leaves, and that it can be run again."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import composed
from scipy.special import softmax

from skinlesion.commands.ensemble import run
from skinlesion.config.inference import EnsembleConfig, EvaluateConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError, ConfigError, DataError
from skinlesion.inference import operating_points
from skinlesion.inference.calibration import calibrated, fit_temperature
from skinlesion.inference.ensemble import read_ensemble
from skinlesion.inference.ledger import LEDGER, read_ledger
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.classification import headline
from skinlesion.training.checkpoint import TrainedModel, load_model

BEFORE = ("members", "chosen", "tta", "classes", "fingerprint")  # keys of the first ensemble.json
FAST = ("split=test", "resamples=100", "interval=percentile", "data.cache_dir=/dev/null")


def ensemble(*overrides: str) -> EnsembleConfig:
    return composed("ensemble", EnsembleConfig, *FAST, *overrides)


@pytest.fixture
def sweep(sweep_folder: Path, tmp_path: Path) -> Path:
    """A copy of the sweep that a test may break."""
    return Path(shutil.copytree(sweep_folder, tmp_path / "sweep", ignore=shutil.ignore_patterns("cache", "ensemble")))


def test_what_an_ensemble_leaves(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(ensemble(f"members={sweep}"))
    folder = sweep / "ensemble"
    assert {path.name for path in folder.iterdir()} == {
        "ensemble.json",
        "members",
        "metrics.json",
        "novelty.npz",
        "predictions_val.csv",
        "predictions_test.csv",
        "test_readings.jsonl",
    }
    about = json.loads((folder / "ensemble.json").read_text())
    assert [member["name"] for member in about["members"]] == ["first", "second", "third"]
    metrics = json.loads((folder / "metrics.json").read_text())
    members = [sweep / about["members"][position]["name"] for position in about["chosen"]]
    for part in ("val", "test"):
        voted = Predictions.soft_vote([Predictions.read(member / f"predictions_{part}.csv") for member in members])
        for metric, value in headline(voted).items():
            assert metrics[part][metric] == pytest.approx(value, abs=1e-12)
            low, high = metrics[part]["intervals"][metric]
            assert low <= metrics[part][metric] <= high
        for name in ("first", "second", "third"):
            own = (sweep / name / f"predictions_{part}.csv").read_bytes()
            assert (folder / "members" / name / f"predictions_{part}.csv").read_bytes() == own
    best = max(("first", "second", "third"), key=lambda name: metrics["members"][name]["val"]["macro_f1"])
    against = metrics["against_best_member"]
    assert against["name"] == best
    gain = metrics["test"]["accuracy"] - metrics["members"][best]["test"]["accuracy"]
    assert against["test"]["accuracy"]["value"] == pytest.approx(gain, abs=1e-12)
    # a temperature moves no prediction
    assert metrics["calibrated"]["test"]["accuracy"] == metrics["test"]["accuracy"]
    assert metrics["calibrated"]["val"]["numbers"]["nll"]["value"] <= metrics["val"]["numbers"]["nll"]["value"]
    shown = capsys.readouterr().out
    for said in ("first", "second", "third", "mean of all 3", "chosen on validation", "macro-F1", "balanced accuracy"):
        assert said in shown


def test_the_test_part_is_read_when_asked(sweep: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = sweep / "ensemble"
    caplog.set_level("INFO")
    run(ensemble(f"members={sweep}", "split=val"))
    assert composed("ensemble", EnsembleConfig, f"members={sweep}").split == "val"
    assert not list(folder.rglob("predictions_test.csv"))
    assert not (folder / LEDGER).exists()
    assert "test" not in json.loads((folder / "metrics.json").read_text())
    assert "same command with split=test reads it" in caplog.text
    with pytest.raises(DataError, match=r"ensemble members=SWEEP split=test"):
        Predictions.read(folder / "predictions_test.csv")
    run(ensemble(f"members={sweep}"))
    run(ensemble(f"members={sweep}", "split=val"))
    assert len(list(folder.rglob("predictions_test.csv"))) == 4, "of the same ensemble"
    run(ensemble(f"members={sweep}", "split=val", "alphas=[0.3]"))
    assert not list(folder.rglob("predictions_test.csv")), "of another ensemble"
    (entry,) = read_ledger([folder], split=str(read_ensemble(folder).fingerprint))
    assert (entry.command, entry.kind) == ("ensemble", "reading")


def test_the_choice_is_the_best_on_validation(sweep: Path) -> None:
    run(ensemble(f"members={sweep}"))
    chosen = json.loads((sweep / "ensemble" / "ensemble.json").read_text())["chosen"]
    tables = [Predictions.read(sweep / name / "predictions_val.csv") for name in ("first", "second", "third")]
    scores = {
        subset: headline(Predictions.soft_vote([tables[position] for position in subset]))["macro_f1"]
        for subset in ((0, 1), (0, 2), (1, 2), (0, 1, 2))
    }
    assert scores[tuple(chosen)] == max(scores.values())


def test_test_labels_do_not_move_the_choice(sweep: Path) -> None:
    run(ensemble(f"members={sweep}"))
    first = (sweep / "ensemble" / "ensemble.json").read_text()
    for name in ("first", "second", "third"):
        path = sweep / name / "predictions_test.csv"
        table = Predictions.read(path)
        replace(table, actual=np.random.default_rng(0).permutation(table.actual)).write(path)
    run(ensemble(f"members={sweep}"))
    assert (sweep / "ensemble" / "ensemble.json").read_text() == first


def test_what_is_fitted_on_validation_is_kept(sweep: Path) -> None:
    settings = ("alphas=[0.2,0.1]", "sensitivities=[0.5]", "calibration=temperature")
    run(ensemble(f"members={sweep}", *settings))
    found = read_ensemble(sweep / "ensemble")
    val = Predictions.read(sweep / "ensemble" / "predictions_val.csv")
    assert found.posthoc.calibration is not None
    values = calibrated(val.probabilities, found.posthoc.calibration)
    logits = np.log(val.probabilities.astype(np.float64)) / found.posthoc.calibration["temperature"]
    np.testing.assert_allclose(values, softmax(logits, axis=1), atol=1e-9)
    points = operating_points.fit(values, val.targets, sensitivities=[0.5])
    assert [point["target"] for point in found.posthoc.operating_points or []] == ["mel", "malignant"]
    for kept, expected in zip(found.posthoc.operating_points or [], points, strict=True):
        assert kept["threshold"] == pytest.approx(expected["threshold"], abs=1e-6)
    assert [sets["alpha"] for sets in found.posthoc.conformal or []] == [0.2, 0.1]


def test_a_calibration_part_alone_fits_what_follows_the_vote(
    sweep: Path, trained: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation chooses the members; its lesions that the split sets apart fit scaling, thresholds and sets."""
    val = Predictions.read(sweep / "first" / "predictions_val.csv")
    apart = set(val.image_id[val.group % 2 == 0])

    def load(path: Path) -> TrainedModel:
        model = load_model(path)
        rest = [image for image in model.split["val"] if image not in apart]
        return replace(model, split={**model.split, "val": rest, "calibration": sorted(apart)})

    monkeypatch.setattr("skinlesion.training.checkpoint.load_model", load)
    run(ensemble(f"members={sweep}", "calibration=temperature", f"data.cache_dir={trained.data.cache_dir}"))
    about = json.loads((sweep / "ensemble" / "ensemble.json").read_text())
    assert (about["calibration"]["part"], about["conformal"][0]["part"]) == ("calibration", "calibration")
    own = Predictions.read(sweep / "ensemble" / "predictions_val.csv")
    fitting = own.select(np.isin(own.image_id.astype(str), sorted(apart)))
    assert about["calibration"]["images"] == len(fitting) == len(apart)
    assert about["calibration"]["temperature"] == pytest.approx(
        fit_temperature(fitting.probabilities, fitting.targets), rel=1e-3
    )
    assert sum(about["conformal"][0]["images"].values()) == fitting.lesions


def test_a_balanced_ensemble_decides_by_prevalence_everywhere(sweep: Path, synthetic_root: Path) -> None:
    run(ensemble(f"members={sweep}", "decision=balanced", "calibration=bias"))
    folder = sweep / "ensemble"
    found, val = read_ensemble(folder), Predictions.read(folder / "predictions_val.csv")
    prior = (
        np.maximum(np.bincount(val.targets, minlength=7), 1)
        / np.maximum(np.bincount(val.targets, minlength=7), 1).sum()
    )
    assert found.posthoc.decision is not None
    np.testing.assert_allclose(list(found.posthoc.decision["prior"].values()), prior)
    balanced = (calibrated(val.probabilities, found.posthoc.calibration) / prior).argmax(axis=1)
    np.testing.assert_array_equal(val.predicted_targets, balanced)
    assert (balanced != val.probabilities.argmax(axis=1)).any()
    measured = json.loads((folder / "metrics.json").read_text())
    assert measured["val"]["balanced_accuracy"] == pytest.approx(headline(val)["balanced_accuracy"], abs=1e-12)
    images = sorted((synthetic_root / "HAM10000_images_part_1").iterdir())[:6]
    model = Predictor.load(folder)
    given = model.predict(images)
    np.testing.assert_array_equal(given.predicted_targets, (given.probabilities / prior).argmax(axis=1))
    likeliest = model.deciding("likeliest").predict(images)
    np.testing.assert_array_equal(likeliest.predicted_targets, given.uncalibrated.argmax(axis=1))
    alone = Predictor.load(sweep / "first").deciding("balanced").predict(images)
    counts = np.array(load_model(sweep / "first").class_counts)
    np.testing.assert_array_equal(alone.predicted_targets, (alone.probabilities / counts).argmax(axis=1))
    path = folder / "ensemble.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "decision"})
    )
    with pytest.raises(CheckpointError, match=r"decision=balanced: .* does not say how frequent"):
        Predictor.load(folder).deciding("balanced")


def test_an_ensemble_of_before_still_loads(sweep: Path) -> None:
    run(ensemble(f"members={sweep}"))
    path = sweep / "ensemble" / "ensemble.json"
    kept = {key: value for key, value in json.loads(path.read_text()).items() if key in BEFORE}
    path.write_text(json.dumps(kept))
    found = read_ensemble(path)
    assert (found.posthoc.calibration, found.posthoc.operating_points, found.posthoc.conformal) == (None, None, None)
    assert calibrated(np.eye(7), found.posthoc.calibration).tolist() == np.eye(7).tolist()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("alphas=[0.1,1.5]", "alphas=[0.1,1.5]: expected different numbers above 0, below 1"),
        ("sensitivities=[]", "sensitivities=[]: expected"),
        ("sensitivities=[0.9,0.9]", "different"),
        ("calibration=platt", "expected one of auto, none, temperature, bias, vector"),
        ("conformal=lac", "expected one of aps, raps"),
        ("interval=normal", "expected one of bca, percentile"),
    ],
)
def test_settings_out_of_range_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        ensemble("members=x", override)


def test_copies_of_a_member_vote_like_the_member(sweep: Path, tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        shutil.copytree(sweep / "first", tmp_path / name)
        paths.append(str(tmp_path / name / "best.ckpt"))
    run(ensemble(f"members=[{','.join(paths)}]", f"out={tmp_path / 'out'}"))
    one = Predictions.read(sweep / "first" / "predictions_test.csv").probabilities
    np.testing.assert_array_equal(Predictions.read(tmp_path / "out" / "predictions_test.csv").probabilities, one)


def test_checkpoints_alone_are_enough(sweep: Path, trained: TrainConfig, tmp_path: Path) -> None:
    """Without tables beside them, members predict again, and give what they gave."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(sweep / name / "best.ckpt", tmp_path / name)
    members = f"members=[{tmp_path / 'first' / 'best.ckpt'},{tmp_path / 'second'}]"
    run(ensemble(members, f"out={tmp_path / 'out'}", f"data.cache_dir={trained.data.cache_dir}"))
    again = Predictions.read(tmp_path / "out" / "predictions_val.csv").probabilities
    tables = [Predictions.read(sweep / name / "predictions_val.csv") for name in ("first", "second")]
    np.testing.assert_allclose(again, Predictions.soft_vote(tables).probabilities, atol=1e-5)


def test_a_stale_table_is_not_believed(sweep: Path, trained: TrainConfig, tmp_path: Path) -> None:
    """A checkpoint that another run made is refused beside this one's metrics.json, and else its table is made anew."""
    shutil.copy(sweep / "second" / "best.ckpt", sweep / "first" / "best.ckpt")
    assert "damaged or replaced" in refused(f"members={sweep}")
    forget(sweep / "first")
    run(ensemble(f"members={sweep}", f"data.cache_dir={trained.data.cache_dir}"))
    measured = json.loads((sweep / "ensemble" / "metrics.json").read_text())["members"]
    assert measured["first"]["val"]["macro_f1"] == measured["second"]["val"]["macro_f1"]


def forget(run: Path) -> None:
    """Take the digest out of metrics.json, as an earlier version wrote it."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("checkpoint_sha256")
    (run / "metrics.json").write_text(json.dumps(metrics))


def refused(*overrides: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        run(ensemble(*overrides))
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_refuses_an_unfinished_member(sweep: Path) -> None:
    (sweep / "second" / "metrics.json").unlink()
    assert "second not finished" in refused(f"members={sweep}")


def test_refuses_another_number_than_expected(sweep: Path) -> None:
    message = refused(f"members={sweep}", "expected=6")
    assert "3 members (first, second, third), expected 6" in message


def test_refuses_what_the_sweep_did_not_announce(sweep: Path) -> None:
    path = sweep / "first" / "config.yaml"
    path.write_text(path.read_text().replace("expected_members: null", "expected_members: 6"))
    assert "expected 6" in refused(f"members={sweep}")
    run(ensemble(f"members={sweep}", "expected=3"))


def test_refuses_missing_and_broken_checkpoints(sweep: Path) -> None:
    path = sweep / "second" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:5000])
    assert str(path) in refused(f"members={sweep}")
    path.unlink()
    assert "no such checkpoint" in refused(f"members={sweep}")
    other = sweep / "third" / "best.ckpt"
    other.unlink()
    said = refused(f"members=[{path},{other}]", f"out={sweep / 'vote'}")
    assert str(path) in said
    assert str(other) in said


def test_refuses_a_foreign_checkpoint(sweep: Path) -> None:
    torch.save({"state_dict": {}}, sweep / "third" / "best.ckpt")
    forget(sweep / "third")
    assert "not a checkpoint of skinlesion" in refused(f"members={sweep}")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fingerprint", "0" * 64, "another split"),
        ("classes", ["vasc", "nv", "mel", "df", "bkl", "bcc", "akiec"], "classes"),
    ],
)
def test_refuses_members_that_do_not_go_together(sweep: Path, key: str, value: object, said: str) -> None:
    path = sweep / "third" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["skinlesion"][key] = value
    torch.save(checkpoint, path)
    forget(path.parent)
    message = refused(f"members={sweep}")
    assert said in message
    assert str(path) in message


def test_refuses_an_empty_folder(tmp_path: Path) -> None:
    assert "no runs there" in refused(f"members={tmp_path / 'nothing'}")


@pytest.mark.parametrize("given", ["first", "first/best.ckpt"])
def test_one_model_is_calibrated_and_decides_as_an_ensemble_of_one(
    given: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(ensemble(f"members={sweep / given}", "id_pass_rate=null"))
    folder = sweep / "first" / "ensemble"
    about = json.loads((folder / "ensemble.json").read_text())
    assert (about["chosen"], len(about["members"]), len(about["operating_points"]) > 0) == ([0], 1, True)
    assert (folder / "predictions_test.csv").read_bytes() == (sweep / "first" / "predictions_test.csv").read_bytes()
    assert json.loads((folder / "metrics.json").read_text())["test"]["accuracy"] > 0
    assert "gain over" not in capsys.readouterr().out


def test_an_ensemble_is_refused_when_a_member_has_changed(sweep: Path) -> None:
    run(ensemble(f"members={sweep}"))
    moved = sweep.with_name("moved")
    sweep.rename(moved)  # paths in the file are relative to it
    assert len(read_ensemble(moved / "ensemble").members) == 3
    shutil.copy(moved / "first" / "best.ckpt", moved / "second" / "best.ckpt")
    with pytest.raises(CheckpointError, match="has changed"):
        read_ensemble(moved / "ensemble")
    with pytest.raises(CheckpointError, match=r"first.ensemble\.json: cannot be read"):
        read_ensemble(moved / "first")


def test_evaluate_runs_a_checkpoint_again(sweep: Path, trained: TrainConfig, tmp_path: Path) -> None:
    from skinlesion.commands.evaluate import run as evaluate

    places = (f"data.cache_dir={trained.data.cache_dir}", f"out={tmp_path / 'judged'}", "resamples=200")
    evaluate(composed("evaluate", EvaluateConfig, f"checkpoint={sweep / 'first' / 'best.ckpt'}", "split=test", *places))
    folder = tmp_path / "judged"
    figures = ("confusion_matrix", "precision_recall", "reliability", "roc", "sample_sheet")
    expected = {f"{figure}_test.png" for figure in figures}
    expected |= {"predictions_test.csv", "metrics_test.json", "report_test.json"}
    expected |= {"challenge_test.csv", "challenge_truth_test.csv", "subgroups_test.csv", "skin_tones_test.csv"}
    assert {path.name for path in folder.iterdir()} == expected
    again, before = (Predictions.read(path / "predictions_test.csv") for path in (folder, sweep / "first"))
    np.testing.assert_allclose(again.probabilities, before.probabilities, atol=1e-5)
    report = json.loads((folder / "report_test.json").read_text())
    assert report["per_diagnosis"]["nv"]["support"] == (again.actual == "nv").sum()
    scored = report["challenge"]
    assert scored["balanced_accuracy"]["value"] == pytest.approx(report["balanced_accuracy"], abs=1e-9)
    assert scored["per_category"]["NV"]["auc"]["value"] == pytest.approx(
        report["per_diagnosis"]["nv"]["auroc"], abs=1e-9
    )


def test_evaluate_runs_an_ensemble_again(sweep: Path, trained: TrainConfig, tmp_path: Path) -> None:
    from skinlesion.commands.evaluate import run as evaluate

    run(ensemble(f"members={sweep}"))
    places = (f"data.cache_dir={trained.data.cache_dir}", f"out={tmp_path / 'judged'}", "resamples=200")
    evaluate(composed("evaluate", EvaluateConfig, f"ensemble={sweep / 'ensemble'}", "split=val", *places))
    folder = tmp_path / "judged"
    again, before = (Predictions.read(path / "predictions_val.csv") for path in (folder, sweep / "ensemble"))
    np.testing.assert_allclose(again.probabilities, before.probabilities, atol=1e-5)
    measured = json.loads((folder / "metrics_val.json").read_text())
    scaled = Predictions.read(folder / "predictions_val_calibrated.csv")
    assert scaled.predicted.tolist() == again.predicted.tolist()
    nll = -np.log(scaled.probabilities.astype(float)[np.arange(len(scaled)), scaled.targets]).mean()
    assert measured["calibrated"]["numbers"]["nll"]["value"] == pytest.approx(nll, abs=1e-6)
    assert nll <= measured["numbers"]["nll"]["value"]
    decided = json.loads((folder / "decisions_val.json").read_text())
    point = next(each for each in decided["operating_points"] if each["sensitivity"] == 0.9)
    flagged = scaled.target_score("mel")[scaled.actual == "mel"] >= point["threshold"] - 1e-7
    assert point["target"] == "mel"
    assert point["numbers"]["sensitivity"]["value"] == pytest.approx(flagged.mean())
    assert point["numbers"]["sensitivity"]["value"] >= 0.9, "it was chosen on these images"
    assert [each["wanted"] for each in decided["conformal"]] == pytest.approx([0.9, 0.95, 0.8])
    assert set(decided["conformal"][0]["by_group"]) >= {"sex", "age", "localization"}


def test_evaluate_writes_metrics_of_subgroups(sweep: Path, trained: TrainConfig, tmp_path: Path) -> None:
    from skinlesion.commands.evaluate import run as evaluate

    places = (f"data.cache_dir={trained.data.cache_dir}", f"out={tmp_path}", "resamples=100")
    evaluate(composed("evaluate", EvaluateConfig, f"checkpoint={sweep / 'first'}", "split=test", *places))
    table = Predictions.read(tmp_path / "predictions_test.csv").to_frame().set_index("image_id")
    facts = pd.read_csv(Path(trained.data.root) / "HAM10000_metadata").set_index("image_id").loc[table.index]
    right = (table["actual"] == table["predicted"])[facts["sex"] == "female"]
    rows = pd.read_csv(tmp_path / "subgroups_test.csv").set_index(["fact", "group", "number"])
    women = rows.loc[("sex", "female", "accuracy")]
    assert women["images"] == len(right)
    assert women["value"] == pytest.approx(right.mean())
    assert women["low"] <= women["value"] <= women["high"]
    assert set(rows.index.get_level_values("fact")) == {
        *("sex", "age", "localization", "dataset", "dx_type", "skin_tone")
    }
    tones = pd.read_csv(tmp_path / "skin_tones_test.csv").set_index("image_id").loc[table.index, "skin_tone"]
    right = (table["actual"] == table["predicted"])[tones == tones.mode()[0]]
    assert rows.loc[("skin_tone", tones.mode()[0], "accuracy"), "value"] == pytest.approx(right.mean())


def test_evaluate_reads_the_images_of_its_part_alone(
    sweep: Path, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the other parts' images, one of them broken: the same answer, from one reading of the table."""
    from skinlesion.commands.evaluate import run as evaluate
    from skinlesion.data import readers

    run(ensemble(f"members={sweep}"))
    root = Path(shutil.copytree(synthetic_root, tmp_path / "data"))
    tested = set(Predictions.read(sweep / "first" / "predictions_test.csv").image_id)
    others = sorted(path for path in root.glob("*/*.jpg") if path.stem not in tested)
    assert len(others) > 100
    for path in others[1:]:
        path.unlink()
    others[0].write_bytes(others[0].read_bytes()[:200])
    read, calls = readers.read_ham10000, []
    monkeypatch.setattr(readers, "read_ham10000", lambda *args, **given: calls.append(1) or read(*args, **given))
    places = (f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", f"out={tmp_path / 'judged'}")
    evaluate(
        composed("evaluate", EvaluateConfig, f"ensemble={sweep / 'ensemble'}", "split=test", *places, "resamples=200")
    )
    assert len(calls) == 1
    again, before = (
        Predictions.read(path / "predictions_test.csv") for path in (tmp_path / "judged", sweep / "ensemble")
    )
    np.testing.assert_allclose(again.probabilities, before.probabilities, atol=1e-5)


def test_evaluate_names_missing_images(sweep: Path, small_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    from skinlesion.commands.evaluate import run as evaluate
    from skinlesion.errors import DataError
    from skinlesion.synthetic.dataset import write_synthetic

    write_synthetic(tmp_path / "other", n=100, image_size=(40, 30), seed=3)
    config = composed("evaluate", EvaluateConfig, f"checkpoint={sweep / 'first'}", "split=test")
    source = replace(config.data, root=str(tmp_path / "other"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"not found .*data\.root"):
        evaluate(replace(config, data=source))


def test_refuses_a_member_given_twice(sweep: Path, tmp_path: Path) -> None:
    one = sweep / "first" / "best.ckpt"
    assert "given twice" in refused(f"members=[{one},{sweep / 'first'}]", f"out={tmp_path / 'out'}")


def test_members_of_the_same_name_are_named_with_their_folder(sweep: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(sweep / "second", tmp_path / "other" / "first"))
    run(ensemble(f"members=[{sweep / 'first'},{other}]", f"out={tmp_path / 'out'}"))
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())["members"]
    assert list(measured) == ["sweep/first", "other/first"]
