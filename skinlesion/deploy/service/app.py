"""The application: `/v1` for programs, health and metrics for operators, `/` for people."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from skinlesion import __version__
from skinlesion.config.deploy import LimitsConfig
from skinlesion.deploy.service.errors import ProblemDetails, RequestError, busy, documented, install_error_handlers
from skinlesion.deploy.service.explain import HEADERS, explain
from skinlesion.deploy.service.forms import EXPLAIN_OPTIONS, PREDICT_OPTIONS, request_body
from skinlesion.deploy.service.middleware import ObserveRequests, require_token
from skinlesion.deploy.service.queue import Model
from skinlesion.deploy.service.schemas import (
    Health,
    ModelCard,
    Prediction,
    examples_of,
    image_answer,
    model_card,
    risks,
)
from skinlesion.deploy.service.state import AppState
from skinlesion.synthetic.images import paint, photograph
from skinlesion.taxonomy import HAM10000

DESCRIPTION = (
    "Skin diagnoses from a dermoscopic image and what is known of the patient. "
    "Research use only, not a medical device. Errors are RFC 9457 problem details that say what to do."
)
_PNG: dict[str, Any] = {
    "description": "A PNG: orange supports the diagnosis, blue speaks against it.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    "headers": {name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in HEADERS.items()},
}
_ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "result.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_EXAMPLE_SIZE = (450, 338)  # width, height
_EXAMPLE_SEED = 7


def build(model: Model, limits: LimitsConfig, *, token: str | None = None) -> FastAPI:
    """Build the service around a model.

    Args:
        model: Loaded model.
        limits: Limits of requests.
        token: Bearer token that the API requires; None: it requires none.
    """
    state = AppState(model, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with state.running():
            yield

    app = FastAPI(
        title="skinlesion",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its scripts would come from another origin
        redoc_url=None,
        redirect_slashes=False,  # to whatever host the client names
    )
    install_error_handlers(app)
    app.include_router(api_routes(state, token))
    app.include_router(health_routes(state, token))
    app.include_router(page_routes(examples_of(model.about.diagnoses)))
    app.add_middleware(ObserveRequests, metrics=state.metrics)
    schemas = app.openapi().setdefault("components", {}).setdefault("schemas", {})
    schemas[ProblemDetails.__name__] = ProblemDetails.model_json_schema()  # all documented errors refer to it
    return app


def api_routes(state: AppState, token: str | None) -> APIRouter:
    """The routes under `/v1`; they require the token, if there is one."""
    guarded = (401,) if token is not None else ()
    errors = documented(*guarded, 400, 408, 413, 415, 422, 500, 503)
    router = APIRouter(prefix="/v1", dependencies=require_token(token))

    def body(names: tuple[str, ...], max_images: int | None) -> dict[str, Any]:
        return {"requestBody": request_body(state.form_fields(names), max_images=max_images)}

    @router.get("/model", summary="Describe the model and its limits", responses=documented(*guarded))
    async def model() -> ModelCard:
        return model_card(state.model.about, state.limits)

    @router.post(
        "/predict",
        summary="Classify one or several images of one patient",
        responses=errors,
        openapi_extra=body(PREDICT_OPTIONS, state.limits.images),
    )
    async def predictions(request: Request) -> Prediction:
        return await predict(state, request)

    @router.post(
        "/explain",
        summary="Map the parts of an image that a diagnosis rests on",
        response_class=Response,
        responses={200: _PNG, **errors},
        openapi_extra=body(EXPLAIN_OPTIONS, None),
    )
    async def explanation(request: Request) -> Response:
        return await explain(state, request)

    return router


async def predict(state: AppState, request: Request) -> Prediction:
    """Answer a prediction request.

    Raises:
        RequestError: The request is invalid, or 503 with the time to retry after.
    """
    deadline, about = state.deadline(), state.model.about
    with state.queue.reserve(1) as reserve_more:  # before the body is read: it bounds the bodies in memory
        form = await state.receive(request, PREDICT_OPTIONS, deadline)
        wants_effects = form.values.get("effects") == "true"
        known = [fact for fact, value in form.facts.items() if value is not None]
        variants = [form.facts, *({**form.facts, fact: None} for fact in known if wants_effects)]
        state.refuse_too_much_work(len(form.images) * len(variants))
        reserve_more(len(form.images) * len(variants) - 1)
        async with state.model_until(deadline):
            images = await state.decode(form.images, state.model.prepare, deadline=deadline)
            found = await state.queue.predict(
                [image for image in images for _ in variants], [facts for _ in images for facts in variants]
            )
    by_image = [found[start : start + len(variants)] for start in range(0, len(found), len(variants))]
    state.metrics.ood.inc(sum(bool(prediction.ood) for prediction, *_ in by_image))
    asked = form.values.get("risk", next(iter(risks(about)), None))
    risk = None if asked is None else float(asked)
    answers = [
        image_answer(
            prediction,
            about,
            risk=risk,
            without=dict(zip(known, without, strict=True)) if wants_effects else None,
        )
        for prediction, *without in by_image
    ]
    return Prediction(bundle=about.version, note=about.note, facts=dict(form.facts), images=answers)


def health_routes(state: AppState, token: str | None) -> APIRouter:
    """`/healthz`, `/readyz` and `/metrics`; the metrics require the token, if there is one."""
    router = APIRouter()
    guarded = (401,) if token is not None else ()

    @router.get("/healthz", summary="Check that the process is up")
    async def healthz() -> Health:
        return Health(status="ok")

    @router.get("/readyz", summary="Check that the model answers", responses=documented(503))
    async def readyz() -> Health:
        if not state.queue.ready:
            raise busy("the model does not answer", 5)
        return Health(status="ready")

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"content": {CONTENT_TYPE_PLAIN_1_0_0: {"schema": {"type": "string"}}}},
            **documented(*guarded),
        },
        dependencies=require_token(token),
    )
    async def metrics() -> Response:
        return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_PLAIN_1_0_0)

    return router


def page_routes(painted: Mapping[str, str]) -> APIRouter:
    """The page at `/`, its files, and synthetic example images; nothing comes from another origin."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> Response:
        return Response(asset("index.html"), media_type="text/html")

    @router.get("/assets/{name}")
    async def assets(name: str) -> Response:
        if name not in _ASSETS:
            raise RequestError(404, "not-found", f"no such file; expected one of {', '.join(_ASSETS)}")
        return Response(asset(name), media_type=_ASSETS[name], headers={"Cache-Control": "no-cache"})

    @router.get("/examples/{code}.jpg")
    async def examples(code: str) -> Response:
        if code not in painted:
            raise RequestError(404, "not-found", f"no such example; expected one of {', '.join(painted) or 'none'}")
        image = await asyncio.to_thread(example, painted[code])
        return Response(image, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})

    return router


@cache
def asset(name: str) -> bytes:
    """A file of the page."""
    return files("skinlesion.deploy.service").joinpath("assets", name).read_bytes()


@cache
def example(code: str) -> bytes:
    """A synthetic image of a diagnosis, as JPEG."""
    rng = np.random.default_rng([_EXAMPLE_SEED, HAM10000.codes.index(code)])
    patch = paint(code, "vidir_modern", width=max(_EXAMPLE_SIZE), rng=rng)
    image = photograph(patch, "vidir_modern", image_size=_EXAMPLE_SIZE, rng=rng).image
    return bytes(cv2.imencode(".jpg", image[..., ::-1])[1])
