"""The service as a process of its own: what it imports, how it starts, stops and refuses."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import composed
from service_doubles import coloured, encoded

from skinlesion.commands.serve import run
from skinlesion.config.deploy import ServeConfig
from skinlesion.deploy.service.connections import listen
from skinlesion.errors import BundleError, ConfigError

TESTS = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "lightning", "pandas", "albumentations", "sklearn", "matplotlib")

# A slow model behind the verb's own server, so that requests are under way when the signal comes.
SCRIPT = """
import logging, sys
sys.path.insert(0, {tests!r})
from service_doubles import RedModel, limits
from skinlesion.deploy.service.connections import listen, serve_until_stopped
from skinlesion.deploy.service.app import build
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
listening = listen("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
model = RedModel(seconds=0.2)
serve_until_stopped(build(model, limits(waiting=64)), listening)
heavy = {heavy!r}
print("imported", sorted(set(heavy) & set(sys.modules)), flush=True)
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    code = SCRIPT.format(tests=str(TESTS), heavy=HEAVY)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def form(content: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def ask(port: int, method: str, path: str, *sent: Any) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, *sent)
        return connection.getresponse().status


def post(port: int) -> int:
    return ask(port, "POST", "/v1/predict", *form(encoded(coloured())))


def wait_until_ready(port: int) -> None:
    for _ in range(600):
        try:
            if ask(port, "GET", "/readyz") == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the service is not ready")


def wait_until_accepted(port: int, requests: int) -> None:
    """Until so many predictions wait or have been answered; 12 of them take 2.4 s."""
    accepted = 0.0
    while accepted < requests:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        counts = re.findall(r"^skinlesion_(?:waiting_images|requests_total{.*predict.*}) (.+)$", text, re.MULTILINE)
        accepted = sum(float(count) for count in counts)


def test_a_refusal_reaches_a_client_that_is_still_sending(server: tuple[subprocess.Popen[str], int]) -> None:
    """The answer to the first bytes is ready at once; a connection closed then would be reset by the next ones."""
    _, port = server
    wait_until_ready(port)
    size, chunk = 500_000, 50_000
    head = f"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode())
        for _ in range(size // chunk):
            connection.sendall(b"x" * chunk)
            time.sleep(0.02)
        with connection.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 404")


def test_a_stop_answers_admitted_requests(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    wait_until_ready(port)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(post(port))) for _ in range(12)]
    for thread in threads:
        thread.start()
    wait_until_accepted(port, 12)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    said, _ = process.communicate(timeout=60)
    assert statuses == [200] * 12, said
    assert process.returncode == 0, said
    assert "imported []" in said, "torch and its like are not in the process"
    assert said.count("POST /v1/predict 200") == 12
    assert "Traceback" not in said
    assert "127.0.0.1" not in said.replace("http://127.0.0.1", ""), "no address of a client in the log"
    with pytest.raises(OSError, match="refused"):
        post(port)


def test_clients_that_go_away_do_no_harm(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    wait_until_ready(port)
    body, headers = form(encoded(coloured()))
    for sent in (body[:100], body):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", "/v1/predict")
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(sent)
        connection.close()
    assert post(port) == 200
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "bundle: a value is needed"),
        (("bundle=x", "port=70000"), "port=70000: expected 0 to 65535"),
        (("bundle=x", "limits.batch=0"), "limits.batch=0: expected 1 or more"),
        (("bundle=x", "limits.waiting=2"), "limits.waiting=2: expected limits.images"),
        (("bundle=x", "limits.explain_seconds=20"), "limits.explain_seconds=20.0: expected 15 or less"),
    ],
)
def test_wrong_settings_are_refused(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        composed("serve", ServeConfig, *overrides)


@pytest.mark.parametrize("token", ["", " ", "geheimnis-ä", " padded", "two\nlines"])
def test_a_token_that_nobody_can_send_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one used to leave the service open."""
    monkeypatch.setenv("SKINLESION_TOKEN", token)
    with pytest.raises(ConfigError, match="SKINLESION_TOKEN: expected a token of printable ASCII"):
        run(composed("serve", ServeConfig, "bundle=x"))


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere.*no bundle there"):
        run(composed("serve", ServeConfig, f"bundle={tmp_path / 'nowhere'}"))


def test_a_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=re.escape(f"port={port}") + ".*choose another"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"host=192\.0\.2\.1"):
        listen("192.0.2.1", 0)
