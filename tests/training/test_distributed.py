"""Several devices: each trains its share, all agree, the first one writes, none is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands.test_train import LEFT, metrics_of, wait_for_rows
from conftest import CODES, SMALL

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.data.dataset import EvenBatches, Share, Shuffled
from skinlesion.errors import ConfigError
from skinlesion.training.losses import inverse_frequency_weights

Config = Callable[..., TrainConfig]


@pytest.mark.parametrize("processes", [2, 3])
def test_together_they_see_what_one_would_see(processes: int) -> None:
    """Their batches k, of size B, are batch k, of size B times their number, of a single process."""
    length, size = 50, 4
    single = Shuffled(length, seed=3, first_draw=7, share=Share(0, 1))
    shared = [Shuffled(length, seed=3, first_draw=7, share=Share(rank, processes)) for rank in range(processes)]
    for sampler in (single, *shared):
        sampler.set_epoch(2)
    assert {len(list(sampler)) for sampler in shared} == {length // processes}
    for start in range(0, length // processes, size):
        together = [draw for sampler in shared for draw in list(sampler)[start : start + size]]
        assert sorted(together) == sorted(list(single)[start * processes :][: len(together)])


@pytest.mark.parametrize(("length", "processes", "size"), [(129, 2, 64), (5, 2, 2), (926, 3, 64), (4, 4, 2), (9, 4, 2)])
def test_validation_is_dealt_out_evenly_and_once(length: int, processes: int, size: int) -> None:
    batches = [list(EvenBatches(length, batch_size=size, share=Share(rank, processes))) for rank in range(processes)]
    assert len({len(own) for own in batches}) == 1, "one would wait for the other for ever"
    assert len(batches[0]) == len(EvenBatches(length, batch_size=size, share=Share(0, processes)))
    assert all(1 <= len(batch) <= size for own in batches for batch in own)
    assert sorted(index for own in batches for batch in own for index, _ in batch) == list(range(length))


def test_more_processes_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 processes for 2 validation images"):
        EvenBatches(2, batch_size=8, share=Share(0, 3))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("trainer.precision=16-mixed",), "trainer.precision=16-mixed: a CPU"),
        (("trainer.devices=2", "trainer.sync_batchnorm=true"), "trainer.sync_batchnorm"),
        (("trainer.devices=2",), "from the command line only"),
        (("trainer.devices=[0,1]",), "Lightning refuses it"),
        (("trainer.devices=many",), "Lightning refuses it"),
    ],
)
def test_what_cannot_be_is_refused(overrides: tuple[str, ...], said: str, small_config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        run(small_config("trainer.accelerator=cpu", *overrides))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "precision",
    ["bf16-mixed", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("bf16-true", "64-true"))],
)
def test_precisions_that_a_cpu_knows_run(precision: str, small_config: Config) -> None:
    """Through all phases and the judging, which is done in float32, as a checkpoint is read."""
    phases = [f"schedule.phases.{name}.epochs=1" for name in ("head", "high", "middle")]
    config = small_config("trainer.accelerator=cpu", f"trainer.precision={precision}", *phases)
    run(config)
    folder = Path(config.out)
    from skinlesion.training.checkpoint import load_model

    assert {parameter.dtype.itemsize for parameter in load_model(folder).network.parameters()} == {4}
    assert np.isfinite(pd.read_csv(folder / "metrics.csv")["val/loss"]).all()
    assert np.isfinite(pd.read_csv(folder / "predictions_test.csv")[list(CODES)]).all(axis=None)


class Runs:
    """Starts the same two-process training in several ways."""

    def __init__(self, root: Path, folder: Path) -> None:
        phases = ["schedule.phases.high.epochs=3", "~schedule.phases.middle", "model.high=conv1"]
        devices = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
        places = [f"data.root={root}", f"data.cache_dir={folder / 'cache'}"]
        self.overrides = [*SMALL, *phases, *devices, *places]
        self.folder = folder

    @contextmanager
    def started(self, *program: str, out: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, *self.overrides, f"out={self.folder / out}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever happened, none is left

    def finish(self, *program: str, out: str) -> str:
        """Run it to its end; what it said."""
        with self.started(*program, out=out) as process:
            said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        return said


@pytest.fixture(scope="module")
def runs(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(synthetic_root, tmp_path_factory.mktemp("devices"))


@pytest.fixture(scope="module")
def whole(runs: Runs) -> Path:
    """A finished run of two processes."""
    said = runs.finish("skinlesion", "train", out="whole")
    assert said.count("phase head, 2 epochs") == 1, "the second process is silent"
    assert "Warning" not in said
    return runs.folder / "whole"


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(whole: Path) -> None:
    assert {path.name for path in whole.iterdir() if path.is_file()} - {".lock", "run.log"} == LEFT
    assert pd.read_csv(whole / "metrics.csv")["phase"].tolist() == ["head"] * 2 + ["high"] * 3


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(whole: Path) -> None:
    """The best epoch, validated by both, against its predictions table, made by the first one alone."""
    history = pd.read_csv(whole / "metrics.csv")
    best = history.loc[history["val/macro_f1"].idxmax()]
    table = pd.read_csv(whole / "predictions_val.csv")
    judged = json.loads((whole / "metrics.json").read_text())["val"]
    assert judged["macro_f1"] == pytest.approx(best["val/macro_f1"], abs=1e-5)
    assert judged["accuracy"] == pytest.approx(best["val/accuracy"], abs=1e-5)
    split = pd.read_csv(whole / "split.csv").merge(pd.read_csv(whole / "predictions_val.csv")[["image_id"]])
    assert len(split) == len(table)
    assert _focal(table, whole) == pytest.approx(best["val/loss"], rel=1e-4)


def _focal(table: pd.DataFrame, folder: Path) -> float:
    """The mean focal loss of a predictions table, by its formula: alpha 0.5, gamma 2, smoothing 0.1."""
    import torch

    counts = torch.load(folder / "best.ckpt", weights_only=True)["skinlesion"]["class_counts"]
    weights = inverse_frequency_weights(counts, alpha=0.5).numpy()
    actual = np.array([CODES.index(code) for code in table["actual"]])
    smooth = 0.9 * np.eye(len(CODES))[actual] + 0.1 / len(CODES)
    seen = (smooth * table[list(CODES)].to_numpy()).sum(axis=1)
    return float(np.mean(-weights[actual] * (1 - seen) ** 2 * np.log(seen)))


@pytest.mark.exhaustive
def test_a_killed_process_takes_the_other_along_and_the_run_goes_on(runs: Runs, whole: Path) -> None:
    """Killed in the second phase, gone on with under torchrun, it ends where the uninterrupted run ended."""
    with runs.started("skinlesion", "train", out="killed") as process:
        wait_for_rows(runs.folder / "killed" / "metrics.csv", 3, process)
        (second,) = _children(process.pid)
        os.kill(second, signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said.strip().splitlines()[-1].startswith("skinlesion train: process 1 of 2")
    assert "SIGKILL" in said
    assert "Traceback" not in said
    assert not (runs.folder / "killed" / "metrics.json").exists()
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "skinlesion", "train")
    runs.finish(*torchrun, out="killed")
    assert metrics_of(runs.folder / "killed") == metrics_of(whole)
    tables = [(folder / "predictions_test.csv").read_bytes() for folder in (runs.folder / "killed", whole)]
    assert tables[0] == tables[1]


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(child) for child in found.stdout.split()]
