"""Kills and bit flips: `python -m benchmarks.reliability [--kills N]`; prints the table of docs/reliability.md.

A small training of three phases, and a joblib sweep of two such members, are killed (SIGKILL) at random moments and
resumed until they finish; what they leave is compared with an uninterrupted run. Then one bit is flipped in each of N
copies of a checkpoint, and those that are refused are counted.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

from benchmarks.measuring import machine
from skinlesion.errors import CheckpointError
from skinlesion.files import write_json
from skinlesion.synthetic.dataset import write_synthetic
from skinlesion.training.checkpoint import load_model, read_checkpoint

RESULT = Path(__file__).parent / "results" / "reliability.json"
KILLS_A_RUN = 5  # then it may finish
TABLES = ("metrics.csv", "predictions_val.csv", "predictions_test.csv")  # compared byte by byte
CHECKPOINTS = ("best.ckpt", "last.ckpt", "phases/0-head.ckpt", "phases/1-high.ckpt", "phases/2-middle.ckpt")
TRAINING = (
    *("model=tiny_resnet", "model.image_size=[32,32]", "model.funnel=[16]", "model.pretrained=false"),
    *("schedule=three_phase", "schedule.phases.head.cached_views=2", "schedule.phases.high.ema_decay=0.9"),
    *(f"schedule.phases.{phase}.epochs=3" for phase in ("head", "high", "middle")),
    *("loader.batch_size=16", "logger=none", "trainer.enable_progress_bar=false", "judge=[val,test]"),
)
SWEEP = ("-m", "loss.gamma=1.5,2.0", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    tried: int
    held: int  # equal to the uninterrupted run, or refused


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=40, help="kills, a quarter of them of the sweep; and bit flips")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the bits")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "data", n=91, image_size=(40, 30), seed=1)
        of_sweep = arguments.kills // 4
        rows = [
            kills("training of three phases", (), folder / "run", count=arguments.kills - of_sweep, draw=draw),
            kills("joblib sweep of two members", SWEEP, folder / "sweep", count=of_sweep, draw=draw),
            *(flips(folder / "run" / "whole" / each, count=arguments.kills, draw=draw) for each in CHECKPOINTS[:2]),
        ]
    print("| | tried | as it should be |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {row.what} | {row.tried} | {row.held} |")
    write_json(arguments.out, {"rows": rows, "seed": arguments.seed, "machine": machine()})


def kills(what: str, extra: Sequence[str], folder: Path, *, count: int, draw: random.Random) -> Row:
    """Kill runs `count` times in all, at moments spread over the time that an uninterrupted one takes.

    Returns:
        As `held`, the kills of runs that left what the uninterrupted one left.
    """
    start = time.perf_counter()
    sit(folder / "whole", extra)
    seconds, done, held, number = time.perf_counter() - start, 0, 0, 0
    while done < count:
        out, number, survived = folder / f"killed{number}", number + 1, 0
        while survived < min(KILLS_A_RUN, count - done) and not sit(out, extra, after=draw.uniform(0, seconds)):
            survived += 1
        sit(out, extra)
        equal = fingerprint(out) == fingerprint(folder / "whole")
        done, held = done + survived, held + survived * equal
        print(f"{what}: {done} of {count} kills, {held} equal", file=sys.stderr, flush=True)
        shutil.rmtree(out)
    return Row(f"kills of a {what}: resumed to the same bytes", done, held)


def sit(out: Path, extra: Sequence[str], *, after: float | None = None) -> bool:
    """Train, or go on; whether it came to its end within `after` seconds. If not, all its processes are killed.

    Raises:
        SystemExit: The training fails.
    """
    places = (f"data.root={out.parents[1] / 'data'}", f"data.cache_dir={out}-cache", f"out={out}")
    command = [sys.executable, "-m", "skinlesion", "train", *extra, *TRAINING, *places]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            code = process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False
        said.seek(0)
        if code:
            raise SystemExit(f"{out}: the training failed:\n{said.read().decode()}")
    return True


def fingerprint(out: Path) -> dict[str, str]:
    """SHA-256 of each table of a run, or of each member of a sweep, and of the weights in each checkpoint."""
    runs = sorted(path.parent for path in [*out.glob("metrics.csv"), *out.glob("*/metrics.csv")])
    found = {}
    for run in runs:
        for name in TABLES:
            found[f"{run.relative_to(out)}/{name}"] = hashlib.sha256((run / name).read_bytes()).hexdigest()
        for name in CHECKPOINTS:
            digest = hashlib.sha256()
            for key, tensor in read_checkpoint(run / name)["state_dict"].items():
                digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
            found[f"{run.relative_to(out)}/{name}"] = digest.hexdigest()
    return found


def flips(checkpoint: Path, *, count: int, draw: random.Random) -> Row:
    """Flip one bit in each of `count` copies of a checkpoint and load them."""
    whole, refused = checkpoint.read_bytes(), 0
    load = load_model if checkpoint.name == "best.ckpt" else read_checkpoint
    try:
        for _ in range(count):
            damaged, bit = bytearray(whole), draw.randrange(8 * len(whole))
            damaged[bit // 8] ^= 1 << bit % 8
            checkpoint.write_bytes(damaged)
            try:
                load(checkpoint)
            except CheckpointError:
                refused += 1
    finally:
        checkpoint.write_bytes(whole)
    return Row(f"copies of a run's {checkpoint.name} with one flipped bit: refused", count, refused)


if __name__ == "__main__":
    main()
