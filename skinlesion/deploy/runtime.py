"""The members of a bundle in onnxruntime, as a predictor runs them: `skinlesion.load(FOLDER)`. Needs no torch."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from skinlesion.data.treatment import Treatment
from skinlesion.deploy.manifest import FILE, Manifest, check_files
from skinlesion.errors import BundleError, SkinlesionError
from skinlesion.inference.members import Outputs, PostHoc, Prepared, Size

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHUNK = 8
"""Images at once: their activations stay in the processor's cache, and memory does not grow with a batch."""


SPECIALIST = "specialist"
"""The graph's output of the specialist's probabilities."""


class OnnxMembers:
    """The networks of a bundle that vote, see `inference.members.Members`. Several threads may run them at a time.

    Args:
        about: Manifest of the bundle.
        session: Session of its graph.
    """

    def __init__(self, about: Manifest, session: "InferenceSession") -> None:
        self.encoder, self.sizes, self.tta = about.encoder, about.sizes, about.tta
        self.names = [member.name for member in about.members]
        self.takes_any_shape = not any(member.padded for member in about.networks)
        self.has_specialist = about.specialist is not None
        self.treatment = Treatment.of(about.members[0].model_dump())
        self._session = session

    def run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32], *, embed: bool) -> Outputs:
        """Run all members on B images with encoded facts (B, M); see `Members.run`."""
        last = [SPECIALIST] if self.has_specialist else []
        wanted = ["members", *(["logits", *map(pooled_output, range(len(self.names)))] if embed else []), *last]
        chunks = []
        for start in range(0, len(images), CHUNK):
            some = images[start : start + CHUNK]
            inputs: dict[str, Any] = {"metadata": metadata[start : start + CHUNK]}
            for position, size in enumerate(self.sizes):
                inputs[image_input(size)] = np.stack([image[position] for image in some])  # (b, H, W, 3)
            chunks.append(self._session.run(wanted, inputs))
        votes, *embedded = zip(*chunks, strict=True)
        score = np.concatenate(embedded.pop()) if last else None  # (B,)
        logits, *pooled = embedded or [()]
        return Outputs(
            np.concatenate(votes, axis=1),  # (M, B, K)
            list(np.concatenate(logits, axis=1)) if embed else [],  # M of (B, K)
            [np.concatenate(each) for each in pooled],  # M of (B, C)
            score,
        )


def load_bundle(folder: Path, *, threads: int | None = None) -> tuple[OnnxMembers, Manifest, PostHoc]:
    """Read a bundle, check that it is whole, and make its session.

    Args:
        folder: Holds bundle.json.
        threads: That work on one call; None: one for each core that this process may use.

    Raises:
        BundleError: It is missing, damaged, or of a format that this program does not read.
    """
    about = Manifest.read(folder)
    check_files(folder, about.files)
    try:
        posthoc = about.posthoc(folder, taxonomy=about.diagnoses, members=len(about.members))
    except SkinlesionError as error:
        raise BundleError(f"{folder / FILE}: {error}; copy or export the bundle again") from error
    return OnnxMembers(about, open_session(folder / about.graph.file, threads=threads)), about, posthoc


def open_session(graph: Path, *, threads: int | None = None) -> "InferenceSession":
    """Open an ONNX file on the CPU.

    Args:
        graph: The file.
        threads: That work on one call; None: one for each core that this process may use.

    Raises:
        BundleError: onnxruntime is not installed or cannot read the graph.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise BundleError("onnxruntime is not installed: pip install 'skinlesion[serve]' or onnxruntime") from error
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores
    options.log_severity_level = 3  # errors only
    refusals = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except refusals as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{graph}: onnxruntime cannot read it ({reason}); export it again") from error


def image_input(size: Size) -> str:
    """Name the graph's input of images fitted to (height, width)."""
    return f"image_{size[0]}x{size[1]}"


def pooled_output(member: int) -> str:
    """Name the graph's output of a member's pooled features."""
    return f"pooled_{member}"
