"""`skinlesion serve`: a bundle behind HTTP, with a page for people. The process does not import torch."""

import logging
import os
from pathlib import Path

from skinlesion.config.deploy import ServeConfig
from skinlesion.errors import ConfigError

log = logging.getLogger(__name__)

LOCAL = ("127.0.0.1", "::1", "localhost")


def run(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered then, those that take long with 503.

    Raises:
        SkinlesionError: The bundle, the token or the port cannot be used, or the extra `serve` is not installed.
    """
    try:
        from skinlesion.deploy.service.app import build
        from skinlesion.deploy.service.connections import listen, serve_until_stopped
        from skinlesion.deploy.service.middleware import TOKEN
        from skinlesion.inference.predictor import Predictor
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'skinlesion[serve]'") from error

    token = os.environ.get(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable() and token and token == token.strip()):
        raise ConfigError(
            f"{TOKEN}: expected a token of printable ASCII characters without blanks around it; unset it for none"
        )
    model = Predictor.load_bundle(Path(config.bundle), threads=config.threads)
    about = model.about
    listening = listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    log.info("bundle %s: %s", about.version, about.note)
    if config.host not in LOCAL and token is None:
        log.warning("host=%s: open to everyone who can reach it; set %s to require a token", config.host, TOKEN)
    log.info("http://%s:%d (stop with Ctrl-C)", f"[{host}]" if ":" in host else host, port)
    serve_until_stopped(build(model, config.limits, token=token), listening)
