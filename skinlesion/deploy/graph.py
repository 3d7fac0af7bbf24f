"""From the voting module to one ONNX graph in which what members share is stored and computed once."""

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from skinlesion.deploy.manifest import Graph
from skinlesion.deploy.session import image_input, pooled_output
from skinlesion.deploy.voting_module import Voting
from skinlesion.errors import BundleError
from skinlesion.taxonomy import CODES

FILE = "model.onnx"
OPSET = 20
_ANY_SIZE = 1 << 62  # bytes


def write_graph(voting: Voting, folder: Path, *, width: int) -> Graph:
    """Write model.onnx.

    Args:
        voting: In evaluation mode, on the CPU.
        folder: Where the file goes.
        width: M, the number of metadata columns.

    Raises:
        BundleError: The packages of the extra `export` are not installed.
    """
    try:
        import onnx_ir
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise BundleError(f"{error.name} is not installed: pip install 'skinlesion[export]'") from error
    model = merged(translated(voting, width=width))
    onnx_ir.save(model, folder / FILE)
    return Graph(file=FILE, opset=model.opset_imports[""], inputs=_inputs(voting, width), outputs=_outputs(voting))


def merged(model: Any) -> Any:
    """A graph in which equal weights are stored once, and equal computations on equal inputs are done once.

    The members of a sweep often have the same frozen layers: six members on two frozen backbones then cost two.
    """
    import onnx_ir
    import onnx_ir.passes.common as passes

    for weight in model.graph.initializers.values():  # the first pass reads their bytes: a transposed view has none
        array = weight.const_value.numpy()
        if not array.flags.c_contiguous:
            weight.const_value = onnx_ir.tensor(np.ascontiguousarray(array), name=weight.name)
    merging = onnx_ir.passes.Sequential(
        passes.DeduplicateHashedInitializersPass(size_limit=_ANY_SIZE),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.ClearMetadataAndDocStringPass(),
    )
    return merging(model).model


def translated(voting: Voting, *, width: int) -> Any:
    """The voting module as an onnx_ir model, each member with weights and computations of its own."""
    rows = torch.zeros(2, width)  # two: a batch of one would be taken for a constant
    images = [torch.zeros(2, *size, 3, dtype=torch.uint8) for size in voting.sizes]
    batch = torch.export.Dim("batch")
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else they tell of each weight that they merge
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            voting,
            (rows, images),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(_inputs(voting, width)),
            output_names=list(_outputs(voting)),
            dynamic_shapes={"metadata": {0: batch}, "images": [{0: batch} for _ in images]},
        )
    return cast(Any, program).model


def _inputs(voting: Voting, width: int) -> dict[str, str]:
    images = {image_input(size): f"uint8 (batch, {size[0]}, {size[1]}, 3): RGB" for size in voting.sizes}
    return {"metadata": f"float32 (batch, {width})", **images}


def _outputs(voting: Voting) -> dict[str, str]:
    count, classes = len(voting.voters), len(CODES)
    pooled = {
        pooled_output(number): f"float32 (batch, {channels}): pooled features of member {number}, of the image as it is"
        for number, channels in enumerate(voting.channels)
    }
    return {
        "members": f"float32 ({count}, batch, {classes}): each member's probabilities",
        "probabilities": f"float32 (batch, {classes}): their mean, not calibrated",
        "logits": f"float32 ({count}, batch, {classes}): each member's logits of the image as it is",
        **pooled,
    }
