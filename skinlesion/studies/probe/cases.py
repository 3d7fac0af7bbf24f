"""Nearest confirmed cases: the images of a table whose embeddings are most like that of a given image."""

import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from skinlesion.data.image_io import Image
from skinlesion.data.treatment import Treatment
from skinlesion.errors import CheckpointError
from skinlesion.files import replacing
from skinlesion.studies.probe.embedding import Embedders, Vectors, directions

NAME = "cases.npz"
_COLUMNS = ("image_id", "lesion_id", "diagnosis", "dx_type", "path")


@dataclass(frozen=True)
class Case:
    """One image like another.

    Attributes:
        image_id: Its id.
        lesion_id: Of its lesion.
        diagnosis: Code of its diagnosis.
        dx_type: How that was confirmed, "" where unknown.
        similarity: Cosine of the embeddings, -1 to 1, averaged over networks.
        path: Its file, where it was.
    """

    image_id: str
    lesion_id: str
    diagnosis: str
    dx_type: str
    path: str
    similarity: float


@dataclass(frozen=True)
class Cases:
    """Images of a table with their directions, and what embeds further ones.

    Attributes:
        columns: (N,) of each of image_id, lesion_id, diagnosis, dx_type and path.
        directions: (N, D) of unit length, half precision.
        recipe: Arguments of `Embedders.load`, and the digest of each network.
    """

    columns: dict[str, npt.NDArray[np.str_]]
    directions: npt.NDArray[np.float16]
    recipe: dict[str, Any]

    @classmethod
    def of(cls, frame: pd.DataFrame, vectors: Vectors, embedders: Embedders, recipe: dict[str, Any]) -> Self:
        """The cases of a checked frame, whose images have these vectors (N, D)."""
        columns = {name: frame[name].to_numpy(dtype=np.str_) for name in _COLUMNS}
        recipe = {**recipe, "digests": [each.digest for each in embedders.each]}
        return cls(columns, directions(vectors, embedders.widths).astype(np.float16), recipe)

    def write(self, path: Path) -> None:
        """Write them, whole or not at all."""
        arrays: dict[str, Any] = {**self.columns, "directions": self.directions, "recipe": json.dumps(self.recipe)}
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `skinlesion probe` left in a folder.

        Raises:
            CheckpointError: There are no cases, or they cannot be read.
        """
        path = folder / NAME if folder.is_dir() else folder
        try:
            with np.load(path, allow_pickle=False) as stored:
                columns = {name: stored[name] for name in _COLUMNS}
                return cls(columns, stored["directions"], json.loads(str(stored["recipe"])))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"cases={folder}: no readable {NAME} there; `skinlesion probe` writes it") from error

    def embedders(self, device: torch.device) -> Embedders:
        """Load the networks that embedded the cases.

        Raises:
            CheckpointError: A network is another one by now.
        """
        options = {key: self.recipe[key] for key in ("pretrained", "image_size")}
        treatment = Treatment.of(self.recipe)
        found = Embedders.load(self.recipe["sources"], **options, treatment=treatment, device=device)
        for each, digest in zip(found.each, self.recipe["digests"], strict=True):
            if each.digest != digest:
                raise CheckpointError(
                    f"cases: {each.name} has other weights than those that embedded them; probe again"
                )
        return found

    def nearest(
        self, image: Image, embedders: Embedders, *, among: Collection[str], without: str = "", count: int = 5
    ) -> list[Case]:
        """Find the cases most like an image, the nearest first.

        Args:
            image: RGB, (h, w, 3), of any size.
            embedders: As from `embedders`.
            among: Ids of the images that may be named.
            without: Id of an image that may not, which is the given one itself.
            count: How many.
        """
        cosines = self.directions.astype(np.float32) @ embedders.directions(image)  # (N,)
        ids = self.columns["image_id"]
        allowed = (ids != without) & np.isin(ids, [*among])
        rows = np.argsort(-np.where(allowed, cosines, -np.inf), kind="stable")[: min(count, int(allowed.sum()))]

        def case(row: int) -> Case:
            return Case(**{name: str(each[row]) for name, each in self.columns.items()}, similarity=float(cosines[row]))

        return [case(row) for row in rows]
