"""From the command to the first training step, and memory, with a hundred times the images; all caches are there."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data_of import config, synthetic
from benchmarks.measuring import Outcome, Setting

ROWS = (10_000, 100_000)  # a million follows from the line through both
_DIFFERENT = 20_000  # images; further rows are hard links to them
_TOY = (600, 1200)
_SHARES = (0.03, 0.05, 0.11, 0.02, 0.11, 0.66, 0.02)  # of the diagnoses


def measure(setting: Setting) -> Outcome:
    """Each size in processes of its own: the first one fills the caches, the second one is measured."""
    sizes = _TOY if setting.toy else ROWS
    found = []
    for rows in sizes:
        root = table(setting.data or setting.folder, rows)
        command = [sys.executable, "-m", "benchmarks.scale", str(root)]
        for _ in ("fills the caches", "is measured"):
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append({"rows": rows, **json.loads(answer.splitlines()[-1])})
        if setting.data is None:
            shutil.rmtree(root)
    first, last = found[0]["processor_s"], found[-1]["processor_s"]
    return Outcome(
        what=f"command to first training step with {sizes[0]:,} images, caches filled",
        against=f"{sizes[-1]:,} images",
        goal=None,
        ratios=[last / first],
        ours=[first],
        theirs=[last],
        unit="s",
        notes={
            "sizes": [*found, extrapolated(found[0], found[-1], rows=10 * sizes[-1])],
            "different_images": _DIFFERENT,
        },
    )


def extrapolated(first: dict[str, float], last: dict[str, float], *, rows: int) -> dict[str, float]:
    """What so many rows would take, on the line through two sizes."""
    times = (rows - first["rows"]) / (last["rows"] - first["rows"])
    found = {name: round(value + times * (last[name] - value), 1) for name, value in first.items()}
    return {**found, "rows": rows, "extrapolated": True}


def table(folder: Path, rows: int) -> Path:
    """A data set of a number of images of 75 % as many lesions, of 64x48 pixels; those past `_DIFFERENT` are links."""
    root = folder / f"rows-{rows}"
    if (root / "HAM10000_metadata.csv").exists():
        return root
    generator = np.random.default_rng(0)
    lesions = np.sort(generator.integers(0, rows * 3 // 4, rows))
    diagnosis = generator.choice(["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"], rows, p=_SHARES)[lesions]
    photographs = sorted(synthetic(folder, n=91, size=(64, 48)).glob("*/*.jpg"))
    (root / "images").mkdir(parents=True)
    names = [f"ISIC_{number:07d}" for number in range(rows)]
    for number, name in enumerate(names):
        path = root / "images" / f"{name}.jpg"
        if number < _DIFFERENT:  # a comment makes a file of its own of the same pixels
            content = photographs[number % len(photographs)].read_bytes()
            path.write_bytes(content[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + content[2:])
        else:
            os.link(root / "images" / f"{names[number % _DIFFERENT]}.jpg", path)
    frame = pd.DataFrame({"lesion_id": [f"HAM_{lesion:07d}" for lesion in lesions], "image_id": names, "dx": diagnosis})
    frame = frame.assign(
        dx_type="histo",
        age=generator.choice([30.0, 45.0, 60.0, np.nan], rows),
        sex=generator.choice(["male", "female"], rows),
        localization=generator.choice(["back", "trunk", "face"], rows),
        dataset=generator.choice(["one", "other"], rows),
    )
    frame.to_csv(root / "HAM10000_metadata.csv", index=False)
    return root


def work(root: Path) -> None:
    """Train as the command does; print what it took once the first step is done, and stop."""
    from lightning import Callback, LightningModule, Trainer

    from skinlesion.commands import train

    class FirstStep(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            found = {"processor_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 1e6}
            print(json.dumps(found), flush=True)
            os._exit(0)

    shutil.rmtree(root / "run", ignore_errors=True)
    size = ("model=tiny_resnet", "model.image_size=[24,32]", "loader.batch_size=32")
    split = (
        "data.images=[images]",
        "split.policy=grouped",
        "schedule=head_only",
        "schedule.phases.head.cached_views=0",
    )
    train.run(config(root, root, *size, *split), callbacks=[FirstStep()])


if __name__ == "__main__":
    work(Path(sys.argv[1]))
