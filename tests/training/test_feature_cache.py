"""Feature maps: computed once, shared, keyed by what they are made from, and equal to what the network gives."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
import torch

from skinlesion.config.train import TrainConfig
from skinlesion.data.datamodule import HELD_OUT, LesionDataModule
from skinlesion.data.dataset import Share
from skinlesion.errors import ConfigError, DataError
from skinlesion.model.backbone import Backbone
from skinlesion.model.surgery import Halves
from skinlesion.training.build import architecture, build_backbone, image_input
from skinlesion.training.feature_cache import FeatureStore, backbone_maps, trained_maps

CPU = torch.device("cpu")
Config = Callable[..., TrainConfig]


def store(config: TrainConfig, *, seed: int = 0) -> FeatureStore:
    torch.manual_seed(seed)
    options = architecture(config.model)
    backbone = build_backbone(options)
    backbone.freeze()
    return FeatureStore(backbone, LesionDataModule.from_config(config, image_input(options)), device=CPU)


def files(config: TrainConfig) -> set[str]:
    return {path.name for path in Path(config.data.cache_dir).glob("features-*")}


def test_maps_are_the_backbones_own(small_config: Config) -> None:
    made = store(small_config())
    dataset = made.dataset("val", 1)
    batch = dataset[(3, 0)]
    image = made.datamodule.dataset("val", None)[(3, 0)]
    with torch.inference_mode():
        expected = made.backbone.eval()(image["image"])
    torch.testing.assert_close(batch["feature_map"], expected)
    assert batch["image_id"] == image["image_id"]
    assert torch.equal(batch["target"], image["target"])


def test_training_views_are_the_augmented_images(small_config: Config) -> None:
    made = store(small_config())
    dataset = made.dataset("train", 3)
    changed = made.datamodule.dataset("train", made.datamodule.augment())
    for draw, view in ((0, 0), (1, 1), (2, 2), (5, 2)):
        source = made.datamodule.dataset("train", None) if view == 0 else changed
        with torch.inference_mode():
            expected = made.backbone.eval()(source[(7, view)]["image"])
        got = dataset[(7, draw)]["feature_map"]
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)  # kept as float16


def test_the_backbone_runs_once(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    store(config).dataset("train", 2)
    before = files(config)
    assert len(before) == 2
    monkeypatch.setattr(Backbone, "forward", lambda *_: pytest.fail("ran again"))
    store(config).dataset("train", 2)
    store(small_config("loss.gamma=1", "schedule.phases.head.lr=0.1")).dataset("train", 2)  # another member
    for change in ("split.seed=1", "split.policy=grouped"):
        for part in HELD_OUT:
            store(small_config(change)).dataset(part, 1)  # the same images, otherwise divided
    assert files(config) == before


@pytest.mark.parametrize("change", ["seed=9", "augment.zoom=0.3", "model.mean=[0.1,0.2,0.3]"])
def test_what_they_are_made_from_is_in_the_key(change: str, small_config: Config) -> None:
    config = small_config()
    store(config).dataset("train", 2)
    before = files(config)
    store(small_config(change)).dataset("train", 2)
    assert len(files(config)) > len(before)


def test_splits_choose_their_own_rows_of_shared_maps(small_config: Config) -> None:
    seen: dict[str, torch.Tensor] = {}
    for change in ("split.seed=666", "split.seed=1", "split.policy=grouped"):
        made = store(small_config(change))
        dataset = made.dataset("train", 2)
        assert len(dataset) == len(made.datamodule.part_frame("train"))
        for index in range(0, len(dataset), 7):
            batch = dataset[(index, 1)]
            (image_id,) = batch["image_id"]
            assert made.datamodule.part_frame("train")["image_id"][index] == image_id
            assert torch.equal(seen.setdefault(image_id, batch["feature_map"]), batch["feature_map"])
    distinct = torch.cat(list(seen.values())).flatten(1).unique(dim=0)
    assert len(distinct) == len(seen)  # every image has maps of its own


def test_what_is_judged_is_kept_exactly_and_views_are_kept_small(small_config: Config) -> None:
    plain, changed = store(small_config()).dataset("test", 2).views
    assert plain.dtype == np.float32
    assert changed.dtype == np.float16


def test_use_renews_a_folder(small_config: Config) -> None:
    config = small_config()
    store(config).dataset("val", 1)
    (path,) = Path(config.data.cache_dir).glob("features-*")
    os.utime(path, (0, 0))
    store(config).dataset("val", 1)
    assert path.stat().st_mtime > 0


def test_other_weights_make_other_maps(small_config: Config) -> None:
    config = small_config()
    one, other = (store(config, seed=seed).dataset("val", 1) for seed in (0, 1))
    assert len(files(config)) == 2
    assert not np.array_equal(one.views[0].take([0]), other.views[0].take([0]))


def test_a_full_disk_is_said_before_it_is_full(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"cache_dir"):
        store(config).dataset("val", 1)
    assert not files(config)


def test_all_views_must_fit_before_the_first_is_computed(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    plain = store(config).dataset("train", 1).views[0].nbytes
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": plain})())
    with pytest.raises(DataError, match=rf"maps need {1.5 * plain / 1e6:.1f} MB, .* or take fewer views"):
        store(config).dataset("train", 4)  # three more, of half the size
    assert len(files(config)) == 1
    store(config).dataset("train", 3)
    assert len(files(config)) == 3


def maps(config: TrainConfig, views: int = 1) -> list[np.ndarray]:
    """All maps of each view of a part."""
    dataset = store(config).dataset("val", views)
    return [view.take(range(len(view))) for view in dataset.views]


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 200), lambda path: path.write_bytes(b"x" * 5000)])
def test_damaged_maps_are_computed_again(damage: Callable[[Path], None], small_config: Config) -> None:
    config = small_config()
    before = maps(config)
    (path,) = Path(config.data.cache_dir).glob("features-*/*.bin")
    damage(path)
    np.testing.assert_array_equal(maps(config), before)


def test_two_processes_compute_a_share_each(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the batches that one would compute, to the last digit; and wait for each other."""
    alone = maps(small_config(f"data.cache_dir={tmp_path / 'alone'}", "loader.batch_size=8"), 2)
    config = small_config(f"data.cache_dir={tmp_path / 'together'}", "loader.batch_size=8")
    shares: dict[int, list[int]] = {0: [], 1: []}

    stores = [store(config), store(config)]

    def run(rank: int) -> list[np.ndarray]:
        made = stores[rank]
        compute = made._batches

        def noting(batches: list[np.ndarray], view: int) -> Iterator[np.ndarray]:
            shares[rank] += [int(batch[0]) // 8 for batch in batches]
            return compute(batches, view)

        monkeypatch.setattr(made, "_batches", noting)
        dataset = made.dataset("val", 2)
        return [view.take(range(len(view))) for view in dataset.views]

    rank = ContextVar[int]("rank")
    monkeypatch.setattr("skinlesion.training.feature_cache.Share.current", lambda: Share(rank.get(), 2))
    monkeypatch.setattr("skinlesion.training.feature_cache.track", lambda items, *_: items)

    def of(number: int) -> list[np.ndarray]:
        rank.set(number)
        return run(number)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(of, range(2)))
    for views in found:
        for one, other in zip(views, alone, strict=True):
            np.testing.assert_array_equal(one, other)
    assert {number % 2 for number in shares[0]} == {0}
    assert {number % 2 for number in shares[1]} == {1}


def test_maps_that_no_other_process_brings_are_computed_here(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each machine has a cache on a disk of its own."""
    alone = maps(small_config(f"data.cache_dir={tmp_path / 'alone'}"))
    monkeypatch.setattr("skinlesion.training.feature_cache.Share.current", lambda: Share(1, 2))
    monkeypatch.setattr("skinlesion.training.feature_cache._PATIENCE", 0.0)
    np.testing.assert_array_equal(maps(small_config(f"data.cache_dir={tmp_path / 'own'}")), alone)


def test_one_more_image_costs_one(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    before = maps(config)[0]
    made = store(config)
    keys = made._keys
    computed: list[int] = []
    compute = FeatureStore._batches

    def noting(self: FeatureStore, batches: list[np.ndarray], view: int) -> Iterator[np.ndarray]:
        computed.extend(np.concatenate(batches).tolist())
        return compute(self, batches, view)

    monkeypatch.setattr(FeatureStore, "_batches", noting)
    monkeypatch.setattr(made, "_keys", np.where(np.arange(len(keys)) == 5, b"x" * 32, keys))
    (view,) = made.dataset("val", 1).views
    assert computed == [5]
    np.testing.assert_allclose(view.take(range(len(view))), before, rtol=1e-5, atol=1e-6)


def test_a_few_images_at_a_time_change_nothing() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", kwargs={}, feature_level=None, batch_norm_eps=None).eval()
    image = torch.randn(19, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(backbone_maps(backbone, image), backbone(image))


@pytest.mark.parametrize(
    "start", ["layer3", "conv1", "layer3.0.conv2", None]
)  # a cut, nothing below, no cut, all below
def test_maps_in_training_are_the_networks_with_its_gradients(start: str | None, small_config: Config) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(architecture(small_config().model))
    backbone.unfreeze(start)
    backbone.train()
    assert backbone.has_frozen_prefix == (start in ("layer3", None))
    image = torch.randn(19, 3, 32, 32)  # more than one chunk
    found = []
    for maps in (backbone, lambda image: trained_maps(backbone, image)):
        made = maps(image)
        if made.requires_grad:
            (made**2).sum().backward()
        found.append((made.detach(), [parameter.grad for parameter in backbone.parameters()]))
        backbone.zero_grad()
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)  # other sums, in another order
    assert any(gradient is not None for gradient in found[0][1]) == (start is not None)


def test_a_network_without_a_cut_is_not_tried_at_every_step(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def refuse(*_: object, name: str, **__: object) -> Halves:
        tried.append(name)
        raise ConfigError("no single map")

    monkeypatch.setattr("skinlesion.model.backbone.split_before", refuse)
    backbone = build_backbone(architecture(small_config().model))
    backbone.unfreeze("layer3")
    for _ in range(3):
        trained_maps(backbone, torch.zeros(2, 3, 32, 32))
    assert len(tried) == 1
    backbone.unfreeze("layer4")
    trained_maps(backbone, torch.zeros(2, 3, 32, 32))
    assert len(tried) == 2
