"""Explanations by occlusion: cover one part of an image after another and see how the probability changes.

Occlusion (Zeiler & Fergus, ECCV 2014, doi:10.1007/978-3-319-10590-1_53) needs no gradients, only predictions, so it
explains what the bundle does: all members, their vote and the calibration. It takes one prediction per window; the grid
is as fine as the time allows.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice, product

import cv2
import numpy as np
import numpy.typing as npt
from fastapi import Request, Response
from PIL import Image as PillowImage

from skinlesion.data.image_io import Image
from skinlesion.deploy.service.errors import RequestError
from skinlesion.deploy.service.forms import EXPLAIN_OPTIONS
from skinlesion.deploy.service.queue import Lane
from skinlesion.deploy.service.state import AppState
from skinlesion.inference.members import Facts

Effects = npt.NDArray[np.float32]

HEADERS = {
    "X-Bundle": "version of the bundle",
    "X-Diagnosis": "code of the diagnosis that is explained",
    "X-Probability": "its calibrated probability",
    "X-Largest-Effect": "the largest change of that probability, 0 to 1, when a part is covered: full colour",
    "X-Grid": "rows x columns of parts",
}

_CELLS = range(4, 13)  # along the longer side, from the coarsest grid to the finest
_WINDOW = 2  # cells along an edge of the covered square: windows overlap, so the map is smooth
_SUPPORTS = np.array((214, 72, 12), np.float32)  # orange, RGB: covering lowers the probability
_CONTRADICTS = np.array((33, 102, 172), np.float32)  # blue: covering raises it; the pair suits colour-blind readers
_MAX_OPACITY = 0.75  # of the largest change
_MIN_EFFECT = 1e-3  # if no probability changes by this much, the map stays empty
_MIN_SIDE = 512  # pixels of the picture's longer side, even where all members read less


async def explain(state: AppState, request: Request) -> Response:
    """Answer an explanation request with a PNG.

    Raises:
        RequestError: The request is invalid, or 503 with the time to retry after.
    """
    deadline = state.deadline()
    budget = max_windows(state.limits.explain_seconds / max(state.queue.seconds_per_image, 1e-6))
    state.refuse_too_much_work(budget)
    with state.queue.reserve(budget, lane := Lane.EXPLANATION):
        form = await state.receive(request, EXPLAIN_OPTIONS, deadline)
        if len(form.images) > 1:
            raise RequestError(422, "too-many-images", "more than one image; send one image a request")
        async with state.model_until(deadline):
            longest = max(_MIN_SIDE, *(max(size) for size in state.model.about.sizes))
            (image,) = await state.decode(
                form.images, lambda original: shrink(original, longest), deadline=deadline, lane=lane
            )
            (whole,) = await state.queue.predict([state.model.prepare(image)], [form.facts], lane)
            codes = state.model.about.diagnoses.codes
            diagnosis = str(form.values.get("diagnosis", codes[whole.predicted]))
            k = codes.index(diagnosis)
            grid = finest_grid(image, max_windows=budget)
            covered = await _predict_covered(state, image, form.facts, grid=grid, k=k)
    effects = cell_effects([float(whole.probabilities[k]) - p for p in covered], grid)
    picture = colour_map(effects, image.shape[:2])
    buffer = BytesIO()
    PillowImage.fromarray(picture if form.values.get("layer") == "map" else overlay(image, picture)).save(buffer, "PNG")
    values = (
        state.model.about.version,
        diagnosis,
        f"{whole.probabilities[k]:.6f}",
        f"{abs(effects).max():.6f}",
        f"{grid.rows}x{grid.columns}",
    )
    return Response(buffer.getvalue(), media_type="image/png", headers=dict(zip(HEADERS, values, strict=True)))


async def _predict_covered(state: AppState, image: Image, facts: Facts, *, grid: "Grid", k: int) -> list[float]:
    """The probability of diagnosis k with each window covered, a batch at a time, so that predictions take turns."""
    images = map(state.model.prepare, occlude(image, grid))
    probabilities: list[float] = []
    while batch := await asyncio.to_thread(lambda: list(islice(images, state.limits.batch))):
        predictions = await state.queue.predict(batch, [facts] * len(batch), Lane.EXPLANATION)
        probabilities += [float(each.probabilities[k]) for each in predictions]
    return probabilities


@dataclass(frozen=True)
class Grid:
    """The cells into which an image is divided."""

    rows: int
    columns: int

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The upper left cell (row, column) of each window of 2 x 2 cells, partly outside at the edges."""
        return list(product(range(-1, self.rows), range(-1, self.columns)))


def finest_grid(image: Image, *, max_windows: float) -> Grid:
    """The finest grid of nearly square cells with at most `max_windows` windows; at least the coarsest.

    Args:
        image: (h, w, 3).
        max_windows: How many predictions may be made.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    grids = [Grid(max(1, round(n * height / longest)), max(1, round(n * width / longest))) for n in _CELLS]
    return [grids[0], *(grid for grid in grids if len(grid.windows) <= max_windows)][-1]


def max_windows(predictions: float) -> int:
    """The number of windows of a square image's finest grid within `predictions`; at least the coarsest grid's."""
    counts = [(n + 1) ** 2 for n in _CELLS]
    return max([count for count in counts if count <= predictions], default=counts[0])


def shrink(image: Image, longest: int) -> Image:
    """Scale an image down to at most `longest` pixels a side, keeping its aspect ratio."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def occlude(image: Image, grid: Grid) -> Iterator[Image]:
    """Cover one window of an image after another with its median colour, with soft edges.

    The median of a dermoscopic image is skin; black or grey would look like a finding.
    """
    colour = np.median(image.reshape(-1, 3), axis=0).astype(np.float32)
    height, width = image.shape[:2]
    sigma = max(1.0, 0.15 * height / grid.rows)
    for top, left in grid.windows:
        cover = np.zeros((height, width), np.float32)
        rows = np.clip(np.array([top, top + _WINDOW]) * height / grid.rows, 0, height).round().astype(int)
        columns = np.clip(np.array([left, left + _WINDOW]) * width / grid.columns, 0, width).round().astype(int)
        cover[rows[0] : rows[1], columns[0] : columns[1]] = 1
        alpha = cv2.GaussianBlur(cover, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)[..., None]  # (h, w, 1)
        yield np.asarray(np.round(image * (1 - alpha) + colour * alpha), np.uint8)


def cell_effects(changes: npt.ArrayLike, grid: Grid) -> Effects:
    """The mean change over the windows that cover each cell.

    Args:
        changes: The probability lost by covering each window, in the order of `Grid.windows`.
        grid: Grid of these windows.

    Returns:
        (rows, columns), above 0 where the cell supports the diagnosis.
    """
    values = np.asarray(changes, np.float32).reshape(grid.rows + 1, grid.columns + 1)
    return np.asarray((values[:-1, :-1] + values[1:, :-1] + values[:-1, 1:] + values[1:, 1:]) / 4, np.float32)


def colour_map(effects: Effects, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A transparent RGBA picture of effects: orange supports the diagnosis, blue speaks against it.

    Args:
        effects: (rows, columns), from `cell_effects`.
        size: (height, width) of the picture in pixels.
    """
    height, width = size
    smooth = cv2.resize(effects, (width, height), interpolation=cv2.INTER_CUBIC)
    largest = float(np.abs(effects).max())
    strength = np.clip(np.abs(smooth) / max(largest, _MIN_EFFECT), 0, 1) * (largest >= _MIN_EFFECT)
    colour = np.where(smooth[..., None] >= 0, _SUPPORTS, _CONTRADICTS)
    return np.asarray(np.round(np.dstack([colour, strength * _MAX_OPACITY * 255])), np.uint8)


def overlay(image: Image, layer: npt.NDArray[np.uint8]) -> Image:
    """An image (h, w, 3) under a transparent layer (h, w, 4)."""
    alpha = layer[..., 3:].astype(np.float32) / 255
    return np.asarray(np.round(image * (1 - alpha) + layer[..., :3] * alpha), np.uint8)
