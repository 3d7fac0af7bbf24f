"""LesionClassifier: network, loss, metrics and optimizer of one phase of training."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Self, Unpack, cast

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from skinlesion import __version__
from skinlesion.config.train import PhaseConfig
from skinlesion.data.datamodule import LesionDataModule
from skinlesion.data.dataset import Batch
from skinlesion.data.image_io import ImageInput
from skinlesion.errors import ConfigError, DataError, counted, first_five
from skinlesion.inference.hub import ABOUT
from skinlesion.model.network import Head
from skinlesion.model.pretrained import Missing, load_pretrained, read_weights
from skinlesion.taxonomy import HAM10000, Taxonomy
from skinlesion.training.build import HeadOptions, build_backbone, build_network, image_input
from skinlesion.training.checkpoint import is_foreign, read_checkpoint, read_intact
from skinlesion.training.feature_cache import FeatureBatch, logits
from skinlesion.training.losses import FocalLoss, mixup_loss
from skinlesion.training.optimizer import lr_factor, parameter_groups

log = logging.getLogger(__name__)

PACKAGES = ("torch", "timm", "lightning", "albumentations", "numpy")


class LesionClassifier(LightningModule):
    """Classifies dermoscopic images with metadata; trains under plain Lightning, in one phase or several.

    All arguments are plain data and go into checkpoints, so that `load_from_checkpoint(path)` needs nothing else. The
    defaults are the published ones.

    Args:
        backbone: timm's name of the network, with or without a tag.
        encoder: State of the fitted MetadataEncoder, `datamodule.encoder.state()`.
        class_counts: Training images of each diagnosis, which weigh the loss; None: all weigh the same.
        taxonomy: Diagnoses in class order, `Taxonomy.to_dict()`; None: HAM10000.
        backbone_kwargs: Further arguments of `timm.create_model`.
        feature_level: None: the last feature map; an index or a module's name: the network is cut there.
        batch_norm_eps: Epsilon of every 2-d batch norm; None: timm's.
        pretrained: True: timm's weights; False: random; a path: a safetensors or torch file, or a checkpoint of an
            earlier run, whose head is taken too where it fits.
        missing_weights: "error" or "initialise": what to do when that file lacks weights of the backbone.
        image_size: (height, width) in pixels; None: the backbone's own.
        mean: Of RGB in 0..1; None: the backbone's own.
        std: Of RGB in 0..1; None: the backbone's own.
        padding: Whether predictions pad images of another aspect with black, as training does; False: they keep their
            aspect, with as many pixels.
        alpha: Exponent of the inverse class frequency, at least 0.
        gamma: Focusing exponent of the loss, at least 0.
        smoothing: Bounds the loss, 0..1; see `focal_loss`.
        unfreeze: None: the backbone stays frozen; stages to train, counted from the top; or the module to begin at.
        lr: Learning rate of the head.
        backbone_lr: Learning rate of the unfrozen stages.
        layer_decay: Learning rate of a stage divided by that of the stage above it.
        weight_decay: Of AdamW; not on norms, biases and the gate's alpha.
        warmup_epochs: Epochs of linear warm-up.
        final_lr_fraction: Cosine decay ends at this fraction of the rate; 1: no decay.
        mixup: Concentration of the Beta distribution by which two items are blended; 0: they are not.
        channels_last: Lay images and weights out with the channels of a pixel together.
        fused_optimizer: Run AdamW as one kernel.
        compile: "none", or a mode of torch.compile.
        **head: Options of the head, see HeadOptions.

    Raises:
        ConfigError: The backbone cannot be built, or has no such stage.
        CheckpointError: The pretrained weights cannot be loaded.
        DataError: A diagnosis has no training image.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_b1",
        *,
        encoder: Mapping[str, Any],
        class_counts: Sequence[int] | None = None,
        taxonomy: Mapping[str, Any] | None = None,
        backbone_kwargs: Mapping[str, Any] | None = None,
        feature_level: int | str | None = None,
        batch_norm_eps: float | None = None,
        pretrained: bool | str = True,
        missing_weights: Missing = "error",
        image_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        padding: bool = True,
        hair: str = "keep",
        colour_constancy: str = "none",
        alpha: float = 0.5,
        gamma: float = 2.0,
        smoothing: float = 0.1,
        unfreeze: int | str | None = None,
        lr: float = 1e-3,
        backbone_lr: float = 0.0,
        layer_decay: float = 1.0,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 0.0,
        final_lr_fraction: float = 1.0,
        mixup: float = 0.0,
        channels_last: bool = True,
        fused_optimizer: bool = True,
        compile: str = "none",
        **head: Unpack[HeadOptions],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.taxonomy = HAM10000 if taxonomy is None else Taxonomy.from_dict(taxonomy)
        own = build_backbone(self.hparams)
        load_pretrained(own, pretrained, missing=missing_weights)
        self.hparams["pretrained"] = False  # checkpoints bring the weights along
        self.network = build_network(self.hparams, own, classes=len(self.taxonomy))
        if isinstance(pretrained, str):
            _load_head(self.network.head, Path(pretrained))
        self.criterion = FocalLoss(class_counts, alpha=alpha, gamma=gamma, smoothing=smoothing)
        self._prepare()

    def _prepare(self) -> None:
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(len(self.taxonomy), average="micro"),
                "macro_f1": MulticlassF1Score(len(self.taxonomy), average="macro"),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone(prefix="val/"), metrics.clone(prefix="test/")
        self.network.backbone.unfreeze(self.hparams["unfreeze"])
        self.network.to(memory_format=self._layout)
        if self.hparams["compile"] != "none":
            for half in (self.network.backbone, self.network.head):  # the network is never called as a whole
                half.compile(mode=self.hparams["compile"])

    @classmethod
    def for_data(cls, datamodule: LesionDataModule, backbone: str = "efficientnet_b1", **options: Any) -> Self:
        """Make a classifier for a data module: its metadata, class counts, image size, mean and std.

        Args:
            datamodule: Its table is read now.
            backbone: timm's name of the network.
            **options: Further arguments of the class.

        Raises:
            DataError: `pretrained` is a checkpoint that was trained on lesions which are held out now.
        """
        spec = datamodule.spec
        if isinstance(path := options.get("pretrained"), str):
            _refuse_leakage(Path(path), datamodule)
        return cls(
            backbone,
            encoder=datamodule.encoder.state(),
            class_counts=datamodule.class_counts(),
            taxonomy=datamodule.taxonomy.to_dict(),
            **{
                "image_size": list(spec.size),
                "mean": list(spec.mean),
                "std": list(spec.std),
                **asdict(spec.treatment),
                **options,
            },
        )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load a checkpoint as Lightning does, unless it is a file on disk that is damaged.

        Raises:
            CheckpointError: The file is damaged.
        """
        if isinstance(checkpoint_path, str | PathLike) and Path(checkpoint_path).is_file():
            read_intact(Path(checkpoint_path))
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    @property
    def image_input(self) -> ImageInput:
        """The size, mean and std at which it takes images."""
        return image_input(self.hparams)

    def start_phase(self, phase: PhaseConfig) -> None:
        """Take the learning rates of a phase, and freeze and unfreeze the backbone for it.

        Raises:
            ConfigError: The backbone has no such stage.
        """
        keys = ("unfreeze", "lr", "backbone_lr", "layer_decay", "warmup_epochs", "final_lr_fraction", "mixup")
        self.hparams.update({key: getattr(phase, key) for key in keys})
        self.network.backbone.unfreeze(phase.unfreeze)
        self.network.to(memory_format=self._layout)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        """Map `image` (B, 3, height, width) and `metadata` (B, M) to logits (B, K)."""
        if image.device.type != "cpu":
            return cast(Tensor, self.network(self._laid_out(image), metadata))
        return logits(self.network, {"image": self._laid_out(image), "metadata": metadata})

    def training_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> Tensor:
        """Compute and log the loss of a training batch."""
        concentration = self.hparams["mixup"]
        loss = (
            mixup_loss(self.criterion, self._logits, batch, concentration=concentration)
            if concentration
            else self.criterion(self._logits(batch), batch["target"])
        )
        size = len(batch["target"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return cast(Tensor, loss)

    def validation_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> None:
        """Log loss, accuracy and macro-F1 of the validation part."""
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> None:
        """Log loss, accuracy and macro-F1 of the test part."""
        self._evaluate(batch, "test", self.test_metrics)

    def predict_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> Tensor:
        """Compute the probabilities (B, K) of a batch, before calibration."""
        return self._logits(batch).float().softmax(dim=1)

    def configure_optimizers(self) -> Any:
        """AdamW over the unfrozen weights; the rate warms up, then decays along a cosine, a step at a time."""
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError("the learning rate needs the number of epochs; give Trainer(max_epochs=...)")
        hparams = self.hparams
        rates = {key: hparams[key] for key in ("lr", "backbone_lr", "weight_decay", "layer_decay")}
        groups = parameter_groups(self.network, **rates)
        # the fused kernel takes over loss scaling, so that Lightning refuses to clip in mixed precision
        clips_mixed = self.trainer.precision.endswith("-mixed") and self.trainer.gradient_clip_val is not None
        optimizer = AdamW(groups, fused=hparams["fused_optimizer"] and not clips_mixed)
        steps, final = int(total), hparams["final_lr_fraction"]
        warmup = round(steps * min(1.0, hparams["warmup_epochs"] / (self.trainer.max_epochs or 1)))
        scheduler = LambdaLR(optimizer, lambda step: lr_factor(step, steps=steps, warmup=warmup, final=final))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Refuse a data module that encodes metadata or prepares images otherwise than this classifier expects."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not isinstance(datamodule, LesionDataModule):
            return
        if datamodule.spec != self.image_input or datamodule.encoder.state() != self.hparams["encoder"]:
            raise ConfigError(
                f"the data module gives {datamodule.spec}, the classifier expects {self.image_input}, both with the "
                "encoder of the same training part; make it by LesionClassifier.for_data(datamodule)"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a prediction needs beside weights, under `skinlesion`, as plain data."""
        versions = {"skinlesion": __version__, **{package: version(package) for package in PACKAGES}}
        spec, datamodule = self.image_input, getattr(self._trainer, "datamodule", None)
        checkpoint["skinlesion"] = {
            "classes": list(self.taxonomy.codes),
            "taxonomy": self.taxonomy.to_dict(),
            "encoder": dict(self.hparams["encoder"]),
            "class_counts": self.hparams["class_counts"],
            "image_input": {"size": list(spec.size), "mean": list(spec.mean), "std": list(spec.std)}
            | {"padded": spec.padded, **asdict(spec.treatment)},
            "versions": versions,
            **(datamodule.record() if isinstance(datamodule, LesionDataModule) else {}),
            **checkpoint.get("skinlesion", {}),
        }

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.hparams["channels_last"] else torch.contiguous_format

    def _laid_out(self, image: Tensor) -> Tensor:
        """Lay images or maps out as the weights are, in their precision."""
        return image.to(next(self.network.head.parameters()).dtype, memory_format=self._layout)

    def _logits(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits (B, K) of a batch of images or of cached feature maps."""
        if "feature_map" in batch:
            return logits(self.network, {**batch, "feature_map": self._laid_out(batch["feature_map"])})
        return cast(Tensor, self(batch["image"], batch["metadata"]))

    def _evaluate(self, batch: Batch | FeatureBatch, part: str, metrics: MetricCollection) -> None:
        answer, size = self._logits(batch), len(batch["target"])
        metrics.update(answer, batch["target"])
        loss = self.criterion(answer, batch["target"])
        self.log(f"{part}/loss", loss, batch_size=size, on_step=False, on_epoch=True, sync_dist=True)
        self.log_dict(metrics, batch_size=size, on_step=False, on_epoch=True, prog_bar=True)


def _load_head(head: Head, path: Path) -> None:
    """Go on from the head of an earlier run, unless `path` holds none or one for other diagnoses or facts."""
    prefix = "network.head."
    found = {key.removeprefix(prefix): value for key, value in read_weights(path).items() if key.startswith(prefix)}
    own = {name: value for name, value in head.state_dict().items() if not name.startswith("fact_dropout.")}
    if any(name not in found or found[name].shape != weight.shape for name, weight in own.items()):
        if found:
            log.warning("%s: its head is for other diagnoses or facts; training starts with a new head", path)
        return
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(found[name])
    log.info("%s: loaded its head too", path)


def _refuse_leakage(path: Path, datamodule: LesionDataModule) -> None:
    """Refuse a checkpoint of a run whose training or validation part holds lesions that are held out now."""
    if path.suffix == ".safetensors" and path.with_name(ABOUT).is_file():
        log.warning("%s: a published model names no images: lesions that trained it may be held out now", path)
    if not path.is_file() or path.suffix != ".ckpt" or is_foreign(path):
        return
    split, now = read_checkpoint(path)["skinlesion"].get("split", {}), datamodule.split
    parts = {"val": ("train",), "test": ("train", "val"), "calibration": ("train", "val")}
    lesion_of = dict(zip(datamodule.frame["image_id"], datamodule.frame["lesion_id"], strict=True))
    for part, before in parts.items():
        learned = {lesion_of[image] for each in before for image in split.get(each, []) if image in lesion_of}
        leaked = sorted({*now.loc[now["split"] == part, "lesion_id"]} & learned)
        if leaked:
            raise DataError(
                f"model.pretrained={path}: {counted(len(leaked), 'lesion')} of the {part} part helped to train it "
                f"({first_five(leaked)}); give the split of that run, such as split.policy=file with its split.csv"
            )
