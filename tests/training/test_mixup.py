"""Mixup: the blend is the hand-made one, its ends are the unmixed loss, and seeds fix it."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from skinlesion.training.mixup import mixed, mixed_loss

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.training.feature_cache import FeatureBatch


def batch(size: int = 5) -> FeatureBatch:
    generator = torch.Generator().manual_seed(3)
    return {
        "feature_map": torch.randn(size, 2, 3, 3, generator=generator),
        "metadata": torch.randn(size, 4, generator=generator),
        "target": torch.arange(size) % 3,
        "image_id": [str(row) for row in range(size)],
    }


def logits(given_batch: FeatureBatch) -> torch.Tensor:
    return given_batch["feature_map"].flatten(1)[:, :3] + given_batch["metadata"][:, :3]


@given(st.floats(0, 1))
def test_a_blend_is_the_weighted_sum(share: float) -> None:
    plain, partner = batch(), torch.tensor([3, 0, 1, 2, 4])
    blended = mixed(plain, share, partner)
    for key in ("feature_map", "metadata"):
        for row, other in enumerate(partner.tolist()):
            expected = share * plain[key][row] + (1 - share) * plain[key][other]  # type: ignore[literal-required]
            torch.testing.assert_close(blended[key][row], expected)  # type: ignore[literal-required]
    assert blended["image_id"] == plain["image_id"]
    assert torch.equal(blended["target"], plain["target"])


def test_of_equal_items_nothing_changes() -> None:
    plain = batch()
    same = {key: value[:1].repeat(5, *[1] * (value.ndim - 1)) for key, value in plain.items() if key != "image_id"}
    same_batch: FeatureBatch = {**same, "image_id": plain["image_id"]}  # type: ignore[typeddict-item]
    loss = mixed_loss(F.cross_entropy, logits, same_batch, concentration=0.4)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, F.cross_entropy(logits(same_batch), same_batch["target"]))


def test_cross_entropy_of_a_blend_is_that_of_soft_targets() -> None:
    torch.manual_seed(5)
    loss = mixed_loss(F.cross_entropy, logits, batch(), concentration=0.4)  # type: ignore[arg-type]
    torch.manual_seed(5)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    partner = torch.randperm(5)
    onehot = F.one_hot(batch()["target"], 3).float()
    soft = share * onehot + (1 - share) * onehot[partner]
    torch.testing.assert_close(loss, F.cross_entropy(logits(mixed(batch(), share, partner)), soft))  # type: ignore[arg-type]


@pytest.mark.parametrize("views", [0, 2])
def test_a_run_with_it_depends_on_its_seed_alone(
    views: int, small_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    histories = []
    for name, mixup in (("one", 0.3), ("two", 0.3), ("plain", 0)):
        key = "schedule.phases.head"
        settings = (f"{key}.mixup={mixup}", f"{key}.cached_views={views}", f"{key}.epochs=2", f"out={tmp_path / name}")
        run(small_config("schedule=head_only", *settings))
        histories.append(pd.read_csv(tmp_path / name / "metrics.csv")["train/loss"].tolist())
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]
