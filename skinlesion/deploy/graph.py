"""All members as one ONNX graph, the vote inside, in which what members share is stored and computed once."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from skinlesion.deploy.manifest import Graph
from skinlesion.deploy.runtime import image_input, pooled_output
from skinlesion.errors import BundleError
from skinlesion.inference.tta import views
from skinlesion.taxonomy import CODES
from skinlesion.training.checkpoint import TrainedModel

FILE = "model.onnx"
OPSET = 20
_ANY_SIZE = 1 << 62  # bytes


class MemberModule(nn.Module):
    """One member with its normalisation and the vote of an image's views.

    Args:
        model: Its network is in evaluation mode.
        tta: Which views vote, see `inference.tta.views`.
    """

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
        logits, pooled = self.network.embed(torch.cat(voting), metadata.repeat(len(voting), 1))  # (V * B, ...)
        by_view = logits.reshape(len(voting), -1, logits.shape[1])  # (V, B, K)
        features = pooled.reshape(len(voting), -1, pooled.shape[1])[0]  # (B, C)
        return by_view.softmax(dim=2).mean(dim=0), by_view[0], features


class VotingModule(nn.Module):
    """The soft vote of several members.

    Args:
        models: The members.
        tta: Which views of an image vote.
    """

    def __init__(self, models: Sequence[TrainedModel], *, tta: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(MemberModule(model, tta=tta) for model in models)
        self.sizes = list(dict.fromkeys(model.spec.size for model in models))
        self.channels = [model.network.backbone.channels for model in models]
        self.metadata_width = models[0].encoder.width
        self._size_of = [self.sizes.index(model.spec.size) for model in models]

    def forward(self, metadata: Tensor, images: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Predict a batch.

        Args:
            metadata: (B, M).
            images: (B, H, W, 3) uint8, fitted to each of `sizes`.

        Returns:
            Probabilities of the members (N, B, K) and their mean (B, K); of the images as they are the members' logits
            (N, B, K) and pooled features, (B, C) each.
        """
        outputs = [member(images[size], metadata) for member, size in zip(self.members, self._size_of, strict=True)]
        members = torch.stack([vote for vote, _, _ in outputs])  # (N, B, K)
        logits = torch.stack([logits for _, logits, _ in outputs])  # (N, B, K)
        return members, members.mean(dim=0), logits, [pooled for _, _, pooled in outputs]

    def inputs(self) -> dict[str, str]:
        """Describe each input of the graph, in order."""
        images = {image_input(size): f"uint8 (batch, {size[0]}, {size[1]}, 3): RGB" for size in self.sizes}
        return {"metadata": f"float32 (batch, {self.metadata_width})", **images}

    def outputs(self) -> dict[str, str]:
        """Describe each output of the graph, in order."""
        count, classes = len(self.members), len(CODES)
        pooled = {
            pooled_output(n): f"float32 (batch, {channels}): pooled features of member {n}, of the image as it is"
            for n, channels in enumerate(self.channels)
        }
        return {
            "members": f"float32 ({count}, batch, {classes}): each member's probabilities",
            "probabilities": f"float32 (batch, {classes}): their mean, not calibrated",
            "logits": f"float32 ({count}, batch, {classes}): each member's logits of the image as it is",
            **pooled,
        }


def write_graph(voting: VotingModule, folder: Path) -> Graph:
    """Write model.onnx.

    Args:
        voting: In evaluation mode, on the CPU.
        folder: Where the file goes.

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
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else they log each weight that they merge
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        program = torch.onnx.export(
            voting,
            (rows, images),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(voting.inputs()),
            output_names=list(voting.outputs()),
            dynamic_shapes={"metadata": {0: batch}, "images": [{0: batch} for _ in images]},
        )
    return cast(Any, program).model


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
