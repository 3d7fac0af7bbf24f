"""Results as JSON files, and as a table in docs/performance.md."""

import json
from pathlib import Path
from typing import Any

from benchmarks.measuring import Outcome
from skinlesion.files import write_json, write_text
from skinlesion.studies.verify.pages import markdown, replaced

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
MARKS = ("<!-- table: bench -->", "<!-- end -->")  # `make bench` writes what stands between them
NOT_MEASURED = "not measured: no GPU was to be had"


def keep(name: str, outcome: Outcome) -> None:
    """Write an outcome to benchmarks/results/NAME.json."""
    write_json(RESULTS / f"{name}.json", outcome.as_plain())


def line(plain: dict[str, Any]) -> str:
    """A row of the table."""
    ratio, goal = plain["ratio"], plain["goal"]
    found = f"**{_short(ratio['median'])}** ({_short(ratio['lowest'])} to {_short(ratio['highest'])})"
    hoped = "" if goal is None else f"{_short(goal)}"
    ours, theirs = (_short(sorted(plain[key])[len(plain[key]) // 2]) for key in ("ours", "theirs"))
    return f"| {plain['what']} | {plain['against']} | {hoped} | {found} | {ours} / {theirs} {plain['unit']} |"


def page(names: list[str], text: str) -> str:
    """The page with its table written anew from the JSON files.

    Args:
        names: Of the benchmarks, in order.
        text: Of the page as it is.
    """
    head = ("| what | against | goal | ratio, median (spread) | medians |", "|---|---|---|---|---|")
    paths = [RESULTS / f"{name}.json" for name in names]
    rows = [line(json.loads(path.read_text())) if path.exists() else _missing(path.stem) for path in paths]
    return replaced(text, {"bench": "\n".join((*head, *rows)), **_sizes()})


def _sizes() -> dict[str, str]:
    """The table of sizes, where they were measured."""
    path = RESULTS / "scale.json"
    if not path.exists():
        return {}
    cells = [
        [f"{each['rows']:,}", *(f"{each[name]:.1f}" for name in ("processor_s", "peak_gb"))]
        for each in json.loads(path.read_text())["notes"]["sizes"]
    ]
    cells[-1][0] += " (extrapolated)"
    return {"scale": markdown(("images", "processor time, s", "peak memory, GB"), cells)}


def rewrite(names: list[str]) -> None:
    """Bring docs/performance.md up to date."""
    write_text(PAGE, page(names, PAGE.read_text(encoding="utf-8")))


def _missing(name: str) -> str:
    return f"| `{name}` | | | {NOT_MEASURED if name.startswith('gpu') else 'not measured yet'} | |"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
