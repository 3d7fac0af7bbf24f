"""Large images: decoding counts in the estimate of the wait, so that whoever is let in is answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from service_doubles import RedModel, coloured, encoded, limits

from skinlesion.deploy.service import uploads
from skinlesion.deploy.service.errors import RequestError
from skinlesion.deploy.service.state import AppState
from skinlesion.deploy.service.uploads import Cost, cost_of

LIMITS = limits(megapixels=10, image_mib=8, request_mib=16, timeout=4)
LARGE = encoded(coloured(200, size=(2100, 2200)), "JPEG", progressive=True)
SMALL = encoded(coloured(100), "JPEG")


def with_state(
    scenario: Callable[[AppState], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, *, seconds: float
) -> list[bytes]:
    """Run a scenario where each large image takes `seconds` to decode; returns the files in their order."""
    decoded: list[bytes] = []
    real = uploads.decode_upload

    def slow(data: bytes, given: object) -> np.ndarray:
        time.sleep(seconds if data == LARGE else 0)
        decoded.append(data)
        return real(data if data == SMALL else SMALL, LIMITS)

    monkeypatch.setattr(uploads, "decode_upload", slow)

    async def main() -> None:
        state = AppState(RedModel(), LIMITS)
        async with state.running():
            await scenario(state)

    asyncio.run(main())
    return decoded


async def decode(state: AppState, *files: bytes) -> str:
    """One request's part of the way: "answered", "refused" with a time to retry after, or "late"."""
    deadline = state.deadline()
    try:
        async with asyncio.timeout_at(deadline):
            await state.decode(files, lambda image: image.shape, deadline=deadline)
    except RequestError as error:
        return "refused" if error.status == 503 and int(error.headers["Retry-After"]) >= 1 else "failed"
    except TimeoutError:
        return "late"
    return "answered"


def test_whoever_is_let_in_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty at once, at 0.2 s each: half of the timeout, 2 s, has room for ten, less where the estimate is careful."""

    async def scenario(state: AppState) -> None:
        assert await decode(state, LARGE) == "answered"  # it learns how long such an image takes
        found = await asyncio.gather(*(decode(state, LARGE) for _ in range(50)))
        assert {*found} == {"answered", "refused"}
        assert 5 <= found.count("answered") <= 12
        assert await decode(state, LARGE) == "answered", "there is room again"

    with_state(scenario, monkeypatch, seconds=0.2)


def test_small_images_do_not_wait_for_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(state: AppState) -> None:
        await decode(state, LARGE)
        large = [asyncio.create_task(decode(state, LARGE)) for _ in range(4)]
        await asyncio.sleep(0.05)
        for _ in range(10):
            assert await decode(state, SMALL) == "answered"
        assert not any(each.done() for each in large[1:])
        assert set(await asyncio.gather(*large)) == {"answered"}

    decoded = with_state(scenario, monkeypatch, seconds=0.3)
    assert decoded.index(SMALL) < 3


def test_images_of_a_request_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a request that came first are decoded before those of later ones."""

    async def scenario(state: AppState) -> None:
        await decode(state, LARGE)
        first = asyncio.create_task(decode(state, LARGE, LARGE, LARGE))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(decode(state, LARGE))
        assert await first == "answered"
        assert not second.done()
        assert await second == "answered"

    with_state(scenario, monkeypatch, seconds=0.1)


def test_what_nobody_waits_for_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(state: AppState) -> None:
        given_up = [asyncio.create_task(decode(state, LARGE)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for each in given_up:
            each.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        assert state.decoder.waits([Cost("JPEG", 9.0)])[1] == 0
        assert await decode(state, LARGE) == "answered"

    assert len(with_state(scenario, monkeypatch, seconds=0.2)) == 2


def test_a_header_tells_the_work() -> None:
    assert cost_of(LARGE, LIMITS) == Cost("progressive JPEG", pytest.approx(4.62))  # type: ignore[arg-type]
    assert cost_of(LARGE, LIMITS).is_large
    assert not cost_of(SMALL, LIMITS).is_large
    assert cost_of(encoded(coloured(size=(2100, 2200))), LIMITS).kind == "PNG"
    many = LARGE + b"\xff\xda" * 30
    assert cost_of(many, LIMITS).work > 3 * cost_of(LARGE, LIMITS).work
    assert cost_of(b"no image", LIMITS).work < 1, "decoding says what is wrong"
