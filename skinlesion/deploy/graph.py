"""All members as one ONNX graph with the vote inside, also with weights or arithmetic of lower precision.

Weights and computations that members share are stored and done once.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from timm.layers import Conv2dSame
from timm.layers.conv2d_same import conv2d_same
from torch import Tensor, nn

from skinlesion.data.image_io import decode
from skinlesion.deploy.manifest import Graph
from skinlesion.deploy.runtime import SPECIALIST, image_input, pooled_output
from skinlesion.errors import BundleError
from skinlesion.files import replacing
from skinlesion.inference.torch_members import translation
from skinlesion.inference.tta import views
from skinlesion.training.checkpoint import TrainedModel

FILE = "model.onnx"
OPSET = 20
_ANY_SIZE = 1 << 62  # bytes
_SMALL = 1024  # elements; smaller tensors, and biases and scales, are not worth a node that widens them
_CALIBRATION_BATCH = 8  # images


class MemberModule(nn.Module):
    """One member in evaluation mode, with its normalisation and the vote of an image's views."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: TrainedModel, *, tta: str) -> None:
        super().__init__()
        self.network, self.tta = model.network, tta
        self.register_buffer("mean", torch.tensor(model.spec.mean)[:, None, None])  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(model.spec.std)[:, None, None])

    def forward(self, pixels: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict a batch.

        Args:
            pixels: (B, H, W, 3) uint8.
            metadata: (B, M).

        Returns:
            Probabilities (B, K), the mean over the views; logits (B, K) and pooled features (B, C) of the image as it
            is.
        """
        image = pixels.permute(0, 3, 1, 2).float().div(255).sub(self.mean).div(self.std)  # (B, 3, H, W)
        voting = list(views(image, self.tta))
        batches = voting if self.tta == "scales" else [torch.cat(voting)]  # views of several sizes are no one batch
        facts = metadata.repeat(len(voting) // len(batches), 1)
        made = zip(*(self.network.embed(batch, facts) for batch in batches), strict=True)
        logits, pooled = (torch.cat(each).reshape(len(voting), -1, each[0].shape[1]) for each in made)  # (V, B, ...)
        return logits.softmax(dim=2).mean(dim=0), logits[0], pooled[0]


class VotingModule(nn.Module):
    """The soft vote of several members, on the views of test-time augmentation that `tta` names.

    `specialist` is a model of two classes, and `target` the code of that whose probability the graph gives too.
    """

    def __init__(
        self, models: Sequence[TrainedModel], *, tta: str, specialist: TrainedModel | None = None, target: str = ""
    ) -> None:
        super().__init__()
        everyone = [*models, *([] if specialist is None else [specialist])]
        self.members = nn.ModuleList(MemberModule(model, tta=tta) for model in models)
        self.specialist = None if specialist is None else MemberModule(specialist, tta=tta)
        self.translated = None if specialist is None else translation(models[0].encoder, specialist)
        self.target = 0 if specialist is None else specialist.classes.index(target)
        self.sizes = list(dict.fromkeys(model.spec.size for model in everyone))
        self.padded = any(model.spec.padded for model in everyone)
        self.channels = [model.network.backbone.channels for model in models]
        self.metadata_width = models[0].encoder.width
        self.classes = len(models[0].classes)
        self._size_of = [self.sizes.index(model.spec.size) for model in everyone]

    def forward(
        self, metadata: Tensor, images: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Predict a batch.

        Args:
            metadata: (B, M).
            images: (B, H, W, 3) uint8, fitted to each of `sizes`.

        Returns:
            Probabilities of the members (N, B, K) and their mean (B, K); of the images as they are the members' logits
            (N, B, K) and pooled features, (B, C) each.
        """
        outputs = [member(images[size], metadata) for member, size in zip(self.members, self._size_of, strict=False)]
        members = torch.stack([vote for vote, _, _ in outputs])  # (N, B, K)
        logits = torch.stack([logits for _, logits, _ in outputs])  # (N, B, K)
        scores = []
        if self.specialist is not None and self.translated is not None:
            scores = [self.specialist(images[self._size_of[-1]], self.translated(metadata))[0][:, self.target]]
        return members, members.mean(dim=0), logits, [pooled for _, _, pooled in outputs], scores

    def inputs(self) -> dict[str, str]:
        """Describe each input of the graph, in order."""
        about = "RGB" if self.padded else "RGB; about as many pixels in another shape, for images of another aspect"
        images = {image_input(size): f"uint8 (batch, {size[0]}, {size[1]}, 3): {about}" for size in self.sizes}
        return {"metadata": f"float32 (batch, {self.metadata_width})", **images}

    def outputs(self) -> dict[str, str]:
        """Describe each output of the graph, in order."""
        count, classes = len(self.members), self.classes
        pooled = {
            pooled_output(n): f"float32 (batch, {channels}): pooled features of member {n}, of the image as it is"
            for n, channels in enumerate(self.channels)
        }
        return {
            "members": f"float32 ({count}, batch, {classes}): each member's probabilities",
            "probabilities": f"float32 (batch, {classes}): their mean, not calibrated",
            "logits": f"float32 ({count}, batch, {classes}): each member's logits of the image as it is",
            **pooled,
            **({} if self.specialist is None else {SPECIALIST: "float32 (batch): its probability of its target"}),
        }


def write_graph(voting: VotingModule, folder: Path) -> Graph:
    """Write model.onnx into a folder, from members in evaluation mode on the CPU.

    Raises:
        BundleError: The packages of the extra `export` are not installed.
    """
    try:
        import onnx_ir
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise BundleError(f"{error.name} is not installed: pip install 'skinlesion[export]'") from error
    model = merge(translate(voting))
    onnx_ir.save(model, folder / FILE)
    return Graph(file=FILE, opset=model.opset_imports[""], inputs=voting.inputs(), outputs=voting.outputs())


def translate(voting: VotingModule) -> Any:
    """Translate the voting module to an onnx_ir model, each member with weights and computations of its own."""
    rows = torch.zeros(2, voting.metadata_width)  # two: a batch of one would be taken for a constant
    images = [torch.zeros(2, *size, 3, dtype=torch.uint8) for size in voting.sizes]
    batch = torch.export.Dim("batch")
    any_side = torch.export.Dim.DYNAMIC  # within limits that the exporter finds
    shape: dict[int, Any] = {0: batch} if voting.padded else {0: batch, 1: any_side, 2: any_side}
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else they log each weight that they merge
    with warnings.catch_warnings(), nullcontext() if voting.padded else _same_convolutions():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        program = torch.onnx.export(
            voting,
            (rows, images),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(voting.inputs()),
            output_names=list(voting.outputs()),
            dynamic_shapes={"metadata": {0: batch}, "images": [shape for _ in images]},
            custom_translation_table={torch.ops.skinlesion.conv2d_same.default: _same_node},
        )
    return cast(Any, program).model


@torch.library.custom_op("skinlesion::conv2d_same", mutates_args=())
def _same(image: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    """TensorFlow's convolution with padding SAME, as one operation that ONNX has too, whatever the image's size."""
    return cast(Tensor, conv2d_same(image, weight, bias, (stride, stride), (0, 0), (1, 1), groups))


@_same.register_fake
def _(image: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    height, width = ((side + stride - 1) // stride for side in image.shape[2:])
    return image.new_empty(image.shape[0], weight.shape[0], height, width)


def _same_node(image: Any, weight: Any, bias: Any, stride: int, groups: int) -> Any:
    from onnxscript import opset20

    return opset20.Conv(image, weight, bias, auto_pad="SAME_UPPER", strides=[stride, stride], group=groups)


@contextmanager
def _same_convolutions() -> Iterator[None]:
    """Let timm's Conv2dSame be `_same`: its padding, a number of the image's size, would be fixed in the graph."""
    original = Conv2dSame.forward

    def forward(self: Conv2dSame, image: Tensor) -> Tensor:
        return cast(Tensor, _same(image, self.weight, self.bias, self.stride[0], self.groups))

    Conv2dSame.forward = forward
    try:
        yield
    finally:
        Conv2dSame.forward = original


def merge(model: Any) -> Any:
    """Store equal weights of an onnx_ir model once, and do equal computations on equal inputs once.

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


def store_narrow(path: Path, *, int8: bool = False) -> None:
    """Store the large float32 weights of a graph in fewer bits; they are widened when the graph is loaded.

    As float16 the file is half as large. Arithmetic stays in float32, and as fast: onnxruntime has no float16 kernels
    for the CPU.

    Args:
        path: The ONNX file; it is replaced.
        int8: Whether those of dense layers are stored as int8, with a scale for each output, and not as float16.
    """
    import onnx_ir

    model = onnx_ir.load(path)
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < _SMALL or len(tensor.shape) < 2:
            continue
        weight = tensor.numpy()
        if not int8 or weight.ndim != 2:
            stored: list[npt.NDArray[Any]] = [weight.astype(np.float16)]
        else:
            scale = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / 127  # (outputs,)
            stored = [np.rint(weight / scale[:, None]).astype(np.int8), scale]
        inputs = [_initializer(array, f"{name}.stored{index}") for index, array in enumerate(stored)]
        if len(inputs) == 1:
            widening = onnx_ir.node("Cast", inputs, {"to": onnx_ir.DataType.FLOAT.value})
        else:
            widening = onnx_ir.node("DequantizeLinear", inputs, {"axis": 0})
        onnx_ir.convenience.replace_all_uses_with(value, widening.outputs[0])
        model.graph.initializers.pop(name)
        for each in inputs:
            model.graph.initializers.add(each)
        model.graph.insert_before(model.graph[0], widening)
    with replacing(path) as beside:
        onnx_ir.save(model, beside)


def _initializer(array: npt.NDArray[Any], name: str) -> Any:
    import onnx_ir

    tensor: Any = onnx_ir.tensor(array, name=name)
    return onnx_ir.Value(name=name, type=onnx_ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)


def quantize_int8(path: Path, models: Sequence[TrainedModel], frame: pd.DataFrame) -> None:
    """Compute the convolutions and dense layers of backbones in 8-bit integers, with ranges from training images.

    Static quantization (Jacob et al., CVPR 2018, doi:10.1109/CVPR.2018.00286): one scale for each output channel of the
    weights, one for each tensor of activations. A convolution and the ReLU behind it count as one, so that the range is
    that of the ReLU's output. Both sides are signed: with unsigned activations the sums of two 8-bit products overflow
    on processors without VNNI. Products of two activations (a transformer's attention) and what follows the feature
    map (gate, attention, funnel, softmax) stay in float32; the weights of its dense layers are stored as int8.

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
            dense, products = _multiplications(folded)
            quantize_static(
                folded,
                beside,
                _CalibrationBatches(models, frame),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Clip", "Relu", "Add", *(["MatMul"] if dense else [])],
                nodes_to_exclude=products,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            folded.unlink(missing_ok=True)
    store_narrow(path, int8=True)


def _multiplications(path: Path) -> tuple[list[str], list[str]]:
    """Names of the matrix multiplications of a graph: by weights, which are a backbone's, and of two activations."""
    import onnx

    graph = onnx.load(path).graph
    weights = {each.name for each in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "MatMul"]
    dense = [node.name for node in nodes if node.input[1] in weights]
    return dense, [node.name for node in nodes if node.name not in dense]


class _CalibrationBatches:
    """Batches of graph inputs, as onnxruntime's calibration asks for them."""

    def __init__(self, models: Sequence[TrainedModel], frame: pd.DataFrame) -> None:
        self._batches = self._read(models, frame)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(models: Sequence[TrainedModel], frame: pd.DataFrame) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for start in range(0, len(frame), _CALIBRATION_BATCH):
            rows = frame.iloc[start : start + _CALIBRATION_BATCH]
            inputs: dict[str, npt.NDArray[Any]] = {"metadata": models[0].encoder.encode(rows)}
            for size in {model.spec.size for model in models}:
                pixels = [decode(Path(path), size, models[0].spec.treatment) for path in rows["path"]]
                inputs[image_input(size)] = np.stack(pixels)
            yield inputs
