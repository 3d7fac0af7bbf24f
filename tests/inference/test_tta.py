"""Test-time augmentation: which images vote, and that turning the input then changes nothing."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from skinlesion.config.train import TrainConfig
from skinlesion.data.transforms import ImageInput
from skinlesion.errors import ConfigError
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.tta import check_views, views
from skinlesion.model.backbone import Backbone
from skinlesion.training.checkpoint import load_model

CPU = torch.device("cpu")


def distinct(images: list[torch.Tensor]) -> int:
    return len({image.numpy().tobytes() + bytes(image.shape) for image in images})


@pytest.mark.parametrize(
    ("tta", "sides", "count"), [("none", (4, 4), 1), ("flips", (4, 4), 4), ("dihedral", (4, 4), 8)]
)
def test_all_turns_of_a_square_image_are_distinct(tta: str, sides: tuple[int, int], count: int) -> None:
    image = torch.randn(2, 3, *sides)
    images = list(views(image, tta))
    assert len(images) == distinct(images) == count
    assert torch.equal(images[0], image)


def test_the_eight_are_what_numpy_makes_of_them() -> None:
    image = torch.randn(1, 1, 5, 5)
    square = image[0, 0].numpy()
    expected = {np.rot90(one, quarter).tobytes() for one in (square, square.T) for quarter in range(4)}
    assert {each[0, 0].contiguous().numpy().tobytes() for each in views(image, "dihedral")} == expected


def test_a_wide_image_keeps_its_shape() -> None:
    image = torch.randn(2, 3, 4, 6)
    images = list(views(image, "dihedral"))
    assert distinct(images) == 4
    assert all(one.shape == other.shape for one, other in pairwise(images))
    assert torch.equal(images[3], torch.rot90(image, 2, (2, 3)))


def test_larger_scales_are_mirrored_and_keep_what_is_seen() -> None:
    """A ramp from left to right and one from top to bottom: enlarged, each keeps its direction unless mirrored."""
    rows, columns = torch.meshgrid(torch.arange(10.0), torch.arange(15.0), indexing="ij")
    image = torch.stack((rows, columns))[None]
    whole, wider, widest = views(image, "scales")
    assert torch.equal(whole, image)
    assert (wider.shape, widest.shape) == ((1, 2, 12, 18), (1, 2, 14, 21))
    for view, across, down in ((wider, -1, 1), (widest, 1, -1)):
        assert ((view[0, 1].diff(dim=1) * across) >= 0).all()
        assert ((view[0, 0].diff(dim=0) * down) >= 0).all()
        torch.testing.assert_close(view.mean(dim=(2, 3)), image.mean(dim=(2, 3)))


def test_a_network_of_one_size_refuses_scales() -> None:
    check_views("flips", [Backbone("vit_tiny_patch16_224", kwargs={"depth": 1})])
    check_views("scales", [Backbone("resnet10t")])
    with pytest.raises(ConfigError, match=r"tta=scales: vit_tiny_patch16_224 takes images of one size only; give none"):
        check_views("scales", [Backbone("vit_tiny_patch16_224", kwargs={"depth": 1})])


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tta=spin: expected one of none, flips, dihedral, scales"):
        list(views(torch.zeros(1, 3, 2, 2), "spin"))


def test_the_vote_is_the_mean_and_does_not_mind_a_flip(trained: TrainConfig) -> None:
    model = load_model(Path(trained.out))
    assert isinstance(model.spec, ImageInput)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *model.spec.size, 3), dtype=np.uint8)
    known = {"age": 50.0, "sex": "male", "localization": "back"}

    def vote(given: np.ndarray, tta: str) -> np.ndarray:
        return Predictor.of([model], tta=tta, device=CPU).predict(np.ascontiguousarray(given), known).probabilities

    four = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    expected = np.mean([vote(each, "none") for each in four], axis=0)
    for each in four:
        np.testing.assert_allclose(vote(each, "flips"), expected, atol=1e-6)
    assert not np.allclose(vote(pixels, "none"), vote(four[1], "none"), atol=1e-6)
