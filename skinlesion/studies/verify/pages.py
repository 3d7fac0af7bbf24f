"""Tables inside Markdown pages, between two comments that name them."""

import re
from collections.abc import Iterator, Mapping, Sequence

from skinlesion.errors import DataError

_BLOCK = re.compile(r"(?P<mark><!-- table: (?P<name>\S+) -->\n)(?P<text>.*?)(?P<end><!-- end -->)", re.DOTALL)


def blocks(page: str) -> dict[str, str]:
    """The tables of a page by the name in the comment before them, as text."""
    return {match["name"]: match["text"].strip() for match in _BLOCK.finditer(page)}


def replaced(page: str, tables: Mapping[str, str]) -> str:
    """The page with the text of some of its tables replaced."""

    def block(match: re.Match[str]) -> str:
        return f"{match['mark']}{tables[match['name']]}\n{match['end']}" if match["name"] in tables else match[0]

    return _BLOCK.sub(block, page)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows))


def differences(printed: str, found: str) -> Iterator[str]:
    """Name the cells in which a printed table is another than the one that was recomputed.

    Raises:
        DataError: The tables have different rows or columns.
    """
    pair = [[_cells(line) for line in text.splitlines() if line.strip()] for text in (printed, found)]
    if [len(cells) for cells in pair[0]] != [len(cells) for cells in pair[1]]:
        raise DataError(
            f"{len(pair[0])} lines are printed and {len(pair[1])} recomputed, or their cells differ in number"
        )
    headings = pair[1][0]
    for before, now in zip(*pair, strict=True):
        for heading, old, new in zip(headings, before, now, strict=True):
            if old != new:
                yield f"{now[0]}, {heading}: printed {old or 'nothing'}, recomputed {new or 'nothing'}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
