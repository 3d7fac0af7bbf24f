"""Which parts of an image a diagnosis rests on: cover a part, and see how its probability changes.

Occlusion (Zeiler & Fergus, ECCV 2014, doi:10.1007/978-3-319-10590-1_53) needs no gradients and nothing of the model but
its answer, so it shows what the bundle really does: all members, their votes and the calibration. What it takes is one
evaluation a window, so the grid is as fine as the time allows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from skinlesion.data.image_io import Image

Map = npt.NDArray[np.float32]

COARSEST, FINEST = 4, 12  # cells along the longer side
_WINDOW = 2  # cells along an edge of what is covered at once: windows overlap, so the map is smooth
_FOR = np.array(
    (214, 72, 12), np.float32
)  # orange, where covering lowers the probability: this part speaks for the diagnosis
_AGAINST = np.array(
    (33, 102, 172), np.float32
)  # blue, where covering raises it; the pair is told apart by the colour-blind
_STRONGEST = 0.75  # opacity of the largest change
_FAINTEST = 1e-3  # a change of less than this probability anywhere is no finding: the map stays empty


@dataclass(frozen=True)
class Grid:
    """How an image is cut into cells."""

    rows: int
    columns: int

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The upper left cell (row, column) of each window of 2 x 2 cells, partly outside at the edges."""
        return list(product(range(-1, self.rows), range(-1, self.columns)))


def grid_of(image: Image, *, evaluations: float) -> Grid:
    """The finest grid of about square cells whose windows are at most `evaluations`.

    Args:
        image: (h, w, 3).
        evaluations: How many images the model may be asked about; the coarsest grid is made even of fewer.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    grids = [
        Grid(max(1, round(n * height / longest)), max(1, round(n * width / longest)))
        for n in range(COARSEST, FINEST + 1)
    ]
    fitting = [grid for grid in grids if len(grid.windows) <= evaluations]
    return fitting[-1] if fitting else grids[0]


def most_windows(evaluations: float) -> int:
    """How many windows the grid of a square image has that is the finest within `evaluations`."""
    counts = [(n + 1) ** 2 for n in range(COARSEST, FINEST + 1)]
    return max([count for count in counts if count <= evaluations], default=counts[0])


def shrunk(image: Image, longest: int) -> Image:
    """An image of at most `longest` pixels a side, its aspect kept."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def occluded(image: Image, grid: Grid) -> Iterator[Image]:
    """The image with one window after another covered by its median colour, softly edged.

    The median of a dermoscopic image is skin: black or grey would be a finding of its own.
    """
    colour = np.median(image.reshape(-1, 3), axis=0).astype(np.float32)
    height, width = image.shape[:2]
    soft = max(1.0, 0.15 * height / grid.rows)
    for top, left in grid.windows:
        cover = np.zeros((height, width), np.float32)
        rows = np.clip(np.array([top, top + _WINDOW]) * height / grid.rows, 0, height).round().astype(int)
        columns = np.clip(np.array([left, left + _WINDOW]) * width / grid.columns, 0, width).round().astype(int)
        cover[rows[0] : rows[1], columns[0] : columns[1]] = 1
        share = cv2.GaussianBlur(cover, (0, 0), soft, borderType=cv2.BORDER_REPLICATE)[..., None]  # (h, w, 1)
        yield np.asarray(np.round(image * (1 - share) + colour * share), np.uint8)


def cell_effects(changes: npt.ArrayLike, grid: Grid) -> Map:
    """The mean change over the windows that cover each cell.

    Args:
        changes: How much each window's cover lowered the probability, in the order of `Grid.windows`.
        grid: Of these windows.

    Returns:
        (rows, columns), above 0 where the cell speaks for the diagnosis.
    """
    values = np.asarray(changes, np.float32).reshape(grid.rows + 1, grid.columns + 1)
    return np.asarray((values[:-1, :-1] + values[1:, :-1] + values[:-1, 1:] + values[1:, 1:]) / 4, np.float32)


def painted(effects: Map, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A transparent picture (h, w, 4) of effects (rows, columns): orange speaks for, blue against.

    Args:
        effects: From `cell_effects`.
        size: (height, width) of the picture.
    """
    height, width = size
    smooth = cv2.resize(effects, (width, height), interpolation=cv2.INTER_CUBIC)
    largest = float(np.abs(effects).max())
    strength = np.clip(np.abs(smooth) / max(largest, _FAINTEST), 0, 1) * (largest >= _FAINTEST)
    colour = np.where(smooth[..., None] >= 0, _FOR, _AGAINST)
    return np.asarray(np.round(np.dstack([colour, strength * _STRONGEST * 255])), np.uint8)


def laid_over(image: Image, layer: npt.NDArray[np.uint8]) -> Image:
    """An image (h, w, 3) under a transparent layer (h, w, 4)."""
    share = layer[..., 3:].astype(np.float32) / 255
    return np.asarray(np.round(image * (1 - share) + layer[..., :3] * share), np.uint8)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A picture as PNG, without any metadata."""
    buffer = BytesIO()
    PillowImage.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
