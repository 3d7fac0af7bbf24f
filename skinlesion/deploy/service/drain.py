"""What is left of a request's body when the answer is ready: read and dropped, so that the client can read the answer.

A connection that is closed on unread bytes is reset, and a client may then lose a refusal that was already sent.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST = 4 * 2**20  # bytes: whoever sends more has to stand a reset
_SECONDS = 1.0


class DrainBody:
    """Reads small bodies to their end before an answer goes out that has not waited for it.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        more = _is_coming(Headers(scope=scope))

        async def watched() -> Message:
            nonlocal more
            message = await receive()
            more = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def after_the_body(message: Message) -> None:
            if message["type"] == "http.response.start" and more:
                await drain()
            await send(message)

        async def drain() -> None:
            read = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    while more and read < _MOST:
                        read += len((await watched()).get("body", b""))

        await self._app(scope, watched, after_the_body)


def _is_coming(headers: Headers) -> bool:
    """Whether a body follows that is worth reading; a client that asks before it sends shall not send it in vain."""
    if "expect" in headers:
        return False
    announced = headers.get("content-length", "")
    if announced.isascii() and announced.isdigit():
        return 0 < int(announced) <= _MOST
    return "transfer-encoding" in headers
