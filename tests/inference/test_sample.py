"""Samples of a part: which images, and what the members make of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.config.data import SourceConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import DataError
from skinlesion.inference.sample import read_sample, see
from skinlesion.taxonomy import CODES
from skinlesion.training.checkpoint import TrainedModel, load_model

SOURCE, CPU = SourceConfig(None, None), torch.device("cpu")


@pytest.fixture
def model(trained: TrainConfig) -> TrainedModel:
    return load_model(Path(trained.out))


def test_a_part_gives_its_own_predictions(model: TrainedModel, trained: TrainConfig) -> None:
    """The probabilities are those that the run wrote when it was trained."""
    sample = read_sample(model, "test", images=None, seed=1, source=SOURCE)
    own = pd.read_csv(Path(trained.out) / "predictions_test.csv")
    assert sample.image_ids == own["image_id"].tolist()
    (seen,) = see([model], sample, device=CPU, label="")
    np.testing.assert_allclose(seen.probabilities, own[list(CODES)].to_numpy(), atol=1e-5)
    logits = torch.from_numpy(seen.embedded.logits)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), seen.probabilities, atol=1e-6)
    assert seen.embedded.pooled.shape == (len(own), model.network.backbone.channels)


def test_flips_vote(model: TrainedModel) -> None:
    """The mean over an image's flips is that over the flipped images'."""
    sample = read_sample(model, "val", images=5, seed=1, source=SOURCE)
    (voted,) = see([model], sample, device=CPU, label="", tta="flips")
    turns = (lambda x: x, lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: x[::-1, ::-1])
    each = []
    for turn in turns:  # fitted into the input first, as the image that is flipped in the model
        fitted = {name: turn(pixels) for name, pixels in zip(sample.image_ids, sample.images((32, 32)), strict=True)}
        (seen,) = see([model], sample, device=CPU, label="", change=lambda _, name, of=fitted: of[name])
        each.append(seen.probabilities)
    np.testing.assert_allclose(voted.probabilities, np.mean(each, axis=0), atol=1e-5)


def test_other_facts_change_the_answer_and_not_the_images(model: TrainedModel) -> None:
    sample = read_sample(model, "val", images=8, seed=1, source=SOURCE)
    unknown = pd.DataFrame({"age": [np.nan] * 8, "sex": ["unknown"] * 8, "localization": ["unknown"] * 8})
    other = sample.with_facts(unknown)
    assert other.image_ids == sample.image_ids
    before, after = (see([model], each, device=CPU, label="")[0].probabilities for each in (sample, other))
    assert not np.array_equal(before, after)
    assert set(sample.frame["sex"]) != {"unknown"}, "the sample itself is left as it was"


def test_the_draw_depends_on_the_seed_alone(model: TrainedModel) -> None:
    first, again, other = (read_sample(model, "train", images=9, seed=s, source=SOURCE).image_ids for s in (1, 1, 2))
    assert first == again == sorted(first)
    assert first != other
    assert set(first) <= set(model.split["train"])


def test_images_that_are_not_there_are_named(model: TrainedModel, tmp_path: Path, synthetic_root: Path) -> None:
    import shutil

    part = synthetic_root / "HAM10000_images_part_1"
    shutil.copy(synthetic_root / "HAM10000_metadata", tmp_path)
    (tmp_path / part.name).mkdir()
    for path in sorted(part.iterdir())[:3]:
        shutil.copy(path, tmp_path / part.name)
    with pytest.raises(DataError, match=r"images of the test part of .* are not there \(ISIC_"):
        read_sample(model, "test", images=None, seed=1, source=SourceConfig(str(tmp_path), None))
