"""Embeddings of images by frozen networks, one or several side by side, computed once and kept on disk."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from skinlesion.data.image_cache import ImageSource
from skinlesion.data.image_io import Image, ImageInput, fit
from skinlesion.data.shards import ShardStore
from skinlesion.data.transforms import normalise
from skinlesion.data.treatment import UNTREATED, Treatment
from skinlesion.errors import CheckpointError, ConfigError
from skinlesion.model.pretrained import load_pretrained, resolve_hub_name
from skinlesion.terminal import track
from skinlesion.training.build import build_backbone, image_input
from skinlesion.training.checkpoint import load_model
from skinlesion.training.feature_cache import weights_digest

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

_BATCH = 8  # images at once: their activations stay in a processor's cache
_FORMAT = 1  # of the cached vectors; raise it when they change


@dataclass(frozen=True)
class Embedder:
    """A frozen network that turns images into vectors.

    Attributes:
        name: Of the network, for file names and tables.
        spec: Size, mean and std at which it takes images.
        vectors: Maps images (B, 3, H, W) to vectors (B, C).
        digest: SHA-256 of its structure and weights.
        trained_on: Ids of the images that its training and validation saw, of a checkpoint of ours.
    """

    name: str
    spec: ImageInput
    vectors: Callable[[Tensor], Tensor]
    digest: str
    trained_on: frozenset[str] = frozenset()

    @classmethod
    def load(
        cls,
        source: str,
        *,
        pretrained: bool | str = True,
        image_size: Sequence[int] | None = None,
        treatment: Treatment = UNTREATED,
        device: torch.device,
    ) -> Self:
        """Load a network of timm by its name, or a checkpoint by its path.

        Args:
            source: timm's name of the network; or a checkpoint, or the folder of its run.
            pretrained: Of a network of timm: True: timm's own weights; False: random ones; a weight file, or a folder
                of files called NAME.safetensors.
            image_size: (height, width) in pixels; None: the network's own.
            treatment: What is done to images first; a checkpoint keeps to what trained it.
            device: Where it runs.

        Raises:
            ConfigError: timm has no such network, or it does not take that size.
            CheckpointError: The weights cannot be used.
        """
        path = Path(source).expanduser()
        if path.suffix == ".ckpt" or path.is_dir():
            return cls._of_checkpoint(path, device)
        name, kwargs = resolve_hub_name(source, {})
        hparams = {"backbone": name, "backbone_kwargs": kwargs, "image_size": image_size}
        torch.manual_seed(0)  # of random weights
        backbone = build_backbone(hparams)
        load_pretrained(backbone, _weights(source, pretrained))
        net = backbone.eval().to(device).to(memory_format=torch.channels_last)
        spec = replace(image_input(hparams), treatment=treatment)
        return cls(source, spec, net.embed, weights_digest(net))

    @classmethod
    def _of_checkpoint(cls, path: Path, device: torch.device) -> Self:
        """The pooled features of a trained network, for a patient of whom nothing is known."""
        model = load_model(path)
        if model.hides_images:
            raise CheckpointError(
                f"{path}: a published model names no images, so what trained it may be judged; give its run's best.ckpt"
            )
        network = model.network.to(device).to(memory_format=torch.channels_last)
        missing = torch.from_numpy(model.encoder.missing()).to(device)

        def vectors(images: Tensor) -> Tensor:
            pooled: Tensor = network.embed(images, missing.expand(len(images), -1))[1]
            return pooled

        trained_on = frozenset(chain(model.split.get("train", []), model.split.get("val", [])))
        return cls(model.name, model.spec, vectors, weights_digest(network), trained_on)

    @torch.inference_mode()
    def embed(self, pixels: npt.NDArray[np.uint8], device: torch.device) -> Vectors:
        """Vectors (B, C) of images (B, H, W, 3) of its size."""
        return np.asarray(self.vectors(normalise(pixels, self.spec).to(device)).float().cpu())

    def width(self, device: torch.device) -> int:
        """C, the length of a vector."""
        return len(self.embed(np.zeros((1, *self.spec.size, 3), np.uint8), device)[0])

    def embed_frame(self, frame: pd.DataFrame, *, cache_dir: Path, device: torch.device) -> Vectors:
        """Vectors (N, C) of a checked frame's images, from `cache_dir` as far as they are there.

        Raises:
            DataError: Images cannot be decoded, or the disk is full.
        """
        source = ImageSource(frame, self.spec.size, cache_dir, self.spec.treatment)
        made_from = json.dumps((_FORMAT, self.digest, asdict(self.spec), device.type)).encode()
        folder = f"embedding-{self.name.replace('/', '_')}-{hashlib.sha256(made_from).hexdigest()[:16]}"
        store = ShardStore(cache_dir / folder, (self.width(device),), np.dtype(np.float32), what="embeddings")
        keys = source.contents.astype("S32")
        while (rows := store.rows(keys)) is None:
            with store.locked():
                missing = store.missing(keys)  # by now, another process may have computed some
                log.info("Embedding %d images by %s, once: %s", len(missing), self.name, store.folder)
                images, blocks = source.open().images, np.split(missing, range(_BATCH, len(missing), _BATCH))
                tracked = track(blocks, f"embedding by {self.name}", len(blocks))
                store.add((keys[block], self.embed(images.take(block), device)) for block in tracked)
        return rows.take(range(len(rows)))


@dataclass(frozen=True)
class Embedders:
    """Networks whose vectors stand side by side.

    Attributes:
        each: The networks.
        device: Where they run.
    """

    each: Sequence[Embedder]
    device: torch.device

    @property
    def widths(self) -> list[int]:
        """Length of each network's vectors."""
        return [each.width(self.device) for each in self.each]

    @classmethod
    def load(
        cls,
        sources: Sequence[str],
        *,
        pretrained: bool | str,
        image_size: Sequence[int] | None,
        treatment: Treatment = UNTREATED,
        device: torch.device,
    ) -> Self:
        """Load each; see `Embedder.load`.

        Raises:
            ConfigError: One weight file is given for several networks.
        """
        if isinstance(pretrained, str) and len(sources) > 1 and Path(pretrained).is_file():
            raise ConfigError(
                f"pretrained={pretrained}: one file for {len(sources)} networks; give the folder that holds a "
                "NAME.safetensors of each"
            )
        load = partial(Embedder.load, pretrained=pretrained, image_size=image_size, treatment=treatment, device=device)
        return cls([load(source) for source in sources], device)

    def embed_frame(self, frame: pd.DataFrame, *, cache_dir: Path) -> Vectors:
        """Vectors (N, D) of a frame's images, those of all networks side by side."""
        found = [each.embed_frame(frame, cache_dir=cache_dir, device=self.device) for each in self.each]
        return np.concatenate(found, axis=1)

    def directions(self, image: Image) -> Vectors:
        """The direction (D,) of an image (h, w, 3) of any size; see `directions`."""
        found = [each.embed(fit(image, each.spec.size, each.spec.treatment)[None], self.device) for each in self.each]
        return np.asarray(directions(np.concatenate(found, axis=1), [each.shape[1] for each in found])[0])


def directions(vectors: Vectors, widths: Sequence[int]) -> Vectors:
    """Scale the part of each network to unit length, so that all count alike, and then the whole vector.

    Args:
        vectors: (N, D).
        widths: Length of each network's part, D in all.

    Returns:
        (N, D), of which products are cosines, averaged over networks.
    """
    parts = np.split(vectors, np.cumsum(widths)[:-1], axis=1)
    unit = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts]
    return np.concatenate(unit, axis=1).astype(np.float32) / np.float32(len(parts) ** 0.5)


def _weights(source: str, pretrained: bool | str) -> bool | str:
    folder = Path(pretrained).expanduser() if isinstance(pretrained, str) else None
    if folder is None or not folder.is_dir():
        return pretrained
    names = [f"{name}{suffix}" for name in dict.fromkeys((source, source.partition(".")[0]))
             for suffix in (".safetensors", ".pth", ".pt", ".bin")]  # fmt: skip
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"pretrained={pretrained}: expected the weights of {source} there as {names[0]}")
    return str(found)
