"""Groups of images that splits and intervals keep together: of a patient, of a lesion, or of a file."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import pandas as pd

from skinlesion.data.csv_io import is_known, named_by_file, read_rows, repeated_ids
from skinlesion.errors import DataError, counted
from skinlesion.files import restore_formulas


def read_groups(path: Path, ids: Collection[str]) -> dict[str, str]:
    """Read the group of each image from a CSV with the columns image_id and group; other images are alone.

    Args:
        path: The file, such as groups.csv of `audit`.
        ids: Image ids of the table; rows of others are passed over.

    Raises:
        DataError: The file cannot be used, or is of other images.
    """
    rows, problems = read_rows(path, columns=("image_id", "group"))
    if not problems:
        rows = restore_formulas(rows)
        problems = repeated_ids(rows["image_id"])
        rows = rows[rows["image_id"].isin(ids) & is_known(rows["group"])]
        if not problems and rows.empty:
            problems = ["no group for any image of the table; is it of other images?"]
    if problems:
        raise DataError.listing(f"data.groups={path} cannot be used:", named_by_file(path, problems))
    return dict(zip(rows["image_id"], rows["group"], strict=True))


def group_ids(frame: pd.DataFrame, groups: Mapping[str, str]) -> list[str]:
    """Name the group of each image: its patient, else its lesion; those that share a lesion or a group are one.

    Args:
        frame: N rows with image_id, lesion_id and patient_id ("" where unknown).
        groups: Group by image id, as from `read_groups`.

    Returns:
        N names: the first patient of the group by name, else its first lesion.
    """
    if not groups and not frame["patient_id"].any():  # a tenth of the time of what follows
        return cast("list[str]", frame["lesion_id"].tolist())
    files = (groups.get(image, "") for image in frame["image_id"].tolist())
    rows = zip(frame["patient_id"].tolist(), frame["lesion_id"].tolist(), files, strict=True)
    members = [[(kind, name) for kind, name in zip("abc", each, strict=True) if name] for each in rows]
    first = connected(members)  # patients sort before lesions, lesions before groups of a file
    patients = {*frame["patient_id"].unique()}
    named = [first[own[0]] for own in members]
    return [f"lesion {name}" if kind == "b" and name in patients else name for kind, name in named]


def describe_groups(frame: pd.DataFrame) -> str:
    """Say by what images are kept together, with counts."""
    lesions, groups = frame["lesion_id"].nunique(), frame["group_id"].nunique()
    patients = frame.loc[frame["patient_id"] != "", "patient_id"].nunique()
    found = f"{counted(len(frame), 'image')} of {counted(lesions, 'lesion')}"
    if patients == 0 and groups == lesions:
        return f"{found}; the table names no patients, so lesions are kept together."
    named = f" of {counted(patients, 'patient')}, kept together by patient"
    by = named if patients else ", kept together by data.groups"
    return f"{found}{by}: {counted(groups, 'group')}."


def connected(sets: Sequence[Sequence[tuple[str, str]]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Join sets that share a member, and name the smallest member of its joined set for each."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(each: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(each, each) != each:
            parent[each] = parent[parent[each]]
            each = parent[each]
        return each

    for each in sets:
        roots = sorted({root(member) for member in each})
        for other in roots[1:]:
            parent[other] = roots[0]
    return {each: root(each) for each in list(parent)}


def duplicate_groups(pairs: pd.DataFrame) -> pd.DataFrame:
    """Name the group of each image that equals or resembles one of another lesion: image_id, group.

    Args:
        pairs: As from `near_duplicates.duplicate_pairs`.
    """
    others = pairs[~pairs["same_lesion"]]
    first = connected([[("", a), ("", b)] for a, b in zip(others["image_a"], others["image_b"], strict=True)])
    rows = [(image, group) for (_, image), (_, group) in sorted(first.items())]
    return pd.DataFrame(rows, columns=["image_id", "group"])
