"""`/healthz`, `/readyz` and `/metrics`, for whoever runs the service."""

from fastapi import APIRouter, Response

from skinlesion.deploy.service.metrics import MEDIA_TYPE
from skinlesion.deploy.service.middleware import authorised
from skinlesion.deploy.service.problems import busy, documented
from skinlesion.deploy.service.schemas import Health
from skinlesion.deploy.service.state import AppState


def health(desk: AppState, token: str | None) -> APIRouter:
    """The routes; counts are guarded by the token, if there is one."""
    router = APIRouter()
    guarded = (401,) if token is not None else ()

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Health:
        return Health(status="ok")

    @router.get("/readyz", summary="Whether the model answers", responses=documented(503))
    async def readyz() -> Health:
        if not desk.ready:
            raise busy("the model does not answer", 5)
        return Health(status="ready")

    @router.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}, **documented(*guarded)},
        dependencies=authorised(token),
    )
    async def metrics() -> Response:
        return Response(desk.measures.text(desk.line.held), media_type=MEDIA_TYPE)

    return router
