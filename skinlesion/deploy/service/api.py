"""`/v1`: predict, explain, and what the model says of itself."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from skinlesion.deploy.service.explain import HEADERS, explain
from skinlesion.deploy.service.fields import EXPLAIN_FIELDS, PREDICT_FIELDS, request_body, risks
from skinlesion.deploy.service.middleware import authorised
from skinlesion.deploy.service.predict import predict
from skinlesion.deploy.service.problems import documented
from skinlesion.deploy.service.schemas import DiagnosisName, ModelCard, Prediction
from skinlesion.deploy.service.state import AppState
from skinlesion.taxonomy import DIAGNOSES

_PNG: dict[str, Any] = {
    "description": "A PNG: orange speaks for the diagnosis, blue against it.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    "headers": {name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in HEADERS.items()},
}


def api(desk: AppState, token: str | None) -> APIRouter:
    """The routes under `/v1`, guarded by a token if there is one."""
    about = desk.model.about
    guarded = (401,) if token is not None else ()
    refusals = documented(*guarded, 400, 408, 413, 415, 422, 500, 503)
    router = APIRouter(prefix="/v1", dependencies=authorised(token))

    @router.get("/model", summary="What answers here", responses=documented(*guarded))
    async def model() -> ModelCard:
        return model_card(desk)

    @router.post(
        "/predict",
        summary="Diagnose one or several images of one patient",
        responses=refusals,
        openapi_extra={"requestBody": request_body(PREDICT_FIELDS, about, several=desk.limits.images)},
    )
    async def predictions(request: Request) -> Prediction:
        return await predict(desk, request)

    @router.post(
        "/explain",
        summary="Show which parts of an image a diagnosis rests on",
        response_class=Response,
        responses={200: _PNG, **refusals},
        openapi_extra={"requestBody": request_body(EXPLAIN_FIELDS, about, several=None)},
    )
    async def explanation(request: Request) -> Response:
        return await explain(desk, request)

    return router


def model_card(desk: AppState) -> ModelCard:
    """What the service says of its model."""
    about = desk.model.about
    return ModelCard(
        bundle=about.version,
        format=about.format,
        precision=about.precision,
        note=about.note,
        licence=about.licence,
        diagnoses=[DiagnosisName(code=d.code, name=d.name, category=d.category) for d in DIAGNOSES],
        members=[member.name for member in about.members],
        input_sizes=[(size[0], size[1]) for size in about.sizes],
        sexes=list(about.encoder.sexes),
        localizations=list(about.encoder.localizations),
        risks=list(risks(about)),
        operating_points=about.operating_points,
        limits=asdict(desk.limits),
    )
