"""Phases under a scheduler, with loggers and callbacks of the user's, and with Lightning's own arguments."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.training.callbacks import EpochSeed

Config = Callable[..., TrainConfig]

SLURM = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "4242", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}


def test_slurms_signal_leaves_no_checkpoint_that_another_run_would_load(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another member's `hpc_ckpt_1.ckpt` in the working directory is not taken, and a USR1 writes no such file."""
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place = tmp_path / "working directory"
    place.mkdir()
    monkeypatch.chdir(place)
    handlers: list[object] = []
    start = EpochSeed.on_train_batch_start

    def signalled(self: EpochSeed, *args: Any) -> None:
        handlers.append(signal.getsignal(signal.SIGUSR1))
        if handlers[-1] != signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGUSR1)
        start(self, *args)

    monkeypatch.setattr(EpochSeed, "on_train_batch_start", signalled)
    run(replace(trained, out=str(tmp_path / "second"), seed=2))
    assert not [*tmp_path.rglob("hpc_ckpt*")]
    assert {*handlers} == {signal.SIG_DFL}, "it would end the process, which goes on by last.ckpt"
    shutil.copy(tmp_path / "second" / "last.ckpt", place / "hpc_ckpt_1.ckpt")
    again = replace(trained, out=str(tmp_path / "again"))
    run(again)
    assert [path.name for path in place.iterdir()] == ["hpc_ckpt_1.ckpt"]
    assert (tmp_path / "again/metrics.csv").read_bytes() == (Path(trained.out) / "metrics.csv").read_bytes()
