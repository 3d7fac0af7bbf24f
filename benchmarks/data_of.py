"""What benchmarks are measured on: a synthetic HAM10000, and configurations for it."""

from pathlib import Path

from PIL import Image

from skinlesion.config.compose import configuration
from skinlesion.config.train import TrainConfig
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
