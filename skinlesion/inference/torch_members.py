"""The members of a model in PyTorch: normalised images and facts to probabilities, a batch at a time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.transforms import normalise
from skinlesion.errors import ConfigError
from skinlesion.inference.members import Outputs, Prepared, Size
from skinlesion.inference.tta import check_views, views
from skinlesion.training.checkpoint import TrainedModel
from skinlesion.training.feature_cache import backbone_maps

Floats = npt.NDArray[np.float32]


class TorchMembers:
    """Trained models that vote, on one device.

    Args:
        models: One or more; their networks are moved to the device and put into evaluation mode.
        specialist: Corrects their vote on a diagnosis, see `inference.specialist`.
        target: Code of that diagnosis.
        tta: Which views of an image vote, see `inference.tta`.
        accelerator: As Lightning names it: auto, cpu, gpu.
        device: Instead of the first one of the accelerator.

    Raises:
        ConfigError: There is no such accelerator, or a network does not take those views.
    """

    def __init__(
        self,
        models: Sequence[TrainedModel],
        *,
        tta: str = "none",
        accelerator: str = "auto",
        device: torch.device | None = None,
        specialist: TrainedModel | None = None,
        target: str = "",
    ) -> None:
        self.specialist, self.target = specialist, target
        everyone = [*models, *([] if specialist is None else [specialist])]
        check_views(tta, (model.network.backbone for model in everyone))
        self.models, self.tta, self.device = list(models), tta, device or device_of(accelerator)
        self.sizes: list[Size] = list(dict.fromkeys(model.spec.size for model in everyone))
        self.takes_any_shape = not any(model.spec.padded for model in everyone)
        self.treatment = models[0].spec.treatment
        for model in everyone:
            model.network.to(self.device).eval()
        self.translated = None if specialist is None else translation(self.encoder, specialist).to(self.device)

    @property
    def encoder(self) -> MetadataEncoder:
        """Encoder of the first member; the others encode equal facts."""
        return self.models[0].encoder

    @property
    def names(self) -> list[str]:
        """A name for each member: its folder's, with the folder above where two are alike."""
        from skinlesion.inference.ensemble import unique_names

        return unique_names(self.models)

    def run(self, images: Sequence[Prepared], metadata: npt.NDArray[np.float32], *, embed: bool) -> Outputs:
        """See `Members.run`. Members may differ in size, normalisation and encoder of equal facts."""
        stacked = {size: np.stack([each[place] for each in images]) for place, size in enumerate(self.sizes)}
        facts = torch.from_numpy(metadata).to(self.device)
        made = [self._forward(model, stacked[model.spec.size], facts) for model in self.models]
        votes, logits, pooled = zip(*made, strict=True)
        score = None
        if self.specialist is not None and self.translated is not None:
            own = self.translated(facts)
            found = self._forward(self.specialist, stacked[self.specialist.spec.size], own)[0]  # (B, 2)
            score = found[:, self.specialist.classes.index(self.target)]
        return Outputs(np.stack(votes), logits if embed else [], pooled if embed else [], score)

    @torch.inference_mode()
    def _forward(
        self, model: TrainedModel, pixels: npt.NDArray[np.uint8], facts: Tensor
    ) -> tuple[npt.NDArray[np.float32], ...]:
        """Probabilities (B, K), logits (B, K) and pooled features (B, C) of one member."""
        network, image = model.network, normalise(pixels, model.spec).to(self.device)
        outputs = [network.head.embed(backbone_maps(network.backbone, view), facts) for view in views(image, self.tta)]
        vote = torch.stack([logits.float().softmax(dim=1) for logits, _ in outputs]).mean(dim=0)
        logits, pooled = outputs[0]  # of the image as it is
        return vote.cpu().numpy(), logits.float().cpu().numpy(), pooled.float().cpu().numpy()


def translation(encoder: MetadataEncoder, model: TrainedModel) -> nn.Module:
    """Turn facts that an encoder encoded, (B, M), into those of a model that learned from other images."""
    if model.encoder == encoder or model.network.head.fusion == "none":
        return nn.Identity()
    matrix, shift = (torch.from_numpy(each).float() for each in encoder.translation(model.encoder))
    layer = nn.Linear(*matrix.shape)
    layer.load_state_dict({"weight": matrix.T, "bias": shift})
    return layer.requires_grad_(False)


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning takes for an accelerator: auto, cpu, gpu and so on.

    Raises:
        ConfigError: There is no such accelerator.
    """
    try:
        return Fabric(accelerator=accelerator, devices=1).device
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"accelerator={accelerator}: {str(error).splitlines()[0]}") from error
