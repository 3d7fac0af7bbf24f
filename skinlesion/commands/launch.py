"""Starts a command: Hydra composes, the schema checks, the command runs; errors come out as messages, not as traces."""

import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from skinlesion.config.overrides import read_words
from skinlesion.config.reference import groups
from skinlesion.config.validation import explain, require_out, typed
from skinlesion.config.values import is_sweep
from skinlesion.errors import ConfigError, SkinlesionError, printable
from skinlesion.files import config_dir, disk_faults
from skinlesion.inference.hub import localize
from skinlesion.terminal import collect_messages, log_to_file_alone

TERMINATED = 128 + signal.SIGTERM  # exit status

_COMMAND: list[str] = []
# Environment variables, since they reach the jobs of every launcher:
_SWEPT = "SKINLESION_SWEPT"
_FAILURES = "SKINLESION_FAILURES"
_STARTER = "SKINLESION_STARTER"
_PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that this process gets when its parent ends


def start(command: str, schema: type, words: Sequence[str]) -> None:
    """Run a command, once or as a multirun.

    A job of a multirun that fails does not stop the others; the end names every one that failed.

    Args:
        command: Name of the command, of `conf/COMMAND.yaml` and of the module in `skinlesion.commands`.
        schema: The dataclass that the configuration is checked against.
        words: Words after the command's name.

    Raises:
        SystemExit: Status 1, after one to three lines on stderr, for an error that the user can correct; 130 after
            Ctrl-C, 143 after SIGTERM.
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
    wants_traces = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing pages of its own
    os.environ[_SWEPT] = json.dumps([word.partition("=")[0].lstrip("+") for word in overrides if is_sweep(word)])
    os.environ[_STARTER] = str(os.getpid())
    signal.signal(signal.SIGTERM, _terminate)
    started: list[bool] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_FAILURES] = f"{folder}/failures.jsonl"
        try:
            task = _task(command, schema, started)
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(task)()
        except KeyboardInterrupt:
            _refuse(command, "stopped by Ctrl-C", status=130)
        except Exception as error:
            composing = isinstance(error, HydraException | OmegaConfBaseException) or not started
            if wants_traces or not composing:
                raise
            _refuse(command, explain(error, schema))
        finally:
            failed = _report_members(command)
    if failed:
        raise SystemExit(1)


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
        chosen = HydraConfig.get()
        if multirun() and chosen.runtime.choices.get("hydra/launcher") == "joblib":
            _end_with(int(os.environ[_STARTER]))
        with collect_messages():
            log_to_file_alone(f"skinlesion {command} {' '.join(chosen.overrides.task)}")
            try:
                checked: Any = typed(config, schema)
                require_out(command, checked)
                localize(checked)
                with disk_faults():
                    import_module(f"skinlesion.commands.{command}").run(checked)
            except Exception as error:
                is_known = isinstance(error, SkinlesionError)
                message = str(error) if is_known else f"{type(error).__name__}: {error}"
                log_to_file_alone(message, logging.ERROR)
                if multirun():
                    _record(message)
                elif is_known:
                    _refuse(command, message)
                if not is_known:
                    raise

    return task


@cache
def _end_with(parent: int) -> None:
    """End this process, a worker of a sweep, when the one that started it has ended, however that came about."""
    if os.getpid() == parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _terminate(*_: object) -> NoReturn:
    """End as after an error: without a handler of ours, Lightning ends a training with status 0."""
    raise SystemExit(TERMINATED)


def _record(message: str) -> None:
    job = " ".join(f"{key}={value}" for key, value in swept().items())
    with Path(os.environ[_FAILURES]).open("a", encoding="utf-8") as failures:
        failures.write(json.dumps([job, message]) + "\n")


def _report_members(command: str) -> bool:
    """Name the jobs of a multirun that failed, those with the same message together; whether there are any."""
    failures = Path(os.environ[_FAILURES])
    jobs: dict[str, list[str]] = {}
    for line in failures.read_text(encoding="utf-8").splitlines() if failures.exists() else ():
        job, message = json.loads(line)
        jobs.setdefault(message, []).append(job)
    for message, each in jobs.items():
        named = f" ({'; '.join(each)})" if any(each) else ""
        print(printable(f"skinlesion {command}: {len(each)} failed{named}:\n  {message}"), file=sys.stderr)
    return bool(jobs)


def _refuse(command: str, message: str, *, status: int = 1) -> NoReturn:
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    speaker = "" if rank == "0" else f"process {rank}: "
    print(printable(f"skinlesion {command}: {speaker}{message}"), file=sys.stderr)
    raise SystemExit(status)
