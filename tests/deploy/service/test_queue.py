"""The waiting line: bounded, in batches, fair between lanes, and honest about how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from service_doubles import MEL, RedModel, coloured

from skinlesion.deploy.service.problems import RequestError
from skinlesion.deploy.service.queue import Lane, Line


def in_line(model: RedModel, scenario: Callable[[Line], Awaitable[None]], **changes: float) -> None:
    """Run a scenario while a line is served."""

    async def main() -> None:
        settings = {"capacity": 8, "batch": 4, "timeout": 10.0} | changes
        line = Line(model, watch=lambda images, seconds: None, **settings)  # type: ignore[arg-type]
        work = asyncio.create_task(line.run())
        try:
            await scenario(line)
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            line.close()

    asyncio.run(main())


def test_everyone_gets_their_own_answer_in_batches() -> None:
    model = RedModel(seconds=0.002)

    async def scenario(line: Line) -> None:
        asked = [line.judge([coloured(red)], [{}]) for red in range(0, 250, 10)]
        answers = await asyncio.gather(*asked)
        found = [opinion.probabilities[MEL] for (opinion,) in answers]
        assert found == pytest.approx([0.8 * red / 255 for red in range(0, 250, 10)])
        assert max(model.batches) == 4
        assert sum(model.batches) == 25
        assert len(model.batches) <= 8, "they are judged together, not one by one"

    in_line(model, scenario)


def test_facts_stay_with_their_image() -> None:
    async def scenario(line: Line) -> None:
        old, young = await line.judge([coloured(100)] * 2, [{"age": 80.0}, {"age": 20.0}])
        assert old.probabilities[MEL] - young.probabilities[MEL] == pytest.approx(0.1)

    in_line(RedModel(), scenario)


def test_a_full_line_refuses_and_opens_again() -> None:
    async def scenario(line: Line) -> None:
        with line.places(6):
            with pytest.raises(RequestError) as caught, line.places(3):
                pass
            assert caught.value.status == 503
            assert int(caught.value.headers["Retry-After"]) >= 1
            with line.places(2):
                assert line.held == 8
        assert line.held == 0
        with line.places(8):
            pass

    in_line(RedModel(), scenario)


def test_who_asks_alone_is_let_in_whatever_it_takes() -> None:
    async def scenario(line: Line) -> None:
        line.seconds = 100.0
        with line.places(1) as take:
            take(20)
            with pytest.raises(RequestError), line.places(1):
                pass

    in_line(RedModel(), scenario)


def test_a_long_wait_is_refused_before_the_line_is_full() -> None:
    """Five images at a second each would be answered in five seconds; half of a timeout of six are three."""

    async def scenario(line: Line) -> None:
        line.seconds = 1.0
        with line.places(2), pytest.raises(RequestError) as caught, line.places(2):
            pass
        assert caught.value.headers["Retry-After"] in ("2", "3")

    in_line(RedModel(), scenario, timeout=6.0)


def test_what_nobody_waits_for_is_not_worked_on() -> None:
    model = RedModel(seconds=0.05)

    async def scenario(line: Line) -> None:
        first = asyncio.create_task(line.judge([coloured()], [{}]))
        await asyncio.sleep(0.02)
        given_up = asyncio.create_task(line.judge([coloured()] * 3, [{}] * 3))
        await asyncio.sleep(0)
        given_up.cancel()
        await first
        await line.judge([coloured()], [{}])
        assert sum(model.batches) == 2

    in_line(model, scenario)


def test_explanations_do_not_hold_up_predictions() -> None:
    """While forty images of an explanation wait, a prediction is answered after one batch of them, two at most."""
    model = RedModel(seconds=0.005)

    async def scenario(line: Line) -> None:
        explanation = asyncio.create_task(line.judge([coloured()] * 40, [{}] * 40, Lane.EXPLANATION))
        await asyncio.sleep(0.005)
        await line.judge([coloured()], [{}])
        assert sum(model.batches) <= 4 + 1 + 4
        assert not explanation.done()
        assert len(await explanation) == 40

    in_line(model, scenario)


def test_a_failing_model_is_said_and_the_line_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model = RedModel(fails=True)

    async def scenario(line: Line) -> None:
        with pytest.raises(RequestError) as caught:
            await line.judge([coloured()] * 2, [{"age": 77.0}] * 2)
        assert caught.value.status == 500
        assert line.failing
        model.fails = False
        assert len(await line.judge([coloured()], [{}])) == 1
        assert not line.failing

    in_line(model, scenario)
    assert "ValueError at " in caplog.text
    assert "secret" not in caplog.text, "a message could hold facts"
    assert "77" not in caplog.text


def test_it_learns_how_long_an_image_takes() -> None:
    async def scenario(line: Line) -> None:
        await line.judge([coloured()] * 4, [{}] * 4)
        assert line.seconds == pytest.approx(0.01, rel=0.8)

    in_line(RedModel(seconds=0.01), scenario)
