"""The application: its routes, and what is kept while it runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from skinlesion import __version__
from skinlesion.config.deploy import LimitsConfig
from skinlesion.deploy.service.api import api
from skinlesion.deploy.service.drain import DrainBody
from skinlesion.deploy.service.health import health
from skinlesion.deploy.service.middleware import Observed
from skinlesion.deploy.service.model import Model
from skinlesion.deploy.service.page import page
from skinlesion.deploy.service.problems import ProblemDetails, handle_problems
from skinlesion.deploy.service.state import AppState

DESCRIPTION = (
    "Seven skin diagnoses from a dermoscopic image and what is known of age, sex and localization. "
    "Research use only, not a medical device. Errors are RFC 9457 problem details that say what to do."
)


def build(model: Model, limits: LimitsConfig, *, token: str | None = None) -> FastAPI:
    """Build the service around a model.

    Args:
        model: Loaded; it is asked from one thread.
        limits: What is too large, too much or too slow.
        token: Asked of whoever uses the API; None: of nobody.
    """
    desk = AppState(model, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with desk.opened():
            yield

    app = FastAPI(
        title="skinlesion",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its scripts would come from elsewhere
        redoc_url=None,
    )
    handle_problems(app)
    app.include_router(api(desk, token))
    app.include_router(health(desk, token))
    app.include_router(page())
    app.add_middleware(Observed, measures=desk.measures)
    app.add_middleware(DrainBody)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Let the OpenAPI description hold the schema that all problems refer to."""
    described = app.openapi()
    schemas = described.setdefault("components", {}).setdefault("schemas", {})
    schemas[ProblemDetails.__name__] = ProblemDetails.model_json_schema()
