"""`/`: the page for a person, its three files, and synthetic images to try it on. Nothing comes from elsewhere."""

import asyncio
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
from fastapi import APIRouter, Response

from skinlesion.deploy.service.problems import RequestError
from skinlesion.synthetic.images import paint, photograph
from skinlesion.taxonomy import CODES

_TYPES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "result.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_SIZE = (450, 338)  # width and height of an example
_SEED = 7


def page() -> APIRouter:
    """The page's routes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> Response:
        return Response(asset("index.html"), media_type="text/html")

    @router.get("/assets/{name}")
    async def assets(name: str) -> Response:
        if name not in _TYPES:
            raise RequestError(404, "not-found", f"no such file; expected one of {', '.join(_TYPES)}")
        return Response(asset(name), media_type=_TYPES[name], headers={"Cache-Control": "no-cache"})

    @router.get("/examples/{code}.jpg")
    async def examples(code: str) -> Response:
        if code not in CODES:
            raise RequestError(404, "not-found", f"no such example; expected one of {', '.join(CODES)}")
        drawn = await asyncio.to_thread(example, code)
        return Response(drawn, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})

    return router


@cache
def asset(name: str) -> bytes:
    """A file of the page."""
    return files("skinlesion.deploy.service").joinpath("assets", name).read_bytes()


@cache
def example(code: str) -> bytes:
    """A synthetic image of a diagnosis, as JPEG."""
    rng = np.random.default_rng([_SEED, CODES.index(code)])
    patch = paint(code, "vidir_modern", width=max(_SIZE), rng=rng)
    image = photograph(patch, "vidir_modern", image_size=_SIZE, rng=rng).image
    return bytes(cv2.imencode(".jpg", image[..., ::-1])[1])
