"""LesionClassifier: one network under one phase's loss, rates and frozen stages."""

import math
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from skinlesion.config.train import PhaseConfig, SpeedConfig
from skinlesion.data.dataset import Batch
from skinlesion.data.gpu_augmenter import GpuAugmenter
from skinlesion.model.network import Network
from skinlesion.training.feature_cache import FeatureBatch
from skinlesion.training.forward import logits
from skinlesion.training.losses import FocalLoss
from skinlesion.training.mixup import mixed_loss

_LAID_OUT = ("image", "feature_map")


class LesionClassifier(LightningModule):
    """Trains a network, phase after phase.

    Args:
        network: Backbone and head.
        criterion: The loss of logits (B, K) and targets (B,).
        classes: K.
        record: Plain data that goes into every checkpoint, under `skinlesion`.
    """

    def __init__(self, network: Network, criterion: FocalLoss, *, classes: int, record: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.record = record
        self.phase: PhaseConfig | None = None
        self.weight_decay = 0.0
        self.speed: SpeedConfig | None = None
        self.gpu_augmenter: GpuAugmenter | None = None
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_macro_f1 = MulticlassF1Score(classes, average="macro")

    def begin(self, phase: PhaseConfig, *, weight_decay: float, speed: SpeedConfig) -> None:
        """Freeze and unfreeze what a phase asks for, and take its rates; lay out and compile as the switches say.

        Raises:
            ConfigError: The backbone has no such stage.
        """
        self.phase, self.weight_decay = phase, weight_decay
        self.network.backbone.unfreeze(phase.unfreeze)
        self.speed = speed
        self.network.to(memory_format=memory_format(speed))
        if speed.compile != "none":
            self.network.compile(mode=speed.compile)
            self.network.head.compile(mode=speed.compile)  # what cached maps go through

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch | FeatureBatch:
        """A raw batch becomes a batch on its device; images and maps are laid out as the weights are."""
        made = (
            cast(dict[str, Any], self.gpu_augmenter(batch))
            if self.gpu_augmenter is not None and "row" in batch
            else batch
        )
        layout, dtype = memory_format(self.speed), next(self.network.head.parameters()).dtype
        laid_out = {key: made[key].to(dtype, memory_format=layout) for key in _LAID_OUT if key in made}
        return cast(Batch, {**made, **laid_out})

    def forward(self, batch: Batch | FeatureBatch) -> Tensor:
        """Logits (B, K), from images or from cached feature maps."""
        return logits(self.network, batch)

    def training_step(self, batch: Batch | FeatureBatch, _: int) -> Tensor:
        """The loss of a training batch."""
        concentration = self._phase().mixup
        loss: Tensor = (
            mixed_loss(self.criterion, self.forward, batch, concentration=concentration)
            if concentration
            else self.criterion(self(batch), batch["target"])
        )
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["target"]), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch | FeatureBatch, _: int) -> None:
        """Loss, accuracy and macro-F1 of the validation part."""
        answer = self(batch)
        size = len(batch["target"])
        self.val_accuracy.update(answer, batch["target"])
        self.val_macro_f1.update(answer, batch["target"])
        self.log("val/loss", self.criterion(answer, batch["target"]), batch_size=size, sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, batch_size=size)
        self.log("val/macro_f1", self.val_macro_f1, batch_size=size, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW over what the phase trains; the rate warms up, then decays along a cosine, a step at a time."""
        phase = self._phase()
        optimizer = AdamW(self._groups(phase), fused=self._fused())
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(steps * min(1.0, phase.warmup_epochs / phase.epochs))

        def factor(step: int) -> float:
            return lr_factor(step, steps=steps, warmup=warmup, final=phase.final_lr_fraction)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a checkpoint needs to stand alone."""
        checkpoint["skinlesion"] = self.record

    def _phase(self) -> PhaseConfig:
        if self.phase is None:
            raise RuntimeError("begin(phase) comes before fit")
        return self.phase

    def _fused(self) -> bool:
        # the fused kernel takes loss scaling upon itself, so that Lightning refuses to clip in mixed precision
        mixed_and_clipped = self.trainer.precision.endswith("-mixed") and self.trainer.gradient_clip_val is not None
        return self.speed is not None and self.speed.fused_optimizer and not mixed_and_clipped

    def _groups(self, phase: PhaseConfig) -> list[dict[str, Any]]:
        parts: tuple[tuple[nn.Module, float], ...] = (
            (self.network.head, phase.lr),
            (self.network.backbone, phase.backbone_lr),
        )
        groups = []
        for module, rate in parts:
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            for decays in (True, False):
                chosen = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
                if chosen:
                    # norms, biases and the gate's alpha have at most one dimension
                    decay = self.weight_decay if decays else 0.0
                    groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
        return groups


def memory_format(speed: SpeedConfig | None) -> torch.memory_format:
    """How images, maps and weights lie in memory."""
    return torch.channels_last if speed is not None and speed.channels_last else torch.contiguous_format


def lr_factor(step: int, *, steps: int, warmup: int, final: float) -> float:
    """The share of the target rate at a step: linear warm-up, then a cosine from 1 to `final`.

    Args:
        step: From 0.
        steps: Of the whole phase.
        warmup: Steps of warm-up, at most `steps`.
        final: Share at the last step, 0 to 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
