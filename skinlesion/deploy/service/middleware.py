"""Around every request: headers that keep the page to itself, a count, a line in the log without the patient."""

import hmac
import logging
import time
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skinlesion.deploy.service.metrics import ServiceMetrics
from skinlesion.deploy.service.problems import RequestError

log = logging.getLogger(__name__)

TOKEN = "SKINLESION_TOKEN"  # the environment variable that holds the bearer token
UNMATCHED = "unmatched"

_HEADERS = {
    # No script, style, image or request from elsewhere, and no framing by others.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Observed:
    """Adds headers, counts and logs: method, route, status and time; no address, query, name or body.

    Args:
        app: What answers.
        measures: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, measures: ServiceMetrics) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            seconds = time.perf_counter() - start
            self._measures.request(scope["method"], route, status, seconds)
            log.info("%s %s %d %.0f ms", scope["method"] if route != UNMATCHED else "?", route, status, 1000 * seconds)


def authorised(token: str | None) -> list[Any]:
    """The dependencies of a router that asks for a bearer token; none where there is no token."""
    if token is None:
        return []
    scheme = HTTPBearer(auto_error=False, description=f"The token that the service found in {TOKEN}.")

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Security(scheme)]) -> None:
        offered = given.credentials.encode() if given is not None else b""
        if not hmac.compare_digest(offered, token.encode()):
            said = "wrong token" if offered else "no token"
            raise RequestError(
                401,
                "unauthorised",
                f"{said}; send the header 'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return [Depends(check)]
