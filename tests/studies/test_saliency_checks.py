"""Checks of saliency maps: correlations against SciPy, a patch that is known to matter, masks, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed
from PIL import Image
from scipy.stats import spearmanr

from skinlesion.commands.explain import run
from skinlesion.config.data import SourceConfig
from skinlesion.config.studies import ExplainConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.split_part import read_part
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.metrics.saliency_verdict import verdict
from skinlesion.plots.saliency import randomisation
from skinlesion.studies.explain.saliency_checks import randomise_weights, sample_maps, shuffle
from skinlesion.studies.explain.saliency_metrics import (
    find_masks,
    lesion_overlap,
    mean_estimates,
    pixel_order,
    rank_correlations,
    read_mask,
    replace_pixels,
    replacement_curves,
)
from skinlesion.training.checkpoint import load_model

RNG = np.random.default_rng(0)
CONFIG = BootstrapConfig(resamples=200, method="percentile")


def test_rank_correlations_are_spearmans() -> None:
    first, second = RNG.random((5, 6, 7)).astype(np.float32).round(1), RNG.random((5, 6, 7)).astype(np.float32)
    expected = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlations(first, second), expected, atol=1e-9)
    assert np.isnan(rank_correlations(first, np.zeros_like(first))).all()
    np.testing.assert_allclose(rank_correlations(first, first**3), 1)


def test_replacing_goes_by_the_order_of_the_map() -> None:
    image, other = np.zeros((2, 5, 3), np.uint8), np.full((2, 5, 3), 9, np.uint8)
    values = np.arange(10, dtype=np.float32).reshape(2, 5)
    changed = replace_pixels(image, other, pixel_order(values), 0.3)
    assert (changed[..., 0] == 9).astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]
    assert np.array_equal(replace_pixels(image, other, pixel_order(values), 1.0), other)
    assert (image == 0).all()


def test_deleting_what_matters_lowers_the_curve() -> None:
    """A model that only sees one patch: a map of that patch takes all it has first, a random order as it comes."""
    patch = np.zeros((10, 10), dtype=bool)
    patch[2:4, 5:10] = True  # 10 % of the image
    image, gone = np.full((10, 10, 3), 255, np.uint8), np.zeros((10, 10, 3), np.uint8)
    fractions = [0.0, 0.1, 0.5, 1.0]

    def curve(values: np.ndarray) -> list[float]:
        return [replace_pixels(image, gone, pixel_order(values), share)[patch].mean() / 255 for share in fractions]

    orders = {"map": [patch.astype(np.float32)] * 30, "random": [RNG.random((10, 10)) for _ in range(30)]}
    probabilities = {name: np.array([curve(values) for values in each]) for name, each in orders.items()}
    found = replacement_curves(probabilities, np.arange(30), fractions=fractions, config=CONFIG)
    assert [point.value for point in found.map] == [1, 0, 0, 0]
    assert [point.value for point in found.random] == pytest.approx([1, 0.9, 0.5, 0], abs=0.06)
    assert found.area_map.value == pytest.approx(0.05)
    assert found.area_random.value == pytest.approx(0.5, abs=0.05)
    assert found.area_less_random.high < 0


def test_means_ignore_nan() -> None:
    found = mean_estimates({"a": np.array([1.0, np.nan, 3.0]), "b": np.full(3, np.nan)}, np.arange(3), config=CONFIG)
    assert found["a"].value == 2
    assert found["b"].value is None


def test_a_map_on_a_lesion_by_hand() -> None:
    lesion = np.array([[True, True, False, False]])
    assert lesion_overlap(np.array([[4.0, 1.0, 3.0, 2.0]], np.float32), lesion) == (1.0, 0.5, 0.5)
    assert lesion_overlap(np.array([[1.0, 1.0, 6.0, 2.0]], np.float32), lesion) == pytest.approx((0.0, 0.2, 0.5))
    assert np.isnan(lesion_overlap(np.zeros((1, 4), np.float32), lesion)[:2]).all()


def test_shuffling_keeps_the_values() -> None:
    tensor = torch.arange(60.0).view(3, 4, 5)
    shuffle(tensor, torch.Generator().manual_seed(0))
    assert sorted(tensor.flatten().tolist()) == list(range(60))
    assert tensor.flatten().tolist() != list(range(60))


def test_weights_are_randomised_from_the_logits_down(trained: TrainConfig) -> None:
    model = load_model(Path(trained.out))
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    frame = read_part(model, "val", SourceConfig(None, None), images=4, seed=1).frame
    classes, device = [0, 1, 2, 3], torch.device("cpu")
    own = sample_maps(model, model.network, frame, classes, device=device)
    steps = list(randomise_weights(model, frame, classes, own, device=device, seed=1))
    names = [name for name, _, _ in steps]
    assert names[:3] == ["funnel", "attention", "gate"]
    assert [name.split(".")[0] for name in names[3:7]] == ["layer4", "layer3", "layer2", "layer1"]
    assert all(maps.shape[0] == len(correlations) == 4 for _, maps, correlations in steps)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), "the model itself stays unchanged"


def image_and_mask(folder: Path, mask: np.ndarray, name: str = "a.png") -> tuple[Path, Path]:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(folder / "a.jpg")
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
    return folder / name, folder / "a.jpg"


def test_a_mask_lies_as_its_image_does(tmp_path: Path) -> None:
    mask = np.zeros((60, 80), dtype=bool)  # twice the size of the image
    mask[20:40, 40:80] = True
    found = read_mask(*image_and_mask(tmp_path, mask), (40, 40))  # 30 x 40 with five rows of black above and below
    expected = np.zeros((40, 40), dtype=bool)
    expected[15:25, 20:40] = True
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((30, 40)), "all pixels are black"),
        (np.ones((30, 40)), "all pixels are white"),
        (np.eye(40), "40 x 40 pixels, the image 40 x 30"),
    ],
)
def test_invalid_masks_are_refused(mask: np.ndarray, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_mask(*image_and_mask(tmp_path, mask), (30, 40))


def test_masks_are_found_by_image_id(tmp_path: Path) -> None:
    for name in ("a.png", "b_segmentation.png", "c.jpg"):
        (tmp_path / name).touch()
    assert find_masks(tmp_path, ["a", "b", "c"]) == {"a": tmp_path / "a.png", "b": tmp_path / "b_segmentation.png"}
    with pytest.raises(
        DataError, match=r"no mask of any of 1 images; expected files such as x.png or x_segmentation.png"
    ):
        find_masks(tmp_path, ["x"])
    with pytest.raises(DataError, match="no such folder"):
        find_masks(tmp_path / "none", ["a"])


@pytest.mark.parametrize(
    ("check", "number", "expected"),
    [
        ("randomisation", Estimate(0.835, 0.80, 0.87), "fails"),
        ("randomisation", Estimate(-0.5, -0.6, -0.4), "fails"),
        ("randomisation", Estimate(0.35, 0.25, 0.45), "undecided"),
        ("randomisation", Estimate(0.1, -0.1, 0.29), "passes"),
        ("randomisation", Estimate(0.835), "fails"),  # judged by its value
        ("randomisation", Estimate(None), "not computable"),
        ("deletion", Estimate(-0.1, -0.2, -0.01), "passes"),
        ("deletion", Estimate(0.1, 0.01, 0.2), "fails"),
        ("insertion", Estimate(0.0, -0.1, 0.1), "undecided"),
    ],
)
def test_a_check_has_a_verdict(check: str, number: Estimate, expected: str) -> None:
    assert verdict(check, number) == expected


def test_the_figure_says_that_the_check_fails() -> None:
    figure = randomisation({"a": {"logits": Estimate(0.9, 0.8, 1.0), "stem": Estimate(0.835, 0.8, 0.87)}})
    assert "the sanity check FAILS" in {axes.get_title() for axes in figure.axes}.pop()


def checked(trained: TrainConfig, out: Path, *overrides: str) -> None:
    few = ("split=test", "images=6", "resamples=100", f"out={out}")
    run(composed("explain", ExplainConfig, f"checkpoint={trained.out}", *few, *overrides))


def test_the_checks_are_written(
    trained: TrainConfig, synthetic_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    masks = tmp_path / "masks"
    masks.mkdir()
    model = load_model(Path(trained.out))
    ids = read_part(model, "test", SourceConfig(None, None), images=6, seed=1).frame["image_id"].tolist()
    for image_id in ids[:-1]:  # one mask is missing, which is counted
        (masks / f"{image_id}.png").write_bytes((synthetic_root / "masks" / f"{image_id}.png").read_bytes())
    checked(trained, tmp_path / "out", f"masks={masks}")
    found: dict[str, Any] = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert found["images_judged"] == 6
    assert found["lesion"]["masks"] == 5
    assert found["lesion"]["without_mask"] == ids[-1:]
    assert 0 < found["lesion"]["lesion_area"]["value"] < 1
    assert found["deletion"]["map"][0] == found["deletion"]["random"][0] == found["insertion"]["map"][-1]
    assert found["deletion"]["map"][-1]["value"] == pytest.approx(found["insertion"]["random"][0]["value"])
    last = Estimate.from_dict(next(iter(found["randomisation"]["members"].values()))[-1]["correlation"])
    assert found["randomisation"]["verdict"] == verdict("randomisation", last)
    assert found["randomisation"]["sentence"] in caplog.text
    drawn = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert drawn == {"randomisation.png", "sample_randomisation.png", "deletion_insertion.png", "on_lesion.png"}
    assert "1 images have no mask" in caplog.text
    assert ids[-1] in caplog.text


def test_invalid_settings_are_refused(trained: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected image=FILE"):
        checked(trained, tmp_path, "image=a.jpg")
    with pytest.raises(ConfigError, match="expected image=FILE"):
        composed("explain", ExplainConfig, "checkpoint=a.ckpt")
    with pytest.raises(DataError, match="no such folder"):
        checked(trained, tmp_path / "out", "masks=nowhere")
    assert not (tmp_path / "out").exists()
