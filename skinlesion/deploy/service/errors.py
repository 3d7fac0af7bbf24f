"""Errors of the service as RFC 9457 problem details: what was sent, what is expected, how to mend it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:skinlesion:problem:"
_HINTS = {
    404: "no such address; /openapi.json lists them",
    405: "wrong method; the header Allow lists the right ones, /openapi.json describes them",
}


class ProblemDetails(BaseModel):
    """The body of every error response (RFC 9457)."""

    type: str = Field(description="Kind of problem, for programs.", examples=[f"{_PREFIX}truncated-image"])
    title: str = Field(description="The reason phrase of the status.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="What is wrong and what to do, for people.")
    image: int | None = Field(None, description="The image of the request that is meant, counted from 1.", ge=1)


class RequestError(Exception):
    """A request that is answered with a problem.

    Args:
        status: HTTP status, 400 to 599.
        kind: Name of the problem for programs: words with hyphens.
        detail: What was sent, what is expected, what to do.
        headers: Further headers, such as Retry-After.

    Attributes:
        image: The image of the request that is meant, counted from 1; None: the request as a whole.
    """

    def __init__(self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers = dict(headers or {})
        self.image: int | None = None

    def response(self) -> JSONResponse:
        """The problem details as an HTTP response."""
        title = HTTPStatus(self.status).phrase
        problem = ProblemDetails(
            type=f"{_PREFIX}{self.kind}", title=title, status=self.status, detail=self.detail, image=self.image
        )
        return JSONResponse(problem.model_dump(exclude_none=True), self.status, self.headers, MEDIA_TYPE)


def busy(detail: str, seconds: float) -> RequestError:
    """A 503 that asks the client to try again after `seconds`, rounded up to 1 s or more."""
    wait = max(1, round(seconds + 0.5))
    return RequestError(503, "busy", f"{detail}; try again in {wait} s", headers={"Retry-After": str(wait)})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The entries of OpenAPI's `responses` for the error statuses of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of an application, its own and Starlette's, with problem details."""

    async def respond(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException):
            kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
            detail = _HINTS.get(error.status_code, str(error.detail))
            error = RequestError(error.status_code, kind, detail, headers=error.headers)
        elif not isinstance(error, RequestError):
            error = RequestError(500, "internal", "the service failed; see its log")
        return error.response()

    for kind in (RequestError, HTTPException, Exception):
        app.add_exception_handler(kind, respond)
