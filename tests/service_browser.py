"""A service in a process of its own, and the settings of a headless Chromium without network access."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)

SERVER = """
import sys
sys.path.insert(0, {tests!r})
from service_doubles import RedModel, limits
from skinlesion.deploy.service.connections import listen, serve_until_stopped
from skinlesion.deploy.service.app import build
listening = listen("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
generous = limits(image_mib=12, request_mib=16, megapixels=32)
serve_until_stopped(build(RedModel(seconds={seconds}), generous, token={token!r}), listening)
"""


def served(token: str | None = None) -> Iterator[str]:
    """The address of a service of its own process."""
    code = SERVER.format(tests=str(TESTS), token=token, seconds=0.0)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    process.terminate()
    process.wait(60)
    process.stdout.close()
