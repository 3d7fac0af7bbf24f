"""Six members as a sweep that shares cache and features, against six plain runs in a row."""

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.data_of import FULL, photographs
from benchmarks.measuring import Outcome, Setting, ratios

LOSSES = ("a06_g19", "a05_g20", "a04_g21")


def measure(setting: Setting) -> Outcome:
    """Wall-clock time of both, interpreter's start and judging included."""
    gpu = torch.cuda.is_available()
    models = ("tiny_resnet", "tiny_efficientnet") if setting.toy else ("mobilenetv2_100", "mobilenetv1_100")
    models = ("efficientnet_b1", "resnet50") if gpu and not setting.toy else models
    n = (10015 if setting.images else 91) if setting.toy else 2000 if gpu else 300  # minutes, not a quarter of an hour
    root = photographs(setting, n=n, size=(100, 75) if setting.toy else FULL)
    at_once = 6 if gpu else 2
    mine, others = [], []
    for number in range(1):  # a round takes minutes
        folder = setting.folder / f"round{number}"
        losses = ",".join(LOSSES)
        swept = ("sweep=six", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}", f"loss={losses}")
        mine.append(seconds(root, folder / "swept", "-m", f"model={','.join(models)}", *swept, toy=setting.toy))
        others.append(
            sum(
                seconds(root, folder / f"{model}-{loss}", f"model={model}", f"loss={loss}", toy=setting.toy)
                for model in models
                for loss in LOSSES
            )
        )
    return Outcome(
        what=f"six-member sweep, {at_once} members at once on {'one GPU' if gpu else 'two cores'}",
        against="six plain runs in a row",
        goal=3,
        ratios=ratios(mine, others),
        ours=mine,
        theirs=others,
        unit="s",
        notes={
            "models": models,
            "images": sum(1 for _ in root.glob("HAM10000_images_part_*/*.jpg")),
            "epochs": 5,
            "clock": "wall",
        },
    )


def seconds(root: Path, folder: Path, *overrides: str, toy: bool) -> float:
    """How long one command takes, from an empty folder."""
    size = "[32,32]" if toy else "[224,224]"
    few = ("schedule=head_only", "schedule.phases.head.epochs=5", f"model.image_size={size}", "model.pretrained=false")
    places = (f"data.root={root}", f"data.cache_dir={folder / 'cache'}", f"out={folder / 'runs'}")
    quiet = ("logger=none", "trainer.enable_progress_bar=false")
    start = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-m", "skinlesion", "train", *overrides, *few, *places, *quiet],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if answer.returncode:
        raise SystemExit(f"a training of the benchmark failed:\n{answer.stderr}")
    return time.perf_counter() - start
