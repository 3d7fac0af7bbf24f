"""How a verb starts: Hydra composes, the gate checks, the verb runs; errors come out as messages, not as traces."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from skinlesion.config.validation import explain, typed
from skinlesion.errors import ConfigError, SkinlesionError
from skinlesion.files import config_dir

Schema = TypeVar("Schema")

_COMMAND: list[str] = []
_SWEPT = "SKINLESION_SWEPT"
_FAILURES = "SKINLESION_FAILURES"  # an environment variable reaches the jobs of every launcher


def launch(verb: str, schema: type[Schema], run: Callable[[Schema], None], *, sweep: str | None = None) -> None:
    """Run `run(configuration)` with the command line's overrides, once or as a multirun.

    A job of a multirun that fails does not stop the others; the end names every one that failed.

    Args:
        verb: Names the primary configuration, `conf/VERB.yaml`, and the program in messages.
        schema: The dataclass that the configuration is checked against.
        run: The verb.
        sweep: The choice of the group `sweep` that -m stands for where none is given.

    Raises:
        SystemExit: With status 1, after one to three lines on stderr, when the user can mend what is wrong.
    """
    sys.argv[0] = f"skinlesion {verb}"
    if sweep and {"-m", "--multirun"} & {*sys.argv} and not any(word.startswith("sweep=") for word in sys.argv):
        others = [place for place, word in enumerate(sys.argv) if place and "=" in word and not word.startswith("-")]
        sys.argv.insert(others[0] if others else len(sys.argv), f"sweep={sweep}")  # argparse wants them side by side
    os.environ[_SWEPT] = json.dumps(_swept(sys.argv[1:]))
    _COMMAND[:] = [sys.executable, "-m", f"skinlesion.commands.{verb}", *sys.argv[1:]]
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


def swept() -> dict[str, str]:
    """What is swept, in the order of the command line, and this job's value of it; the job's number plays no part."""
    values = dict(
        override.lstrip("+").split("=", 1) for override in HydraConfig.get().overrides.task if "=" in override
    )
    keys = [*json.loads(os.environ.get(_SWEPT, "[]")), *sweep_keys()]
    return {key: values[key] for key in keys if key in values}


def sweep_keys() -> list[str]:
    """What the configuration itself sweeps (`hydra.sweeper.params`), such as model and loss of sweep=six."""
    return [str(key) for key in HydraConfig.get().sweeper.get("params") or {}]


def command() -> list[str]:
    """What starts this program again with the same arguments, however it was called.

    Raises:
        ConfigError: A verb's `run` was called from Python.
    """
    if not _COMMAND:
        raise ConfigError("trainer.devices: several processes can be started from the command line only")
    return list(_COMMAND)


def _swept(words: list[str]) -> list[str]:
    parser, keys = OverridesParser.create(), []
    for word in words:
        with suppress(HydraException):  # what cannot be read, Hydra will refuse
            if not word.startswith("-") and (override := parser.parse_override(word)).is_sweep_override():
                keys.append(override.get_key_element().lstrip("+"))
    return keys


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
