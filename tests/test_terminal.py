"""Messages on a terminal, and the log file of a run."""

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinlesion import terminal
from skinlesion.commands.console import show_table
from skinlesion.errors import DataError, first_five
from skinlesion.terminal import LineHandler, collect_messages, log_to, log_to_file_alone

log = logging.getLogger("skinlesion.here")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "written"), [(io.StringIO(), "done\n"), (Terminal(), "\r\x1b[2Kdone\n")], ids=["file", "terminal"]
)
def test_a_message_takes_a_foreign_bar_away(stream: io.StringIO, written: str) -> None:
    LineHandler(stream).handle(logging.LogRecord("skinlesion", logging.INFO, "", 0, "done", None, None))
    assert stream.getvalue() == written


def test_a_run_logs_from_its_first_message_and_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for number in (1, 2):
        with collect_messages():
            log.warning("early %d", number)
            log_to(tmp_path / "run")
            log.warning("late %d", number)
            assert f"late {number}" in (tmp_path / "run" / "run.log").read_text(), "each message is written at once"
            log_to_file_alone("why", logging.ERROR)
        log.warning("afterwards")
    lines = (tmp_path / "run" / "run.log").read_text().splitlines()
    said = ["WARNING early 1", "WARNING late 1", "ERROR why", "WARNING early 2", "WARNING late 2", "ERROR why"]
    assert [line.partition(" ")[2].partition(" ")[2] for line in lines] == said
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)


def test_without_a_command_nothing_is_written(tmp_path: Path) -> None:
    log_to(tmp_path / "run")
    log_to_file_alone("why")
    with collect_messages():
        log.warning("no folder is named")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("seconds", "shown"), [(0.01, []), (2.0, range(10, 101, 10)), (1.0, range(20, 101, 20))])
def test_progress_lines_are_few(
    seconds: float, shown: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)

    def items() -> Iterator[int]:
        nonlocal now
        for number in range(100):
            now += seconds
            yield number

    with caplog.at_level(logging.INFO):
        assert list(terminal.track(items(), "reading", 100)) == list(range(100))
    assert [record.message for record in caplog.records] == [f"reading: {done} of 100" for done in shown]


def test_control_characters_of_a_name_are_spelt_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b]0;title\x07\x1b[31m\r\u202egpj.exe"
    stream = io.StringIO()
    LineHandler(stream).handle(logging.LogRecord("skinlesion", logging.INFO, "", 0, "%s", (name,), None))
    with collect_messages():
        log_to(tmp_path)
        log.warning("%s", name)
    show_table(name, ("image", "code"), [(f"[red]{name}[/red]", ":smile:")])
    said = {
        "error": str(DataError(name)),
        "line": stream.getvalue(),
        "log": (tmp_path / "run.log").read_text(),
        "table": capsys.readouterr().out,
    }
    for where, text in said.items():
        assert "\\x1b]0;title\\x07" in text, where
        assert not {"\x1b", "\x07", "\r", "\u202e"} & {*text}, where
    assert "[red]" in said["table"]
    assert ":smile:" in said["table"]
    assert first_five(["a\nb"]) == "a\\nb"
