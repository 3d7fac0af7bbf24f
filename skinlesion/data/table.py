"""HAM10000's table, checked together with its image files: one row an image."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from skinlesion.data.csv_io import by_line, read_rows, some
from skinlesion.data.image_files import file_problems, find_files, find_folders, shortened
from skinlesion.data.metadata import AGES, UNKNOWN, ages, words
from skinlesion.errors import ConfigError, DataError
from skinlesion.taxonomy import CODES

COLUMNS = ("image_id", "lesion_id", "diagnosis", "dx_type", "age", "sex", "localization", "dataset", "path")
"""The columns of the frame that `read_table` returns."""

SEXES = ("female", "male", UNKNOWN)
TABLE_SUFFIXES = ("", ".csv", ".tsv", ".tab", ".txt")
_REQUIRED = ("lesion_id", "image_id", "dx", "age", "sex", "localization")

logger = logging.getLogger(__name__)


def read_table(
    root: Path,
    *,
    table: str,
    images: Sequence[str],
    missing_images: str,
    extra_images: str,
    only: Collection[str] | None = None,
) -> pd.DataFrame:
    """Read and check a data set laid out as HAM10000 (doi:10.7910/DVN/DBW86T).

    Args:
        root: The folder that holds the table and the image folders.
        table: File name of the table in `root`; its suffix may be left off. Fields are separated by commas or
            tabs.
        images: Names of the image folders in `root`. Not all need to be there, as long as each row has its
            image in one of them.
        missing_images: What happens to rows without an image file: "error", or "drop" with a warning.
        extra_images: What happens to image files without a row: "error", or "ignore" with a note in the log.
        only: Image ids; all other rows and images are passed over. None: all count.

    Returns:
        Columns `COLUMNS`, sorted by image_id: diagnosis one of `CODES`; age in years, NaN where unknown; sex
        one of `SEXES`; localization "unknown" where unknown; dx_type and dataset "" where the table has no
        such column; path the image file.

    Raises:
        ConfigError: If `missing_images` or `extra_images` is not one of its choices.
        DataError: If anything is wrong with table or images; the message has a line for each problem.
    """
    for key, value, choices in (
        ("missing_images", missing_images, ("error", "drop")),
        ("extra_images", extra_images, ("error", "ignore")),
    ):
        if value not in choices:
            raise ConfigError(f"data.{key}={value}: expected {' or '.join(choices)}.")
    root = root.expanduser()
    tables = _find_tables(root, table)
    folders, absent = find_folders(root, images)
    layout = list(_layout_problems(root, table, images, tables, folders))
    if len(tables) != 1:
        raise _together(root, layout)

    rows, form = read_rows(tables[0], columns=_REQUIRED)
    problems = [*layout, *(f"{tables[0].name}: {problem}" for problem in [*form, *_row_problems(rows)])]
    if layout or form:  # half a table or no images: comparing the two would only blame the wrong ones
        raise _together(root, problems)

    files = find_files(folders)
    if only is not None:
        rows = rows[rows["image_id"].isin(only)]
        files = {image_id: files[image_id] for image_id in rows["image_id"] if image_id in files}
    ids = rows.loc[_known(rows["image_id"]), "image_id"]
    paths = {image_id: files[image_id] for image_id in ids if image_id in files}
    extra = [copies[0] for image_id, copies in files.items() if image_id not in paths]
    problems += _missing_problems(ids[~ids.isin(list(paths))], len(ids), absent, policy=missing_images)
    problems += _extra_problems(root, extra, policy=extra_images)
    problems += file_problems(root, paths)
    if problems:
        raise _together(root, problems)
    return _checked_frame(rows, paths)


def _together(root: Path, problems: Sequence[str]) -> DataError:
    return DataError("\n- ".join([f"The data set in {root} cannot be used:", *problems]))


def _find_tables(root: Path, table: str) -> list[Path]:
    found = [path for suffix in TABLE_SUFFIXES if (path := root / f"{table}{suffix}").is_file()]
    if len(found) < 2:
        return found
    contents = {path.read_bytes(): path for path in reversed(found)}  # equal copies are one table
    return sorted(contents.values())


def _layout_problems(
    root: Path, table: str, images: Sequence[str], tables: Sequence[Path], folders: Sequence[Path]
) -> Iterator[str]:
    if not root.is_dir():
        yield f"data.root={root} is {'a file' if root.exists() else 'not there'}; expected a folder."
    elif not tables:
        yield f"no table {table} (nor with {', '.join(TABLE_SUFFIXES[1:])}); data.table names it."
    if len(tables) > 1:
        names = " and ".join(path.name for path in tables)
        yield f"{names} differ; remove or rename all but one, or name one, with its suffix, in data.table."
    if root.is_dir() and not folders:
        yield f"no image folder {' or '.join(images)}; data.images names them."
    if not (tables and folders):
        yield (
            "HAM10000 is at https://doi.org/10.7910/DVN/DBW86T; unpack it to "
            f"{', '.join(str(root / name) for name in (table, *images))} (see data/README.md)."
        )


def _row_problems(rows: pd.DataFrame) -> Iterator[str]:
    """Yield what is wrong within the rows, as far as the columns are there."""
    for column in ("image_id", "lesion_id"):
        if column in rows and len(blank := rows.index[~_known(rows[column])]):
            yield f"no {column} in line {some(blank)}; every row needs one."
    if "image_id" in rows:
        ids = rows.loc[_known(rows["image_id"]), "image_id"]
        if len(twice := ids[ids.duplicated(keep=False)]):
            yield f"image_id in more than one row: {by_line(twice)}; keep one row an image."
    for column, expected in (("dx", CODES), ("sex", SEXES)):
        if column in rows:
            fits = pd.Series(words(rows[column]), index=rows.index).isin(expected)
            if not fits.all():
                wrong = by_line(rows.loc[~fits, column])
                yield f"unknown {column}: {wrong}; expected {', '.join(expected)}."
    if {"lesion_id", "dx"} <= {*rows}:
        yield from _torn_lesions(rows[_known(rows["lesion_id"])])
    if "age" in rows and (faulty := ages(rows["age"])[1]).any():
        years = f"years from {AGES[0]:g} to {AGES[1]:g}, such as 55 or 55.0, or nothing where unknown"
        yield f"faulty age: {by_line(rows.loc[faulty, 'age'])}; expected {years}."


def _torn_lesions(rows: pd.DataFrame) -> Iterator[str]:
    codes = rows["dx"].str.lower().groupby(rows["lesion_id"]).unique()
    torn = [f"{lesion} ({', '.join(sorted(found))})" for lesion, found in codes.items() if len(found) > 1]
    if torn:
        yield f"more than one diagnosis of a lesion: {some(torn)}; correct dx or lesion_id."


def _known(values: "pd.Series[str]") -> "pd.Series[bool]":
    return pd.Series([word != UNKNOWN for word in words(values)], index=values.index, dtype=bool)


def _missing_problems(without: "pd.Series[str]", total: int, absent: Sequence[Path], *, policy: str) -> Iterator[str]:
    folders = f"; there is no folder {some(path.name for path in absent)}" if absent else ""
    if len(without) == 0:
        if absent:
            logger.info("All rows have their image%s.", folders)
        return
    found = f"no image file for {len(without):,} of {total:,} rows ({some(without)}{folders})"
    if policy == "error":
        yield f"{found}; add the files, or leave these rows out with data.missing_images=drop."
    elif len(without) == total:
        yield f"{found}; no row would be left: add the files."
    else:
        logger.warning("%s: these rows are dropped.", found)


def _extra_problems(root: Path, extra: Sequence[Path], *, policy: str) -> Iterator[str]:
    if not extra:
        return
    found = f"no row for {len(extra):,} image files ({some(shortened(root, extra))})"
    if policy == "error":
        yield f"{found}; remove them, add their rows, or pass them over with data.extra_images=ignore."
    else:
        logger.info("%s: they are not used.", found)


def _checked_frame(rows: pd.DataFrame, paths: Mapping[str, Sequence[Path]]) -> pd.DataFrame:
    rows = rows[rows["image_id"].isin(list(paths))].sort_values("image_id")
    nothing = [""] * len(rows)
    return pd.DataFrame(
        {
            "image_id": list(rows["image_id"]),
            "lesion_id": list(rows["lesion_id"]),
            "diagnosis": words(rows["dx"]),
            "dx_type": list(rows.get("dx_type", nothing)),
            "age": ages(rows["age"])[0],
            "sex": words(rows["sex"]),
            "localization": words(rows["localization"]),
            "dataset": list(rows.get("dataset", nothing)),
            "path": [str(paths[image_id][0]) for image_id in rows["image_id"]],
        },
        columns=list(COLUMNS),
    )
