"""`skinlesion serve`: a bundle behind HTTP, and a page for a person; torch is not in the process."""

import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.config.deploy import ServeConfig
from skinlesion.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

LOCAL = ("127.0.0.1", "::1", "localhost")


def run(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM; what has been accepted by then is answered.

    Raises:
        SkinlesionError: The bundle cannot be used, the port is taken, or the extra `serve` is not installed.
    """
    try:
        from skinlesion.deploy.runtime import Bundle
        from skinlesion.deploy.service.app import build
        from skinlesion.deploy.service.middleware import TOKEN
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'skinlesion[serve]'") from error

    token = os.environ.get(TOKEN) or None
    bundle = Bundle.load(Path(config.bundle), threads=config.threads)
    listening = listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    log.info("bundle %s: %s", bundle.about.version, bundle.about.note)
    if config.host not in LOCAL and token is None:
        log.warning("host=%s: anyone who reaches it may use it; set %s to ask for a token", config.host, TOKEN)
    log.info("http://%s:%d (stop with Ctrl-C)", f"[{host}]" if ":" in host else host, port)
    serve_until_stopped(build(bundle, config.limits, token=token), listening, seconds=config.limits.timeout)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: The address is taken or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"host={host} port={port}: {error.strerror or error}; give another, port=0 for a free one"
        ) from error


def serve_until_stopped(app: "FastAPI", listening: socket.socket, *, seconds: float) -> None:
    """Serve until SIGINT or SIGTERM, then answer what has been accepted.

    Args:
        app: What answers.
        listening: Where.
        seconds: In which an accepted request is answered.
    """
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_config=None,  # its records go where ours go
        access_log=False,  # ours has no address and no query
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=int(seconds) + 5,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn repeats the signal when it has shut down
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])
