"""A stand-in for a bundle: it looks at colours, so that tests know its answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from skinlesion.config.deploy import LimitsConfig
from skinlesion.data.image_io import Image, fit
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.deploy.manifest import Manifest
from skinlesion.inference.members import Facts, Prepared
from skinlesion.inference.predictions import Predictions
from skinlesion.taxonomy import HAM10000

MEL, NV = HAM10000.codes.index("mel"), HAM10000.codes.index("nv")
ENCODER = MetadataEncoder.from_state(
    {
        "age_mean": 50.0,
        "age_std": 15.0,
        "sexes": ["female", "male", "unknown"],
        "localizations": ["back", "face", "unknown"],
    }
)


def conformal(alpha: float) -> dict[str, Any]:
    """Thresholds that keep the likeliest diagnosis, and the next ones until they leave no more than `alpha`."""
    shape = {"penalty": 0.0, "free_ranks": 0}
    fitted = {
        "images": dict.fromkeys(HAM10000.codes, 10),
        "always": [],
        "thresholds": dict.fromkeys(HAM10000.codes, 1 - alpha),
    }
    return {"method": "aps", "alpha": alpha, "by_class": False, **shape, **fitted}


def manifest(**changes: Any) -> Manifest:
    """Like a bundle's own."""
    sizes = changes.pop("sizes", ((48, 64), (48, 64)))
    shared = {"backbone": "none", "mean": (0.5,) * 3, "std": (0.5,) * 3, "sha256": "0" * 64}
    values: dict[str, Any] = {
        "precision": "fp32",
        "classes": [{"code": d.code, "name": d.name, "category": d.category} for d in HAM10000.diagnoses],
        "metadata": ENCODER.state(),
        "preprocessing": {},
        "members": [{"name": name, "size": s, **shared} for name, s in zip(("red", "constant"), sizes, strict=True)],
        "tta": "none",
        "graph": {"file": "none", "opset": 20, "inputs": {}, "outputs": {}},
        "calibration": None,
        "operating_points": None,
        "conformal": [conformal(0.1), conformal(0.2)],
        "novelty": None,
        "parity": {},
        "versions": {},
        "files": {},
        "licence": "test",
        "note": "research use only, not a medical device",
    }
    return Manifest.sealed(**(values | changes))


@dataclass
class RedModel:
    """Melanoma is as likely as the image is red, and a tenth likelier in those over 60; all else is a nevus.

    Its second member always says nevus. An image without any blue is unlike its training images.
    """

    about: Manifest = field(default_factory=manifest)
    seconds: float = 0.0  # per image
    batches: list[int] = field(default_factory=list)
    fails: bool = False

    def prepare(self, image: Image) -> Prepared:
        """As a predictor does."""
        return tuple(fit(image, size) for size in self.about.sizes)

    def predict_prepared(self, images: Sequence[Prepared], facts: Sequence[Facts]) -> Predictions:
        """As a predictor does."""
        if self.fails:
            raise ValueError(f"secret {facts}")
        self.batches.append(len(images))
        time.sleep(self.seconds * len(images))
        red = np.array([image[0][..., 0].mean() / 255 for image in images])
        old = np.array([(each.get("age") or 0) > 60 for each in facts])  # type: ignore[operator]
        calibrated = _two(np.clip(0.8 * red + 0.1 * old, 0, 1))
        blue = np.array([image[0][..., 2].max() for image in images])
        blank = np.full(len(images), "", dtype=object)
        return Predictions(
            image_id=blank,
            probabilities=calibrated,
            lesion_id=blank,
            actual=blank,
            uncalibrated=_two(red / 2),
            members=np.stack([_two(red), _two(0 * red)]),
            ood_score=255.0 - blue,
            ood=blue == 0,
        )


def _two(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    answer = np.zeros((len(mel), len(HAM10000.codes)))
    answer[:, MEL], answer[:, NV] = mel, 1 - mel
    return answer


def limits(**changes: Any) -> LimitsConfig:
    """Small limits."""
    values: dict[str, Any] = {
        "images": 4,
        "image_mib": 1,
        "request_mib": 2,
        "megapixels": 1,
        "shortest_side": 16,
        "waiting": 16,
        "batch": 4,
        "timeout": 20,
        "explain_seconds": 5,
    }
    values |= changes
    values["explain_seconds"] = min(values["explain_seconds"], values["timeout"] / 2)
    return LimitsConfig(**values)


def encoded(image: Image | PillowImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file's bytes."""
    buffer = BytesIO()
    picture = image if isinstance(image, PillowImage.Image) else PillowImage.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def coloured(red: int = 128, green: int = 90, blue: int = 70, size: tuple[int, int] = (48, 64)) -> Image:
    """An image (height, width) of one colour."""
    return np.full((*size, 3), (red, green, blue), np.uint8)
