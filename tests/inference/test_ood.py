"""Novelty: energy by hand, the distance against SciPy, the threshold's share, and images unlike the training images."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance

from skinlesion.config.data import SourceConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference import ood
from skinlesion.inference.members import PostHoc
from skinlesion.inference.ood import Embedded, components, energy, fit, flag, score
from skinlesion.inference.posthoc import fit_ood
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import read_part
from skinlesion.studies.robustness.corruptions import BODY, photographs
from skinlesion.training.checkpoint import load_model

RNG = np.random.default_rng(3)
CLASSES, CHANNELS = 3, 6
TARGETS = RNG.integers(0, CLASSES, 400)
CENTRES = RNG.normal(0, 3, (CLASSES, CHANNELS))
MIX = RNG.normal(0, 1, (CHANNELS, CHANNELS))


def member(targets: np.ndarray, seed: int) -> Embedded:
    rng = np.random.default_rng(seed)
    pooled = CENTRES[targets] + rng.normal(0, 1, (len(targets), CHANNELS)) @ MIX
    return Embedded(rng.normal(0, 1, (len(targets), CLASSES)), pooled)


def unit(features: np.ndarray) -> np.ndarray:
    return np.stack([row / np.sqrt((row**2).sum()) for row in np.asarray(features, dtype=float)])


TRAIN = [member(TARGETS, 1), member(TARGETS, 2)]
VAL = [member(TARGETS[:200], 3), member(TARGETS[:200], 4)]
FITTED = fit(TRAIN, TARGETS, VAL, id_pass_rate=0.9)


def logits_and_pooled(members: list[Embedded]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [each.logits for each in members], [each.pooled for each in members]


def test_energy_by_hand() -> None:
    logits = [[0.0, 0.0], [np.log(3), 0.0], [1000.0, 1000.0]]
    np.testing.assert_allclose(energy(logits), [-np.log(2), -np.log(4), -1000 - np.log(2)])


def test_the_distance_is_mahalanobis() -> None:
    """With all axes but one kept, and that one's variance off them, nothing is left of the approximation."""
    found = components(FITTED, *logits_and_pooled(VAL))["distance"]
    expected = np.zeros(200)
    for number, each in enumerate(TRAIN):
        pooled = unit(each.pooled)
        means = np.stack([pooled[k == TARGETS].mean(axis=0) for k in range(CLASSES)])
        around = pooled - means[TARGETS]
        scatter = EmpiricalCovariance(assume_centered=True).fit(around).covariance_ * len(TARGETS)
        inverse = np.linalg.inv(scatter / (len(TARGETS) - CLASSES))
        nearest = [min(mahalanobis(row, mean, inverse) for mean in means) for row in unit(VAL[number].pooled)]
        expected += np.array(nearest) / np.sqrt(CHANNELS) / len(TRAIN)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_few_axes_put_the_rest_into_one_variance() -> None:
    """A point off the axes is as far as the mean of the smaller eigenvalues says (Tipping & Bishop)."""
    fitted = fit(TRAIN[:1], TARGETS, VAL[:1], id_pass_rate=0.9, axes=2)
    pooled = unit(TRAIN[0].pooled)
    around = pooled - np.stack([pooled[k == TARGETS].mean(axis=0) for k in range(CLASSES)])[TARGETS]
    variances, directions = np.linalg.eigh(np.cov(around.T, ddof=0) * len(TARGETS) / (len(TARGETS) - CLASSES))
    assert fitted["rest_0"] == pytest.approx(variances[:-2].mean(), rel=1e-5)
    off = fitted["mean_0"][:1] + 100 * directions[:, :1].T  # far along the smallest axis
    means = fitted["mean_0"].astype(float)
    axes = directions[:, -2:].T
    squares = []
    for mean in means:
        away = unit(off)[0] - mean
        along = axes @ away
        squares.append((along**2 / variances[-2:]).sum() + (away @ away - along @ along) / variances[:-2].mean())
    found = components(fitted, [np.zeros((1, CLASSES))], [off])["distance"]
    np.testing.assert_allclose(found, np.sqrt(min(squares) / CHANNELS), rtol=1e-4)


def test_images_that_excite_nothing_are_far_away() -> None:
    """Short features point elsewhere; statistics of the first format, of features as they are, take them for usual."""
    weak = [np.abs(np.random.default_rng(7).normal(0, 0.05, (20, CHANNELS))) for _ in TRAIN]
    logits = [np.tile(VAL[0].logits[:1], (20, 1))] * 2
    now = components(FITTED, logits, weak)["distance"]
    np.testing.assert_allclose(now, components(FITTED, logits, [3 * each for each in weak])["distance"])
    first = {**FITTED, "format": np.array(1.0)}
    then = components(first, logits, weak)["distance"]
    assert not np.allclose(then, components(first, logits, [3 * each for each in weak])["distance"])


def test_the_wanted_share_of_validation_passes() -> None:
    flagged = flag(FITTED, score(FITTED, *logits_and_pooled(VAL)))
    assert flagged.sum() == 20
    scores = score(FITTED, *logits_and_pooled(VAL))
    assert np.quantile(scores, 0.9) == pytest.approx(FITTED["threshold"])


def test_the_score_is_the_larger_sign_in_units_of_validation() -> None:
    found = components(FITTED, *logits_and_pooled(VAL))
    scaled = [(v - np.median(v)) / (np.quantile(v, 0.95) - np.median(v)) for v in found.values()]
    np.testing.assert_allclose(score(FITTED, *logits_and_pooled(VAL)), np.maximum(*scaled), rtol=1e-9)


def test_what_is_fitted_survives_a_file() -> None:
    file = io.BytesIO()
    np.savez(file, **FITTED)
    file.seek(0)
    again = dict(np.load(file, allow_pickle=False))
    logits, pooled = logits_and_pooled(VAL)
    assert np.array_equal(score(again, np.stack(logits), pooled), score(FITTED, logits, pooled))


def test_images_do_not_see_each_other() -> None:
    logits, pooled = logits_and_pooled(VAL)
    alone = score(FITTED, [each[5:6] for each in logits], [each[5:6] for each in pooled])
    np.testing.assert_allclose(alone, score(FITTED, logits, pooled)[5:6])


def test_dead_features_do_not_divide_by_zero() -> None:
    def dead(each: Embedded) -> Embedded:
        return Embedded(each.logits, np.concatenate([each.pooled, np.zeros((len(each.pooled), 4))], axis=1))

    fitted = fit([dead(TRAIN[0])], TARGETS, [dead(VAL[0])], id_pass_rate=0.9)
    assert np.isfinite(score(fitted, *logits_and_pooled([dead(VAL[0])]))).all()


def test_no_number_is_novel() -> None:
    assert flag(FITTED, [np.nan, np.inf, -1.0]).tolist() == [True, True, False]


@pytest.mark.parametrize("settings", [{"id_pass_rate": 1.0}, {"id_pass_rate": 0.0}, {"id_pass_rate": 0.9, "axes": 0}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="id_pass_rate is"):
        fit(TRAIN, TARGETS, VAL, **settings)


def test_what_cannot_be_learned_from_is_refused() -> None:
    one = [Embedded(each.logits[:1], each.pooled[:1]) for each in VAL]
    with pytest.raises(DataError, match="400 training and 1 validation"):
        fit(TRAIN, TARGETS, one, id_pass_rate=0.9)
    broken = [Embedded(np.full_like(VAL[0].logits, np.nan), VAL[0].pooled), VAL[1]]
    with pytest.raises(DataError, match="a logit or feature is not finite"):
        fit(TRAIN, TARGETS, broken, id_pass_rate=0.9)
    with pytest.raises(ValueError, match="do not fit"):
        fit(TRAIN, TARGETS[:3], VAL, id_pass_rate=0.9)
    with pytest.raises(ValueError, match="expected 2"):
        score(FITTED, *logits_and_pooled(VAL[:1]))


def test_images_unlike_the_training_images_are_flagged(trained: TrainConfig) -> None:
    """Drawings of the body, one of each kind for an image, and two photographs, each counted once."""
    model, source = load_model(Path(trained.out)), SourceConfig(None, None)
    val, test = read_part(model, "val", source).frame, read_part(model, "test", source, images=40, seed=1).frame
    predictor = Predictor.of([model])
    fitted = fit_ood(predictor, train=read_part(model, "train", source).frame, val=val, id_pass_rate=0.95)
    assert fitted["mean_0"].shape == (7, model.network.backbone.channels)
    predictor = replace(predictor, posthoc=PostHoc(ood=fitted))
    shape, pictures = (150, 200, 3), [np.full((150, 200, 3), 200, np.uint8), *photographs()]
    pictures += [draw(np.zeros(shape, np.uint8), np.random.default_rng(n)) for n in range(8) for draw in BODY]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert predictor.predict_frame(test).ood.mean() < 0.3
    assert predictor.predict(pictures).ood.mean() > 0.9
    changed = predictor.predict_frame(test, change=lambda image, _: RNG.integers(0, 256, image.shape).astype(np.uint8))
    assert changed.ood.all()


def test_the_runtime_can_score_without_torch() -> None:
    import subprocess
    import sys

    code = f"import sys; sys.modules['torch'] = None; import {ood.__name__}; assert 'pandas' not in sys.modules"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    ood.write(FITTED, tmp_path / "novelty.npz")
    assert set(ood.read(tmp_path / "novelty.npz")) == set(FITTED)
    assert [path.name for path in tmp_path.iterdir()] == ["novelty.npz"]
    content = (tmp_path / "novelty.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    ood.write({**FITTED, "format": np.array(99.0)}, tmp_path / "other.npz")
    for name, said in (("none.npz", "not readable"), ("cut.npz", "not readable"), ("other.npz", "format 99")):
        with pytest.raises(CheckpointError, match=said):
            ood.read(tmp_path / name)


def test_an_ensemble_keeps_it(sweep_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is fitted for the chosen members, read back unchanged, and left out with a word where images are gone."""
    from conftest import composed

    from skinlesion.commands.ensemble import run
    from skinlesion.config.inference import EnsembleConfig
    from skinlesion.inference.ensemble import read_ensemble

    settings = (f"members={sweep_folder}", "resamples=100", "largest=2")
    run(composed("ensemble", EnsembleConfig, *settings, f"out={tmp_path / 'with'}"))
    kept = read_ensemble(tmp_path / "with")
    models = kept.models()
    train, val = (read_part(models[0], part, SourceConfig(None, None), seed=1).frame for part in ("train", "val"))
    expected = fit_ood(Predictor.of(models), train=train, val=val, id_pass_rate=0.95)
    assert kept.posthoc.ood is not None
    assert all(np.array_equal(kept.posthoc.ood[name], values) for name, values in expected.items())
    ood.write(FITTED, tmp_path / "with" / "novelty.npz")
    with pytest.raises(CheckpointError, match="has changed"):
        read_ensemble(tmp_path / "with")
    run(composed("ensemble", EnsembleConfig, *settings, f"out={tmp_path / 'gone'}", "data.root=nowhere"))
    assert read_ensemble(tmp_path / "gone").posthoc.ood is None
    assert "Out-of-distribution images will not be flagged" in caplog.text
