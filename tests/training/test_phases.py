"""Phases under a scheduler, with loggers and callbacks of the user's, and with Lightning's own arguments."""

import json
import logging
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError, TimeLimitError
from skinlesion.training import loggers
from skinlesion.training.callbacks import EpochSeed
from skinlesion.training.phases import logged_steps

Config = Callable[..., TrainConfig]
LIGHTNINGS = "lightning.pytorch.callbacks"

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


def steps_of_an_epoch(out: Path) -> int:
    parts = [line.rpartition(",")[2] for line in (out / "split.csv").read_text().splitlines()]
    return math.ceil(parts.count("train") / 32)  # images a batch


def two_phases(small_config: Config, out: Path, *overrides: str) -> TrainConfig:
    return small_config("schedule=two_phase", "schedule.phases.high.epochs=2", f"out={out}", *overrides)


def test_a_run_that_its_time_stops_is_one_run_in_the_end(small_config: Config, tmp_path: Path) -> None:
    """As if it had not stopped, also to its tracker: one line of steps, parameters and final metrics once."""
    whole = two_phases(small_config, tmp_path / "whole")
    run(whole)
    parted = two_phases(small_config, tmp_path / "parted", "trainer.max_time=00:00:00:00", "logger=[csv,tensorboard]")
    for kept in ("head, epoch 1", "head, epoch 2", "high, epoch 1"):
        with pytest.raises(TimeLimitError, match=f"max_time after phase {kept}; the same command goes on") as caught:
            run(parted)
        assert len(str(caught.value).splitlines()) == 1
    run(parted)
    for name in ("metrics.csv", "predictions_val.csv"):
        assert (tmp_path / "parted" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    logged = pd.read_csv(tmp_path / "parted/csv/metrics.csv")
    epoch = steps_of_an_epoch(tmp_path / "whole")
    assert logged.dropna(subset="val/loss")["step"].tolist() == [k * epoch - 1 for k in (1, 2, 3, 4)]
    final = logged.dropna(subset="final/val/macro_f1")
    assert final["step"].tolist() == [4 * epoch]
    judged = json.loads((tmp_path / "whole/metrics.json").read_text())["val"]["macro_f1"]
    assert final["final/val/macro_f1"].tolist() == [judged]
    events = EventAccumulator(str(tmp_path / "parted/tensorboard")).Reload()
    assert [each.step for each in events.Scalars("val/loss")] == [k * epoch - 1 for k in (1, 2, 3, 4)]
    assert {f"lr-AdamW/{part}" for part in ("head", "backbone")} <= {*events.Tags()["scalars"]}


class Recorder(DummyLogger):
    """Stands in for a tracker on the network."""

    def __init__(self) -> None:
        self.parameters: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.parameters.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))


def test_a_phase_that_the_users_callback_stops_stays_stopped(small_config: Config, tmp_path: Path) -> None:
    """Also where the run's time ran out in the same epoch."""
    stops = f"{{_target_: {LIGHTNINGS}.EarlyStopping, monitor: val/macro_f1, mode: max, patience: 1, min_delta: 2}}"
    words = ("schedule=head_only", "schedule.phases.head.epochs=4", f"callbacks=[{stops}]", f"out={tmp_path / 'run'}")
    config = small_config(*words, "trainer.max_time=00:00:00:00")
    with pytest.raises(TimeLimitError, match="head, epoch 1"):
        run(config)
    run(config)
    assert pd.read_csv(tmp_path / "run/metrics.csv")["epoch"].tolist() == [0, 1]


class FaultError(Exception):
    """Stands in for a killed process."""


class Dies(Callback):
    """Ends the run at the second batch of an epoch, of which trackers have been told by then."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1 and trainer.current_epoch == self.epoch:
            raise FaultError


def test_trackers_are_told_each_step_once_by_a_run_that_was_killed(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by one that was not; a tracker on the network, from which nothing can be taken back, among them."""
    told: dict[str, list[tuple[int, list[str]]]] = {"whole": [], "killed": []}

    class Network(DummyLogger):
        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            told[self.told_file.parent.name].append((step, sorted(metrics)))

        def log_hyperparams(self, params: dict[str, Any]) -> None:
            pass

    class Once(loggers._Once, Network):
        pass

    def opened(folder: Path, *_: object) -> Once:
        logger = Once()
        logger.told_file = folder / "tracking.mlflow.txt"
        return logger

    monkeypatch.setitem(loggers._BUILDERS, "mlflow", opened)
    monkeypatch.setattr(loggers, "find_spec", lambda name: True)
    # files of one second are read in the order of their names, where number 10 comes before 9
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    words = ("logger=[csv,tensorboard,mlflow]", "schedule=head_only")
    run(small_config(*words, f"out={tmp_path / 'whole'}"))
    killed = small_config(*words, f"out={tmp_path / 'killed'}")
    for epoch in (0, 1):  # before there is a checkpoint, and after
        with pytest.raises(FaultError):
            run(killed, callbacks=[Dies(epoch)])
    run(killed)
    assert told["killed"] == told["whole"]
    rows = [(tmp_path / name / "csv/metrics.csv").read_bytes() for name in told]
    assert rows[0] == rows[1]
    events = [EventAccumulator(str(tmp_path / name / "tensorboard")).Reload() for name in told]
    for tag in events[0].Tags()["scalars"]:
        first, second = ([(each.step, each.value) for each in found.Scalars(tag)] for found in events)
        assert first == second, tag


def test_a_tracker_is_told_of_all_phases_as_one_run(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Recorder] = []
    monkeypatch.setitem(loggers._BUILDERS, "csv", lambda *_: opened.append(Recorder()) or opened[-1])
    config = two_phases(small_config, tmp_path / "run", "logger=csv")
    run(config)
    (recorder,) = opened
    (parameters,) = recorder.parameters
    assert parameters["loss"]["gamma"] == config.loss.gamma
    assert [name for step, row in recorder.rows for name in row if name == "val/loss"] == ["val/loss"] * 4
    assert [row["epoch"] for _, row in recorder.rows if "val/loss" in row] == [0, 1, 2, 3], "over both phases"
    steps = [step for step, _ in recorder.rows]
    assert steps == sorted(steps)
    assert [row for _, row in recorder.rows if "final/val/macro_f1" in row] == [recorder.rows[-1][1]]


def test_lightnings_arguments_and_callbacks_are_open(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []
    monkeypatch.setattr(EpochSeed, "on_train_batch_start", lambda *given: batches.append(given[3]["target"].tolist()))
    kept = f"callbacks=[{{_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: {tmp_path}, filename: mine}}]"
    words = ("schedule=head_only", "schedule.phases.head.epochs=3", kept, "trainer.profiler=simple")
    config = small_config(*words, "trainer.check_val_every_n_epoch=2", "trainer.overfit_batches=2")
    run(config)
    assert (tmp_path / "mine.ckpt").exists()
    assert "run_training_epoch" in next((Path(config.out) / "profile").iterdir()).read_text()
    validated = pd.read_csv(Path(config.out) / "metrics.csv")["val/loss"].notna()
    assert validated.tolist() == [False, True, False]
    assert len(batches) == logged_steps(Path(config.out)) == 3 * 2
    assert batches[:2] == batches[2:4] == batches[4:]
    run(replace(config, logger="csv", trainer=replace(config.trainer, profiler=None, max_time="01:00:00:00")))
    with pytest.raises(ConfigError, match="callbacks"):
        run(replace(config, callbacks=None))


def test_a_trial_keeps_nothing(small_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    config = small_config("trainer.fast_dev_run=true")
    with caplog.at_level(logging.INFO):
        run(config)
    assert not [*Path(config.out).parent.glob("run*")]
    assert "trainer.fast_dev_run=1: all phases run; nothing is kept" in caplog.text
    assert "Next: " not in caplog.text, "there is nothing to go on with"
    assert "phase middle, 1 epoch," in caplog.text


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "callbacks=[{key: 1}]",
            "callbacks=[{'key': 1}]: expected a list of classes, such as [{_target_: my.Callback}]",
        ),
        (
            "callbacks=[{_target_: lightning.Nothing}]",
            "callbacks: lightning.Nothing: No module named 'lightning.Nothing'",
        ),
        ("callbacks=[{_target_: pathlib.Path}]", "callbacks: pathlib.Path: expected a lightning.pytorch.Callback"),
        (
            f"callbacks=[{{_target_: {LIGHTNINGS}.EarlyStopping, monitor: val/los}}]",
            f"callbacks: {LIGHTNINGS}.EarlyStopping: monitor=val/los: expected one of train/loss, val/loss",
        ),
        (
            f"callbacks=[{{_target_: {LIGHTNINGS}.EarlyStopping, monitor: val/loss}}]",
            "callbacks: EarlyStopping: phases stop by val/loss",
        ),
        (
            f"callbacks=[{{_target_: {LIGHTNINGS}.EarlyStopping}}]",
            f"callbacks: {LIGHTNINGS}.EarlyStopping: EarlyStopping.__init__() missing 1",
        ),
        (
            f"callbacks=[{{_target_: {LIGHTNINGS}.LearningRateMonitor}}]",
            f"callbacks: {LIGHTNINGS}.LearningRateMonitor: has nothing to write to with logger=none; give logger=csv",
        ),
        (
            f"callbacks=[{{_target_: {LIGHTNINGS}.DeviceStatsMonitor}}]",
            f"callbacks: {LIGHTNINGS}.DeviceStatsMonitor: has nothing to write to with logger=none; give logger=csv",
        ),
        ("logger=[csv,none]", "logger=['csv', 'none']: expected one of tensorboard, csv"),
        ("logger=comet", "logger=comet: expected one of tensorboard, csv"),
        ("trainer.fast_dev_run=-1", "trainer.fast_dev_run=-1: expected a number of batches, or true"),
        ("trainer.overfit_batches=1.5", "trainer.overfit_batches=1.5: expected a number of batches, or a fraction"),
        (
            "trainer.overfit_batches=0.01",
            "trainer.overfit_batches=0.01: less than one batch (train has 5 batches); give a",
        ),
        ("trainer.limit_val_batches=0.1", "trainer.limit_val_batches=0.1: less than one batch (val has 1 batch); give"),
        ("trainer.val_check_interval=6", "trainer.val_check_interval=6: an epoch has 5 batches; give as many or fewer"),
        ("trainer.max_time=90", "trainer.max_time=90: expected DD:HH:MM:SS"),
        ("trainer.check_val_every_n_epoch=5", "trainer.check_val_every_n_epoch=5: phase head ends after 2 epochs"),
    ],
)
def test_what_cannot_be_is_refused(word: str, said: str, small_config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        run(small_config(word))
    assert str(caught.value).startswith(said)
    assert len(str(caught.value).splitlines()) == 1


def test_a_tracker_that_is_not_installed_names_its_extra(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logger=wandb: is not installed; pip install 'skinlesion\[wandb\]'"):
        run(small_config("logger=[csv,wandb]"))


def test_wandb_offline_is_one_run_a_member(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members in one process, as a sweep trains them, do not share a run."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("first", "second"):
        run(two_phases(small_config, tmp_path / name, "logger=wandb"))
        (folder,) = (tmp_path / name / "wandb").glob("offline-run-*")
        known = json.loads((tmp_path / name / "tracking.json").read_text())["wandb"]
        assert folder.name.endswith(known)


@pytest.mark.filterwarnings("ignore")  # of its own use of SQLAlchemy
def test_mlflow_keeps_one_run_over_sittings(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = two_phases(small_config, tmp_path / "run", "trainer.max_time=00:00:00:00", "logger=mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run/mlflow.db'}")
    states = []

    class State(Callback):
        def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
            known = json.loads((tmp_path / "run/tracking.json").read_text())["mlflow"]
            states.append(client.get_run(known).info.status)

    for _ in range(3):
        with pytest.raises(TimeLimitError):
            run(config, callbacks=[State()])
    with pytest.raises(FaultError):
        run(replace(config, trainer=replace(config.trainer, max_time=None)), callbacks=[Dies(1)])
    run(config)
    (experiment,) = client.search_experiments(filter_string="name = 'skinlesion'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert {*states} == {"RUNNING"}, "not ended by a phase"
    rates = client.get_metric_history(found.info.run_id, "lr-AdamW/head")
    assert [each.step for each in rates] == [k * steps_of_an_epoch(tmp_path / "run") for k in range(4)]
    assert found.data.params["loss/gamma"] == "2.0"
    assert [each.value for each in client.get_metric_history(found.info.run_id, "val/macro_f1")] == [
        pytest.approx(score, rel=1e-5) for score in pd.read_csv(tmp_path / "run/metrics.csv")["val/macro_f1"]
    ]
    assert len(client.get_metric_history(found.info.run_id, "final/val/macro_f1")) == 1
