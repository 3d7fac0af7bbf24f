"""Progress without a terminal: a line for each tenth, unless the last one is fresh; none for short work."""

import logging
from collections.abc import Iterator

import pytest

from skinlesion import progress


@pytest.mark.parametrize(("seconds", "shown"), [(0.01, []), (2.0, range(10, 101, 10)), (1.0, range(20, 101, 20))])
def test_lines_are_few(
    seconds: float, shown: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)

    def items() -> Iterator[int]:
        nonlocal now
        for number in range(100):
            now += seconds
            yield number

    with caplog.at_level(logging.INFO):
        assert list(progress.track(items(), "reading", 100)) == list(range(100))
    assert [record.message for record in caplog.records] == [f"reading: {done} of 100" for done in shown]
