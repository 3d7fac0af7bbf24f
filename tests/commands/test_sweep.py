"""The real sweep on the command line: members, failures, continuation, two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands.slurm_double import slurm
from conftest import SMALL, composed
from filelock import FileLock

from skinlesion.commands import folds, launch
from skinlesion.config.inference import FoldsConfig
from skinlesion.errors import DataError

pytestmark = pytest.mark.slow

Sweep = Callable[..., subprocess.CompletedProcess[str]]
MEMBERS = ("tiny_resnet-a06_g19", "tiny_resnet-a05_g20", "tiny_resnet-a04_g21")


@pytest.fixture
def sweep(
    synthetic_root: Path,
    tmp_path: Path,
    run_here: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Train by the command line in `tmp_path`: in this process, or with `apart` or `env` in one of its own."""
    monkeypatch.chdir(tmp_path)

    def run(
        *overrides: str,
        folder: Path = tmp_path,
        out: bool = True,
        apart: bool = False,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        words = ["train", *overrides, *SMALL, "schedule=head_only", "schedule.phases.head.epochs=1"]
        words += [f"data.root={synthetic_root}", f"data.cache_dir={folder / 'cache'}"]
        words += [f"out={folder / 'runs'}"] if out else []
        if apart or env:
            return subprocess.run(
                [sys.executable, "-m", "skinlesion", *words],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", **(env or {})},
                capture_output=True,
                text=True,
                timeout=300,
            )
        status = 0
        try:
            run_here(*words)
        except SystemExit as error:
            status = int(error.code or 0)
        return subprocess.CompletedProcess(words, status, *capsys.readouterr())

    return run


def finished(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in (folder / "runs").glob("*/metrics.json"))


def occupied(folder: Path, member: str) -> Path:
    """The folder of a member, in which another run lies."""
    taken = folder / "runs" / member
    taken.mkdir(parents=True)
    (taken / "config.yaml").write_text("seed: 99\n")
    (taken / "last.ckpt").write_bytes(b"somebody's work")
    return taken


def test_a_member_that_fails_does_not_lose_the_others(sweep: Sweep, tmp_path: Path) -> None:
    taken = occupied(tmp_path, MEMBERS[1])
    answer = sweep("sweep=six")
    assert answer.returncode == 1
    assert finished(tmp_path) == sorted({*MEMBERS} - {MEMBERS[1]})
    assert "1 failed (" in answer.stderr
    assert "loss=a05_g20" in answer.stderr
    assert "holds a run with" in answer.stderr
    (taken / "config.yaml").unlink()
    (taken / "last.ckpt").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/best.ckpt")}
    answer = sweep("sweep=six")
    assert answer.returncode == 0, answer.stderr
    assert finished(tmp_path) == sorted(MEMBERS)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert answer.stderr.count("already finished") == 2
    assert "Warning" not in answer.stderr


LAUNCHERS = {
    "local": ("hydra/launcher=local", "hydra.launcher.n_jobs=2"),
    "slurm": ("hydra/launcher=slurm",),
    "ray": ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"),
}


def three_members(sweep: Sweep, folder: Path, *overrides: str, **how: Any) -> None:
    """Two that train, and one that fails since another run has its folder."""
    occupied(folder, "tiny_resnet-a05_g20-seed_3")
    answer = sweep("-m", "seed=1,3,2", *overrides, folder=folder, **how)
    assert answer.returncode == 1
    assert finished(folder) == [f"tiny_resnet-a05_g20-seed_{seed}" for seed in (1, 2)], answer.stderr
    assert "skinlesion train: 1 failed (seed=3):\n  out=" in answer.stderr
    assert "holds a run with" in answer.stderr
    assert not (folder / "runs/.failures").exists()


@pytest.mark.parametrize("launcher", [pytest.param("local", marks=pytest.mark.exhaustive), "slurm", "ray"])
def test_each_launcher_trains_what_the_basic_one_trains(launcher: str, sweep: Sweep, tmp_path: Path) -> None:
    """To the byte, and says why a member failed, though workers see no variable and no TMPDIR of the submitter's."""
    if launcher != "local":
        pytest.importorskip({"slurm": "submitit", "ray": "hydra_plugins.hydra_ray_launcher"}[launcher])
    basic = tmp_path / "basic"
    three_members(sweep, basic)
    env = slurm(tmp_path) if launcher == "slurm" else None
    three_members(sweep, tmp_path, *LAUNCHERS[launcher], apart=True, env=env)
    for path in ("metrics.csv", "predictions_val.csv", "predictions_test.csv"):
        for member in finished(basic):
            assert (tmp_path / "runs" / member / path).read_bytes() == (basic / "runs" / member / path).read_bytes()
    assert len(list((tmp_path / "cache").glob("images-*"))) == 1


def test_a_sweep_by_hand_can_be_extended(sweep: Sweep, tmp_path: Path) -> None:
    """Members keep their folders when values are put before and after, and lie together without `out`."""
    folder = tmp_path / "runs" / "sweep"
    for seeds, skipped in (("2", 0), ("1,2,3", 1)):
        answer = sweep("-m", f"seed={seeds},4", out=False)
        assert answer.returncode == 0, answer.stderr
        assert answer.stderr.count("already finished") == skipped * 2
    names = sorted(path.parent.name for path in folder.glob("*/metrics.json"))
    assert names == [f"tiny_resnet-a05_g20-seed_{seed}" for seed in (1, 2, 3, 4)]
    seeds_there = [line for name in names for line in (folder / name / "config.yaml").read_text().splitlines()]
    assert [line for line in seeds_there if line.startswith("seed:")] == [f"seed: {seed}" for seed in (1, 2, 3, 4)]


@pytest.mark.exhaustive
def test_slurm_starts_a_task_for_each_device(sweep: Sweep, tmp_path: Path) -> None:
    """A member is as if this program had started its processes; one whose first task fails ends as a whole."""
    pytest.importorskip("submitit")
    two = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    answer = sweep(*two, f"out={tmp_path / 'alone'}", out=False)
    assert answer.returncode == 0, answer.stderr
    occupied(tmp_path, "tiny_resnet-a05_g20-seed_3")
    words = ("-m", "seed=1,3", *two, "hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2")
    answer = sweep(*words, env=slurm(tmp_path))
    assert finished(tmp_path) == ["tiny_resnet-a05_g20-seed_1"], answer.stderr
    for name in ("metrics.csv", "predictions_val.csv"):
        assert (tmp_path / "runs" / finished(tmp_path)[0] / name).read_bytes() == (
            tmp_path / "alone" / name
        ).read_bytes()
    assert answer.returncode == 1
    assert "skinlesion train: 1 failed (seed=3):\n  out=" in answer.stderr
    assert "Traceback" not in answer.stderr.partition("1 failed")[2]


def test_a_job_that_slurm_kills_is_a_line(
    run_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    utils = pytest.importorskip("submitit.core.utils")
    said = "Job 7_1 (task: 0) with path /x/7_1_0_result.pkl\nhas not produced any output (state: OUT_OF_MEMORY)"

    def sweep() -> None:
        raise utils.UncompletedJobError(f"{said}\nError stream produced:\nTraceback ...")

    monkeypatch.setattr(launch.hydra, "main", lambda **_: lambda _task: sweep)
    with pytest.raises(SystemExit, match="1"):
        run_here("synthetic", "data.root=nowhere")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"skinlesion synthetic: {said.replace(chr(10), ' ')}; what it printed lies in .submitit")


def test_more_than_one_device_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    answer = sweep("-m", "seed=1,2", "trainer.accelerator=cpu", "trainer.devices=2")
    assert answer.returncode == 1
    assert "trainer.devices=2: the members of a sweep take one device each" in answer.stderr
    assert not finished(tmp_path)


@pytest.mark.exhaustive
def test_folders_differ_by_a_sign_and_a_restart_deletes_no_other_member(sweep: Sweep, tmp_path: Path) -> None:
    answer = sweep("-m", "model.feature_level=-1,1")
    assert answer.returncode == 0, answer.stderr
    assert finished(tmp_path) == [f"tiny_resnet-a05_g20-model.feature_level_{level}" for level in (-1, 1)]
    assert "Next: skinlesion ensemble members=" in answer.stderr
    folder = tmp_path / "runs" / finished(tmp_path)[0]
    (tmp_path / "runs" / finished(tmp_path)[1]).rename(tmp_path / "kept")
    folder.rename(
        tmp_path / "runs" / "tiny_resnet-a05_g20-model.feature_level_1"
    )  # of another value than its name says
    answer = sweep("-m", "model.feature_level=1,-1", "resume=restart")
    assert answer.returncode == 1
    assert "1 failed (model.feature_level=1)" in answer.stderr
    assert "holds a run with model.feature_level=-1" in answer.stderr
    kept = tmp_path / "runs" / "tiny_resnet-a05_g20-model.feature_level_1"
    assert (kept / "metrics.json").exists()
    assert "feature_level: -1" in (kept / "config.yaml").read_text()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGKILL])
def test_workers_end_with_their_parent(synthetic_root: Path, tmp_path: Path, number: signal.Signals) -> None:
    words = ["-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL, "schedule=head_only"]
    words += ["schedule.phases.head.epochs=5000", "schedule.phases.head.patience=5000", f"out={tmp_path / 'runs'}"]
    words += [f"data.root={synthetic_root}", f"data.cache_dir={tmp_path / 'cache'}"]
    sweeper = subprocess.Popen(
        [sys.executable, "-m", "skinlesion", "train", *words], start_new_session=True, stderr=subprocess.DEVNULL
    )
    lasts = [tmp_path / "runs" / f"tiny_resnet-a05_g20-seed_{seed}" / "last.ckpt" for seed in (1, 2)]
    wait_until(lambda: all(last.exists() for last in lasts), 240)
    sweeper.send_signal(number)
    assert sweeper.wait(30) == (143 if number == signal.SIGTERM else -number)
    locks = [FileLock(last.parent / ".lock") for last in lasts]
    for lock in locks:
        lock.acquire(timeout=10)  # a worker that trains on would hold it
        lock.release()


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_folds_are_trained_voted_and_judged_together_and_go_on(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., None]
) -> None:
    """A second member starts from the first; a fold that fails is taken up, and what has finished is left alone."""
    few = [*SMALL, "schedule=head_only", "schedule.phases.head.epochs=1", "split.policy=grouped"]
    few += [f"data.root={synthetic_root}", "data.cache_dir=cache", "judge=[val]"]
    second = "+members.second='seed=2 model.pretrained={out}/fold{fold}/first/best.ckpt'"
    members = ["~members.lite0", "~members.lite0_restart", "+members.first='seed=1'", second]
    fast = [f"{key}='resamples=100 interval=percentile'" for key in ("ensemble", "compare")]
    config = composed("folds", FoldsConfig, "out=runs", "folds=[0,1]", *members, f"overrides='{' '.join(few)}'", *fast)

    def here(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        try:
            run_here(*command[3:])
        except SystemExit as error:
            return subprocess.CompletedProcess(command, int(error.code or 0))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folds.subprocess, "run", here)
    (tmp_path / "runs/fold1").mkdir(parents=True)
    (tmp_path / "runs/fold1/second").write_text("in the way")
    with pytest.raises(DataError, match="the same command goes on there"):
        folds.run(config)
    (tmp_path / "runs/fold1/second").unlink()
    before = (tmp_path / "runs/fold0/ensemble/ensemble.json").stat().st_mtime_ns
    folds.run(config)
    assert (tmp_path / "runs/fold0/ensemble/ensemble.json").stat().st_mtime_ns == before
    tables = [tmp_path / f"runs/fold{fold}/ensemble/predictions_test.csv" for fold in (0, 1)]
    lesions = {line.split(",")[1] for path in tables for line in path.read_text().splitlines()[1:]}
    (pooled,) = json.loads((tmp_path / "runs/pooled.json").read_text())["tables"].values()
    assert pooled["accuracy"]["n"] == len(lesions)
