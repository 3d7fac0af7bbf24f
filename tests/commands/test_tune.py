"""The search: trials in their folders, workers that end or are killed, and best.yaml for `train`."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, composed

from skinlesion.commands.train import run as train
from skinlesion.config.overrides import read_words
from skinlesion.config.studies import TuneConfig
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration
from skinlesion.errors import ConfigError
from skinlesion.studies.tune.space import corners, read_space

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")
from skinlesion.commands.tune import run  # noqa: E402

SPACE = (
    "~space.loss",
    "~space.model",
    "~space.schedule",
    "+space.schedule.phases.head.lr={low: 0.001, high: 0.1, log: true}",
)
Tune = Callable[..., TuneConfig]


@pytest.fixture
def tune(trained: TrainConfig, tmp_path: Path) -> Tune:
    """A search of seconds, whose feature maps are there."""
    small = [word for word in SMALL if not word.startswith(("judge", "logger", "trainer"))]
    places = [f"data.root={trained.data.root}", f"data.cache_dir={trained.data.cache_dir}"]
    words = " ".join([*small, *places, "schedule=head_only"])

    def make(*overrides: str) -> TuneConfig:
        keys = (f"overrides='{words}'", f"out={tmp_path / 'study'}", "trials=2", "startup=2")
        return composed("tune", TuneConfig, *SPACE, *keys, *overrides)

    return make


def trials(config: TuneConfig) -> list["optuna.trial.FrozenTrial"]:
    study = optuna.load_study(study_name=config.study, storage=f"sqlite:///{config.out}/study.db")
    return list(study.trials)


def test_a_search_leaves_trials_the_best_and_figures(tune: Tune, tmp_path: Path) -> None:
    config = tune("+space.loss.gamma=[0,2]", "pruner=none")
    run(config)
    out, found = Path(config.out), trials(config)
    assert [each.state.name for each in found] == ["COMPLETE"] * 2
    for each in found:
        folder = out / f"trial-{each.number:03d}"
        rows = (folder / "metrics.csv").read_text().splitlines()
        column = rows[0].split(",").index("val/macro_f1")
        best = max(float(row.split(",")[column]) for row in rows[1:])
        assert each.value == pytest.approx(best, abs=1e-5)
        assert yaml.safe_load((folder / "config.yaml").read_text())["loss"]["gamma"] == float(each.params["loss.gamma"])
        assert not (folder / "predictions_test.csv").exists()
    assert not list(out.rglob("test_readings.jsonl")), "the test part is never read"
    assert {"optimization_history.png", "slice.png", "intermediate_values.png"} <= {each.name for each in out.iterdir()}
    winner = max(found, key=lambda each: each.value)
    listed = yaml.safe_load((out / "best.yaml").read_text())["overrides"]
    assert f"schedule.phases.head.lr={winner.params['schedule.phases.head.lr']!r}" in listed
    line = read_words([str(out / "best.yaml"), f"out={tmp_path / 'again'}", "seed=1"], "train", TrainConfig)
    again = composed("train", TrainConfig, *line.overrides)
    outcome = train(again)
    assert outcome is not None
    assert outcome.best.macro_f1 == pytest.approx(winner.value, abs=1e-9), "train with best.yaml gives the trial again"


def test_the_same_command_goes_on_and_another_study_is_refused(tune: Tune) -> None:
    run(tune("trials=1"))
    (first,) = trials(tune())
    run(tune("trials=2"))
    assert trials(tune())[0].params == first.params
    assert len({tuple(each.params.values()) for each in trials(tune())}) == 2, "another draw"
    run(tune("trials=2"))
    assert len(trials(tune())) == 2
    with pytest.raises(
        ConfigError, match=r"holds another study, of metric=macro_f1, not loss; give another out or study"
    ):
        run(tune("metric=loss"))


def test_pruned_trials_lose_their_checkpoints_and_metrics_are_means_over_seeds(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tune("seeds=[1,2]", "metric=loss", "startup=0", "warmup=0", "storage=journal")
    run(config)
    out = Path(config.out)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "journal.log")))
    found = optuna.load_study(study_name="tune", storage=storage).trials
    first = found[0]
    losses = []
    for seed in (1, 2):
        rows = [row.split(",") for row in (out / "trial-000" / f"seed{seed}" / "metrics.csv").read_text().splitlines()]
        best = max(rows[1:], key=lambda row: float(row[rows[0].index("val/macro_f1")]))
        losses.append(float(best[rows[0].index("val/loss")]))
    assert first.value == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert sorted(first.intermediate_values) == [0, 1, 2, 3], "two epochs of each seed"
    assert first.intermediate_values[3] == pytest.approx(first.value)
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda _: True)
    run(tune("seeds=[1,2]", "metric=loss", "startup=0", "warmup=0", "storage=journal", "trials=3"))
    last = optuna.load_study(study_name="tune", storage=storage).trials[-1]
    assert (last.state.name, sorted(last.intermediate_values)) == ("PRUNED", [0])
    assert list((out / "trial-000").rglob("best.ckpt"))
    assert not list((out / "trial-002").rglob("*.ckpt"))


def test_a_killed_workers_trial_is_taken_up(tune: Tune, trained: TrainConfig, tmp_path: Path) -> None:
    """A worker is killed after an epoch; the next one goes on with its trial where it was, not with another draw."""
    config = tune("trials=1")
    words = config.overrides.replace("head.epochs=2", "head.epochs=6") + " schedule.phases.head.patience=6"
    line = [f'overrides="{words}"', f"out={config.out}", "trials=1", "startup=2", *SPACE]
    code = (
        "import os, signal, sys\n"
        "from skinlesion.training.callbacks import History\n"
        "from skinlesion.commands import launch\n"
        "from skinlesion.config.studies import TuneConfig\n"
        "add = History.on_train_epoch_end\n"
        "def die(self, trainer, module):\n"
        "    add(self, trainer, module)\n"
        "    if len(self.rows) == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "History.on_train_epoch_end = die\n"
        "launch.start('tune', TuneConfig, sys.argv[1:])\n"
    )
    died = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (left,) = trials(config)
    assert left.state.name == "RUNNING"
    before = dict(left.intermediate_values)
    assert sorted(before) == [0, 1, 2]
    run(composed("tune", TuneConfig, *SPACE, f"overrides='{words}'", f"out={config.out}", "trials=1", "startup=2"))
    (found,) = trials(config)
    assert (found.state.name, found.params) == ("COMPLETE", left.params)
    assert sorted(found.intermediate_values) == [0, 1, 2, 3, 4, 5]
    assert {step: found.intermediate_values[step] for step in before} == before
    whole = configuration(
        "train",
        TrainConfig,
        *words.split(),
        *[f"{k}={v!r}" for k, v in found.params.items()],
        f"out={tmp_path / 'whole'}",
        "logger=none",
        "seed=1",
        "trainer.enable_progress_bar=false",
    )
    outcome = train(whole)
    assert outcome is not None
    assert found.value == outcome.best.macro_f1, "as if it had not been interrupted"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("+space.loss.gama={low: 0, high: 1}",), r"loss\.gama: unknown key; did you mean loss\.gamma"),
        (("+space.loss.gamma={low: 2, high: 1}",), r"space\.loss\.gamma: low=2, high=1: expected low below high"),
        (
            ("+space.loss.gamma={low: 0, high: 1, log: true}",),
            r"space\.loss\.gamma\.low=0: expected more than 0, where log",
        ),
        (("+space.loss.gamma=[1]",), r"space\.loss\.gamma=\[1\]: expected two choices or more"),
        (("+space.loss.gamma={low: 0}",), r"space\.loss\.gamma=\{low: 0\}: expected \{low: NUMBER"),
        (("+space.model.dropout={low: 0.0, high: 1.5}",), r"model\.dropout=1\.5: expected"),
        (("+space.model=[tiny_resnet,tiny_resnets]",), r"model=tiny_resnets: unknown choice"),
        (("metric=auroc",), r"metric=auroc: expected one of macro_f1, accuracy, loss"),
        (("storage=postgres",), r"storage=postgres: expected sqlite, journal or a URL"),
        (("storage='nothing://there'",), r"storage=nothing://there: cannot be used .*; give sqlite, journal"),
        (("seeds=[]",), r"seeds=\[\]: expected one seed or more"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(tune: Tune, given: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        run(tune(*given))
    assert "\n" not in str(refused.value)


def test_a_failing_trial_does_not_end_the_search_but_three_in_a_row_do(
    tune: Tune, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise ConfigError("phase head diverged in epoch 1")

    monkeypatch.setattr("skinlesion.commands.train.run", fail)
    config = tune("trials=5")
    with pytest.raises(ConfigError, match="3 trials in a row failed"):
        run(config)
    assert [each.state.name for each in trials(config)] == ["FAIL"] * 3
    assert len(calls) == 3
    assert "trial-000: failed: phase head diverged" in caplog.text


def test_optuna_that_is_not_there_is_named(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"optuna is not installed: pip install 'skinlesion\[optuna\]'"):
        run(tune())


def test_corners_hold_every_end_and_choice() -> None:
    space = read_space({"a": {"b": {"low": 1, "high": 4}, "c.d": ["x", "y", None]}, "model": ["m", "n"]})
    assert corners(space) == [
        ["a.b=1", "a.c.d=x", "model=m"],
        ["a.b=4", "a.c.d=y", "model=n"],
        ["a.b=1", "a.c.d=null", "model=m"],
    ]


@pytest.mark.parametrize("content", ["", "overrides: loss.gamma=1", "other: 1", "overrides: [1]", "{"])
def test_a_file_of_overrides_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"best\.yaml: expected a file of overrides, as `skinlesion tune` writes it"):
        read_words([str(path)], "train", TrainConfig)
