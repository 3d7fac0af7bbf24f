"""The moving average of weights: it is the hand-made one, it is what is judged, and without it nothing changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.training.module import LesionClassifier

DECAY = 0.7
KEY = "schedule.phases.head"


def test_what_is_kept_is_the_average_over_steps(
    small_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[dict[str, torch.Tensor]] = []

    def note(module: LesionClassifier, *_: Any) -> None:
        steps.append({name: parameter.detach().clone() for name, parameter in module.named_parameters()})

    monkeypatch.setattr(LesionClassifier, "on_train_batch_end", note)
    config = small_config("schedule=head_only", f"{KEY}.ema_decay={DECAY}", f"{KEY}.epochs=1")
    run(config)
    assert len(steps) > 2
    kept = torch.load(Path(config.out) / "best.ckpt", weights_only=True)["state_dict"]
    for name, average in steps[0].items():
        by_hand = average
        for step in steps[1:]:
            by_hand = DECAY * by_hand + (1 - DECAY) * step[name]
        torch.testing.assert_close(kept[name], by_hand)
    moved = [name for name in steps[0] if not torch.equal(kept[name], steps[-1][name])]
    assert moved, "the last step's weights would have been kept"


def test_what_is_judged_is_the_average(small_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Training is the same with it; validation is not."""
    histories = []
    for decay in (0, DECAY):
        out = tmp_path / str(decay)
        run(small_config("schedule=head_only", f"{KEY}.ema_decay={decay}", f"{KEY}.epochs=2", f"out={out}"))
        histories.append(pd.read_csv(out / "metrics.csv"))
    assert histories[0]["train/loss"].tolist() == histories[1]["train/loss"].tolist()
    assert histories[0]["val/loss"].tolist() != histories[1]["val/loss"].tolist()


def test_what_is_frozen_stays_to_the_bit(small_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Or its cached maps would be made once more to judge the run, of a network that is not quite the same."""
    kept = []
    for decay in (0, DECAY):
        out = tmp_path / str(decay)
        config = small_config("schedule=head_only", f"{KEY}.ema_decay={decay}", f"{KEY}.cached_views=1", f"out={out}")
        run(config)
        kept.append(torch.load(out / "best.ckpt", weights_only=True)["state_dict"])
    backbone = [name for name in kept[0] if name.startswith("network.backbone.")]
    assert backbone
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in backbone)
    assert len(list(Path(config.data.cache_dir).glob("features-*.npy"))) == 1


@pytest.mark.parametrize("decay", [-0.1, 1])
def test_a_decay_that_is_none_is_refused(decay: float, small_config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigError, match=r"head\.average"):
        small_config("schedule=head_only", f"{KEY}.ema_decay={decay}")
