"""What a run folder says about itself is checked before a run goes on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skinlesion.commands.train import run
from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError
from skinlesion.inference.ledger import LEDGER
from skinlesion.training.run_folder import claimed, read_results

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def unfinished(trained: TrainConfig, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(trained.out, tmp_path / "run"))
    (folder / "metrics.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda phase: phase.update(checkpoint="../../elsewhere.ckpt"),
            "0.checkpoint: '../../elsewhere.ckpt': expected",
        ),
        (lambda phase: phase.update(macro_f1=1.5), "0.macro_f1: 1.5: expected 0 to 1"),
        (lambda phase: phase.update(trainable={"head": "yes"}), "0.trainable.head: input should be a valid boolean"),
        (lambda phase: phase.update(rows=[3]), "0.rows.0: input should be"),
        (lambda phase: phase.pop("phase"), "0.phase: field required"),
        (lambda phase: phase.update(phase="tail"), "0.phase: 'tail', but this schedule"),
    ],
)
def test_odd_phases_are_named_by_file_and_key(unfinished: Path, trained: TrainConfig, edit: Edit, said: str) -> None:
    path = unfinished / "phases" / "finished.json"
    phases = json.loads(path.read_text())
    edit(phases[0])
    path.write_text(json.dumps(phases))
    with pytest.raises(CheckpointError) as caught:
        run(replace(trained, out=str(unfinished)))
    assert str(caught.value).startswith(f"{path}: {said}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[{", '{"phase": 1}', "[" * 100_000, "\0\xff"])
def test_a_torn_list_of_phases_is_named(unfinished: Path, text: str) -> None:
    path = unfinished / "phases" / "finished.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"finished\.json: .*; start anew with resume=restart$"):
        read_results(unfinished, ["head"])


def test_a_restart_keeps_the_ledger_and_judge_may_change(trained: TrainConfig, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained.out, tmp_path / "run"))
    (folder / LEDGER).write_text("{}\n")
    config = replace(trained, out=str(folder), judge=["val"])
    with claimed(folder, config):
        assert (folder / "best.ckpt").exists()
    with claimed(folder, replace(config, resume="restart")):
        assert not (folder / "best.ckpt").exists()
        assert (folder / LEDGER).read_text() == "{}\n"


@pytest.mark.parametrize("text", ["seed: [", "- 1\n- 2\n", "seed: \x07\n", "3"])
def test_a_damaged_configuration_is_named(unfinished: Path, trained: TrainConfig, text: str) -> None:
    (unfinished / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml: .*resume=restart") as caught:
        run(replace(trained, out=str(unfinished)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_job_that_is_queued_again_restarts_once(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm starts the same command again; a second `resume=restart` would throw away what the first has done."""
    config = replace(trained, out=str(tmp_path / "run"), resume="restart")
    last = tmp_path / "run" / "last.ckpt"

    def is_kept(job: str, restarts: str) -> bool:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        with claimed(last.parent, config):
            kept = last.exists()
            last.touch()
        return kept

    assert [is_kept("7", "0"), is_kept("7", "1"), is_kept("7", "2")] == [False, True, True]
    assert [is_kept("7", "0"), is_kept("8", "1"), is_kept("8", "2")] == [False, False, True]
