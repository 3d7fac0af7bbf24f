"""`python -m benchmarks.offline_gpu.rehearse PYTHON FOLDER`: each step at toy size, offline, from what is packed."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks.offline_gpu.archives import Limits
from benchmarks.offline_gpu.steps import STEPS

SECONDS = 900  # of a step; two slow cores need a third of it


def rehearse(python: Path, packed: Path) -> None:
    """Copy the two trips to an empty folder, run each step there, and one of them again.

    Args:
        python: Of an environment that holds what the GPU machine has (machine.txt) and nothing else.
        packed: Folder of trip1 and trip2.

    Raises:
        SystemExit: A step failed, or its results are over the limits or incomplete.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for trip in ("trip1", "trip2"):
            shutil.copytree(packed / trip, place / "gpu" / trip)
        with tarfile.open(place / "gpu" / "trip1" / "project.tar.xz") as archive:
            archive.extractall(place, filter="data")
        for step in (*STEPS, "six"):
            before = time.monotonic()
            _run(python, place, step)
            print(
                f"{step}: {time.monotonic() - before:.0f} s, {check_results(place / 'results' / step, step)}",
                flush=True,
            )
        if time.monotonic() - before > SECONDS / 10:
            raise SystemExit("six: the second call should find everything finished, and did not")


def check_results(folder: Path, step: str) -> str:
    """How many archives of how many MiB a step left; all are read.

    Raises:
        SystemExit: They are over the limits, or lack a table.
    """
    limits, files = Limits(), sorted(folder.iterdir())
    sizes = [file.stat().st_size for file in files]
    if len(files) > limits.files or max(sizes) > limits.each or sum(sizes) > limits.together:
        raise SystemExit(f"{folder}: {len(files)} files of {sizes} bytes, more than {limits}")
    names = {name for file in files for name in _contents(file)}
    rows = [
        line for file in files for name, text in _contents(file).items() if name.endswith("jobs.csv") for line in text
    ]
    if unfinished := [line for line in rows[1:] if ",finished," not in line and not line.startswith("name,")]:
        raise SystemExit(f"{folder}: not finished: {unfinished}")
    expected = {"jobs.csv", "machine.json"} | (
        {"predictions_test.csv", "metrics.json"} if STEPS[step].members else set()
    )
    if absent := expected - {Path(name).name for name in names}:
        raise SystemExit(f"{folder}: no {', '.join(sorted(absent))} among its {len(names)} files")
    return f"{len(names)} files in {len(files)} archives, {sum(sizes) / 2**20:.1f} MiB"


def _contents(path: Path) -> dict[str, list[str]]:
    """Lines of the tables in an archive; of other files none."""
    lines: dict[str, list[str]] = {}
    with tarfile.open(path) as archive:
        for name in archive.getnames():
            file = archive.extractfile(name) if name.endswith(".csv") else None
            lines[name] = file.read().decode().splitlines() if file else []
    return lines


def _run(python: Path, place: Path, step: str) -> None:
    command = [str(python), "-m", "benchmarks.offline_gpu", "run", step, "--toy", "--seconds", str(SECONDS)]
    environment = {"HOME": str(place), "PATH": os.defpath, "OUT": str(place / "results" / step), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([*_offline(), *command], cwd=place, env=environment)
    if answer.returncode:
        logs = sorted((place / "gpu" / "work").glob("*/logs/*.log"), key=lambda path: path.stat().st_mtime)
        tail = logs[-1].read_text(errors="replace")[-3000:] if logs else ""
        raise SystemExit(f"{step}: failed; the last log ends:\n{tail}")


def _offline() -> list[str]:
    """Words before a command that take its network away."""
    for words in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            return words
    raise SystemExit("unshare cannot take the network away here (Linux, root or user namespaces needed)")


if __name__ == "__main__":
    rehearse(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
