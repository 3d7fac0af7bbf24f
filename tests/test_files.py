"""Text that came from elsewhere is shown as it is: no formula in a table, no markup in a card."""

import csv
import io

import pandas as pd
import pytest

from skinlesion.files import escape_formulas, escape_markdown, restore_formulas

CELLS = ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "'plain", "-0.5", "+3", "-1e-5", "plain", ""]


def test_formulas_are_escaped_numbers_stay_and_all_comes_back() -> None:
    frame = pd.DataFrame({"id": CELLS, "value": [-float(n) for n in range(len(CELLS))]})
    escaped = escape_formulas(frame)
    assert frame["id"].tolist() == CELLS
    assert escaped["id"].tolist()[:6] == [f"'{cell}" for cell in CELLS[:6]]
    assert escaped["id"].tolist()[9:] == CELLS[9:]
    assert escaped["value"].tolist() == frame["value"].tolist()
    text = escaped.to_csv(index=False, quoting=csv.QUOTE_ALL)
    again = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert restore_formulas(again)["id"].tolist() == CELLS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&#60;img src=x onerror=alert(1)&#62;"),
        ("a | b", "a &#124; b"),
        ("[x](javascript:1)", "[x]&#40;javascript:1)"),
        ("**bold** `code`", "&#42;&#42;bold&#42;&#42; &#96;code&#96;"),
        ("two\nlines", "two lines"),
        ("0.71 [0.65, 0.80] (n = 3)", "0.71 [0.65, 0.80] (n = 3)"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown
