"""A bundle at work: images and a patient's facts to probabilities, calibrated, with what was fitted on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from skinlesion.data.image_io import Image, fit
from skinlesion.deploy.manifest import Manifest, check_files
from skinlesion.deploy.session import image_input, open_session, pooled_output
from skinlesion.errors import BundleError
from skinlesion.inference import conformal, ood
from skinlesion.inference.calibration import calibrated
from skinlesion.inference.members import Outputs, PostHoc

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Facts = Mapping[str, float | str | None]
Prepared = tuple[Image, ...]
"""An image fitted into each of a bundle's sizes, (height, width, 3) uint8 each."""
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CHUNK = 8
"""Images that run at once: their activations stay in the processor's cache, and memory does not grow with a batch."""


@dataclass(frozen=True)
class Answer:
    """What a bundle says of B images."""

    probabilities: Floats  # (B, 7), calibrated where the ensemble was
    uncalibrated: Floats  # (B, 7), the mean of the members
    members: Floats  # (M, B, 7)
    prediction_set: Flags | None  # (B, 7), at the ensemble's own risk; None: it has no conformal thresholds
    novelty: Floats | None  # (B,), the higher the less like the training images; None: the ensemble has no statistics
    novel: Flags | None  # (B,), whether it is beyond their threshold


class Bundle:
    """An exported ensemble, ready to judge images. Several threads may ask one bundle at a time.

    Args:
        about: Its manifest.
        session: Of its graph.
        seen: What training images look like, see `evaluation.novelty`; None: not known.
    """

    def __init__(self, about: Manifest, session: "InferenceSession", *, seen: ood.Fitted | None) -> None:
        self.about = about
        self._session, self._seen = session, seen
        self._encoder, self._sizes = about.encoder, about.sizes
        embedded = ["logits", *(pooled_output(member) for member in range(len(about.members)))]
        self._outputs = ["members", *(embedded if seen is not None else [])]

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
        session = open_session(folder / about.graph.file, threads=threads)
        return cls(about, session, seen=_read_seen(folder, about))

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
        members, *embedded = zip(*chunks, strict=True)
        return self._judge(np.concatenate(members, axis=1).astype(np.float64), self._score(embedded))

    def prediction_sets(self, probabilities: npt.ArrayLike, alpha: float | None = None) -> Flags | None:
        """The sets of diagnoses (B, 7) that lack the actual one in a share alpha of images at most.

        Args:
            probabilities: Calibrated, (B, 7).
            alpha: One of those that the ensemble has thresholds for; None: its own.

        Returns:
            None where the ensemble has no thresholds for that share.
        """
        fitted = [entry for entry in self.about.conformal or [] if alpha is None or entry["alpha"] == alpha]
        return conformal.prediction_sets(probabilities, fitted[0]) if fitted else None

    def _run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        inputs: dict[str, Any] = {"metadata": metadata}
        for position, size in enumerate(self._sizes):
            inputs[image_input(size)] = np.stack([image[position] for image in images])  # (B, H, W, 3)
        return list(self._session.run(self._outputs, inputs))

    def _score(self, embedded: Sequence[Sequence[npt.NDArray[np.float32]]]) -> Floats | None:
        if self._seen is None:
            return None
        logits, *pooled = embedded  # of each chunk, (M, b, 7) and (b, C)
        return ood.score(self._seen, list(np.concatenate(logits, axis=1)), [np.concatenate(each) for each in pooled])

    def _judge(self, members: Floats, scores: Floats | None) -> Answer:
        uncalibrated = members.mean(axis=0)  # (B, 7)
        probabilities = calibrated(uncalibrated, self.about.calibration)
        return Answer(
            probabilities=probabilities,
            uncalibrated=uncalibrated,
            members=members,
            prediction_set=self.prediction_sets(probabilities),
            novelty=scores,
            novel=None if self._seen is None or scores is None else ood.flag(self._seen, scores),
        )


def _read_seen(folder: Path, about: Manifest) -> ood.Fitted | None:
    if about.novelty is None:
        return None
    path = folder / str(about.novelty.get("file"))
    if path.name not in about.files:
        raise BundleError(f"{folder}: bundle.json names no such file as {path.name}; copy or export the bundle again")
    return ood.read(path)


class OnnxMembers:
    """The members of a bundle, as `inference.members.Members` wants them."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self.encoder, self.sizes = bundle, bundle.about.encoder, bundle.sizes
        self.names, self.tta = [member.name for member in bundle.about.members], bundle.about.tta

    def run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32], *, embed: bool) -> Outputs:
        """Run the graph, a few images at a time."""
        chunks = [
            self._bundle._run(images[start : start + CHUNK], metadata[start : start + CHUNK])
            for start in range(0, len(images), CHUNK)
        ]
        members, *embedded = zip(*chunks, strict=True)
        votes = np.concatenate(members, axis=1)  # (M, B, K)
        if not embed:
            return Outputs(votes, [], [])
        logits, *pooled = embedded
        return Outputs(votes, list(np.concatenate(logits, axis=1)), [np.concatenate(each) for each in pooled])


def load_bundle(folder: Path, *, threads: int | None) -> tuple[OnnxMembers, Manifest, PostHoc]:
    """Read a bundle, check that it is whole, and make its session.

    Raises:
        BundleError: It is missing, damaged, or of a format that this program does not read.
    """
    bundle = Bundle.load(folder, threads=threads)
    about = bundle.about
    return OnnxMembers(bundle), about, PostHoc(about.calibration, about.operating_points, about.conformal, bundle._seen)
