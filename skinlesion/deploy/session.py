"""The onnxruntime session of a bundle's graph."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.errors import BundleError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(graph: Path, *, threads: int | None) -> "InferenceSession":
    """A session on the CPU.

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
    refusals = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except refusals as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{graph}: onnxruntime cannot read it ({reason}); export it again") from error


def image_input(size: tuple[int, int]) -> str:
    """The name of the graph's input of images fitted to (height, width)."""
    return f"image_{size[0]}x{size[1]}"


def pooled_output(member: int) -> str:
    """The name of the graph's output of a member's pooled features."""
    return f"pooled_{member}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
