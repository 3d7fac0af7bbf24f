"""Images of a part: which they are, and what the members make of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES

from skinlesion.config.data import SourceConfig
from skinlesion.config.train import TrainConfig
from skinlesion.data.image_io import decode
from skinlesion.errors import DataError
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import read_part
from skinlesion.training.checkpoint import TrainedModel, load_model

SOURCE = SourceConfig(None, None)


@pytest.fixture
def model(trained: TrainConfig) -> TrainedModel:
    return load_model(Path(trained.out))


def test_a_part_gives_the_predictions_of_its_run(model: TrainedModel, trained: TrainConfig) -> None:
    """From files, from decoded images, and as the run itself wrote them when it was trained."""
    part, predictor = read_part(model, "test", SOURCE), Predictor.of([model])
    own = pd.read_csv(Path(trained.out) / "predictions_test.csv")
    for caches in (None, part.caches(predictor.members)):
        found = predictor.predict_frame(part.frame, caches=caches)
        assert found.image_id.tolist() == own["image_id"].tolist()
        np.testing.assert_allclose(found.probabilities, own[list(CODES)].to_numpy(), atol=1e-5)
    embedded = predictor.embed_frame(part.frame)
    exponentials = np.exp(embedded.logits[0])
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, embedded.probabilities[0], atol=1e-6)
    assert embedded.pooled[0].shape == (len(own), model.network.backbone.channels)


def test_flips_vote(model: TrainedModel) -> None:
    """The mean over an image's flips is that over the flipped images'."""
    frame = read_part(model, "val", SOURCE, images=5, seed=1).frame
    voted = Predictor.of([model], tta="flips").predict_frame(frame)
    plain, each = Predictor.of([model]), []
    for flip in (lambda x: x, lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: x[::-1, ::-1]):
        fitted = {  # to the input first, as the image that is flipped in the model
            name: np.ascontiguousarray(flip(decode(Path(path), model.spec.size)))
            for name, path in zip(frame["image_id"], frame["path"], strict=True)
        }
        each.append(plain.predict_frame(frame, change=lambda _, name, of=fitted: of[name]).probabilities)
    np.testing.assert_allclose(voted.probabilities, np.mean(each, axis=0), atol=1e-5)


def test_the_draw_depends_on_the_seed_alone(model: TrainedModel) -> None:
    first, again, other = (read_part(model, "train", SOURCE, images=9, seed=s).frame["image_id"] for s in (1, 1, 2))
    assert first.tolist() == again.tolist() == sorted(first)
    assert first.tolist() != other.tolist()
    assert set(first) <= set(model.split["train"])


def test_images_that_are_not_there_are_named(model: TrainedModel, tmp_path: Path, synthetic_root: Path) -> None:
    part = synthetic_root / "HAM10000_images_part_1"
    shutil.copy(synthetic_root / "HAM10000_metadata", tmp_path)
    (tmp_path / part.name).mkdir()
    for path in [path for path in sorted(part.iterdir()) if path.stem in model.split["test"]][:3]:
        shutil.copy(path, tmp_path / part.name)
    with pytest.raises(DataError, match=r"images? of the test part of .* not found \(ISIC_"):
        read_part(model, "test", SourceConfig(str(tmp_path), None))


def test_an_image_of_another_part_may_be_broken(model: TrainedModel, tmp_path: Path, synthetic_root: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    (path,) = root.glob(f"*/{model.split['train'][0]}.jpg")
    path.write_bytes(b"broken")
    part = read_part(model, "val", SourceConfig(str(root), str(tmp_path / "cache")))
    assert len(Predictor.of([model]).predict_frame(part.frame)) == len(model.split["val"])
    with pytest.raises(DataError, match=path.name):
        read_part(model, "train", SourceConfig(str(root), str(tmp_path / "cache"))).caches(
            Predictor.of([model]).members
        )


@pytest.mark.parametrize(
    ("root", "said"), [("demo/data", ", seen from the folder where it was"), ("/demo/data", ", w")]
)
def test_moved_data_are_named_with_the_checkpoint(
    model: TrainedModel, root: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # demo/data may be there in a clone
    moved = replace(model, config={"data": {**model.config["data"], "root": root}})
    with pytest.raises(DataError) as caught:
        read_part(moved, "val", SOURCE)
    assert str(caught.value).startswith(f"{model.path}: its images were in data.root={root}{said}")
    assert str(caught.value).endswith("give their folder as data.root=FOLDER")
    assert len(read_part(moved, "val", SourceConfig(model.config["data"]["root"], None)).frame)
