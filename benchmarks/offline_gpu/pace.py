"""How long an epoch takes beside the other members, and how many epochs fit into the time that is left."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path

MOST = 28  # epochs of the recipe (conf/experiment/ham10000_gpu_lite.yaml)
LEAST = 4  # one of each of the first two phases, two of the last
_END = "end"
_MARGIN = 1.25  # members disturb each other differently each time


class EpochClock:
    """Notes when the epochs of runs end, from their histories (metrics.csv), and writes a table of it.

    Args:
        runs: Folders of the runs by name.
        table: CSV with a row for each epoch (run, phase, seconds after the clock was made), and one for a run's end.
    """

    def __init__(self, runs: Mapping[str, Path], table: Path) -> None:
        self.runs, self.table, self.began = runs, table, time.monotonic()
        self._counted = {name: len(_rows(folder)) for name, folder in runs.items()}
        table.parent.mkdir(parents=True, exist_ok=True)
        if not table.exists():
            table.write_text("run,phase,seconds\n", encoding="utf-8")

    def __call__(self) -> None:
        """Note the epochs that have ended since the last call."""
        seconds = time.monotonic() - self.began
        for name, folder in self.runs.items():
            rows = _rows(folder)
            with self.table.open("a", encoding="utf-8") as file:
                for row in rows[self._counted[name] :]:
                    file.write(f"{name},{row},{seconds:.1f}\n")
            self._counted[name] = len(rows)


def measured_pace(table: Path) -> tuple[float, float] | None:
    """Seconds of the longest epoch, and that a run takes beside its epochs; None: no run came to its end.

    An epoch counts where the one before it belongs to the same run and phase: it holds no start and no warm-up.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = [(row["run"], row["phase"], float(row["seconds"])) for row in csv.DictReader(file)]
    ends = [run for run, phase, _ in rows if phase == _END]
    seconds = {run: [second for other, _, second in rows if other == run] for run in ends}
    phases = {run: [phase for other, phase, _ in rows if other == run] for run in ends}
    epochs = [
        seconds[run][place] - seconds[run][place - 1]
        for run in ends
        for place in range(1, len(phases[run]))
        if phases[run][place] == phases[run][place - 1]
    ]
    beside = [seconds[run][0] + seconds[run][-1] - seconds[run][-2] for run in ends if len(seconds[run]) > 1]
    return (max(epochs), max(beside)) if epochs and beside else None


def affordable(seconds: float, *, epoch: float, overhead: float, rounds: float, most: int = MOST) -> int:
    """Epochs that each member can have.

    Args:
        seconds: For all members.
        epoch: Of the slowest member, while as many train beside it.
        overhead: Seconds that a member takes beside its epochs.
        rounds: Members divided by how many train at once.
        most: Epochs, whatever the time.
    """
    share = seconds / rounds - overhead
    return max(LEAST, min(most, int(share / (_MARGIN * max(epoch, 0.01)))))


def epochs_of_phases(total: int) -> dict[str, int]:
    """Divide epochs over the phases as the recipe does: 1 to 2 to 4."""
    head, high = max(1, total // 7), max(1, 2 * total // 7)
    return {"head": head, "high": high, "middle": total - head - high}


def _rows(folder: Path) -> list[str]:
    """The phase of each finished epoch; and the end."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        phases = [row["phase"] for row in csv.DictReader(file)]
    return [*phases, _END] if (folder / "metrics.json").exists() else phases
