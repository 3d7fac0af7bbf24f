"""A data set of image folders, a label file and, where there is one, a metadata file: one row an image.

ISIC 2019 (doi:10.1038/sdata.2018.161, arXiv:1902.03368, arXiv:1908.02288), the test set of ISIC 2018 and a clinic's own
images are read so.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.data.csv_io import by_line, read_rows, some
from skinlesion.data.image_files import file_problems, find_files
from skinlesion.data.label_words import IDS, read_labels, told
from skinlesion.data.metadata import AGES, UNKNOWN, ages, words
from skinlesion.data.table import COLUMNS, SEXES
from skinlesion.errors import DataError

_CALLED = {
    "lesion_id": ("lesion_id",),
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "localization": ("localization", "anatom_site_general"),
    "dx_type": ("dx_type", "diagnosis_confirm_type"),
    "dataset": ("dataset",),
}  # what a column is called in HAM10000, and in the tables of the ISIC archive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """A checked data set."""

    frame: pd.DataFrame  # columns COLUMNS, sorted by image_id; an image of unknown lesion has its own id as lesion_id
    labels: dict[str, dict[str, object]]  # by the label file's word: images, and as which diagnosis they count
    alone: int  # images of unknown lesion: a lesion each
    dropped: tuple[str, ...]  # images whose word is left out


def read_labelled(
    folders: Sequence[Path],
    *,
    labels: Path,
    metadata: Path | None,
    classes: Mapping[str, str],
    missing_images: str,
    extra_images: str,
    key: str,
    only: Collection[str] | None = None,
) -> Labelled:
    """Read and check a data set.

    Args:
        folders: Hold the images, JPEG or PNG, named by image id.
        labels: As `read_labels` reads it; facts about the patient may stand in it too.
        metadata: CSV of facts by image id; columns and rows may be missing. None: what stands in `labels`.
        classes: What the words of the label file stand for, see `read_labels`.
        missing_images: "error", or "drop" to leave out rows without an image file, with a warning.
        extra_images: "error", or "ignore" to pass over image files without a row.
        key: The configuration group of all these, for messages.
        only: Image ids; all other rows and images are passed over. None: all count.

    Raises:
        DataError: Anything is wrong with files or images; the message has a line for each problem.
    """
    absent = [str(folder) for folder in folders if not folder.is_dir()]
    problems = [f"no image folder {', '.join(absent)}; {key}.images names it."] if absent else []
    rows, wrong = read_labels(labels, classes=classes, key=f"{key}.classes")
    problems += [f"{labels.name}: {problem}" for problem in wrong]
    facts, wrong = _facts(rows, labels, metadata)
    problems += wrong
    if problems:
        raise _unusable(folders, problems)
    counts = told(rows)
    kept = rows[rows["diagnosis"] != ""]
    files = find_files(folders)
    if only is not None:
        kept = kept[kept["image_id"].isin(only)]
        files = {image_id: files[image_id] for image_id in kept["image_id"] if image_id in files}
    paths = {image_id: files[image_id] for image_id in kept["image_id"] if image_id in files}
    problems += _missing(kept["image_id"], paths, policy=missing_images, key=key)
    problems += _extra(set(files) - set(rows["image_id"]), policy=extra_images, key=key)
    problems += file_problems(folders[0], paths)
    frame = _frame(kept[kept["image_id"].isin(list(paths))], facts, paths)
    problems += _torn(frame)
    if problems:
        raise _unusable(folders, problems)
    alone = int((frame["lesion_id"] == frame["image_id"]).sum())
    if alone:
        log.info(
            "%s of %s images have no lesion_id: each counts as a lesion of its own.", f"{alone:,}", f"{len(frame):,}"
        )
    return Labelled(frame, counts, alone, _dropped(rows))


def read_diagnoses(labels: Path, *, metadata: Path | None, classes: Mapping[str, str], key: str) -> Labelled:
    """Read and check the tables of a data set alone, as `read_labelled` does; `path` is "".

    Raises:
        DataError: Anything is wrong with them; the message has a line for each problem.
    """
    rows, wrong = read_labels(labels, classes=classes, key=f"{key}.classes")
    facts, more = _facts(rows, labels, metadata)
    problems = [*(f"{labels.name}: {problem}" for problem in wrong), *more]
    if problems:
        raise _unusable([labels], problems)
    frame = _frame(rows[rows["diagnosis"] != ""], facts, None)
    if torn := list(_torn(frame)):
        raise _unusable([labels], torn)
    return Labelled(frame, told(rows), int((frame["lesion_id"] == frame["image_id"]).sum()), _dropped(rows))


def _dropped(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(rows.loc[rows["diagnosis"] == "", "image_id"])


def _unusable(places: Sequence[Path], problems: Sequence[str]) -> DataError:
    names = ", ".join(map(str, places))
    return DataError("\n- ".join([f"The data set in {names} cannot be used:", *problems]))


def _facts(rows: pd.DataFrame, labels: Path, metadata: Path | None) -> tuple[pd.DataFrame, list[str]]:
    """The facts by image id, as text under HAM10000's names; and what is wrong with them."""
    if "image_id" not in rows:
        return pd.DataFrame(), []  # without ids there is nothing to look up, and that has been said
    if metadata is None:
        return _renamed(rows), list(_fact_problems(rows, name=labels.name))
    beside, problems = read_rows(metadata, columns=())
    named = [name for name in IDS if name in beside]
    if not problems and not named:
        problems = [f"no column of image ids ({', '.join(IDS)})."]
    if problems:
        return pd.DataFrame(), [f"{metadata.name}: {problem}" for problem in problems]
    beside = beside.assign(image_id=beside[named[0]].str.replace(r"\.(jpe?g|png)$", "", case=False, regex=True))
    known = beside["image_id"].isin(rows["image_id"])
    problems = list(_fact_problems(beside[known], name=metadata.name))
    ids = beside["image_id"]
    if (twice := ids.duplicated(keep=False)).any():
        problems.append(f"{metadata.name}: image in more than one row: {by_line(ids[twice])}; keep one row an image.")
    if not known.any():
        problems.append(f"{metadata.name}: no row for any image of the label file; is it of other images?")
    elif without := int((~rows["image_id"].isin(beside["image_id"])).sum()):
        log.warning("%s: no row for %s of %s images: nothing is known of them.", metadata.name, without, len(rows))
    own = _renamed(rows)
    facts = _renamed(beside[known])
    return facts.combine_first(own) if not problems else own, problems


def _renamed(rows: pd.DataFrame) -> pd.DataFrame:
    found = {fact: next((name for name in names if name in rows), None) for fact, names in _CALLED.items()}
    columns = {fact: rows[name].to_numpy() for fact, name in found.items() if name is not None}
    facts = pd.DataFrame(columns, index=rows["image_id"].to_numpy(), dtype=object)
    return facts.where(facts != "")[~facts.index.duplicated()]


def _fact_problems(rows: pd.DataFrame, *, name: str) -> Iterator[str]:
    for column in (column for column in _CALLED["age"] if column in rows):
        if (faulty := ages(rows[column])[1]).any():
            years = f"{AGES[0]:g} to {AGES[1]:g} years, or nothing where unknown"
            yield f"{name}: faulty {column}: {by_line(rows.loc[faulty, column])}; expected {years}."
    if "sex" in rows and not (fits := pd.Series(words(rows["sex"]), index=rows.index).isin(SEXES)).all():
        yield f"{name}: unknown sex: {by_line(rows.loc[~fits, 'sex'])}; expected {', '.join(SEXES)}."


def _missing(ids: "pd.Series[str]", paths: Mapping[str, object], *, policy: str, key: str) -> Iterator[str]:
    without = ids[~ids.isin(list(paths))]
    if without.empty:
        return
    found = f"no image file for {len(without):,} of {len(ids):,} rows ({some(without)})"
    if len(without) == len(ids):
        yield f"{found}; is it the label file of other images? Files are named IMAGE_ID.jpg or .png."
    elif policy == "error":
        yield f"{found}; add the files, or leave these rows out with {key}.missing_images=drop."
    else:
        log.warning("%s: these rows are dropped.", found)


def _extra(ids: set[str], *, policy: str, key: str) -> Iterator[str]:
    if ids and policy == "error":
        yield (
            f"no row for {len(ids):,} image files ({some(sorted(ids))}); add their rows, or pass them over with "
            f"{key}.extra_images=ignore."
        )
    elif ids:
        log.info("No row for %s image files (%s): they are not used.", f"{len(ids):,}", some(sorted(ids)))


def _torn(frame: pd.DataFrame) -> Iterator[str]:
    codes = frame.groupby("lesion_id")["diagnosis"].unique()
    torn = [f"{lesion} ({', '.join(sorted(found))})" for lesion, found in codes.items() if len(found) > 1]
    if torn:
        yield f"more than one diagnosis of a lesion: {some(torn)}; correct the diagnosis or the lesion_id."


def _frame(rows: pd.DataFrame, facts: pd.DataFrame, paths: Mapping[str, Sequence[Path]] | None) -> pd.DataFrame:
    rows = rows.sort_values("image_id")
    ids = rows["image_id"].tolist()
    known = facts.reindex(index=ids, columns=list(_CALLED)).astype(object)
    known = known.where(known.notna(), "")
    alone = np.array(words(known["lesion_id"])) == UNKNOWN
    return pd.DataFrame(
        {
            "image_id": ids,
            "lesion_id": np.where(alone, ids, known["lesion_id"]).tolist(),
            "diagnosis": rows["diagnosis"].tolist(),
            "dx_type": known["dx_type"].tolist(),
            "age": ages(known["age"])[0],
            "sex": words(known["sex"]),
            "localization": words(known["localization"]),
            "dataset": known["dataset"].tolist(),
            "path": [str(paths[image_id][0]) if paths else "" for image_id in ids],
        },
        columns=list(COLUMNS),
    )
