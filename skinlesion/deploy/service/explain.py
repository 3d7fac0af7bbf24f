"""An explanation: a map of which parts of an image a diagnosis rests on, by covering one after another."""

import asyncio
from itertools import islice

from fastapi import Request, Response

from skinlesion.data.image_io import Image
from skinlesion.deploy.runtime import Facts
from skinlesion.deploy.service.deadline import Deadline
from skinlesion.deploy.service.fields import DIAGNOSIS, EXPLAIN_FIELDS, LAYER, LAYERS, choice, facts_of
from skinlesion.deploy.service.form import read_form
from skinlesion.deploy.service.occlusion import (
    Grid,
    cell_effects,
    grid_of,
    laid_over,
    most_windows,
    occluded,
    painted,
    png,
    shrunk,
)
from skinlesion.deploy.service.problems import RequestError
from skinlesion.deploy.service.queue import Lane
from skinlesion.deploy.service.state import AppState
from skinlesion.taxonomy import CODES

HEADERS = {
    "X-Bundle": "version of the bundle",
    "X-Diagnosis": "code of the diagnosis that is explained",
    "X-Probability": "its calibrated probability",
    "X-Largest-Effect": "the largest change of that probability, 0 to 1, when a part is covered: full colour",
    "X-Grid": "rows x columns of parts",
}

_SMALLEST = 512  # pixels of the picture's longer side, where the model itself reads less


async def explain(desk: AppState, request: Request) -> Response:
    """Answer an explanation request with a PNG.

    Raises:
        RequestError: What is wrong with it, or 503 where it has to come again.
    """
    patience = Deadline(desk.limits.timeout)
    evaluations = most_windows(desk.limits.explain_seconds / max(desk.line.seconds, 1e-6))
    desk.refuse_endless(evaluations)
    with desk.line.places(evaluations, Lane.EXPLANATION):
        async with patience.with_client():
            form = await read_form(request, EXPLAIN_FIELDS, desk.limits)
        if len(form.images) > 1:
            raise RequestError(422, "too-many-images", "more than one image; an explanation is of one: ask for each")
        facts, wanted = facts_of(form.fields, desk.model.about), choice(form.fields, DIAGNOSIS, CODES)
        layer = choice(form.fields, LAYER, LAYERS)
        async with patience.with_model():
            longest = max(_SMALLEST, *(max(size) for size in desk.model.about.sizes))
            (image,) = await desk.decode(form.images, lambda whole: shrunk(whole, longest))
            (whole,) = await desk.line.judge([image], [facts], Lane.EXPLANATION)
            k = int(whole.probabilities.argmax()) if wanted is None else CODES.index(wanted)
            grid = grid_of(image, evaluations=evaluations)
            covered = await _covered(desk, image, facts, grid=grid, k=k)
    effects = cell_effects([float(whole.probabilities[k]) - p for p in covered], grid)
    picture = painted(effects, image.shape[:2])
    headers = {
        "X-Bundle": desk.model.about.version,
        "X-Diagnosis": CODES[k],
        "X-Probability": f"{whole.probabilities[k]:.6f}",
        "X-Largest-Effect": f"{abs(effects).max():.6f}",
        "X-Grid": f"{grid.rows}x{grid.columns}",
    }
    return Response(
        png(picture if layer == "map" else laid_over(image, picture)), media_type="image/png", headers=headers
    )


async def _covered(desk: AppState, image: Image, facts: Facts, *, grid: Grid, k: int) -> list[float]:
    """The probability of diagnosis k with each window covered; a batch at a time, so that others get their turn."""
    images = occluded(image, grid)
    found: list[float] = []
    while batch := await asyncio.to_thread(lambda: list(islice(images, desk.limits.batch))):
        opinions = await desk.line.judge(batch, [facts] * len(batch), Lane.EXPLANATION)
        found += [float(opinion.probabilities[k]) for opinion in opinions]
    return found
