"""Two ways of doing a thing, timed in turn, so that what disturbs one disturbs the other; and what became of it."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "lightning", "albumentations", "opencv-python-headless", "numpy", "pandas")


@dataclass(frozen=True)
class Setting:
    """What a benchmark may use.

    Args:
        folder: For its files; emptied afterwards.
        toy: Whether it is only to show that it runs.
        images: Folder of HAM10000, enlarged for the rows of a GPU; None: they take synthetic images.
        data: Folder of the images at benchmark size, which the next row finds there; None: they go with `folder`.
    """

    folder: Path
    toy: bool
    images: Path | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Args:
        what: Is measured.
        against: What it is measured against.
        goal: The least ratio that was hoped for; None: there is none.
        ratios: Of each round: how many times as fast, or as large, the second is as the first.
        ours: Of each round, in `unit`.
        theirs: Likewise.
        unit: Of the two.
        notes: Further numbers, and what was checked.
    """

    what: str
    against: str
    goal: float | None
    ratios: list[float]
    ours: list[float]
    theirs: list[float]
    unit: str
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The middle ratio."""
        return statistics.median(self.ratios)

    def as_plain(self) -> dict[str, Any]:
        """For a JSON file, with the machine and the versions that it was measured on."""
        spread = {"median": self.median, "lowest": min(self.ratios), "highest": max(self.ratios)}
        rounded = {
            name: [float(f"{value:.4g}") for value in getattr(self, name)] for name in ("ours", "theirs", "ratios")
        }
        summary = {name: float(f"{value:.4g}") for name, value in spread.items()}
        return {**asdict(self), **rounded, "ratio": summary, "machine": machine(), "versions": versions()}


def in_turn(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    repeat: int = 1,
) -> tuple[list[float], list[float]]:
    """Seconds of each round of both, after one round that is not counted.

    Args:
        ours: Done `repeat` times a round, of which the mean counts: for what is over in milliseconds.
        theirs: Done once a round.
        rounds: That are counted.
        clock: By default the processor time of this process, which other programs beside it disturb least; what runs
            in several processes or on a GPU needs `time.perf_counter`.
        repeat: See `ours`.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for counted in range(rounds + 1):
        for times, work, count in zip(seconds, (ours, theirs), (repeat, 1), strict=True):
            start = clock()
            for _ in range(count):
                work()
            if counted:
                times.append((clock() - start) / count)
    return seconds


def ratios(first: list[float], second: list[float]) -> list[float]:
    """How many times the first the second is, round by round."""
    return [other / one for one, other in zip(first, second, strict=True)]


def machine() -> dict[str, Any]:
    """In plain words: processor, cores, memory, GPU."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_before": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Of the packages that matter."""
    return {package: version(package) for package in PACKAGES}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()
