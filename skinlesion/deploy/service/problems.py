"""What goes wrong with a request, as RFC 9457 problem details: what was given, what was expected, what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:skinlesion:problem:"


class ProblemDetails(BaseModel):
    """The body of every answer that is no success (RFC 9457)."""

    type: str = Field(description="What is wrong, for programs.", examples=[f"{_PREFIX}truncated-image"])
    title: str = Field(description="The phrase of the status.")
    status: int = Field(description="The status, once more.", ge=400, le=599)
    detail: str = Field(description="What is wrong and what to do, for people.")
    image: int | None = Field(None, description="Which image of the request is meant, counted from 1.", ge=1)


class RequestError(Exception):
    """A request that is answered with a problem.

    Args:
        status: HTTP status, 400 to 599.
        kind: Names the problem for programs: words with hyphens.
        detail: What was given, what was expected, what to do.
        headers: Further headers, such as Retry-After.
        image: Which image of the request is meant, counted from 1.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        image: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.image = image

    def of_image(self, number: int) -> "RequestError":
        """The same problem, of image `number` of the request, counted from 1."""
        return RequestError(self.status, self.kind, self.detail, headers=self.headers, image=number)

    def response(self) -> JSONResponse:
        """The answer to the client."""
        body: dict[str, Any] = {
            "type": f"{_PREFIX}{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.image is not None:
            body["image"] = self.image
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


def busy(detail: str, seconds: float) -> RequestError:
    """A request that has to come again, in `seconds` or later."""
    wait = max(1, round(seconds + 0.5))
    return RequestError(503, "busy", f"{detail}; try again in {wait} s", headers={"Retry-After": str(wait)})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The entries of OpenAPI's `responses` for the problems that a route may answer with."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def handle_problems(app: FastAPI) -> None:
    """Let every error of an application come out as a problem."""

    async def own(_: Request, error: Exception) -> JSONResponse:
        return error.response() if isinstance(error, RequestError) else _FAILED.response()

    async def foreign(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            return _FAILED.response()
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        detail = _WAY_OUT.get(error.status_code, str(error.detail))
        return RequestError(error.status_code, kind, detail, headers=error.headers).response()

    app.add_exception_handler(RequestError, own)
    app.add_exception_handler(HTTPException, foreign)
    app.add_exception_handler(Exception, foreign)


_FAILED = RequestError(500, "internal", "the service failed; its log says where")
_WAY_OUT = {
    404: "no such address; /openapi.json lists them",
    405: "not this method; the header Allow says which, and /openapi.json how",
}
