"""Starts a command: Hydra composes, the schema checks, the command runs; errors come out as messages, not as traces."""

import ctypes
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, unquote

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from skinlesion.config.overrides import read_words
from skinlesion.config.reference import groups
from skinlesion.config.validation import explain, require_out, typed
from skinlesion.config.values import is_sweep
from skinlesion.errors import ConfigError, SkinlesionError, printable
from skinlesion.files import config_dir, disk_faults, read_json, write_json
from skinlesion.inference.hub import localize
from skinlesion.terminal import collect_messages, log_to_file_alone

TERMINATED = 128 + signal.SIGTERM  # exit status

_COMMAND: list[str] = []
_SWEEP = "SKINLESION_SWEEP"  # environment variable of a job: a _Sweep
_GRACE = 5.0  # seconds in which the tasks of a job may fail for the same reason
_PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that this process gets when its parent ends


@dataclass(frozen=True)
class _Sweep:
    """What a multirun tells its jobs, on whichever machine they run."""

    keys: list[str]  # swept on the command line
    failures: str  # folder of failures, absolute, under `out`
    starter: int  # process id


class PassToJobs(Callback):
    """Hydra's callback that tells the jobs of a multirun which keys are swept and where failures are kept.

    It does so by an override: every launcher composes a job's configuration from the overrides, and Hydra's
    `job.env_set` reaches machines to which no environment variable of this process does.
    """

    sweeps: list[_Sweep] = []  # noqa: RUF012  # of this process

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Add the override; paths are absolute, since a worker may start in another folder."""
        place = Path(config.hydra.sweep.dir).absolute()
        keys = [word.partition("=")[0].lstrip("+") for word in config.hydra.overrides.task if is_sweep(word)]
        sweep = _Sweep(keys, str(place / ".failures" / secrets.token_hex(4)), os.getpid())
        with read_write(config), open_dict(config):
            text = quote(json.dumps(asdict(sweep)), safe="")
            config.hydra.overrides.hydra.append(f"++hydra.job.env_set.{_SWEEP}='{text}'")
        self.sweeps.append(sweep)


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
    signal.signal(signal.SIGTERM, _terminate)
    started: list[bool] = []
    try:
        task = _task(command, schema, started)
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(task)()
    except KeyboardInterrupt:
        _refuse(command, "stopped by Ctrl-C", status=130)
    except Exception as error:
        composing = isinstance(error, HydraException | OmegaConfBaseException) or not started
        is_lost = type(error).__name__ == "UncompletedJobError"  # submitit's, which may not be installed
        if wants_traces or not composing:
            raise
        _refuse(command, _lost(error) if is_lost else explain(error, schema))
    finally:
        failed = any(_report_members(command, Path(sweep.failures)) for sweep in PassToJobs.sweeps)
    if failed:
        raise SystemExit(1)


def _lost(error: Exception) -> str:
    """Name a job of Slurm that ended without a result: killed, out of memory, or with a task that failed."""
    job = " ".join(str(error).splitlines()[:2])
    return f"{job}; what it printed lies in .submitit in the sweep's folder, and the same command goes on"


def multirun() -> bool:
    """Whether this is one job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def starts_tasks() -> bool:
    """Whether the launcher of this job starts its processes itself, as Slurm's does, and not this program."""
    return "submitit" in HydraConfig.get().launcher._target_


def swept() -> dict[str, str]:
    """The swept keys in the order of the command line, with this job's values; the job's number plays no part."""
    values = dict(
        override.lstrip("+").split("=", 1) for override in HydraConfig.get().overrides.task if "=" in override
    )
    swept_keys = [*(_sweep().keys if _SWEEP in os.environ else []), *sweep_keys()]
    return {key: values[key] for key in swept_keys if key in values}


def _sweep() -> _Sweep:
    return _Sweep(**json.loads(unquote(os.environ[_SWEEP])))


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
        if multirun() and "joblib" in chosen.launcher._target_:
            _end_with(_sweep().starter)
        with collect_messages():
            log_to_file_alone(f"skinlesion {command} {' '.join(chosen.overrides.task)}")
            try:
                if multirun():
                    os.chdir(chosen.runtime.cwd)  # of a worker of Ray, which starts elsewhere
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
    """Keep a failure under `out` for the end of the multirun; end this task if the job's others wait for it."""
    folder, number = Path(_sweep().failures), HydraConfig.get().job.num
    job = " ".join(f"{key}={value}" for key, value in swept().items())
    write_json(folder / f"{number}-{_rank()}.json", [job, message])
    tasks = int(os.environ.get("SLURM_NTASKS", 1))
    deadline = time.monotonic() + _GRACE
    while len([*folder.glob(f"{number}-*.json")]) < tasks:
        if time.monotonic() > deadline:
            raise SystemExit(1)
        time.sleep(0.1)


def _report_members(command: str, folder: Path) -> bool:
    """Name the jobs of a multirun that failed, those with the same message together; whether there are any."""
    jobs: dict[str, dict[str, None]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem.partition("-")[0])):
        job, message = read_json(path, tuple[str, str], error=SkinlesionError, advice="see run.log")
        jobs.setdefault(message, {})[job] = None
        path.unlink()
    for message, each in jobs.items():
        named = f" ({'; '.join(each)})" if any(each) else ""
        print(printable(f"skinlesion {command}: {len(each)} failed{named}:\n  {message}"), file=sys.stderr)
    if jobs:
        folder.rmdir()
        with suppress(OSError):  # of another multirun
            folder.parent.rmdir()
    return bool(jobs)


def _refuse(command: str, message: str, *, status: int = 1) -> NoReturn:
    speaker = "" if _rank() == "0" else f"process {_rank()}: "
    print(printable(f"skinlesion {command}: {speaker}{message}"), file=sys.stderr)
    raise SystemExit(status)


def _rank() -> str:
    return next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if os.environ.get(name)), "0")
