"""A bundle at work: images and a patient's facts to probabilities, calibrated, with what was fitted on validation."""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from skinlesion.bundle.manifest import Manifest
from skinlesion.data.pixels import Image, fit
from skinlesion.errors import BundleError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Facts = Mapping[str, float | str | None]
Prepared = tuple[Image, ...]
"""An image fitted into each of a bundle's sizes, (height, width, 3) uint8 each."""
Floats = npt.NDArray[np.float64]

CHUNK = 8
"""Images that run at once: their activations stay in the processor's cache, and memory does not grow with a batch."""


@dataclass(frozen=True)
class Answer:
    """What a bundle says of B images."""

    probabilities: Floats  # (B, 7), calibrated where the ensemble was
    uncalibrated: Floats  # (B, 7), the mean of the members
    members: Floats  # (M, B, 7)
    prediction_set: npt.NDArray[np.bool_] | None  # (B, 7); None: the ensemble has no conformal thresholds
    novelty: Floats | None  # (B,), the higher the less like the training images; None: the ensemble has no statistics
    novel: npt.NDArray[np.bool_] | None  # (B,), whether it is beyond the threshold


class Bundle:
    """An exported ensemble, ready to judge images. Several threads may ask one bundle at a time.

    Args:
        about: Its manifest.
        session: Of its graph.
    """

    def __init__(self, about: Manifest, session: "InferenceSession") -> None:
        self.about = about
        self._encoder, self._sizes = about.encoder, about.sizes
        self._session = session

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> Self:
        """Read a bundle, check that it is whole, and make its session.

        Args:
            folder: Holds bundle.json.
            threads: That work on one call; None: one for each core that this process may use.

        Raises:
            BundleError: It is missing, damaged, or of a format that this program does not read.
        """
        about = Manifest.read(folder)
        check_files(folder, about.files)
        return cls(about, open_session(folder / about.graph.file, threads=threads))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each size to which images are fitted."""
        return self._sizes

    def prepare(self, image: Image) -> Prepared:
        """Fit an image (h, w, 3) into each of `sizes`, as `predict` does: what waits in a queue is then small."""
        return tuple(fit(image, size) for size in self._sizes)

    def predict(self, images: Sequence[Image | Prepared], facts: Facts | Sequence[Facts]) -> Answer:
        """Judge some images.

        Args:
            images: B of them, RGB, upright, each (h, w, 3) uint8 of any size, or what `prepare` made of it.
            facts: Of the one patient of all images, or of the patient of each: age in years, sex, localization; what
                is None or left out is unknown.

        Raises:
            DataError: An age is faulty.
            ValueError: There is no image, or another number of patients.
        """
        patients = [facts] * len(images) if isinstance(facts, Mapping) else list(facts)
        if not len(images) or len(patients) != len(images):
            raise ValueError(
                f"{len(images)} images and {len(patients)} patients; expected one or more, as many of each"
            )
        metadata = np.stack([self._encoder.encode_patient(patient) for patient in patients])  # (B, M)
        prepared = [image if isinstance(image, tuple) else self.prepare(image) for image in images]
        chunks = [
            self._run(prepared[start : start + CHUNK], metadata[start : start + CHUNK])
            for start in range(0, len(prepared), CHUNK)
        ]
        return self._judge(np.concatenate(chunks, axis=1))

    def _run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32]) -> Floats:
        inputs: dict[str, Any] = {"metadata": metadata}
        for position, size in enumerate(self._sizes):
            inputs[image_input(size)] = np.stack([image[position] for image in images])  # (B, H, W, 3)
        (members,) = self._session.run(["members"], inputs)
        return np.asarray(members, dtype=np.float64)  # (M, B, 7)

    def _judge(self, members: Floats) -> Answer:
        uncalibrated = members.mean(axis=0)  # (B, 7)
        return Answer(
            probabilities=uncalibrated,
            uncalibrated=uncalibrated,
            members=members,
            prediction_set=None,
            novelty=None,
            novel=None,
        )


def image_input(size: tuple[int, int]) -> str:
    """The name of the graph's input of images fitted to (height, width)."""
    return f"image_{size[0]}x{size[1]}"


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a bundle of which a file is missing or damaged.

    Args:
        folder: Of the bundle.
        files: The SHA-256 of each file.

    Raises:
        BundleError: It names the first such file.
    """
    for name, expected in files.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise BundleError(f"{path}: missing; copy or export the whole bundle again")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise BundleError(
                f"{path}: damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…); copy or export the bundle again"
            )


def open_session(graph: Path, *, threads: int | None) -> "InferenceSession":
    """An onnxruntime session on the CPU.

    Args:
        graph: The ONNX file.
        threads: That work on one call; None: one for each core that this process may use.

    Raises:
        BundleError: onnxruntime is not installed or cannot read the graph.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise BundleError("onnxruntime is not installed: pip install 'skinlesion[serve]' or onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _cores()
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except (
        state.Fail,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.InvalidArgument,
        state.NotImplemented,
    ) as error:
        raise BundleError(
            f"{graph}: onnxruntime cannot read it ({str(error).splitlines()[0]}); export it again"
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
