"""The queue: bounded, in batches, fair between lanes, and honest about how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from service_doubles import MEL, RedModel, coloured

from skinlesion.deploy.service.errors import RequestError
from skinlesion.deploy.service.queue import InferenceQueue, Lane
from skinlesion.inference.members import Prepared


def prepared(red: int = 128) -> Prepared:
    return RedModel().prepare(coloured(red))


def with_queue(model: RedModel, scenario: Callable[[InferenceQueue], Awaitable[None]], timeout: float = 10.0) -> None:
    """Run a scenario while a queue of 8 places and batches of 4 is running."""

    async def main() -> None:
        queue = InferenceQueue(model, capacity=8, batch=4, timeout=timeout, on_batch=lambda images, seconds: None)
        assert not queue.ready
        async with queue.running():
            assert queue.ready
            await scenario(queue)
        assert not queue.ready

    asyncio.run(main())


def test_requests_are_predicted_together_and_get_their_own_answers() -> None:
    model = RedModel(seconds=0.002)

    async def scenario(queue: InferenceQueue) -> None:
        requests = [queue.predict([prepared(red)], [{}]) for red in range(0, 250, 10)]
        answers = await asyncio.gather(*requests)
        found = [prediction.probabilities[MEL] for (prediction,) in answers]
        assert found == pytest.approx([0.8 * red / 255 for red in range(0, 250, 10)])
        assert max(model.batches) == 4
        assert sum(model.batches) == 25
        assert len(model.batches) <= 8, "not one by one"

    with_queue(model, scenario)


def test_facts_stay_with_their_image() -> None:
    async def scenario(queue: InferenceQueue) -> None:
        old, young = await queue.predict([prepared(100)] * 2, [{"age": 80.0}, {"age": 20.0}])
        assert old.probabilities[MEL] - young.probabilities[MEL] == pytest.approx(0.1)

    with_queue(RedModel(), scenario)


def test_a_full_queue_refuses_until_there_is_room() -> None:
    async def scenario(queue: InferenceQueue) -> None:
        with queue.reserve(6):
            with pytest.raises(RequestError) as caught, queue.reserve(3):
                pass
            assert caught.value.status == 503
            assert int(caught.value.headers["Retry-After"]) >= 1
            with queue.reserve(2):
                assert queue.waiting == 8
        assert queue.waiting == 0
        with queue.reserve(8):
            pass

    with_queue(RedModel(), scenario)


def test_a_lone_request_is_admitted_however_long_it_takes() -> None:
    async def scenario(queue: InferenceQueue) -> None:
        queue.seconds_per_image = 100.0
        with queue.reserve(1) as reserve_more:
            reserve_more(20)
            with pytest.raises(RequestError), queue.reserve(1):
                pass

    with_queue(RedModel(), scenario)


def test_a_long_wait_is_refused_before_the_queue_is_full() -> None:
    """Four images at a second each take four seconds; half of a timeout of six are three."""

    async def scenario(queue: InferenceQueue) -> None:
        queue.seconds_per_image = 1.0
        with queue.reserve(2), pytest.raises(RequestError) as caught, queue.reserve(2):
            pass
        assert caught.value.headers["Retry-After"] in ("2", "3")

    with_queue(RedModel(), scenario, timeout=6.0)


def test_abandoned_requests_are_not_predicted() -> None:
    model = RedModel(seconds=0.05)

    async def scenario(queue: InferenceQueue) -> None:
        first = asyncio.create_task(queue.predict([prepared()], [{}]))
        await asyncio.sleep(0.02)
        abandoned = asyncio.create_task(queue.predict([prepared()] * 3, [{}] * 3))
        await asyncio.sleep(0)
        abandoned.cancel()
        await first
        await queue.predict([prepared()], [{}])
        assert sum(model.batches) == 2

    with_queue(model, scenario)


def test_explanations_do_not_hold_up_predictions() -> None:
    """While forty images of an explanation wait, a prediction is answered after one batch of them, two at most."""
    model = RedModel(seconds=0.005)

    async def scenario(queue: InferenceQueue) -> None:
        explanation = asyncio.create_task(queue.predict([prepared()] * 40, [{}] * 40, Lane.EXPLANATION))
        await asyncio.sleep(0.005)
        await queue.predict([prepared()], [{}])
        assert sum(model.batches) <= 4 + 1 + 4
        assert not explanation.done()
        assert len(await explanation) == 40

    with_queue(model, scenario)


def test_a_failing_model_is_logged_and_the_queue_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model = RedModel(fails=True)

    async def scenario(queue: InferenceQueue) -> None:
        with pytest.raises(RequestError) as caught:
            await queue.predict([prepared()] * 2, [{"age": 77.0}] * 2)
        assert caught.value.status == 500
        assert not queue.ready
        model.fails = False
        assert len(await queue.predict([prepared()], [{}])) == 1
        assert queue.ready

    with_queue(model, scenario)
    assert "ValueError at " in caplog.text
    assert "secret" not in caplog.text, "a message could hold facts"
    assert "77" not in caplog.text


def test_it_learns_how_long_an_image_takes() -> None:
    async def scenario(queue: InferenceQueue) -> None:
        await queue.predict([prepared()] * 4, [{}] * 4)
        assert queue.seconds_per_image == pytest.approx(0.01, rel=0.8)

    with_queue(RedModel(seconds=0.01), scenario)
