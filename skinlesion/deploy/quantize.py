"""A graph of lower precision: weights in half precision, or convolutions in 8-bit integers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.deploy.session import image_input
from skinlesion.files import replacing
from skinlesion.inference.sample import Sample
from skinlesion.training.checkpoint import TrainedModel

_SMALL = 1024  # elements; a smaller tensor is not worth a node that widens it
_AT_ONCE = 8  # calibration images


def halve(path: Path) -> None:
    """Store the large weights of a graph as float16, which is widened when the graph is loaded.

    The file is half as large and computing is as exact and as fast as before: few processors add float16, and
    onnxruntime's own CPU kernels do not.

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


def quantise(path: Path, models: list[TrainedModel], sample: Sample) -> None:
    """Turn the convolutions of a graph to 8-bit integers, with the ranges that training images show.

    Static quantisation: weights a scale for each output channel, activations a scale for each tensor. A convolution
    and the ReLU behind it count as one, so that the range is that of what goes on, not of what is cut away. Both
    sides are signed: with unsigned activations the sums of two 8-bit products overflow where a processor has no
    VNNI. What follows the feature map (gate, attention, funnel, softmax) stays in float32: it is small and decides.

    Args:
        path: The ONNX file; it is replaced.
        models: The members.
        sample: Training images.
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
                _Feed(models, sample),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Clip", "Relu", "Add"],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            folded.unlink(missing_ok=True)


class _Feed:
    """The images of a sample, a few at a time, as onnxruntime's calibration asks for them."""

    def __init__(self, models: list[TrainedModel], sample: Sample) -> None:
        self._batches = self._read(models, sample)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(models: list[TrainedModel], sample: Sample) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for start in range(0, len(sample.frame), _AT_ONCE):
            part = Sample(sample.frame.iloc[start : start + _AT_ONCE])
            images = {image_input(size): part.images(size) for size in {model.spec.size for model in models}}
            yield {"metadata": models[0].encoder.encode(part.frame), **images}
