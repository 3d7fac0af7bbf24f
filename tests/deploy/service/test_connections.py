"""Clients that hold connections open, send without end, or half close them, over real sockets."""

import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from deploy.service.test_process import ask, form, post, wait_until_ready
from service_doubles import coloured, encoded

from skinlesion.deploy.service import connections

TESTS = __file__.rsplit("/", 3)[0]
SCRIPT = """
import logging, sys
sys.path.insert(0, {tests!r})
from service_doubles import RedModel, limits
from skinlesion.deploy.service import connections
from skinlesion.deploy.service.app import build
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
connections.HEADER_SECONDS, connections.LINGER_SECONDS, connections.STOP_SECONDS = {seconds}
listening = connections.listen("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
app = build(RedModel(seconds={model}), limits(waiting=64, timeout=60), token={token!r})
connections.serve_until_stopped(app, listening)
"""
Server = tuple[subprocess.Popen[str], int]
Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start services of their own, with 1,024 descriptors as on most systems."""
    with ExitStack() as stack:

        def start(
            *, seconds: tuple[float, ...] = (1.0, 1.0, 6), model: float = 0.0, token: str | None = None
        ) -> Server:
            code = SCRIPT.format(tests=TESTS, seconds=seconds, model=model, token=token)
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
            )
            stack.callback(lambda: (process.kill(), process.communicate()))
            assert process.stdout is not None
            port = int(process.stdout.readline())
            wait_until_ready(port)
            return process, port

        yield start


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def said_by(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1300, reason="1,100 sockets of its own")
def test_idle_connections_are_harmless(start: Start) -> None:
    """1,100 of them, with a limit of 1,024 descriptors."""
    process, port = start(seconds=(60.0, 1.0, 6))
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(own[0], 1300), own[1]))
    try:
        with ExitStack() as stack:
            for number in range(1100):
                stack.enter_context(connect(port)).sendall(b"POST /v1/predict HTTP/1.1\r\nHost" if number % 2 else b"")
            begun = time.perf_counter()
            assert ask(port, "GET", "/readyz") == 200
            assert post(port) == 200
            assert time.perf_counter() - begun < 5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)
    assert ask(port, "GET", "/readyz") == 200
    assert said_by(process).splitlines() == ["more than 480 connections: the longest idle ones are closed"]


def test_a_connection_without_a_request_is_closed(start: Start) -> None:
    """Also one that sends its headers a byte at a time, and one that has had an answer."""
    process, port = start()
    with connect(port) as silent, connect(port) as slow, connect(port) as answered:
        answered.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answered.recv(65536).startswith(b"HTTP/1.1 200")
        begun, ended = time.perf_counter(), False
        while not ended and time.perf_counter() - begun < 20:
            time.sleep(0.1)
            try:
                slow.sendall(b"G")
                answered.sendall(b"G")
            except OSError:
                ended = True
        assert ended
        assert silent.recv(1) == b""
    assert said_by(process) == ""


@pytest.mark.parametrize("route", ["POST /v1/predict", "GET /", "POST /nowhere", "GET /metrics", "GET /healthz"])
def test_a_body_is_not_read_without_end(start: Start, route: str) -> None:
    process, port = start(token="secret")
    sent, ended = 0, False
    with connect(port) as endless:
        endless.sendall(f"{route} HTTP/1.1\r\nHost: a\r\nContent-Length: {10**11}\r\n\r\n".encode())
        begun = time.perf_counter()
        while not ended and time.perf_counter() - begun < 20 and sent < 2**31:
            try:
                sent += endless.send(bytes(2**20))
            except OSError:
                ended = True
    assert ended, f"{sent} bytes of the body were taken"
    assert sent < 2 * connections.MAX_DISCARDED
    assert ask(port, "GET", "/healthz") == 200
    assert said_by(process) == ""


def test_a_refusal_reaches_a_client_that_sends_a_large_body(start: Start) -> None:
    """Such clients send all of it before they read the answer."""
    _, port = start()
    for more in ("", "Connection: close\r\n"):
        with connect(port) as large:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n{more}"
            large.sendall(f"{head}Content-Length: {40 * 2**20}\r\n\r\n".encode())
            large.sendall(bytes(40 * 2**20))
            answer = read_all(large)
        assert answer.startswith(b"HTTP/1.1 413"), more
        assert b"2 MiB" in answer


def test_two_lengths_close_the_connection(start: Start) -> None:
    """What one program takes for a body another takes for a request: request smuggling."""
    _, port = start()
    with connect(port) as odd:
        odd.sendall(
            b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        answer = read_all(odd)
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_half_closed_request_is_answered(start: Start) -> None:
    _, port = start(model=0.3)
    body, headers = form(encoded(coloured(200)))
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": len(body)}.items())
    whole = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode() + body
    for requests in (1, 2):
        with connect(port) as half:
            half.sendall(whole * requests)
            half.shutdown(socket.SHUT_WR)
            begun = time.perf_counter()
            answer = read_all(half)
        assert answer.count(b"HTTP/1.1 200") == requests
        assert answer.count(b'"predicted":"mel"') == requests * 2
        assert time.perf_counter() - begun < 5 * requests
    with connect(port) as cut:
        cut.sendall(whole[:-20])
        cut.shutdown(socket.SHUT_WR)
        assert b"HTTP/1.1 200" not in read_all(cut)


def test_a_client_that_does_not_read_does_not_stop_others(start: Start) -> None:
    process, port = start()
    with connect(port) as deaf:
        deaf.settimeout(2)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
        with pytest.raises(TimeoutError):  # noqa: PT012
            for _ in range(100):
                deaf.sendall(asked)
        assert ask(port, "GET", "/healthz") == 200
    begun = time.perf_counter()
    said_by(process)
    assert time.perf_counter() - begun < 10


def test_a_stop_takes_seconds_and_leaves_nobody_without_an_answer(start: Start) -> None:
    """Admitted requests for 20 s of work, an upload that stands still, and an idle connection."""
    import threading

    process, port = start(seconds=(60.0, 60.0, 2), model=0.5)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(post(port))) for _ in range(40)]
    with connect(port), connect(port) as slow:
        body, headers = form(encoded(coloured()))
        head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: {headers['Content-Type']}\r\n"
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:50])
        for thread in threads:
            thread.start()
        while ask(port, "GET", "/healthz") == 200 and len(statuses) < 2:
            time.sleep(0.1)
        begun = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert time.perf_counter() - begun < 9, "Docker kills after ten"
        assert read_all(slow).startswith(b"HTTP/1.1 503")
    for thread in threads:
        thread.join(60)
    assert len(statuses) == 40
    assert set(statuses) == {200, 503}, statuses
    assert process.returncode == 0, said
    assert "Traceback" not in said
