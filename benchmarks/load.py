"""The service under twice the load that it can carry, on loopback: `python -m benchmarks.load --bundle DIR`.

First eight clients send one request after another, which gives the service's capacity; then twice that rate is sent,
whether it answers or not. Then come fifty progressive JPEGs of 32 megapixels at once, and 1,100 connections that say
nothing, each with small requests beside them. Admitted requests must be answered, others refused with a time to retry;
memory stays flat.
"""

import argparse
import asyncio
import itertools
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import machine
from skinlesion.files import write_json
from skinlesion.taxonomy import HAM10000

AT_ONCE = 8
LARGE = 50  # requests with an image of 32 megapixels
IDLE = 1100  # connections without a request
DESCRIPTORS = 1024  # of the service, as on most systems
RESULT = Path(__file__).parent / "results" / "load.json"


@dataclass
class Responses:
    """The responses that clients got."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by status
    without_retry_after: int = 0  # refusals without a time to retry

    def add(self, status: int, head: bytes, seconds: float) -> None:
        """Record a response; status 0: there was none."""
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)
        self.without_retry_after += status == 503 and b"retry-after:" not in head.lower()


def request_of(image: bytes) -> bytes:
    """A whole prediction request."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="age"\r\n\r\n55\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n--x--\r\n"
    )
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, request: bytes, responses: Responses) -> None:
    """Send one request and record the response."""
    start, answer = time.perf_counter(), b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
    except OSError:
        pass
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    responses.add(int(found[1]) if found else 0, answer.partition(b"\r\n\r\n")[0], time.perf_counter() - start)


async def capacity(port: int, request: bytes, seconds: float) -> float:
    """Requests answered per second with `AT_ONCE` clients."""
    responses, end = Responses(), time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            await ask(port, request, responses)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return responses.statuses[200] / seconds


async def flood(port: int, request: bytes, *, rate: float, seconds: float, pid: int) -> tuple[Responses, list[float]]:
    """Send `rate` requests per second regardless of responses; also gives the server's memory each second, in MiB."""
    responses, memory, start = Responses(), [resident(pid)], time.perf_counter()
    under_way: set[asyncio.Task[None]] = set()
    for number in itertools.count():
        due = start + number / rate
        if due > start + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.add(task := asyncio.create_task(ask(port, request, responses)))
        task.add_done_callback(under_way.discard)
        if time.perf_counter() - start > len(memory):
            memory.append(resident(pid))
    await asyncio.gather(*under_way)
    return responses, memory


async def beside(port: int, request: bytes, other: Awaitable[object]) -> Responses:
    """Send one small request after another until something else is done, one at least."""
    responses, doing = Responses(), asyncio.ensure_future(other)
    while not responses.statuses or not doing.done():
        await ask(port, request, responses)
    await doing
    return responses


async def hold(port: int, connections: int, seconds: float) -> None:
    """Hold connections open that say nothing, or half a line."""
    writers = []
    for number in range(connections):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/predict HTTP/1.1\r\nHo" if number % 2 else b"")
            writers.append(writer)
    await asyncio.sleep(seconds)
    for writer in writers:
        writer.close()


def large_image() -> bytes:
    """A progressive JPEG of 32 megapixels."""
    rough = np.random.default_rng(1).integers(0, 256, (490, 650, 3), dtype=np.uint8)
    buffer = BytesIO()
    image = Image.fromarray(rough).resize((6530, 4900), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", progressive=True, quality=85)
    return buffer.getvalue()


def resident(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def measure(command: Sequence[str], image: bytes, *, seconds: float) -> dict[str, Any]:
    """Start a service, load it, stop it.

    Args:
        command: Starts the service; it prints its address, http://127.0.0.1:PORT.
        image: An image file.
        seconds: At twice the load, after a fifth of that to measure the capacity.

    Returns:
        Plain numbers.
    """
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(own[1], 2 * IDLE), own[1]))
    limited = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    with (
        tempfile.NamedTemporaryFile("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=limited) as server,
    ):
        try:
            port = _port(Path(log.name))
            found = asyncio.run(_scenario(port, request_of(image), seconds=seconds, pid=server.pid))
            found["log_lines_of_idle"] = Path(log.name).read_text(encoding="utf-8").count("the longest idle ones")
        finally:
            server.send_signal(signal.SIGTERM)
            resource.setrlimit(resource.RLIMIT_NOFILE, own)
    return {**found, "exit_status": server.returncode}


def _port(log: Path) -> int:
    for _ in range(1200):
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8")):
            return int(found[1])
        time.sleep(0.1)
    raise RuntimeError("the service did not print its address within two minutes; see its log")


async def _scenario(port: int, request: bytes, *, seconds: float, pid: int) -> dict[str, Any]:
    await ask(port, request, Responses())  # it listens before the model is warm
    carried = await capacity(port, request, seconds / 5)
    responses, memory = await flood(port, request, rate=2 * carried, seconds=seconds, pid=pid)
    settled = memory[len(memory) // 4 :]
    large, after, large_request = Responses(), Responses(), request_of(large_image())
    beside_large = await beside(port, request, asyncio.gather(*(ask(port, large_request, large) for _ in range(LARGE))))
    idle = await beside(port, request, hold(port, IDLE, seconds / 10))
    await ask(port, request, after)
    return {
        "carried_per_s": round(carried, 1),
        "offered_per_s": round(2 * carried, 1),
        "seconds": seconds,
        "answered_per_s": round(responses.statuses[200] / seconds, 1),
        **_summary(responses),
        "large_images": _summary(large),
        "small_beside_large": _summary(beside_large),
        "small_beside_idle": _summary(idle),
        "memory_mib": {
            "before": round(memory[0]),
            "after_a_quarter": round(settled[0]),
            "highest": round(max(memory)),
            "end": round(memory[-1]),
        },
        "answers_afterwards": after.statuses[200] == 1,
    }


def _summary(responses: Responses) -> dict[str, Any]:
    return {
        "answered": responses.statuses[200],
        "refused": responses.statuses[503],
        "refused_without_retry_after": responses.without_retry_after,
        "other": {status: count for status, count in responses.statuses.items() if status not in (200, 503)},
        "answered_s": _quantiles(responses.seconds.get(200, [])),
        "refused_s": _quantiles(responses.seconds.get(503, [])),
    }


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {
        name: round(float(np.quantile(seconds, q)), 3) for name, q in (("median", 0.5), ("p99", 0.99), ("longest", 1))
    }


def main() -> None:
    """Measure a bundle's service and write the numbers."""
    from skinlesion.deploy.service.app import example

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="demo/bundle", help="folder that `skinlesion export` wrote")
    parser.add_argument("--seconds", type=float, default=150, help="time at twice the load, seconds")
    parser.add_argument("--result", type=Path, default=RESULT, help="JSON file for the numbers")
    given = parser.parse_args()
    command = [sys.executable, "-m", "skinlesion", "serve", f"bundle={given.bundle}", "port=0"]
    found = measure(command, example(HAM10000.targets[0]), seconds=given.seconds)
    about = json.loads((Path(given.bundle) / "bundle.json").read_text(encoding="utf-8"))
    members = [f"{member['backbone']} {member['size'][1]}x{member['size'][0]}" for member in about["members"]]
    written = {"members": members, "precision": about["precision"], "machine": machine(), **found}
    write_json(given.result, written)
    print(json.dumps(written, indent=2))


if __name__ == "__main__":
    main()
