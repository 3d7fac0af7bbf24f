"""Messages on a terminal on which other processes draw progress bars."""

import logging
from typing import TextIO


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes each message as a line of its own, over the bar that another member of a sweep has just drawn."""

    def format(self, record: logging.LogRecord) -> str:
        """Go back to the start of the line and clear it, on a terminal alone."""
        text = super().format(record)
        return f"\r\x1b[2K{text}" if self.stream.isatty() else text
