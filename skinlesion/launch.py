"""How a verb starts: Hydra composes, the gate checks, the verb runs; errors come out as messages, not as traces."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from skinlesion.errors import ConfigError, SkinlesionError
from skinlesion.gate import config_dir, explain, typed

Schema = TypeVar("Schema")

_COMMAND: list[str] = []
_FAILURES = "SKINLESION_FAILURES"  # an environment variable reaches the jobs of every launcher


def launch(verb: str, schema: type[Schema], run: Callable[[Schema], None]) -> None:
    """Run `run(configuration)` with the command line's overrides, once or as a multirun.

    A job of a multirun that fails does not stop the others; the end names every one that failed.

    Args:
        verb: Names the primary configuration, `conf/VERB.yaml`, and the program in messages.
        schema: The dataclass that the configuration is checked against.
        run: The verb.

    Raises:
        SystemExit: With status 1, after one to three lines on stderr, when the user can mend what is wrong.
    """
    sys.argv[0] = f"skinlesion {verb}"
    _COMMAND[:] = [sys.executable, "-m", f"skinlesion.{verb}", *sys.argv[1:]]
    wants_traces = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing pages of its own
    with tempfile.TemporaryDirectory() as folder:
        failures = Path(folder) / "failures.jsonl"
        os.environ[_FAILURES] = str(failures)
        started: list[bool] = []

        def job(config: DictConfig) -> None:
            started.append(True)
            run(typed(config, schema))

        try:
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(_recording(job))()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except Exception as error:
            composing = isinstance(error, HydraException | OmegaConfBaseException) or not started
            if wants_traces or not composing:
                raise
            _refuse(verb, explain(error, schema))
        finally:
            _report_members(verb, failures)
        _report_run(verb, failures)


def multirun() -> bool:
    """Whether this is one job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job_number() -> int:
    """The number of this job in its multirun, from 0."""
    return int(HydraConfig.get().job.num)


def command() -> list[str]:
    """What starts this program again with the same arguments, however it was called.

    Raises:
        ConfigError: A verb's `run` was called from Python.
    """
    if not _COMMAND:
        raise ConfigError("trainer.devices: several processes can be started from the command line only")
    return list(_COMMAND)


def _recording(job: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    def task(config: DictConfig) -> None:
        try:
            job(config)
        except SkinlesionError as error:
            _record(str(error))
        except Exception as error:
            _record(f"{type(error).__name__}: {error}")
            raise

    return task


def _record(message: str) -> None:
    job = " ".join(HydraConfig.get().overrides.task) if multirun() else ""
    with Path(os.environ[_FAILURES]).open("a", encoding="utf-8") as failures:
        failures.write(json.dumps([job, message]) + "\n")


def _read(failures: Path) -> list[tuple[str, str]]:
    lines = failures.read_text(encoding="utf-8").splitlines() if failures.exists() else []
    return [(job, message) for job, message in map(json.loads, lines)]


def _report_members(verb: str, failures: Path) -> None:
    members = [(job, message) for job, message in _read(failures) if job]
    for message in dict.fromkeys(message for _, message in members):
        jobs = [job for job, other in members if other == message]
        print(f"skinlesion {verb}: {len(jobs)} failed ({'; '.join(jobs)}):\n  {message}", file=sys.stderr)


def _report_run(verb: str, failures: Path) -> None:
    failed = _read(failures)
    alone = [message for job, message in failed if not job]
    if alone:
        _refuse(verb, alone[0])
    if failed:
        raise SystemExit(1)


def _refuse(verb: str, message: str) -> NoReturn:
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    speaker = "" if rank == "0" else f"process {rank}: "
    print(f"skinlesion {verb}: {speaker}{message}", file=sys.stderr)
    raise SystemExit(1)
