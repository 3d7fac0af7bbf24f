"""The unread rest of a body is drained before an early answer, within bounds."""

import asyncio
import time
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from skinlesion.deploy.service import middleware
from skinlesion.deploy.service.middleware import DrainBody


def sent_after(body: list[bytes], *headers: tuple[bytes, bytes], read: int = 0, hangs: bool = False) -> tuple[int, Any]:
    """How many chunks had been read when the answer began, by an application that reads `read` of them itself."""
    waiting, begun = list(body), []

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(60 if hangs else 0)
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": hangs or bool(waiting)}

    async def send(message: Message) -> None:
        begun.append((len(body) - len(waiting), message["type"]))

    async def refuse(_: Scope, receive: Receive, send: Send) -> None:
        for _ in range(read):
            await receive()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    asyncio.run(DrainBody(refuse)({"type": "http", "headers": list(headers)}, receive, send))
    assert [kind for _, kind in begun] == ["http.response.start", "http.response.body"]
    return begun[0][0], begun


def length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", str(size).encode()


def test_a_small_body_is_read_to_its_end() -> None:
    chunks = [b"x" * 1000] * 5
    for already in (0, 2, 5):
        assert sent_after(chunks, length(5000), read=already)[0] == 5
    assert sent_after(chunks, (b"transfer-encoding", b"chunked"))[0] == 5


def test_absent_large_and_expected_bodies_are_not_drained() -> None:
    chunks = [b"x" * 1000] * 5
    assert sent_after(chunks)[0] == 0, "no body is announced"
    assert sent_after(chunks, length(middleware._MAX_DRAINED + 1))[0] == 0
    assert sent_after(chunks, length(5000), (b"expect", b"100-continue"))[0] == 0
    large = [b"x" * (middleware._MAX_DRAINED // 2)] * 5
    assert sent_after(large, (b"transfer-encoding", b"chunked"))[0] == 2


def test_a_slow_client_gets_its_refusal_soon() -> None:
    start = time.perf_counter()
    assert sent_after([b"x"], length(100), hangs=True)[0] == 1
    assert time.perf_counter() - start < 10
