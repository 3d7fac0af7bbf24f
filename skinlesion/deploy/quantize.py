"""A graph of lower precision: weights in half precision, or convolutions in 8-bit integers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.image_io import decode
from skinlesion.deploy.runtime import image_input
from skinlesion.files import replacing
from skinlesion.training.checkpoint import TrainedModel

_SMALL = 1024  # elements; smaller tensors are not worth a node that widens them
_BATCH = 8  # calibration images


def store_fp16(path: Path) -> None:
    """Store the large weights of a graph as float16; they are widened to float32 when the graph is loaded.

    The file is half as large. Arithmetic stays in float32, and as fast: onnxruntime has no float16 kernels for the CPU.

    Args:
        path: The ONNX file; it is replaced.
    """
    import onnx_ir

    model = onnx_ir.load(path)
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < _SMALL:
            continue
        narrow = onnx_ir.tensor(tensor.numpy().astype(np.float16), name=f"{name}.half")
        half = onnx_ir.Value(
            name=narrow.name, type=onnx_ir.TensorType(narrow.dtype), shape=value.shape, const_value=narrow
        )
        widening = onnx_ir.node("Cast", [half], {"to": onnx_ir.DataType.FLOAT.value})
        onnx_ir.convenience.replace_all_uses_with(value, widening.outputs[0])
        model.graph.initializers.pop(name)
        model.graph.initializers.add(half)
        model.graph.insert_before(model.graph[0], widening)
    with replacing(path) as beside:
        onnx_ir.save(model, beside)


def quantize_int8(path: Path, models: Sequence[TrainedModel], frame: pd.DataFrame) -> None:
    """Compute the convolutions of a graph in 8-bit integers, with the ranges of activations on training images.

    Static quantization (Jacob et al., CVPR 2018, doi:10.1109/CVPR.2018.00286): one scale for each output channel of the
    weights, one for each tensor of activations. A convolution and the ReLU behind it count as one, so that the range is
    that of the ReLU's output. Both sides are signed: with unsigned activations the sums of two 8-bit products overflow
    on processors without VNNI. What follows the feature map (gate, attention, funnel, softmax) is small and stays in
    float32.

    Args:
        path: The ONNX file; it is replaced.
        models: The members.
        frame: Checked rows of training images.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with replacing(path) as beside:
        folded = beside.with_suffix(".folded.onnx")
        try:
            quant_pre_process(path, folded, skip_symbolic_shape=True)
            quantize_static(
                folded,
                beside,
                _Batches(models, frame),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Clip", "Relu", "Add"],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            folded.unlink(missing_ok=True)


class _Batches:
    """Batches of graph inputs, as onnxruntime's calibration asks for them."""

    def __init__(self, models: Sequence[TrainedModel], frame: pd.DataFrame) -> None:
        self._batches = self._read(models, frame)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(models: Sequence[TrainedModel], frame: pd.DataFrame) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for start in range(0, len(frame), _BATCH):
            rows = frame.iloc[start : start + _BATCH]
            inputs: dict[str, npt.NDArray[Any]] = {"metadata": models[0].encoder.encode(rows)}
            for size in {model.spec.size for model in models}:
                inputs[image_input(size)] = np.stack([decode(Path(path), size) for path in rows["path"]])
            yield inputs
