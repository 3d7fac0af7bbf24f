"""The best checkpoint of a phase."""

from pathlib import Path

import torch
from skinlesion.training.best_checkpoint import PhaseCheckpoint


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
