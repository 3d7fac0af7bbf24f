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
from skinlesion.inference.tta import views
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


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tta=spin: expected one of none, flips, dihedral"):
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
