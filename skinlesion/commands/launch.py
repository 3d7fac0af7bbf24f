"""Starts a command: Hydra composes, the schema checks, the command runs; errors come out as messages, not as traces."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from skinlesion.config.overrides import is_sweep, read_words
from skinlesion.config.reference import groups
from skinlesion.config.validation import explain, require_out, typed
from skinlesion.errors import ConfigError, SkinlesionError
from skinlesion.files import config_dir, disk_faults
from skinlesion.terminal import collect_messages, log_to_file_alone

_COMMAND: list[str] = []
_SWEPT = "SKINLESION_SWEPT"
_FAILURES = "SKINLESION_FAILURES"  # an environment variable reaches the jobs of every launcher


def start(command: str, schema: type, words: Sequence[str]) -> None:
    """Run a command, once or as a multirun.

    A job of a multirun that fails does not stop the others; the end names every one that failed.

    Args:
        command: Name of the command, of `conf/COMMAND.yaml` and of the module in `skinlesion.commands`.
        schema: The dataclass that the configuration is checked against.
        words: Words after the command's name.

    Raises:
        SystemExit: Status 1, after one to three lines on stderr, for an error that the user can correct.
    """
    _COMMAND[:] = [sys.executable, "-m", "skinlesion", command, *words]
    try:
        line = read_words(words, command, schema)
    except ConfigError as error:
        _refuse(command, str(error))
    overrides = list(line.overrides)
    if line.is_multirun and "sweep" in groups(command) and not any(word.startswith("sweep=") for word in overrides):
        overrides.append("sweep=by_hand")
    sys.argv = [f"skinlesion {command}", *overrides, *line.flags]
    os.environ[_SWEPT] = json.dumps([word.partition("=")[0].lstrip("+") for word in overrides if is_sweep(word)])
    wants_traces = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing pages of its own
    with tempfile.TemporaryDirectory() as folder:
        failures = Path(folder) / "failures.jsonl"
        os.environ[_FAILURES] = str(failures)
        started: list[bool] = []
        try:
            task = _task(command, schema, started)
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(task)()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except Exception as error:
            composing = isinstance(error, HydraException | OmegaConfBaseException) or not started
            if wants_traces or not composing:
                raise
            _refuse(command, explain(error, schema))
        finally:
            _report_members(command, failures)
        _report_run(command, failures)


def multirun() -> bool:
    """Whether this is one job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def swept() -> dict[str, str]:
    """The swept keys in the order of the command line, with this job's values; the job's number plays no part."""
    values = dict(
        override.lstrip("+").split("=", 1) for override in HydraConfig.get().overrides.task if "=" in override
    )
    swept_keys = [*json.loads(os.environ.get(_SWEPT, "[]")), *sweep_keys()]
    return {key: values[key] for key in swept_keys if key in values}


def sweep_keys() -> list[str]:
    """The keys that the configuration itself sweeps (`hydra.sweeper.params`), such as model and loss of sweep=six."""
    return [str(key) for key in HydraConfig.get().sweeper.get("params") or {}]


def command() -> list[str]:
    """The command line that starts this program again with the same arguments.

    Raises:
        ConfigError: A command's `run` was called from Python.
    """
    if not _COMMAND:
        raise ConfigError("trainer.devices: several processes can be started from the command line only")
    return list(_COMMAND)


def _task(command: str, schema: type, started: list[bool]) -> Callable[[DictConfig], None]:
    """Build the function that Hydra calls for each job, in whichever process; failures are kept for the end."""

    def task(config: DictConfig) -> None:
        started.append(True)
        with collect_messages():
            log_to_file_alone(f"skinlesion {command} {' '.join(HydraConfig.get().overrides.task)}")
            try:
                checked: Any = typed(config, schema)
                require_out(command, checked)
                with disk_faults():
                    import_module(f"skinlesion.commands.{command}").run(checked)
            except SkinlesionError as error:
                _record(str(error))
            except Exception as error:
                _record(f"{type(error).__name__}: {error}")
                raise

    return task


def _record(message: str) -> None:
    log_to_file_alone(message, logging.ERROR)
    job = " ".join(HydraConfig.get().overrides.task) if multirun() else ""
    with Path(os.environ[_FAILURES]).open("a", encoding="utf-8") as failures:
        failures.write(json.dumps([job, message]) + "\n")


def _read(failures: Path) -> list[tuple[str, str]]:
    lines = failures.read_text(encoding="utf-8").splitlines() if failures.exists() else []
    return [(job, message) for job, message in map(json.loads, lines)]


def _report_members(command: str, failures: Path) -> None:
    members = [(job, message) for job, message in _read(failures) if job]
    for message in dict.fromkeys(message for _, message in members):
        jobs = [job for job, other in members if other == message]
        print(f"skinlesion {command}: {len(jobs)} failed ({'; '.join(jobs)}):\n  {message}", file=sys.stderr)


def _report_run(command: str, failures: Path) -> None:
    failed = _read(failures)
    alone = [message for job, message in failed if not job]
    if alone:
        _refuse(command, alone[0])
    if failed:
        raise SystemExit(1)


def _refuse(command: str, message: str) -> NoReturn:
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    speaker = "" if rank == "0" else f"process {rank}: "
    print(f"skinlesion {command}: {speaker}{message}", file=sys.stderr)
    raise SystemExit(1)
