"""The folder of one training run: what it holds, who works in it, and how far its phases have come."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from filelock import Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from skinlesion.config.schema import FileName, Range
from skinlesion.config.train import TrainConfig
from skinlesion.errors import CheckpointError, ConfigError
from skinlesion.files import locked, read_json, require_writable, sweep, write_json, write_text
from skinlesion.taxonomy import HAM10000, read_taxonomy

# Keys that may differ between a run and its continuation: they change nothing in the result.
_FREE = {
    "out",
    "member",
    "model.name",
    "loss.name",
    "expected_members",
    "resume",
    "judge",
    "logger",
    "data.cache_dir",
    "data.stream_gb",
    "loader.workers",
    "trainer.detect_anomaly",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.max_time",
    "trainer.profiler",
}

_PROGRESS = ("metrics.json", "last.ckpt", "phases")  # any of them: something would be lost
_FILES = (
    *_PROGRESS,
    "best.ckpt",
    "config.yaml",
    "csv",
    "history.png",
    "layer_state.json",
    "metrics.csv",
    "mlflow.db",
    "predictions_test.csv",
    "predictions_val.csv",
    "profile",
    "run.log",
    "split.csv",
    "tensorboard",
    "tracking.json",
    "tracking.mlflow.txt",
    "tracking.wandb.txt",
    "wandb",
)


@dataclass(frozen=True)
class PhaseResult:
    """A phase that has run to its end."""

    phase: str
    checkpoint: FileName  # in the folder of phases
    macro_f1: Annotated[float, Range(0, 1)]  # of the best epoch, on validation
    trainable: dict[str, bool]  # layers of the backbone, in depth order
    rows: list[dict[str, int | float | str | None]]  # of this and earlier phases, a row an epoch; None: not validated


@contextmanager
def claimed(folder: Path, config: TrainConfig, *, swept: Sequence[str] = ()) -> Iterator[None]:
    """Hold the folder for this process and this configuration; write config.yaml.

    Args:
        folder: Of the run.
        config: Its `resume` says whether an earlier run in the folder is resumed or deleted.
        swept: Keys of the sweep whose member this is. A run that differs in one is another member's: never deleted.

    Raises:
        ConfigError: The folder belongs to another configuration, or another process trains in it.
    """
    require_writable(folder, "out")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".lock", timeout=0))
        except Timeout:
            raise ConfigError(
                f"out={folder}: another process is training there; wait for it or give another out"
            ) from None
        differing = _differing(folder, config)
        if of_another := [line for key, line in differing.items() if key.removesuffix(".name") in swept]:
            raise ConfigError(f"out={folder}: {of_another[0]}: another member's; give another out or member=null")
        changed = [line for key, line in differing.items() if key not in _FREE]
        if config.resume == "restart" and not _is_requeued(folder):
            _clear(folder)
        elif changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ConfigError(
                f"out={folder}: {changed[0]}{more}; give another out, or resume=restart to delete that run"
            )
        for place in (folder, phases_folder(folder)):
            sweep(place)
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
        yield


def _is_requeued(folder: Path) -> bool:
    """Whether this is a job of Slurm that has restarted the run already, and was queued again; note that it has."""
    job, mark = os.environ.get("SLURM_JOB_ID", ""), folder / ".restarted"
    is_requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and mark.exists() and mark.read_text() == job
    if job and not is_requeued:
        write_text(mark, job)
    return is_requeued


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end: metrics.json is written last."""
    return (folder / "metrics.json").exists()


def phases_folder(folder: Path) -> Path:
    """The folder with the best checkpoint of each phase."""
    return folder / "phases"


def read_results(folder: Path, phases: Sequence[str]) -> list[PhaseResult]:
    """Read which of the phases of a run have finished, in order.

    Raises:
        CheckpointError: The file that says so is damaged.
    """
    path = phases_folder(folder) / "finished.json"
    if not path.exists():
        return []
    advice = "start anew with resume=restart"
    results: list[PhaseResult] = read_json(path, list[PhaseResult], error=CheckpointError, advice=advice)
    for place, each in enumerate(results):
        if each.phase not in phases[place : place + 1]:
            there = ", ".join(phases)
            raise CheckpointError(f"{path}: {place}.phase: {each.phase!r}, but this schedule has {there}; {advice}")
    return results


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run, of whichever version.

    Raises:
        CheckpointError: Its config.yaml cannot be read.
    """
    path = folder / "config.yaml"
    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not readable ({reason}); start anew with resume=restart") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected keys and values; start anew with resume=restart")
    return {str(key): value for key, value in found.items()}


def write_results(results: list[PhaseResult], folder: Path) -> None:
    """Write which phases of a run have finished."""
    write_json(phases_folder(folder) / "finished.json", [asdict(each) for each in results])


def best_checkpoint(results: list[PhaseResult], folder: Path) -> Path:
    """The checkpoint with the best macro-F1 of all phases."""
    return phases_folder(folder) / max(results, key=lambda each: each.macro_f1).checkpoint


@dataclass(frozen=True)
class Outcome:
    """A run that has come to its end: its folder, which holds best.ckpt, and its history, a row an epoch."""

    folder: Path
    best: PhaseResult  # the phase that best.ckpt is from
    rows: list[dict[str, int | float | str | None]]

    @classmethod
    def read(cls, folder: Path, phases: Sequence[str]) -> Self:
        """Read what a finished run has left."""
        results = read_results(folder, phases)
        return cls(folder, max(results, key=lambda each: each.macro_f1), results[-1].rows)

    @property
    def best_epoch(self) -> str:
        """Phase, epoch and score of best.ckpt, for people."""
        scores = [row["val/macro_f1"] for row in self.best.rows if row["phase"] == self.best.phase]
        epoch = scores.index(self.best.macro_f1) + 1
        return f"phase {self.best.phase}, epoch {epoch} of {len(scores)}: val macro-F1 {self.best.macro_f1:.3f}"


def _differing(folder: Path, config: TrainConfig) -> dict[str, str]:
    """How the run in a folder differs from a configuration, by key, also in what does not change the result."""
    path = folder / "config.yaml"
    if not path.exists() or not any((folder / name).exists() for name in _PROGRESS):
        return {}
    before = {"taxonomy": read_taxonomy(HAM10000.name)}  # of runs of before it and the next ones were keys
    added = {"data.hair": "keep", "data.colour_constancy": "none", "data.stream": None, "model.padding": True}
    there = {**added, **_flat({**before, **read_config(folder)})}
    here = _flat(asdict(config))
    there |= {key: 1.0 for key in here.keys() - there.keys() if key.endswith(".layer_decay")}
    for values in (there, here):  # a category that was not given was "unknown" before it could be that of known words
        values |= {key: None for key, value in values.items() if key.endswith(".category") and value == "unknown"}
    return {
        key: f"holds a run with {key}={there.get(key)}, this one has {here.get(key)}"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key) and not key.startswith("taxonomy.words.")  # the diagnoses are compared
    }


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {key: value for name, part in node.items() for key, value in _flat(part, f"{prefix}{name}.").items()}


def _clear(folder: Path) -> None:
    """Delete the files of a run, and nothing else: `out` may have been mistyped."""
    for name in _FILES:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
