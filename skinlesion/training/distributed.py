"""Several processes that train one model, started by the first one, torchrun or SLURM; none outlives another."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from skinlesion.config.train import TrainerConfig
from skinlesion.errors import ConfigError, ProcessError, SkinlesionError

log = logging.getLogger(__name__)

_FIRST = "SKINLESION_FIRST"  # environment variable: process id of the one that started this one
_GRACE = 3.0  # seconds in which a process may report its own error


def make_fabric(config: TrainerConfig) -> Fabric:
    """Find which devices and processes train, and which of them this one is. Starts nothing.

    Raises:
        ConfigError: Lightning refuses the arguments, or the device cannot do what they ask.
    """
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: Lightning refuses it: {str(error).splitlines()[0]}") from error
    if fabric.device.type == "cpu":
        _refuse_on_cpu(config, fabric.world_size)
    return fabric


def is_launched(fabric: Fabric) -> bool:
    """Whether the other processes exist already, started by torchrun, SLURM or the first one."""
    several = fabric.world_size > 1
    return several and fabric.strategy.cluster_environment.creates_processes_externally  # type: ignore[attr-defined]


@contextmanager
def joined(fabric: Fabric, command: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Join all processes, so that Lightning and `fabric` can synchronise them; start them if nobody has.

    Args:
        fabric: Of `make_fabric`.
        command: Returns the command line that starts this program again. Lightning's own launcher would take
            `__main__` and `sys.argv`, which do not hold the command that was called.

    Raises:
        ProcessError: Another process has ended with an error.
    """
    others = [] if fabric.world_size == 1 or is_launched(fabric) else _start(fabric, command())
    first = int(os.environ.get(_FIRST, 0))
    done = threading.Event()
    if others or first:
        threading.Thread(target=_watch, args=(others, first, done), daemon=True).start()
    try:
        fabric.launch()
        yield
    except SkinlesionError:
        raise
    except Exception as error:
        _explain(error, others, first)
        raise
    else:
        for process in others:
            process.wait()
    finally:
        done.set()
        for process in others:
            process.kill()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def refuse_separate_folders(fabric: Fabric, folder: Path) -> None:
    """Refuse a run whose processes write to different disks.

    Raises:
        ConfigError: This process does not see the files of the first one.
    """
    if not (folder / "config.yaml").exists():
        raise ConfigError(
            f"out={folder}: process {fabric.global_rank} does not see what the first one wrote there; "
            "give a folder on a disk that all machines share"
        )


def _refuse_on_cpu(config: TrainerConfig, processes: int) -> None:
    if str(config.precision) in ("16", "16-mixed", "16-true"):
        raise ConfigError(
            f"trainer.precision={config.precision}: a CPU does not train in float16; give 32-true, or a GPU"
        )
    if config.sync_batchnorm and processes > 1:
        raise ConfigError("trainer.sync_batchnorm=true: PyTorch synchronises batch norm on GPUs only; give false")


def _start(fabric: Fabric, command: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    """Start this machine's other processes, in the way that Lightning documents for processes started by hand."""
    cluster = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
    here = fabric.world_size // fabric.strategy.num_nodes  # type: ignore[attr-defined]
    os.environ.update(
        MASTER_ADDR=cluster.main_address,
        MASTER_PORT=str(cluster.main_port),
        NODE_RANK=str(cluster.node_rank()),
        LOCAL_RANK="0",
    )
    own = {_FIRST: str(os.getpid())}
    return [subprocess.Popen(command, env={**os.environ, **own, "LOCAL_RANK": str(rank)}) for rank in range(1, here)]


def _watch(others: Sequence[subprocess.Popen[bytes]], first: int, done: threading.Event) -> None:
    """End this process when another one has ended with an error, rather than wait for it forever."""
    while not (_orphaned(first) or _failed(others)):
        if done.wait(0.5):
            return
    if done.wait(_GRACE):
        return
    for process in others:
        process.kill()
    if others:
        print(f"skinlesion train: {_failed(others)}", file=sys.stderr, flush=True)
    os._exit(1)


def _explain(error: Exception, others: Sequence[subprocess.Popen[bytes]], first: int) -> None:
    """Raise the other process's error where this one has merely lost the connection to it."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if said := _failed(others):
            raise ProcessError(said) from error
        if _orphaned(first):
            raise SystemExit(1) from error
        time.sleep(0.05)


def _orphaned(first: int) -> bool:
    return first != 0 and os.getppid() != first


def _failed(others: Sequence[subprocess.Popen[bytes]]) -> str | None:
    for rank, process in enumerate(others, start=1):
        if status := process.poll():
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            return (
                f"process {rank} of {len(others) + 1} (counted from 0) ended with {how}, and the others with it; "
                "the same command goes on after the last epoch"
            )
    return None
