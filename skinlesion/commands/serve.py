"""`skinlesion serve`: a bundle behind HTTP, with a page for people. The process does not import torch."""

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
    """Serve until SIGINT or SIGTERM; requests that were admitted by then are answered.

    Raises:
        SkinlesionError: The bundle cannot be used, the port is taken, or the extra `serve` is not installed.
    """
    try:
        from skinlesion.deploy.service.app import build
        from skinlesion.deploy.service.middleware import TOKEN
        from skinlesion.inference.predictor import Predictor
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'skinlesion[serve]'") from error

    token = os.environ.get(TOKEN) or None
    model = Predictor.load_bundle(Path(config.bundle), threads=config.threads)
    about = model.about
    listening = listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    log.info("bundle %s: %s", about.version, about.note)
    if config.host not in LOCAL and token is None:
        log.warning("host=%s: open to everyone who can reach it; set %s to require a token", config.host, TOKEN)
    log.info("http://%s:%d (stop with Ctrl-C)", f"[{host}]" if ":" in host else host, port)
    serve_until_stopped(build(model, config.limits, token=token), listening, seconds=config.limits.timeout)


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


def serve_until_stopped(app: "FastAPI", listening: socket.socket, *, seconds: float) -> None:
    """Serve until SIGINT or SIGTERM, then answer the requests that were admitted.

    Args:
        app: The service.
        listening: The socket.
        seconds: Time within which an admitted request is answered.
    """
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_config=None,  # uvicorn logs through our handlers
        access_log=False,  # ours has no address and no query
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=int(seconds) + 5,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again after its shutdown
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])
