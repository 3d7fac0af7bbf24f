"""What benchmarks are measured on: a synthetic HAM10000, and configurations for it."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from benchmarks.measuring import Setting
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import configuration
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.synthetic.dataset import write_synthetic
from skinlesion.training.build import architecture, image_input
from skinlesion.training.module import LesionClassifier

FULL = (600, 450)  # pixels, as HAM10000 has them
_PAINTED = (100, 75)


def synthetic(folder: Path, *, n: int, size: tuple[int, int]) -> Path:
    """A synthetic data set of n images (91 or more), and where it is.

    Images are painted small and enlarged, which takes a hundredth of the time. They are smoother than photographs and
    so a little faster to decode, which is no advantage of a cache.
    """
    root = folder / f"synthetic-{n}-{size[0]}"
    if not root.exists():
        write_synthetic(root, n=n, image_size=_PAINTED, seed=1)
        for path in root.glob("*/*.jpg"):
            with Image.open(path) as image:
                larger = image.resize(size, Image.Resampling.BICUBIC)
            larger.save(path, quality=92)
    return root


def photographs(setting: Setting, *, n: int, size: tuple[int, int]) -> Path:
    """At most n images of a size (width, height) with their table: of HAM10000 where it is given, else synthetic ones.

    HAM10000's are enlarged where they are smaller, by all cores, which takes seconds.
    """
    folder = setting.data or setting.folder
    if setting.images is None:
        return synthetic(folder, n=n, size=size)
    root = folder / f"ham10000-{n}-{size[0]}"
    if not root.exists():
        beside = root.with_name(f".{root.name}")
        shutil.rmtree(beside, ignore_errors=True)
        _resize(setting.images, beside, n=n, size=size)
        beside.rename(root)
    return root


def _resize(source: Path, target: Path, *, n: int, size: tuple[int, int]) -> None:
    table = pd.read_csv(source / "HAM10000_metadata")
    rows = table.sample(min(n, len(table)), random_state=0)
    chosen = set(rows["image_id"])
    paths = [path for path in sorted(source.glob("HAM10000_images_part_*/*.jpg")) if path.stem in chosen]
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        (target / part).mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(partial(_resized, target=target, size=size), paths, chunksize=32):
            pass
    rows.to_csv(target / "HAM10000_metadata", index=False)


def _resized(path: Path, target: Path, size: tuple[int, int]) -> None:
    with Image.open(path) as image:
        image.resize(size, Image.Resampling.BICUBIC).save(target / path.parent.name / path.name, quality=92)


def config(folder: Path, root: Path, *overrides: str) -> TrainConfig:
    """A training on it, with random weights."""
    places = (f"data.root={root}", f"data.cache_dir={folder / 'cache'}", f"out={folder / 'run'}")
    quiet = ("model.pretrained=false", "logger=none", "trainer.enable_progress_bar=false")
    return configuration("train", TrainConfig, *places, *quiet, *overrides)


def parts_of(settings: TrainConfig) -> tuple[LesionClassifier, LesionDataModule]:
    """Its classifier and its data module."""
    options = architecture(settings.model)
    datamodule = LesionDataModule.from_config(settings, image_input(options))
    module = LesionClassifier(**options, encoder=datamodule.encoder.state(), class_counts=datamodule.class_counts())
    return module, datamodule
