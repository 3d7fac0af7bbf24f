"""Skin-lesion diagnosis from dermoscopic images and metadata, with PyTorch Lightning.

    import skinlesion

    model = skinlesion.load("runs/six/ensemble")  # a checkpoint, a run's folder, an ensemble or a bundle
    model.predict("photo.jpg", age=55, sex="female").to_frame()

Names are imported when they are first used, so that `import skinlesion` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load": "skinlesion.inference.predictor",
    "Predictor": "skinlesion.inference.predictor",
    "Predictions": "skinlesion.inference.predictions",
    "Estimate": "skinlesion.metrics.estimate",
    "BootstrapConfig": "skinlesion.metrics.estimate",
    "Taxonomy": "skinlesion.taxonomy",
    "LesionDataModule": "skinlesion.data.datamodule",
    "LesionClassifier": "skinlesion.training.module",
    "FocalLoss": "skinlesion.training.losses",
    "FusionGate": "skinlesion.model.fusion",
    "CBAM": "skinlesion.model.cbam",
    "DenseFunnel": "skinlesion.model.funnel",
    "SkinlesionError": "skinlesion.errors",
}

__all__ = [
    "CBAM",
    "BootstrapConfig",
    "DenseFunnel",
    "Estimate",
    "FocalLoss",
    "FusionGate",
    "LesionClassifier",
    "LesionDataModule",
    "Predictions",
    "Predictor",
    "SkinlesionError",
    "Taxonomy",
    "__version__",
    "load",
]

if TYPE_CHECKING:
    from skinlesion.data.datamodule import LesionDataModule
    from skinlesion.errors import SkinlesionError
    from skinlesion.inference.predictions import Predictions
    from skinlesion.inference.predictor import Predictor, load
    from skinlesion.metrics.estimate import BootstrapConfig, Estimate
    from skinlesion.model.cbam import CBAM
    from skinlesion.model.funnel import DenseFunnel
    from skinlesion.model.fusion import FusionGate
    from skinlesion.taxonomy import Taxonomy
    from skinlesion.training.losses import FocalLoss
    from skinlesion.training.module import LesionClassifier


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'skinlesion' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
