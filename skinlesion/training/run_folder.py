"""The folder of one training run: what it holds, who works in it, and how far its phases have come."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.files import require_writable, sweep, write_json, write_text

# Keys that may differ between a run and its continuation: they change nothing in the result.
_FREE = {
    "out",
    "member",
    "expected_members",
    "resume",
    "logger",
    "data.cache_dir",
    "loader.workers",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
}

_PROGRESS = ("metrics.json", "last.ckpt", "phases")  # any of them: something would be lost
_FILES = (
    *_PROGRESS,
    "best.ckpt",
    "config.yaml",
    "history.png",
    "layer_state.json",
    "metrics.csv",
    "predictions_test.csv",
    "predictions_val.csv",
    "run.log",
    "split.csv",
    "tensorboard",
)


@dataclass(frozen=True)
class PhaseResult:
    """A phase that has run to its end."""

    phase: str
    checkpoint: str  # file name in the folder of phases
    macro_f1: float  # of the best epoch, on validation
    trainable: dict[str, bool]  # layers of the backbone, in depth order
    rows: list[dict[str, Any]]  # history of this and earlier phases, a row an epoch


@contextmanager
def claimed(folder: Path, config: TrainConfig) -> Iterator[None]:
    """Hold the folder for this process and this configuration; write config.yaml.

    Args:
        folder: Of the run.
        config: Its `resume` says whether an earlier run in the folder is resumed or deleted.

    Raises:
        ConfigError: The folder belongs to another configuration, or another process trains in it.
    """
    require_writable(folder, "out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"out={folder}: another process is training there; wait for it or give another out") from None
    try:
        if config.resume == "restart":
            _clear(folder)
        for place in (folder, phases_folder(folder)):
            sweep(place)
        _refuse_other_configuration(folder, config)
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
        yield
    finally:
        lock.release()


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end: metrics.json is written last."""
    return (folder / "metrics.json").exists()


def phases_folder(folder: Path) -> Path:
    """The folder with the best checkpoint of each phase."""
    return folder / "phases"


def read_results(folder: Path) -> list[PhaseResult]:
    """Read which phases of a run have finished, in order."""
    path = phases_folder(folder) / "finished.json"
    return [PhaseResult(**each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def write_results(results: list[PhaseResult], folder: Path) -> None:
    """Write which phases of a run have finished."""
    write_json(phases_folder(folder) / "finished.json", [asdict(each) for each in results])


def best_checkpoint(results: list[PhaseResult], folder: Path) -> Path:
    """The checkpoint with the best macro-F1 of all phases."""
    return phases_folder(folder) / max(results, key=lambda each: each.macro_f1).checkpoint


def _refuse_other_configuration(folder: Path, config: TrainConfig) -> None:
    path = folder / "config.yaml"
    if not path.exists() or not any((folder / name).exists() for name in _PROGRESS):
        return
    there = _flat(OmegaConf.to_container(OmegaConf.load(path)))
    here = _flat(asdict(config))
    differing = sorted(
        key for key in there.keys() | here.keys() if there.get(key) != here.get(key) and key not in _FREE
    )
    if differing:
        first = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ConfigError(
            f"out={folder}: holds a run with {first}={there.get(first)}, this one has {here.get(first)}{more}; "
            "give another out, or resume=restart to delete that run"
        )


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
