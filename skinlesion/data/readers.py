"""Tables and image folders, read and checked: HAM10000's table and label files give the same frame, one row an image.

ISIC 2019 (doi:10.1038/sdata.2018.161, arXiv:1902.03368, arXiv:1908.02288), the test set of ISIC 2018 and a clinic's own
images are read by label files.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.config.data import DataConfig
from skinlesion.data.columns import (
    Layout,
    checked_frame,
    fact_problems,
    fact_specs,
    facts_by_image,
    image_ids,
    joined_facts,
    report_columns,
)
from skinlesion.data.csv_io import column_names, conflicts, id_problems, is_known, named_by_file, read_rows
from skinlesion.data.image_files import archives, find_folders, match_files
from skinlesion.data.labels import (
    DIAGNOSIS_COLUMNS,
    FOLDERS,
    LabelCount,
    Meanings,
    folder_labels,
    headerless_labels,
    label_counts,
    read_labels,
    unread_columns,
)
from skinlesion.data.medmnist import LABELS, unpack
from skinlesion.data.metadata import UNKNOWN, normalize_words
from skinlesion.data.splits import LEFT_OUT
from skinlesion.errors import DataError, first_five
from skinlesion.taxonomy import HAM10000, Taxonomy

NAMES = "names"
"""Attribute of a frame: the most frequent word of the table for each code."""

TABLE_SUFFIXES = ("", ".csv", ".tsv", ".tab", ".txt")

_USUAL = Layout()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledData:
    """A checked data set of a label file."""

    frame: pd.DataFrame  # columns COLUMNS, sorted by image_id; an image of unknown lesion has its own id as lesion_id
    label_counts: dict[str, LabelCount]  # by word of the label file
    without_lesion_id: int  # images of unknown lesion: each counts as a lesion
    dropped: tuple[str, ...]  # ids of images whose word is left out
    fact_columns: dict[str, str]  # column of each fact that was found


def read_data(
    config: DataConfig, *, taxonomy: Taxonomy = HAM10000, only: Collection[str] | None = None
) -> pd.DataFrame:
    """Read the checked frame of a configuration: HAM10000's table, or labels whose words `classes` explains.

    Args:
        config: Location and layout of the data.
        taxonomy: What the words of the table mean, where `classes` does not say it.
        only: Image ids to read; all other rows and images are ignored. None: all.

    Raises:
        DataError: The data cannot be used.
    """
    root = Path(config.root).expanduser()
    policies: dict[str, Any] = {"missing_images": config.missing_images, "extra_images": config.extra_images}
    named = {fact: each.column for fact, each in config.facts.items()}
    policies["layout"] = Layout.of(config.columns, fact_specs(config.facts), named, key="data")
    policies["groups"] = None if config.groups is None else Path(config.groups).expanduser()
    policies["cache_dir"] = Path(config.cache_dir)
    if config.classes is None and _has_words(root, config):
        given: dict[str, Any] = {"table": config.table, "images": config.images, "taxonomy": taxonomy}
        return read_ham10000(root, only=only, **given, **policies)
    return read_labelled(
        next(iter(find_tables(root, config.table)), root / config.table),
        images=[root / name for name in config.images],
        metadata=None if config.metadata is None else root / config.metadata,
        classes=config.classes or {},
        key="data",
        taxonomy=taxonomy,
        only=only,
        **policies,
    ).frame


def taxonomy_of(frame: pd.DataFrame, given: Taxonomy) -> Taxonomy:
    """The diagnoses of a frame of `read_data`; inferred ones are those of the table, as it spells them."""
    return given.found_in(frame["diagnosis"], frame.attrs.get(NAMES, {}))


def read_ham10000(
    root: Path,
    *,
    table: str,
    images: Sequence[str],
    missing_images: str,
    extra_images: str,
    layout: Layout = _USUAL,
    groups: Path | None = None,
    taxonomy: Taxonomy = HAM10000,
    only: Collection[str] | None = None,
    cache_dir: Path | None = None,
) -> pd.DataFrame:
    """Read and check a data set laid out as HAM10000 (doi:10.7910/DVN/DBW86T).

    Args:
        root: The folder that holds the table and the image folders.
        table: File name of the table in `root`; its suffix may be left off. Fields are separated by commas or tabs.
        images: Names of the image folders in `root`. Not all need to be there, as long as each row has its image in
            one of them.
        missing_images: Rows without an image file are an "error", or are left out with a warning ("drop").
        extra_images: Image files without a row are an "error", or are skipped with a note in the log ("ignore").
        layout: Names of the columns, and the facts.
        groups: CSV of images that stay together, see `read_groups`. None: those of a patient, else of a lesion.
        taxonomy: What the words of dx mean.
        only: Image ids; all other rows and images are skipped. None: all count.
        cache_dir: Folder of caches, where whole image files are remembered; None: nowhere.

    Returns:
        Columns `COLUMNS` and those of further facts, sorted by image_id.

    Raises:
        ConfigError: `missing_images` or `extra_images` is not one of its choices.
        DataError: Table or images cannot be used; the message has a line for each problem.
    """
    root = root.expanduser()
    title = f"The data set in {root} cannot be used:"
    tables = find_tables(root, table)
    folders, absent = find_folders(root, images)
    problems = list(_layout_problems(root, table, images, tables=tables, folders=folders))
    if len(tables) != 1:
        raise DataError.listing(title, problems)
    rows, form = read_rows(tables[0], columns=())
    column = layout.given.get("diagnosis") or next((name for name in DIAGNOSIS_COLUMNS if name in rows), "dx")
    rows, absent_columns = _named_rows(rows, layout) if not form else (rows, [])
    form, meanings = [*form, *absent_columns], Meanings(taxonomy, {}, "data.classes")
    problems += named_by_file(tables[0], [*form, *_ham10000_problems(rows, meanings, layout, column=column)])
    if form or not folders:  # half a table or no images: comparing the two would only blame the wrong ones
        raise DataError.listing(title, problems)
    words = normalize_words(rows["dx"])
    meanings.report(column, words)
    rows = rows.assign(word=words, diagnosis=meanings.codes(words))
    files, more = match_files(
        rows.loc[is_known(rows["image_id"]) & (rows["diagnosis"] != ""), "image_id"].tolist(),
        folders,
        root=root,
        policies=(missing_images, extra_images),
        key="data",
        only=only,
        absent=absent,
        dropped=rows["image_id"].tolist(),
        cache_dir=cache_dir,
    )
    if problems := [*problems, *more]:
        raise DataError.listing(title, problems)
    facts = facts_by_image(rows, layout)
    frame = checked_frame(rows, facts, files, layout, groups=groups)
    unread = unread_columns(tables[0], meanings, layout)
    report_columns(frame, facts, layout.fact_columns(rows), layout, unread)
    return _with_left_out(frame, rows, only)


def _has_words(root: Path, config: DataConfig) -> bool:
    """Whether a table has, as HAM10000's, a column of words for diagnoses, as far as it is there."""
    if config.table == FOLDERS or Path(config.table).suffix == ".npz":
        return False
    names = [name for table in find_tables(root, config.table)[:1] for name in column_names(table)]
    given = config.columns.diagnosis
    return not names or given is not None or not {*DIAGNOSIS_COLUMNS}.isdisjoint(names)


def _named_rows(rows: pd.DataFrame, layout: Layout) -> tuple[pd.DataFrame, list[str]]:
    """Call the columns of image, lesion and diagnosis by their names in HAM10000; and list what is missing."""
    problems, rows = list(layout.problems(rows)), layout.with_diagnosis(rows)
    word = next((name for name in DIAGNOSIS_COLUMNS if name in rows), None)
    held = {"image_id": image_ids(rows, layout), "dx": rows.get(word)}
    absent = [name for name, values in held.items() if values is None]
    if absent and not problems:
        problems.append(
            f"no column {', '.join(absent)}; expected image_id and dx, separated by commas or tabs, or other names in "
            f"data.columns.image and data.columns.diagnosis, but the header is {', '.join(map(repr, rows))}."
        )
    held["lesion_id"] = rows.get(layout.find(rows, "lesion_id"))
    return rows.assign(**{name: values for name, values in held.items() if values is not None}), problems


def read_labelled(
    labels: Path,
    *,
    images: Sequence[Path] | None,
    metadata: Path | None,
    classes: Mapping[str, str],
    key: str,
    missing_images: str = "error",
    extra_images: str = "error",
    torn: str = "error",
    layout: Layout = _USUAL,
    groups: Path | None = None,
    taxonomy: Taxonomy = HAM10000,
    only: Collection[str] | None = None,
    binary: bool = False,
    cache_dir: Path | None = None,
) -> LabelledData:
    """Read and check a data set of image folders, a label file and, where there is one, a metadata file.

    Args:
        labels: As `read_labels` reads it, with facts or without; `FOLDERS`: the folders in `images` are named after the
            diagnoses; or an .npz of MedMNIST, which holds the images too.
        images: Folders of the images, named by image id. None: the tables alone are read.
        metadata: CSV of facts by image id; columns and rows may be missing. None: the facts in `labels`.
        classes: Meaning of each word of the label file: a code, "drop" or "error".
        key: The configuration group of all these, for messages.
        missing_images: As for `read_ham10000`.
        extra_images: As for `read_ham10000`.
        torn: Lesions with more than one diagnosis are an "error", or their images are left out ("drop").
        layout: As for `read_ham10000`.
        groups: As for `read_ham10000`.
        taxonomy: What the other words mean.
        only: Image ids; all other rows and images are skipped. None: all count.
        binary: Whether the labels may say no more than benign or malignant, see `read_labels`.
        cache_dir: Folder of caches, where an .npz is unpacked and whole image files are remembered; None: `cache` and
            nowhere.

    Raises:
        ConfigError: `missing_images` or `extra_images` is not one of its choices.
        DataError: Files or images cannot be used; the message has a line for each problem.
    """
    if labels.suffix == ".npz":
        unpacked = unpack(labels, cache_dir or Path("cache"))
        labels, images = unpacked / LABELS, images and [unpacked / "images"]
    title = f"The data set in {', '.join(map(str, images or [labels]))} cannot be used:"
    absent = [str(folder) for folder in images or () if not folder.is_dir()]
    problems = [f"no image folder {', '.join(absent)}; {key}.images names it{archives(absent)}."] if absent else []
    table, located = folder_labels(images or []) if labels.name == FOLDERS and not absent else (None, None)
    meanings = Meanings(taxonomy, classes, f"{key}.classes")
    options: dict[str, Any] = {"layout": layout, "metadata": metadata, "binary": binary, "table": table}
    rows, form = read_labels(labels, meanings, **options)
    if form and table is None and not absent and (table := headerless_labels(labels, images or [])) is not None:
        rows, form = read_labels(labels, meanings, **{**options, "table": table})
    tables = [path for path in (None if table is not None else labels, metadata) if path is not None]
    facts, columns, more = joined_facts(rows, labels, metadata, layout) if "word" in rows else (pd.DataFrame(), {}, [])
    more = more or list(layout.problems(*map(column_names, tables)) if "word" in rows else ())
    if problems := [*problems, *named_by_file(labels, form), *more]:
        raise DataError.listing(title, problems)
    kept = rows[rows["diagnosis"] != ""]
    files: dict[str, list[str]] | None = None
    if images is not None:
        options = {"policies": (missing_images, extra_images), "key": key, "only": only, "located": located}
        options |= {"root": images[0], "dropped": rows["image_id"].tolist(), "cache_dir": cache_dir}
        files, problems = match_files(kept["image_id"].tolist(), images, **options)
    frame = checked_frame(kept, facts, files, layout, groups=groups)
    frame, torn_ids, more = _without_torn(frame, torn=torn, key=key)
    dropped = [*rows.loc[rows["diagnosis"] == "", "image_id"], *torn_ids]
    if problems := [*problems, *more]:
        raise DataError.listing(title, problems)
    unread = [name for path in tables for name in unread_columns(path, meanings, layout) if name not in {*rows["word"]}]
    report_columns(frame, facts, columns, layout, unread)
    alone = int((frame["lesion_id"] == frame["image_id"]).sum())
    return LabelledData(_with_left_out(frame, rows, only), label_counts(rows), alone, tuple(dropped), columns)


def _with_left_out(frame: pd.DataFrame, rows: pd.DataFrame, only: Collection[str] | None) -> pd.DataFrame:
    if only is not None:  # the rest of a table is many ids, which pandas copies with each new frame
        return frame
    found = frame.copy(deep=False)
    found.attrs[LEFT_OUT] = frozenset(rows["image_id"]) - frozenset(frame["image_id"])
    pairs = rows.value_counts(["diagnosis", "word"]).index[::-1]  # the most frequent comes last
    found.attrs[NAMES] = dict(pairs.to_list())
    return found


def _without_torn(frame: pd.DataFrame, *, torn: str, key: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Leave out the lesions with more than one diagnosis, or give their problem: the frame, ids left out, problems."""
    several = conflicts(frame["diagnosis"], frame["lesion_id"])
    if not several:
        return frame, [], []
    if torn != "drop":
        way = f", or leave them out with {key}.torn=drop" if key == "external" else ""
        return frame, [], [f"more than one diagnosis of a lesion: {first_five(several)}; correct them{way}."]
    log.warning("Lesions with more than one diagnosis are left out: %s.", first_five(several))
    is_torn = frame.groupby("lesion_id")["diagnosis"].transform("nunique") > 1
    return frame[~is_torn].reset_index(drop=True), frame.loc[is_torn, "image_id"].tolist(), []


def find_tables(root: Path, table: str) -> list[Path]:
    """Find a table whose suffix may be left off; equal copies are one."""
    found = [path for suffix in TABLE_SUFFIXES if (path := root / f"{table}{suffix}").is_file()]
    if len(found) < 2:
        return found
    contents = {path.read_bytes(): path for path in reversed(found)}
    return sorted(contents.values())


def _layout_problems(
    root: Path, table: str, images: Sequence[str], *, tables: Sequence[Path], folders: Sequence[Path]
) -> Iterator[str]:
    if not root.is_dir():
        yield f"data.root={root} is {'a file' if root.exists() else 'not there'}; expected a folder."
    elif not tables:
        way = f"data.table names it, or is {FOLDERS} (named after diagnoses)"
        yield f"no table {table} (nor with {', '.join(TABLE_SUFFIXES[1:])}); {way}."
    if len(tables) > 1:
        names = " and ".join(path.name for path in tables)
        yield f"{names} differ; remove or rename all but one, or name one, with its suffix, in data.table."
    if root.is_dir() and not folders:
        way = f"data.images names them{archives(root / name for name in images)}"
        yield f"no image folder {' or '.join(images)}; {way}."
    if not (tables and folders) and table.startswith("HAM10000"):
        yield (
            "HAM10000 is at https://doi.org/10.7910/DVN/DBW86T; unpack it to "
            f"{', '.join(str(root / name) for name in (table, *images))} (see data/README.md)."
        )


def _ham10000_problems(rows: pd.DataFrame, meanings: Meanings, layout: Layout, *, column: str) -> Iterator[str]:
    """Yield the problems of the rows, as far as the columns are there."""
    if "image_id" in rows:
        yield from id_problems(rows["image_id"])
    codes = pd.Series(meanings.codes(normalize_words(rows["dx"])) if "dx" in rows else [], dtype=object)
    codes.index = rows.index[: len(codes)]
    codes = codes.where(codes != "")
    if "dx" in rows:
        yield from meanings.problems(rows["dx"].mask(~is_known(rows["dx"]), UNKNOWN), column)
    yield from fact_problems(rows, layout)
    if "lesion_id" in rows and (several := conflicts(codes, rows["lesion_id"].where(is_known(rows["lesion_id"])))):
        yield f"more than one diagnosis of a lesion: {first_five(several)}; correct the diagnosis or the lesion_id."
