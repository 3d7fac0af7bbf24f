import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinlesion.data.csv_io import by_line, conflicts, id_problems, read_rows, repeated_ids, whole_ids
from skinlesion.errors import first_five

COLUMNS = ("image_id", "dx")


def written(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"image_id,dx\nA,mel\nB,nv\n",
        b"image_id,dx\nA,mel\nB,nv",  # no last line end
        b"\xef\xbb\xbfimage_id,dx\r\nA,mel\r\nB,nv\r\n",  # byte-order mark, Windows line ends
        b"image_id,dx\rA,mel\rB,nv\r",  # line ends of the old Macintosh
        b"image_id\tdx\nA\tmel\nB\tnv\n",
        b"image_id;dx\r\nA;mel\r\n;\r\nB;nv\r\n",
        b"image_id|dx\nA|mel\nB|nv\n",
        b'"image_id","dx"\n"A","mel"\n"B","nv"\n',
        b"Image_ID, DX \n A ,mel\n\n,\nB,nv\n,\n",  # capitals, blanks, lines without anything
        b"note,image_id,dx\nx,A,mel\n,B,nv\n",  # another column
    ],
)
def test_one_table_in_many_forms(tmp_path: Path, content: bytes) -> None:
    rows, problems = read_rows(written(tmp_path, content), columns=COLUMNS)
    assert problems == []
    assert rows[list(COLUMNS)].to_numpy().tolist() == [["A", "mel"], ["B", "nv"]]


def test_rows_are_indexed_by_the_line_an_editor_shows(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path, b"image_id,dx\n\nA,mel\n\n\nB,nv\n"), columns=COLUMNS)
    assert rows.index.tolist() == [3, 6]


def test_fields_stay_text(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path, b"image_id,dx\n007,NA\n1e3,\n"), columns=COLUMNS)
    assert rows.to_numpy().tolist() == [["007", "NA"], ["1e3", ""]]


def test_quoted_separators_belong_to_the_field(tmp_path: Path) -> None:
    rows, problems = read_rows(written(tmp_path, b'image_id,dx\n"A,1","say ""mel"""\n'), columns=COLUMNS)
    assert problems == []
    assert rows.to_numpy().tolist() == [["A,1", 'say "mel"']]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["the file is empty", "image_id, dx"]),
        (b"\n \n", ["the file is empty"]),
        (b"image_id,dx\n", ["no rows below the header"]),
        (b"image_id:dx\nA:mel\n", ["no column image_id, dx", "commas or tabs", "'image_id:dx'"]),
        (b"image_id,diagnosis\nA,mel\n", ["no column dx", "'diagnosis'"]),
        (b"image_id,dx,dx\nA,mel,nv\n", ["column dx is there more than once"]),
        (b'image_id,dx\nA,"mel\nB,nv\n', ["cannot be read as text"]),  # an open quote
        ("image_id,dx\nA,mel\n".encode("utf-16"), ["cannot be read as text", "UTF-8"]),
        ("image_id,dx\nÄ,mel\n".encode("latin-1"), ["cannot be read as text", "UTF-8"]),
        (b"PK\x03\x04workbook", ["an Excel workbook", "save it again as CSV"]),
    ],
)
def test_faulty_files_are_described(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    _, problems = read_rows(written(tmp_path, content), columns=COLUMNS)
    assert len(problems) == 1
    assert all(text in problems[0] for text in expected), problems


def test_lines_with_wrong_field_counts_are_named_and_left_out(tmp_path: Path) -> None:
    rows, problems = read_rows(written(tmp_path, b"image_id,dx\nA,mel\nB\nC,nv,x\nD,nv\n"), columns=COLUMNS)
    assert rows["image_id"].tolist() == ["A", "D"]
    assert len(problems) == 1
    assert "not 2 fields" in problems[0]
    assert "line 3, 4" in problems[0]


def test_empty_fields_behind_the_last_column_do_not_count(tmp_path: Path) -> None:
    rows, problems = read_rows(written(tmp_path, b"image_id,dx\nA,mel,,\nB,nv,\nC,,\n"), columns=COLUMNS)
    assert (rows.to_numpy().tolist(), problems) == ([["A", "mel"], ["B", "nv"], ["C", ""]], [])


def test_ids_that_a_spreadsheet_changed(tmp_path: Path) -> None:
    whole, words = pd.Series(["12.0", "", "7.0"]), pd.Series(["12.0", "7.5"])
    assert whole_ids(whole).tolist() == ["12", "", "7"]
    assert whole_ids(words).tolist() == ["12.0", "7.5"]
    (problem,) = id_problems(pd.Series(["1.23457E+11", "1.23457E+11", "2E+9", "12E5x"], index=[2, 3, 4, 5]))
    assert problem.startswith("image_id shortened by a spreadsheet: '1.23457E+11' (line 2, 3), '2E+9' (line 4);")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    _, problems = read_rows(tmp_path, columns=COLUMNS)
    assert "cannot be read" in problems[0]


@settings(deadline=None)
@given(
    body=st.lists(
        st.tuples(*[st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6)] * 2),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_that_csv_writes_is_read_back(
    body: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([COLUMNS, *body])
    path = tmp_path_factory.mktemp("any") / "table.csv"
    path.write_bytes(buffer.getvalue().encode())
    rows, _ = read_rows(path, columns=COLUMNS)
    expected = [[field.strip() for field in fields] for fields in body]
    assert [*map(list, rows.itertuples(index=False))] == [fields for fields in expected if any(fields)]


def test_first_five_are_named_and_all_counted() -> None:
    assert first_five("abc") == "a, b, c"
    assert first_five(range(1234)) == "0, 1, 2, 3, 4 (first 5 of 1,234)"


def test_by_line_names_each_value_once(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path, b"image_id,dx\nA,x\nB,y\nC,x\nD,x\n"), columns=COLUMNS)
    assert by_line(rows["dx"]) == "'x' (line 2, 4 and 1 more), 'y' (line 3)"


def test_repeated_ids_are_named_by_line(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path, b"image_id,dx\nA,x\nB,y\nA,x\n"), columns=COLUMNS)
    (problem,) = repeated_ids(rows["image_id"])
    assert "'A' (line 2, 4)" in problem
    assert repeated_ids(rows["image_id"][:2]) == []


def test_conflicts_name_groups_of_several_values(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path, b"image_id,dx\nA,nv\nB,nv\nA,mel\nB,nv\n"), columns=COLUMNS)
    assert conflicts(rows["dx"], rows["image_id"]) == ["A (mel, nv)"]
