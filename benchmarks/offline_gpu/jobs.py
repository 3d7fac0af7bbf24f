"""Commands that run beside each other until they are done or the time is up."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK = 0.2  # seconds
_GRACE = 5.0  # seconds from the request to stop to the kill


@dataclass(frozen=True)
class Job:
    """A command and the file that it leaves when it is finished.

    Args:
        name: Of its log file, among others.
        command: Program and arguments.
        result: Exists once the job is finished; such a job is not run again.
    """

    name: str
    command: tuple[str, ...]
    result: Path


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    name: str
    outcome: str  # finished | failed | stopped
    started: float  # seconds after the first job
    seconds: float


def run_jobs(
    jobs: Iterable[Job],
    *,
    at_once: int,
    deadline: float,
    logs: Path,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[], None] = lambda: None,
) -> list[Ended]:
    """Run the unfinished jobs in order, some at once; none outlives the deadline or this process.

    Args:
        jobs: In the order of their worth.
        at_once: How many run side by side.
        deadline: When all are stopped, by `time.monotonic`.
        logs: Folder of NAME.log, standard output and error of each job; a job that goes on appends to it.
        environment: Variables set for the jobs.
        watch: Called several times a second.
    """
    waiting = [job for job in jobs if not job.result.exists()]
    running: dict[subprocess.Popen[bytes], tuple[Job, float]] = {}
    ended: list[Ended] = []
    first = time.monotonic()
    try:
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[_start(job, logs, environment or {})] = (job, time.monotonic())
            time.sleep(_TICK)
            watch()
            for process in [process for process in running if process.poll() is not None]:
                ended.append(_ended(*running.pop(process), first=first, stopped=False))
        watch()
        ended += [_ended(job, began, first=first, stopped=True) for job, began in running.values()]
    finally:
        _stop(list(running))
    return ended


def _start(job: Job, logs: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{job.name}.log").open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,  # so that what a job starts can be stopped with it
        )


def _ended(job: Job, began: float, *, first: float, stopped: bool) -> Ended:
    outcome = "finished" if job.result.exists() else "stopped" if stopped else "failed"
    return Ended(job.name, outcome, round(began - first, 1), round(time.monotonic() - began, 1))


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [process for process in processes if process.poll() is None]
        for process in left:
            os.killpg(process.pid, number)
        until = time.monotonic() + _GRACE
        while any(process.poll() is None for process in left) and time.monotonic() < until:
            time.sleep(_TICK / 4)
