"""The application: routes, middleware and error handlers around a model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from skinlesion import __version__
from skinlesion.config.deploy import LimitsConfig
from skinlesion.deploy.service.errors import ProblemDetails, install_error_handlers
from skinlesion.deploy.service.middleware import DrainBody, ObserveRequests
from skinlesion.deploy.service.model import Model
from skinlesion.deploy.service.routes import api_routes, health_routes, page_routes
from skinlesion.deploy.service.state import AppState

DESCRIPTION = (
    "Seven skin diagnoses from a dermoscopic image and what is known of age, sex and localization. "
    "Research use only, not a medical device. Errors are RFC 9457 problem details that say what to do."
)


def build(model: Model, limits: LimitsConfig, *, token: str | None = None) -> FastAPI:
    """Build the service around a model.

    Args:
        model: Loaded.
        limits: Of requests.
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
    )
    install_error_handlers(app)
    app.include_router(api_routes(state, token))
    app.include_router(health_routes(state, token))
    app.include_router(page_routes())
    app.add_middleware(ObserveRequests, metrics=state.metrics)
    app.add_middleware(DrainBody)
    schemas = app.openapi().setdefault("components", {}).setdefault("schemas", {})
    schemas[ProblemDetails.__name__] = ProblemDetails.model_json_schema()  # all documented errors refer to it
    return app
