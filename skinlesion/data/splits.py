"""Training, validation and test split by lesion: all images of a lesion are in the same one.

A split is a frame with image_id, lesion_id and split ("train", "val" or "test"), sorted by image_id, without the images
that are left out. Randomness comes from hashes of seed and lesion id alone, so a split depends neither on the order of
the rows nor on the version of any library.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.data.csv_io import by_line, conflicts, read_rows, repeated_ids
from skinlesion.data.medmnist import split_rows
from skinlesion.data.stratification import assign_evenly, images_by_lesion, kept_shares
from skinlesion.errors import ConfigError, DataError, counted, first_five
from skinlesion.files import restore_formulas, write_csv
from skinlesion.taxonomy import HAM10000, Taxonomy

SPLITS = ("train", "val", "test")
CALIBRATION = "calibration"  # an optional part, on which nothing but what is fitted after the vote is fitted
COLUMNS = ("image_id", "lesion_id", "split")
LEFT_OUT = "left_out"
"""Key of `frame.attrs`: the ids of the table's images that are not in the frame, such as those of dropped diagnoses."""

log = logging.getLogger(__name__)


def assign(
    frame: pd.DataFrame, *, taxonomy: Taxonomy = HAM10000, calibration_fraction: float | None = None, **options: Any
) -> pd.DataFrame:
    """Split a checked frame as the options of `SplitConfig` say: image_id, lesion_id, split."""
    found = {*frame["diagnosis"].unique()}
    if absent := [code for code in taxonomy.codes if code not in found]:
        log.warning("No image of %s: training needs images of all %d diagnoses.", ", ".join(absent), len(taxonomy))
    seed, thinned = options["seed"], taxonomy.majority
    is_published = options["policy"] == "published"
    split = published(frame, seed=seed, thinned=thinned) if is_published else _assign_parts(frame, **options)
    return split if calibration_fraction is None else set_apart(frame, split, fraction=calibration_fraction, seed=seed)


def set_apart(frame: pd.DataFrame, split: pd.DataFrame, *, fraction: float, seed: int) -> pd.DataFrame:
    """Move a share of the validation lesions to a part of their own, "calibration", stratified by diagnosis.

    They choose neither epoch nor members, so that prediction sets fitted on them hold the actual diagnosis as often as
    conformal prediction guarantees for lesions that come about as these did.

    Raises:
        DataError: The split has such a part already, or a diagnosis has no validation lesion left.
    """
    origin = f"split.calibration_fraction={fraction:g}"
    if (split["split"] == CALIBRATION).any():
        raise _unusable(origin, ["it has a calibration part already; give split.calibration_fraction=null."])
    own = _by_group(frame[frame["image_id"].isin(split.loc[split["split"] == "val", "image_id"])])
    part_of = assign_evenly(images_by_lesion(own, seed=seed), [1 - fraction, fraction])
    moved = {
        image
        for image, lesion in zip(own["image_id"].tolist(), own["lesion_id"].tolist(), strict=True)
        if part_of[lesion]
    }
    names = split["split"].mask(split["image_id"].isin(moved), CALIBRATION)
    codes = split["image_id"].map(_by_image(frame, "diagnosis"))
    found = split.assign(split=names)
    if problems := list(_problems(frame, found.assign(diagnosis=codes))):
        raise _unusable(origin, problems)
    return found


def _assign_parts(
    frame: pd.DataFrame, *, policy: str, seed: int, folds: int, fold: int, val_fraction: float, file: str | None
) -> pd.DataFrame:
    if policy == "grouped":
        return grouped(frame, seed=seed, folds=folds, fold=fold, val_fraction=val_fraction)
    path = Path(str(file)).expanduser()
    rows, _ = read_rows(path, columns=())
    if "fold" in rows and "split" not in rows:
        return from_folds(frame, path, fold=fold, seed=seed, val_fraction=val_fraction)
    return from_file(frame, path)


def published(frame: pd.DataFrame, *, seed: int, thinned: str | None = HAM10000.majority) -> pd.DataFrame:
    """Split the lesions with one image 72/16.8/11.2 into train, val and test, stratified by diagnosis.

    Lesions with several images go to train, except those of the diagnosis `thinned`, which are left out. The sizes
    do not depend on the seed; three lesions with one image are enough for a diagnosis to be in each split.

    Args:
        frame: image_id, lesion_id, diagnosis, as from `read_ham10000`.
        seed: Decides which lesions go where.
        thinned: The most frequent diagnosis, nevi; None: lesions of all diagnoses are kept.

    Raises:
        DataError: A split, or a diagnosis in a split, stays empty.
    """
    lesions = images_by_lesion(frame, seed=seed)
    single = {code: [lesion for lesion, n in found.items() if n == 1] for code, found in lesions.items()}
    counts = {code: len(found) for code, found in single.items()}
    trained = kept_shares(counts, held_out=0.28, leave=2)  # 0.28 of them for val and test, 0.4 of those for test
    held_out = {code: counts[code] - trained[code] for code in counts}
    validated = kept_shares(held_out, held_out=0.4, leave=1)

    split_of = {lesion: "train" for code in lesions if code != thinned for lesion in lesions[code]}
    for code, found in single.items():  # what stays at "train" from above are the lesions with several images
        parts = ["train"] * trained[code] + ["val"] * validated[code]
        split_of |= dict(zip_longest(found, parts, fillvalue="test"))
    names = [split_of.get(lesion) for lesion in frame["lesion_id"].tolist()]
    return _checked(frame, names, origin=f"split.policy=published, seed {seed}")


def grouped(frame: pd.DataFrame, *, seed: int, folds: int, fold: int, val_fraction: float) -> pd.DataFrame:
    """Split all images into `folds` folds of whole lesions: one is test, a share of the others val, the rest train.

    All lesions of a patient, or of another group of `group_id`, are in the same part. Diagnoses are spread evenly:
    lesions are assigned by diagnosis, those with most images first, each to the fold that is emptiest for its share.
    (scikit-learn's StratifiedGroupKFold does not stratify when it shuffles, up to version 1.7.)

    Args:
        frame: image_id, lesion_id, diagnosis and, where there are groups, group_id, as from `read_ham10000`.
        seed: Decides which lesions go where; the folds of one seed belong together.
        folds: Number of folds, 2 or more.
        fold: The fold that is test, 0 to folds - 1.
        val_fraction: Share of val among the images that are not test, above 0 and below 1.

    Raises:
        ConfigError: `folds`, `fold` or `val_fraction` is out of range.
        DataError: A split, or a diagnosis in a split, stays empty.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ConfigError(f"split.fold={fold}, split.folds={folds}: expected folds >= 2, fold 0 to folds - 1.")
    if not 0 < val_fraction < 1:
        raise ConfigError(f"split.val_fraction={val_fraction}: expected more than 0 and less than 1.")
    together = _by_group(frame)
    lesions = images_by_lesion(together, seed=seed)
    fold_of = assign_evenly(lesions, [1 / folds] * folds)
    rest = {code: {x: n for x, n in sizes.items() if fold_of[x] != fold} for code, sizes in lesions.items()}
    names = _validate_on_share(together, rest, val_fraction)
    return _checked(frame, names, origin=f"split.policy=grouped, seed {seed}, fold {fold} of {folds}")


def from_file(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Read a split written by `write_split`, any CSV with the columns image_id and split, or that of MedMNIST's .npz.

    Args:
        frame: image_id, lesion_id, diagnosis, as from `read_ham10000`; images that the file lacks are left out.
        path: The file; where it has a column lesion_id, it must agree with `frame`.

    Raises:
        DataError: The file does not fit `frame`, puts a lesion into two splits, or leaves a split, or a diagnosis in a
            split, empty.
    """
    is_npz = path.suffix == ".npz"
    rows, problems = (split_rows(path), []) if is_npz else read_rows(path, columns=("image_id", "split"))
    rows = restore_formulas(rows)
    problems = problems or list(_file_problems(frame, rows))
    if problems:
        raise _unusable(str(path), problems)
    split_of = dict(zip(rows["image_id"], rows["split"].str.lower(), strict=True))
    names = [split_of.get(image_id) for image_id in frame["image_id"].tolist()]
    return _checked(frame, names, origin=str(path))


def from_folds(frame: pd.DataFrame, path: Path, *, fold: int, seed: int, val_fraction: float) -> pd.DataFrame:
    """Read the folds of a public protocol: one fold is test, a part of the others is val, the rest train.

    Validation takes whole lesions, stratified by diagnosis, as in `grouped`.

    Args:
        frame: image_id, lesion_id, diagnosis, as from `read_ham10000`.
        path: A CSV with the columns image_id (or image) and fold, a row for each image of `frame`.
        fold: The fold that is test.
        seed: Decides which lesions validate.
        val_fraction: Share of val among the images that are not test, above 0 and below 1.

    Raises:
        DataError: The file does not fit `frame`, puts a lesion into two folds, or has no such fold.
    """
    rows, problems = read_rows(path, columns=("fold",))
    rows = rows.rename(columns={"image": "image_id"} if "image_id" not in rows else {})
    problems = problems or list(_fold_problems(frame, rows, fold))
    if problems:
        raise _unusable(str(path), problems)
    fold_of = _by_image(rows, "fold")
    others = frame[[int(fold_of[image_id]) != fold for image_id in frame["image_id"].tolist()]]
    names = _validate_on_share(frame, images_by_lesion(others, seed=seed), val_fraction)
    return _checked(frame, names, origin=f"{path}, fold {fold}, seed {seed}")


def write_split(split: pd.DataFrame, path: Path) -> None:
    """Write a split as CSV, whole or not at all."""
    write_csv(path, split[list(COLUMNS)])


def fingerprint(split: pd.DataFrame) -> str:
    """Return the SHA-256 of the sorted lines "image_id,split" in hexadecimal: equal for equal assignments."""
    pairs = zip(split["image_id"].tolist(), split["split"].tolist(), strict=True)
    lines = sorted(f"{image_id},{name}\n" for image_id, name in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _by_image(frame: pd.DataFrame, column: str) -> dict[str, str]:
    return dict(zip(frame["image_id"].tolist(), frame[column].tolist(), strict=True))


def _by_group(frame: pd.DataFrame) -> pd.DataFrame:
    """Let the lesions of a group, such as a patient, count as one."""
    return frame.assign(lesion_id=frame["group_id"]) if "group_id" in frame else frame


def _validate_on_share(
    frame: pd.DataFrame, rest: Mapping[str, Mapping[str, int]], val_fraction: float
) -> list[str | None]:
    """Name the part of each image: a share of the lesions in `rest` is val, the others train; all else is test."""
    part_of = assign_evenly(rest, [val_fraction, 1 - val_fraction])
    split_of = {lesion: ("val", "train")[part] for lesion, part in part_of.items()}
    return [split_of.get(lesion, "test") for lesion in frame["lesion_id"].tolist()]


def _id_problems(frame: pd.DataFrame, ids: "pd.Series[str]") -> Iterator[str]:
    yield from repeated_ids(ids)
    left_out = ids.isin(frame.attrs.get(LEFT_OUT, ()))
    if not (known := ids.isin(frame["image_id"]) | left_out).all():
        yield f"image_id that is not in the table: {by_line(ids[~known])}; remove these lines."
    if left_out.any():
        log.info("%d of the file's %d images are left out of the table, and so of the split.", left_out.sum(), len(ids))


def _file_problems(frame: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    ids = rows["image_id"]
    yield from _id_problems(frame, ids)
    if not (known := rows["split"].str.lower().isin((*SPLITS, CALIBRATION))).all():
        yield f"unknown split: {by_line(rows.loc[~known, 'split'])}; expected {', '.join(SPLITS)}."
    if "lesion_id" in rows:
        lesions = ids.map(_by_image(frame, "lesion_id"))
        if (differs := lesions.notna() & (rows["lesion_id"] != lesions)).any():
            yield f"another lesion_id than the table's: {by_line(ids[differs])}; is it a split of this table?"


def _fold_problems(frame: pd.DataFrame, rows: pd.DataFrame, fold: int) -> Iterator[str]:
    if "image_id" not in rows:
        yield "no column image_id or image; expected image_id and fold, separated by commas or tabs."
        return
    ids, folds = rows["image_id"], rows["fold"]
    yield from _id_problems(frame, ids)
    if absent := sorted(set(frame["image_id"]) - set(ids)):
        yield f"images of the table that the file lacks: {first_five(absent)}; add a line with a fold for each."
    if not (whole := folds.str.fullmatch("[0-9]+")).all():
        yield f"fold that is not a whole number: {by_line(folds[~whole])}; expected 0, 1, 2 ..."
    elif fold not in (found := sorted(set(folds.astype(int)))):
        yield f"no fold {fold}; the file has {', '.join(map(str, found))}: give one of these as split.fold."
    lesions = ids.map(_by_image(frame, "lesion_id"))
    if several := conflicts(folds, lesions):
        yield f"lesions in more than one fold: {first_five(several)}; put all images of a lesion into one."


def _checked(frame: pd.DataFrame, names: Sequence[str | None], *, origin: str) -> pd.DataFrame:
    used = [name is not None for name in names]
    split = frame.loc[used, ["image_id", "lesion_id", "diagnosis"]]
    split = split.assign(split=[name for name in names if name is not None])
    split = split.sort_values("image_id", ignore_index=True)
    problems = list(_problems(frame, split))
    if problems:
        raise _unusable(origin, problems)
    _warn(frame, split)
    if len(split) < len(frame):
        log.info("Split (%s): %s of %s images left out.", origin, len(frame) - len(split), len(frame))
    return split[list(COLUMNS)]


def _warn(frame: pd.DataFrame, split: pd.DataFrame) -> None:
    """Say which patients or other groups are in several parts."""
    if "group_id" not in frame:
        return
    groups = split["image_id"].map(_by_image(frame, "group_id"))
    if several := conflicts(split["split"], groups):
        images = groups.isin([name.rpartition(" (")[0] for name in several]).sum()
        log.warning(
            "%d of %d patients or groups, %d images, are in more than one part of the split: %s; split.policy=grouped "
            "keeps them together.",
            len(several),
            groups.nunique(),
            images,
            first_five(several),
        )


def _problems(frame: pd.DataFrame, split: pd.DataFrame) -> Iterator[str]:
    if several := conflicts(split["split"], split["lesion_id"]):
        yield f"lesions in more than one split: {first_five(several)}; put all images of a lesion into one."
    there = {*split["split"].unique()}
    empty = [name for name in SPLITS if name not in there]
    if empty:
        yield f"no image in {' and '.join(empty)}; expected images in {', '.join(SPLITS)}."
        return
    for code, lesions in frame.groupby("diagnosis")["lesion_id"].nunique().items():
        found = {*split.loc[split["diagnosis"] == code, "split"].unique()}
        if lacking := [name for name in SPLITS if name not in found]:
            yield (
                f"diagnosis {code} ({counted(lesions, 'lesion')} in all): none in {' and '.join(lacking)}; add "
                f"lesions, take another split.policy or fewer split.folds, or leave it out with "
                f"'~taxonomy.diagnoses.{code}' "
                f"('+data.classes.{code}=drop' with taxonomy=infer)."
            )


def _unusable(origin: str, problems: Sequence[str]) -> DataError:
    return DataError.listing(f"The split ({origin}) cannot be used:", problems)
