"""`skinlesion tune`: a search for settings of `train`, a trial after another, by as many workers as are started."""

import json
import logging
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from skinlesion.config.studies import TuneConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError, SkinlesionError
from skinlesion.terminal import log_to, next_command

if TYPE_CHECKING:
    from optuna import Study, Trial

    from skinlesion.studies.tune.study import SharedStudy

log = logging.getLogger(__name__)

BEST = "best.yaml"
_FAILURES = 3  # trials of a worker in a row after whose failure it gives up
_FIGURES = (
    "plot_optimization_history",
    "plot_param_importances",
    "plot_slice",
    "plot_parallel_coordinate",
    "plot_intermediate_values",
)


def run(config: TuneConfig) -> None:
    """Run the trials that no other worker runs, and write best.yaml and the figures.

    The same command goes on with a study, also beside itself: what another worker has begun and left is gone on with.

    Raises:
        SkinlesionError: The space, the storage or the data cannot be used, or one trial after another fails.
    """
    from skinlesion.studies.tune.space import corners, read_space
    from skinlesion.studies.tune.study import SharedStudy, make_pruner

    out, space = Path(config.out), read_space(config.space)
    pruner = make_pruner(config.pruner, startup=config.startup, warmup=config.warmup)
    repeats = _repeats(config)
    for values in corners(space):
        _refuse(_compose(config, values, repeats[0], out))
    keys = ("space", "overrides", "metric", "seeds", "folds")
    settings = {key: asdict(config)[key] for key in keys}
    own: dict[str, Any] = {"storage": config.storage, "name": config.study, "seed": config.seed}
    own |= {"startup": config.startup, "maximize": config.metric != "loss", "pruner": pruner}
    study = SharedStudy(out, settings, **own)
    log_to(out)
    failures = 0
    while failures < _FAILURES:
        with study.next_trial(space, trials=config.trials) as held:
            if held is None:
                break
            is_ended = _run_trial(study, *held, repeats=repeats, config=config)
            failures = 0 if is_ended else failures + 1
            _write_best(study, config)
    _draw(study)
    if failures == _FAILURES:
        raise ConfigError(f"out={out}: {failures} trials in a row failed, see above; mend it, or change space")
    _say_how_it_stands(study, config)


def _repeats(config: TuneConfig) -> list[tuple[str, list[str]]]:
    """The folder in a trial's, and the overrides, of each training of a trial."""
    folds = [[]] if config.folds is None else [[f"split.fold={fold}"] for fold in config.folds]
    pairs = [[f"seed={seed}", *fold] for fold, seed in product(folds, config.seeds)]
    names = ["-".join(word.replace("split.", "").replace("=", "") for word in reversed(pair)) for pair in pairs]
    return list(zip(names if len(pairs) > 1 else [""], pairs, strict=True))


def _compose(config: TuneConfig, values: Sequence[str], repeat: tuple[str, list[str]], folder: Path) -> TrainConfig:
    """The configuration of a training."""
    from skinlesion.config.validation import configuration

    name, words = repeat
    fixed = ["judge=[val]", "logger=none", "trainer.enable_progress_bar=false", f"out={folder / name}"]
    return configuration("train", TrainConfig, *shlex.split(config.overrides), *values, *words, *fixed)


def _refuse(config: TrainConfig) -> None:
    """Refuse a training that a search cannot run."""
    from skinlesion.training.distributed import make_fabric

    if (devices := make_fabric(config.trainer).world_size) > 1:
        raise ConfigError(f"trainer.devices={devices}: a trial trains on one device; start a worker for each instead")


def _run_trial(
    study: "SharedStudy",
    trial: "Trial",
    values: Sequence[str],
    *,
    repeats: Sequence[tuple[str, list[str]]],
    config: TuneConfig,
) -> bool:
    """Train, and tell the study the outcome; whether the trial came to an end, or was pruned."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    folder = study.folder(trial.number)
    log.info("%s: %s", folder.name, " ".join(values))
    try:
        value = _train(trial, values, repeats=repeats, config=config, folder=folder)
    except TrialPruned:
        log.info("%s: pruned", folder.name)
        study.study.tell(trial, state=TrialState.PRUNED)
        _drop_checkpoints(folder)
    except Exception as error:  # of whatever kind: the same settings would fail again
        log.warning("%s: failed: %s", folder.name, [*str(error).splitlines(), type(error).__name__][0])
        study.study.tell(trial, state=TrialState.FAIL)
        _drop_checkpoints(folder)
        if not isinstance(error, SkinlesionError):
            raise
        return False
    else:
        study.study.tell(trial, value)
        log.info("%s: %s %.4f", folder.name, config.metric, value)
    return True


def _train(
    trial: "Trial",
    values: Sequence[str],
    *,
    repeats: Sequence[tuple[str, list[str]]],
    config: TuneConfig,
    folder: Path,
) -> float:
    """The mean of the metric over the trainings of a trial, each reported an epoch at a time."""
    from skinlesion.commands.train import run as train
    from skinlesion.training.callbacks import EpochReport

    means: list[float] = []
    for place, repeat in enumerate(repeats):
        chosen = _compose(config, values, repeat, folder)
        first = place * sum(phase.epochs for phase in chosen.schedule.phases.values())
        tell = partial(_report, trial, metric=config.metric, before=[*means], first=first)
        outcome = train(chosen, callbacks=[EpochReport(tell)])
        assert outcome is not None
        means.append(_score(outcome.rows, config.metric))
    return fmean(means)


def _report(
    trial: "Trial", rows: Sequence[Mapping[str, Any]], metric: str, *, before: Sequence[float], first: int
) -> None:
    """Tell a trial its metric after an epoch: of the best one so far, as the mean with the earlier trainings.

    Args:
        trial: The trial.
        rows: Of this training's epochs.
        metric: macro_f1, accuracy or loss.
        before: The metric of the trial's earlier trainings.
        first: Number of this training's first epoch in the trial.

    Raises:
        TrialPruned: The trial is worse than others.
    """
    import optuna

    if rows[-1]["val/macro_f1"] is None:  # an epoch that was not validated
        return
    step = first + len(rows) - 1
    if step not in trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
        trial.report(fmean([*before, _score(rows, metric)]), step)
    if trial.should_prune():
        raise optuna.TrialPruned


def _score(rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    """The metric on validation at the epoch that is kept, that of the best macro-F1."""
    validated = [row for row in rows if row["val/macro_f1"] is not None]
    return float(max(validated, key=lambda row: float(row["val/macro_f1"]))[f"val/{metric}"])


def _drop_checkpoints(folder: Path) -> None:
    for path in folder.rglob("*.ckpt"):
        path.unlink()


def _write_best(study: "SharedStudy", config: TuneConfig) -> None:
    """Write the overrides of the best trial so far."""
    from optuna.trial import TrialState

    from skinlesion.files import write_text

    with study.reading() as own:
        if not own.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return
        best, path = own.best_trial, study.out / BEST
        values = [f"{key}={value}" for key, value in best.params.items()]
        words = [*shlex.split(config.overrides), *values]
        about = [
            f"# Trial {best.number}: {config.metric} {best.value:.4f} on the lesions that chose it, which is too good.",
            f"# skinlesion train {path} out=FOLDER",
        ]
        lines = [f"  - {json.dumps(word, ensure_ascii=False)}" for word in words]
        write_text(path, "\n".join([*about, "overrides:", *lines, ""]))


def _draw(study: "SharedStudy") -> None:
    """Save Optuna's own figures, those that the trials suffice for."""
    import matplotlib.pyplot as plt
    import optuna

    from skinlesion.plots.style import save

    for name in _FIGURES:
        draw: Callable[[Study], Any] = getattr(optuna.visualization.matplotlib, name)
        try:
            with warnings.catch_warnings(), study.reading() as own:
                warnings.simplefilter("ignore")  # the module calls itself experimental
                axes = draw(own)
                figure = getattr(axes, "flat", [axes])[0].figure
                save(figure, study.out / f"{name.removeprefix('plot_')}.png")
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            log.info("%s: not drawn: %s", name.removeprefix("plot_"), str(error).splitlines()[0])
        finally:
            plt.close("all")


def _say_how_it_stands(study: "SharedStudy", config: TuneConfig) -> None:
    from collections import Counter

    with study.reading() as own:
        states = Counter(each.state.name.lower() for each in own.get_trials(deepcopy=False))
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    log.info("%s: %d of %d trials: %s", study.out, sum(states.values()), config.trials, counted)
    if (path := study.out / BEST).exists():
        log.info("Best: %s", path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
        log.info(next_command("train", str(path), f"out={study.out / 'best'}"))
