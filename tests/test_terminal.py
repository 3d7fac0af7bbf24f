import io
import logging

import pytest

from skinlesion.terminal import LineHandler


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "written"), [(io.StringIO(), "done\n"), (Terminal(), "\r\x1b[2Kdone\n")], ids=["file", "terminal"]
)
def test_a_message_takes_a_foreign_bar_away(stream: io.StringIO, written: str) -> None:
    LineHandler(stream).handle(logging.LogRecord("skinlesion", logging.INFO, "", 0, "done", None, None))
    assert stream.getvalue() == written
