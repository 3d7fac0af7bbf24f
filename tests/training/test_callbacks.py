"""Callbacks: the best checkpoint survives a move, the average is the hand-made one and is what is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.training.callbacks import PhaseCheckpoint
from skinlesion.training.module import LesionClassifier

DECAY = 0.7
KEY = "schedule.phases.head"


def state_of(folder: Path, score: float) -> dict[str, object]:
    path = str(folder / "0-head.ckpt")
    best = torch.tensor(score)
    return {
        "monitor": "val/macro_f1",
        "best_model_score": best,
        "best_model_path": path,
        "current_score": best,
        "dirpath": str(folder),
        "best_k_models": {path: best},
        "kth_best_model_path": path,
        "kth_value": best,
        "last_model_path": "",
    }


def test_a_moved_folder_keeps_its_best_score(tmp_path: Path) -> None:
    best = PhaseCheckpoint(tmp_path / "now", filename="0-head")
    best.load_state_dict(state_of(tmp_path / "before", 0.8))
    now = str((tmp_path / "now").resolve() / "0-head.ckpt")
    assert best.best_model_score == torch.tensor(0.8)
    assert best.best_model_path == best.kth_best_model_path == now
    assert list(best.best_k_models) == [now]
    assert best.last_model_path == ""


def test_the_average_over_steps_is_kept(
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


def test_the_average_is_validated(small_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Training is the same with it; validation is not."""
    histories = []
    for decay in (0, DECAY):
        out = tmp_path / str(decay)
        run(small_config("schedule=head_only", f"{KEY}.ema_decay={decay}", f"{KEY}.epochs=2", f"out={out}"))
        histories.append(pd.read_csv(out / "metrics.csv"))
    assert histories[0]["train/loss"].tolist() == histories[1]["train/loss"].tolist()
    assert histories[0]["val/loss"].tolist() != histories[1]["val/loss"].tolist()


def test_frozen_weights_are_not_averaged(small_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
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
    assert len(list(Path(config.data.cache_dir).glob("features-*"))) == 1


@pytest.mark.parametrize("decay", [-0.1, 1])
def test_a_decay_out_of_range_is_refused(decay: float, small_config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigError, match=r"head\.ema_decay"):
        small_config("schedule=head_only", f"{KEY}.ema_decay={decay}")
