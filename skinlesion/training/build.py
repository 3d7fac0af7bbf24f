"""Networks from plain data, the same from a configuration, a checkpoint or a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypedDict

import timm
import torch

from skinlesion.config.train import ModelConfig
from skinlesion.data.image_io import ImageInput
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.data.treatment import Treatment
from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone, check_name
from skinlesion.model.network import Attention, Fusion, Head, Network
from skinlesion.model.pretrained import resolve_hub_name


class HeadOptions(TypedDict, total=False):
    """Arguments of `Head` that are free to choose; its defaults are the published ones."""

    fusion: Fusion  # gate | film | metablock | concatenate | none: how metadata enter
    gate_hidden: int  # units of the gate's hidden layer
    gate_noise: float  # standard deviation of the noise on that layer in training
    gate_alpha: float  # initial value of the gate's learned strength
    fact_dropout: float  # probability with which each fact is dropped in training
    attention: Attention  # cbam | channel | none
    reduction: int  # channels per hidden unit of the channel attention
    spatial_kernel: int  # side of the spatial attention's kernel, odd
    funnel: Sequence[int]  # widths of the dense layers
    dropout: float  # after the first dense layer, halved at each further one


def architecture(config: ModelConfig) -> dict[str, Any]:
    """The arguments of `LesionClassifier` that a configuration's `model` stands for, as plain data.

    Raises:
        SkinlesionError: Its backbone is a name of the hub that cannot be resolved.
    """
    unused = ("name", "high", "middle")  # name folders and the stages that phases unfreeze
    found = {key: value for key, value in asdict(config).items() if key not in unused}
    found["backbone"], found["backbone_kwargs"] = resolve_hub_name(config.backbone, config.backbone_kwargs)
    return found


def build_backbone(hparams: Mapping[str, Any]) -> Backbone:
    """The backbone of a classifier's hyper-parameters, with random weights.

    Raises:
        ConfigError: timm has no such network, or it cannot be built with these arguments.
    """
    return Backbone(
        hparams["backbone"],
        kwargs=hparams.get("backbone_kwargs") or {},
        feature_level=hparams.get("feature_level"),
        batch_norm_eps=hparams.get("batch_norm_eps"),
        image_size=image_input(hparams).size,
    )


def build_network(hparams: Mapping[str, Any], backbone: Backbone, *, classes: int) -> Network:
    """The backbone with a new head for `classes` diagnoses.

    Raises:
        CheckpointError: `hparams["encoder"]` is no state of a metadata encoder.
    """
    encoder = MetadataEncoder.from_state(dict(hparams["encoder"]))
    options: dict[str, Any] = {key: hparams[key] for key in HeadOptions.__annotations__ if key in hparams}
    head = Head(
        backbone.channels,
        classes=classes,
        missing=torch.from_numpy(encoder.missing()),
        fact_of_column=torch.tensor(encoder.fact_of_column),
        **options,
    )
    return Network(backbone, head)


def check_image_size(hparams: Mapping[str, Any]) -> None:
    """Refuse an unknown network, and images of a size that it does not take, before data are read.

    Raises:
        ConfigError: It names the network that is meant, or a size that suits it.
    """
    check_name(hparams["backbone"])
    known = timm.get_pretrained_cfg(hparams["backbone"])
    if known is None or not known.fixed_input_size:
        return
    if not hparams.get("padding", True):
        raise ConfigError(f"model.padding=false: {hparams['backbone']} takes images of one size only; give true")
    if image_input(hparams).size != tuple(known.input_size[1:]):
        build_backbone(hparams)


def image_input(hparams: Mapping[str, Any]) -> ImageInput:
    """The size, mean and std at which a classifier takes images: its backbone's own, unless given.

    Needs no network, so that a data module can be made first.
    """
    kwargs = hparams.get("backbone_kwargs") or {}
    known = timm.get_pretrained_cfg(hparams["backbone"]) or timm.models.PretrainedCfg()
    own = {**known.to_dict(), **kwargs.get("pretrained_cfg_overlay", {})}
    side = kwargs.get("img_size", own["input_size"])
    side = side if isinstance(side, int) else side[-1]
    height, width = hparams.get("image_size") or (side, side)
    return ImageInput(
        (int(height), int(width)),
        tuple(hparams.get("mean") or own["mean"]),
        tuple(hparams.get("std") or own["std"]),
        padded=bool(hparams.get("padding", True)),
        treatment=Treatment.of(hparams),
    )
