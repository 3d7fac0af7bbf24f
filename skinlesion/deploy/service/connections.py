"""The sockets of the service: how many, for how long, and how they end.

uvicorn speaks HTTP. Here stands what a service needs beyond that: connections that send no request are closed, their
number stays below the process's limit of descriptors, a body is not read without end after its answer, and a stop
takes seconds.
"""

import asyncio
import logging
import signal
import socket
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from skinlesion.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

HEADER_SECONDS = 10.0  # from the connection, or the last answer, until the headers of a request are complete
WRITE_SECONDS = 30.0  # in which a client takes what has been written
LINGER_SECONDS = 5.0  # in which a client sees the end of a connection
MAX_DISCARDED = 64 * 2**20  # bytes of a body that are read after its answer
STOP_SECONDS = 6  # in which admitted requests are answered after SIGTERM; Docker kills after ten
_LOG_SECONDS = 60.0  # between two lines about too many connections
_SPARE = 64  # descriptors for everything but connections
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes any free port.

    Raises:
        ConfigError: The address is taken or not of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"host={host} port={port}: {reason}; choose another, or port=0 for any free one") from error


def serve_until_stopped(app: "FastAPI", listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then answer the requests that were admitted, within `STOP_SECONDS`."""
    settings = uvicorn.Config(
        app,
        http=Connection,
        backlog=accepted_at_once(),
        log_config=None,  # uvicorn logs through our handlers
        access_log=False,  # ours has no address and no query
        log_level="error",  # no line for each malformed request
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again after its shutdown
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])


@cache
def descriptors() -> int:
    """How many files and sockets this process may open, less those that it needs for itself."""
    try:
        import resource  # not on Windows
    except ModuleNotFoundError:
        return 512 - _SPARE
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(soft if soft > 0 else 4096, 4096) - _SPARE)


def most_connections() -> int:
    """How many connections may be open, with room for those that are accepted at once."""
    return descriptors() // 2


def accepted_at_once() -> int:
    """How many connections asyncio accepts before it handles any of them."""
    return min(128, descriptors() // 4)


class Connection(H11Protocol):
    """A connection that no client holds open for nothing or fills without end."""

    _logged = float("-inf")  # when the last line about too many connections was written

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock, and make room if there are too many connections."""
        self._discarded, self._half_closed = 0, False
        self._stalled: asyncio.TimerHandle | None = None
        self._lingering = _LingeringTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._lingering))
        self._await_headers()
        if len(self.connections) > most_connections():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clock.cancel()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; those of a closing connection are counted and dropped."""
        if not self.transport.is_closing():
            super().data_received(data)
            return
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED:
            self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio keeps the connection where it is true
        """Keep the connection open for writing if a whole request is being answered."""
        self._half_closed = not self.is_idle and not self.cycle.more_body
        return self._half_closed

    def handle_events(self) -> None:
        """Stop the clock for a request; one of two lengths is the connection's last (RFC 9112, 6.1)."""
        super().handle_events()
        if not self.is_idle:
            self._clock.cancel()
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in self.headers}:
                self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Wait for the next request, or close if the client has no more to say or has not said all."""
        self._await_headers()
        super().on_response_complete()
        if self.is_idle and self._half_closed:
            self._lingering.close_at_once()
        elif self.is_idle and self.cycle.more_body:
            self.transport.close()

    def shutdown(self) -> None:
        """Close at once if idle, else after the answer."""
        if self.is_idle:
            self._lingering.close_at_once()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Give the client some time to read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _await_headers(self) -> None:
        self._since = self.loop.time()
        self._clock = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _make_room(self) -> None:
        """Close the connection that has been idle for longest; refuse this one if it is the only idle one."""
        now = time.monotonic()
        if now - Connection._logged > _LOG_SECONDS:
            Connection._logged = now
            log.warning("more than %d connections: the longest idle ones are closed", most_connections())
        connections: Any = self.connections  # uvicorn types them as any of its protocols
        others = [each for each in connections if each is not self and each.is_idle]
        if others:
            oldest = min(others, key=lambda each: each._since)
            self.connections.discard(oldest)  # it is told only after other new ones
            oldest.transport.abort()
        else:
            self.transport.write(_FULL)
            self.transport.close()


class _LingeringTransport:
    """A transport whose end reaches the client: a socket that is closed with unread bytes is reset instead.

    To close it sends the end of the stream, and reads on until the client closes too.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._closing = transport, loop, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            with suppress(OSError):  # the client has closed already
                self._transport.write_eof()
            self._transport.resume_reading()
            self._loop.call_later(LINGER_SECONDS, self._end, WRITE_SECONDS)

    def close_at_once(self) -> None:
        self._transport.close()

    def _end(self, seconds: float) -> None:
        """Close unless the client still reads an answer, for which it has some more seconds."""
        if seconds > 0 and self._transport.get_write_buffer_size():
            self._loop.call_later(LINGER_SECONDS, self._end, seconds - LINGER_SECONDS)
        else:
            self._transport.abort()
