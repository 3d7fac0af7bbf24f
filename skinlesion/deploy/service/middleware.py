"""Around every request: security headers, metrics, a log line without the patient, the bearer token."""

import asyncio
import hmac
import logging
import time
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skinlesion.deploy.service.errors import RequestError, busy

log = logging.getLogger(__name__)

TOKEN = "SKINLESION_TOKEN"  # the environment variable that holds the bearer token

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # buckets
_IMAGES = (1, 2, 4, 8, 16, 32)  # buckets
_HEADERS = {
    # No script, style, image or request from another origin, and no framing by one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class ServiceMetrics:
    """Prometheus metrics of one service. They hold nothing about a patient."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: Any = {"registry": self.registry, "namespace": "skinlesion"}
        self.bundle = Info("bundle", "Version and precision of the bundle.", **own)
        self.requests = Counter("requests", "Answered requests.", ["method", "route", "status"], **own)
        self.request_seconds = Histogram("request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, **own)
        self.batch_images = Histogram("batch_images", "Images per batch.", buckets=_IMAGES, **own)
        self.model_seconds = Counter("model_seconds", "Time that the model took.", **own)
        self.ood = Counter("out_of_distribution_images", "Images unlike the training images.", **own)
        self.waiting = Gauge("waiting_images", "Images admitted and not yet answered.", **own)

    def record_batch(self, images: int, seconds: float) -> None:
        """Count a batch that the model has predicted."""
        self.batch_images.observe(images)
        self.model_seconds.inc(seconds)


class ObserveRequests:
    """Adds security headers; counts and logs method, route, status and time, never an address, query or body.

    HEAD is answered as GET is (the server leaves out the body), and a request that a stop does not wait for with 503.

    Args:
        app: The wrapped application.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "other"
        scope = {**scope, "method": "GET"} if method == "HEAD" else scope
        start, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            if status:
                raise
            await busy("the service stops", 5).response()(scope, receive, send_with_headers)
        finally:
            # Only methods and routes that exist: names made up by a client would add series without bound.
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = time.perf_counter() - start
            self._metrics.requests.labels(method, route, str(status or 500)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            log.info("%s %s %d %.0f ms", method, route, status or 500, 1000 * seconds)


def content_length(headers: Headers) -> int | None:
    """The announced length of a body in bytes; None: unknown."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def require_token(token: str | None) -> list[Any]:
    """The dependencies of a router that requires a bearer token; none if `token` is None."""
    if token is None:
        return []
    scheme = HTTPBearer(auto_error=False, description=f"The token in the service's environment variable {TOKEN}.")

    def check(credentials: Annotated[HTTPAuthorizationCredentials | None, Security(scheme)]) -> None:
        given = credentials.credentials.encode() if credentials is not None else b""
        if not hmac.compare_digest(given, token.encode()):
            raise RequestError(
                401,
                "unauthorised",
                f"{'wrong token' if given else 'no token'}; send the header 'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return [Depends(check)]
