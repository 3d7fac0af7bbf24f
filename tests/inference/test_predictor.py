"""One predictor for checkpoints, ensembles and bundles, from paths, PIL images and arrays."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed
from PIL import Image as PillowImage

import skinlesion
from skinlesion.config.inference import EnsembleConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError, ConfigError, DataError
from skinlesion.inference.predictor import Predictor

FACTS = {"age": 55, "sex": "female", "localization": "back"}


@pytest.fixture(scope="module")
def ensemble(sweep_folder: Path) -> Path:
    from skinlesion.commands.ensemble import run

    members = ",".join(str(sweep_folder / name) for name in ("first", "second"))
    out = sweep_folder.parent / "predictor_pair"
    settings = ("resamples=100", "interval=percentile", "calibration=temperature")
    run(composed("ensemble", EnsembleConfig, f"members=[{members}]", f"out={out}", *settings))
    return out


@pytest.fixture
def paths(synthetic_root: Path) -> list[Path]:
    return sorted((synthetic_root / "HAM10000_images_part_1").iterdir())[:5]


def test_paths_images_and_arrays_are_one(trained: TrainConfig, paths: list[Path]) -> None:
    model = skinlesion.load(trained.out)
    by_path = model.predict(paths[0], **FACTS)
    with PillowImage.open(paths[0]) as image:
        by_image = model.predict(image, FACTS)
        by_array = model.predict(np.asarray(image.convert("RGB")), [FACTS])
    assert by_path.image_id.tolist() == [str(paths[0])]
    assert by_array.image_id.tolist() == ["0"]
    np.testing.assert_array_equal(by_path.probabilities, by_image.probabilities)
    np.testing.assert_array_equal(by_path.probabilities, by_array.probabilities)
    assert by_path.probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_many_images_keep_their_order_and_their_own_facts(trained: TrainConfig, paths: list[Path]) -> None:
    model = skinlesion.load(Path(trained.out) / "best.ckpt")
    order = [paths[3], paths[0], paths[4]]
    facts = pd.DataFrame({"age": [20, 80, None], "sex": ["male", "female", None], "localization": ["back", "face", ""]})
    table = model.predict(order, facts)
    frame = table.to_frame()
    assert frame["image_id"].tolist() == [str(path) for path in order]
    for place, path in enumerate(order):
        alone = model.predict(path, facts.iloc[place].to_dict())
        np.testing.assert_allclose(table.probabilities[place], alone.probabilities[0], atol=1e-6)
    assert not np.allclose(table.probabilities, model.predict(order).probabilities)
    assert list(frame.columns) == ["image_id", "lesion_id", *CODES, "actual", "predicted"]


def test_a_folder_stands_for_its_images(trained: TrainConfig, synthetic_root: Path) -> None:
    folder = synthetic_root / "HAM10000_images_part_1"
    assert len(skinlesion.load(trained.out).predict(folder)) == len(list(folder.iterdir()))


def test_an_ensemble_is_the_calibrated_mean_of_its_members(
    ensemble: Path, sweep_folder: Path, paths: list[Path]
) -> None:
    model = skinlesion.load(ensemble)
    voted = model.predict(paths, **FACTS)
    alone = [skinlesion.load(sweep_folder / name).predict(paths, **FACTS) for name in ("first", "second")]
    mean = np.mean([each.probabilities for each in alone], axis=0)
    assert voted.uncalibrated is not None
    np.testing.assert_allclose(voted.uncalibrated, mean, atol=1e-6)
    temperature = model.posthoc.calibration["temperature"]
    scaled = mean ** (1 / temperature)
    np.testing.assert_allclose(voted.probabilities, scaled / scaled.sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(model.predict(paths, calibrated=False, **FACTS).probabilities, mean, atol=1e-6)
    assert voted.prediction_set is not None
    assert voted.prediction_set[np.arange(5), voted.predicted_targets].all()
    narrow, wide = (model.at_risk(voted, alpha).prediction_set for alpha in (0.2, 0.05))
    assert (narrow <= wide).all()
    with pytest.raises(DataError, match=r"alpha=0\.3: no prediction sets for that risk; this model has 0\.1, 0\.05"):
        model.at_risk(voted, 0.3)


def test_what_is_unlike_the_training_is_flagged(ensemble: Path, paths: list[Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    model = skinlesion.load(ensemble)
    found = model.predict([*map(str, paths), noise])
    assert found.ood is not None
    assert found.ood[-1]
    assert found.ood_score is not None
    assert found.ood_score[-1] > found.ood_score[:-1].max()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"ag": 55}, "ag=55: not a fact that the model knows; did you mean age"),
        ({"diameter": 6}, "expected age, sex, localization"),
        ({"sex": "x"}, "sex=x: not known to the model; expected one of female, male"),
        ({"localization": "bck"}, "localization=bck: not known"),
        ({"age": 200}, "age=200: expected years from 0 to 120"),
    ],
)
def test_facts_are_refused_as_on_the_command_line(
    facts: dict[str, object], said: str, trained: TrainConfig, paths: list[Path]
) -> None:
    model = skinlesion.load(trained.out)
    with pytest.raises((ConfigError, DataError), match=said):
        model.predict(paths[0], facts)
    with pytest.raises((ConfigError, DataError), match=said):
        model.predict(paths[0], **facts)


def test_wrong_images_are_named(trained: TrainConfig, paths: list[Path], tmp_path: Path) -> None:
    model = skinlesion.load(trained.out)
    with pytest.raises(DataError, match=r"none\.jpg: no such file or folder"):
        model.predict(tmp_path / "none.jpg")
    with pytest.raises(DataError, match=r"float64: expected an RGB image"):
        model.predict(np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match="at least one"):
        model.predict([])
    with pytest.raises(DataError, match="5 images and the facts of 2 patients"):
        model.predict(paths, [FACTS, FACTS])
    with pytest.raises(DataError, match="either a table of facts, or facts by name"):
        model.predict(paths[0], FACTS, age=3)


def test_models_that_are_none_are_refused(tmp_path: Path, ensemble: Path) -> None:
    with pytest.raises(CheckpointError, match="no model there"):
        Predictor.load(tmp_path)
    (tmp_path / "ensemble").symlink_to(ensemble)
    with pytest.raises(CheckpointError, match="its ensemble is in the folder `ensemble`"):
        Predictor.load(tmp_path)


def test_the_package_is_imported_alone_and_its_names_when_they_are_used() -> None:
    code = (
        "import sys; before = set(sys.modules); import skinlesion;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert new - set(sys.stdlib_module_names) == {'skinlesion'}, new;"
        "assert all(getattr(skinlesion, name) is not None for name in skinlesion.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match=r"it has .*FocalLoss"):
        skinlesion.nothing  # noqa: B018
