"""Which column of a table holds what: ids and facts under the names that people use, and what is said of them."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from skinlesion.config.data import ColumnsConfig, FactConfig
from skinlesion.data.csv_io import by_line, is_known, named_by_file, read_rows, repeated_ids, whole_ids
from skinlesion.data.dicom import with_dicom_facts
from skinlesion.data.groups import describe_groups, group_ids, read_groups
from skinlesion.data.image_formats import SUFFIXES
from skinlesion.data.metadata import DEFAULT_FACTS, NUMBER, UNKNOWN, FactSpec, normalize_words, parse_number
from skinlesion.errors import first_five

COLUMNS = (
    *("image_id", "lesion_id", "diagnosis", "dx_type", "age", "sex", "localization", "dataset", "path"),
    *("patient_id", "group_id"),
)
"""The columns of a checked frame, before those of further facts.

diagnosis is a code of the taxonomy; numbers such as age, in years, are NaN where unknown, words such as sex "unknown";
dx_type, dataset and patient_id are "" where unknown; path is the image file, "" where only tables are read; group_id is
alike for images that splits and intervals keep together: of a patient, else of a lesion.
"""

USUAL_NAMES = {
    "image_id": (
        *("image_id", "image", "isic_id", "image_name", "img_id", "md5hash", "ddi_file", "bcn_filename", "derm"),
        *("filename", "file_name", "image_path", "image_file", "image_filename"),
        *("file", "path", "img", "photo", "picture"),
    ),
    "lesion_id": ("lesion_id", "lesion", "case_num", "case_id"),
    "patient_id": (
        *("patient_id", "patient", "pat_id", "patient_number", "subject_id", "subject"),
        *("participant_id", "participant", "person_id", "pid"),
    ),
    "dx_type": ("dx_type", "diagnosis_confirm_type"),
    "dataset": ("dataset", "attribution"),
    "age": ("age", "age_approx", "age_at_diagnosis", "age_years", "age_in_years", "patient_age"),
    "sex": ("sex", "gender", "patient_sex", "patient_gender", "sex_at_birth"),
    "localization": (
        *("localization", "anatom_site_general", "anatom_site_general_challenge", "localisation", "location"),
        *("anatom_site", "anatomical_site", "anatomic_site", "body_site", "body_part", "body_location"),
        *("lesion_location", "lesion_site", "site", "region"),
    ),
    "skin_type": (
        *("skin_type", "fitzpatrick_skin_type", "fitspatrick", "fitzpatrick", "fitzpatrick_scale"),
        *("skin_tone_class", "skin_tone"),
    ),
    "diameter": ("diameter", "diameter_1", "clin_size_long_diam_mm"),
}
"""Names of columns in the public sets, by what they hold; case and punctuation do not count, the first counts."""

_ROLES = {
    "image": "image_id",
    "diagnosis": "diagnosis",
    "lesion": "lesion_id",
    "patient": "patient_id",
    "source": "dataset",
    "confirmation": "dx_type",
}
_BESIDE = ("lesion_id", "patient_id", "dx_type", "dataset")  # read with the facts
_SEXES = ("female", "male", UNKNOWN)
_CONFIRMATIONS = {"histopathology": "histo"}  # the ISIC archive's word, and HAM10000's

log = logging.getLogger(__name__)


def further_facts(frame: pd.DataFrame) -> list[str]:
    """The facts of a checked frame beside age, sex and localization."""
    return [str(name) for name in frame if name not in COLUMNS]


def fact_specs(facts: Mapping[str, FactConfig]) -> tuple[FactSpec, ...]:
    """The facts of a configuration, before anything is learned of them."""
    return tuple(FactSpec(name, **vars(each)) for name, each in facts.items())


@dataclass(frozen=True)
class Layout:
    """Which columns of a table hold what: those that the configuration names, then those with a usual name."""

    facts: tuple[FactSpec, ...] = DEFAULT_FACTS
    given: Mapping[str, str] = field(default_factory=dict)  # column by what it holds
    keys: Mapping[str, str] = field(default_factory=dict)  # configuration key that named it, likewise
    key: str = "data"  # configuration group

    @classmethod
    def of(
        cls, columns: ColumnsConfig, facts: Sequence[FactSpec], fact_columns: Mapping[str, str | None], *, key: str
    ) -> Self:
        """The layout of a configuration group `key`, which may name the columns of facts too."""
        named = {_ROLES[role]: (name, f"{key}.columns.{role}") for role, name in vars(columns).items()}
        end = ".column" if key == "data" else ""
        named |= {fact: (name, f"{key}.facts.{fact}{end}") for fact, name in fact_columns.items()}
        known = {held: (name.strip().lower(), where) for held, (name, where) in named.items() if name is not None}
        given, keys = ({held: pair[place] for held, pair in known.items()} for place in (0, 1))
        return cls(tuple(facts), given, keys, key)

    @property
    def described(self) -> dict[str, FactSpec]:
        """The facts by name, with those that are only described: age, sex and localization."""
        return {fact.name: fact for fact in (*DEFAULT_FACTS, *self.facts)}

    def find(self, columns: Iterable[object], held: str) -> str | None:
        """The column that holds something, such as "image_id" or a fact; None where there is none."""
        listed = [str(column) for column in columns]
        if self.given.get(held) in listed:
            return self.given[held]
        own = next((fact.column.lower() for fact in self.facts if fact.name == held and fact.column), held)
        by_name = {_plain(column): column for column in reversed(listed)}
        names = map(_plain, (own, *USUAL_NAMES.get(held, ()), held))
        return next((by_name[name] for name in names if name in by_name), None)

    def fact_columns(self, columns: Iterable[object]) -> dict[str, str]:
        """The column of each fact that is there, and of lesion, patient, confirmation and source."""
        listed = list(columns)
        found = {held: self.find(listed, held) for held in (*_BESIDE[:2], *self.described, *_BESIDE[2:])}
        return {held: column for held, column in found.items() if column is not None}

    def is_diagnosis(self, column: str) -> bool:
        """Whether a column may be one of a diagnosis, as its name and the configuration say."""
        others = {_plain(name) for names in USUAL_NAMES.values() for name in names}
        taken = {*self.given.values(), *self.fact_columns([column]).values(), "score_weight", "validation_weight"}
        return column not in taken and _plain(column) not in others

    def with_diagnosis(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Call the column that the configuration names as that of the diagnosis `dx`."""
        column = self.given.get("diagnosis")
        return rows if column is None or column not in rows else rows.assign(dx=rows[column])

    def advice(self, fact: str) -> str:
        """How to name the column of a fact."""
        return f"Name its column with {self.key}.facts.{fact}{'.column' if self.key == 'data' else ''}=NAME."

    def problems(self, *headers: Iterable[object]) -> Iterator[str]:
        """Yield the columns that the configuration names and no table has."""
        there = dict.fromkeys(str(name) for header in headers for name in header)
        for held, column in self.given.items():
            if column not in there:
                yield f"{self.keys[held]}={column}: no such column; the header is {', '.join(map(repr, there))}."


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def image_ids(rows: pd.DataFrame, layout: Layout) -> "pd.Series[str] | None":
    """Return the image ids of some rows without folder and suffix; None where there is no column of them.

    Ids keep their folder where files of several folders have the same name.
    """
    column = layout.find(rows, "image_id")
    if column is None:
        return None
    suffixes = rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$"
    paths = (
        whole_ids(rows[column]).str.replace("\\", "/", regex=False).str.replace(suffixes, "", case=False, regex=True)
    )
    names = paths.str.replace("^.*/", "", regex=True)
    return paths if names.duplicated().any() and not paths.duplicated().any() else names


def read_identified(
    path: Path, layout: Layout, *, others: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read the rows of a table, with image_id as of `image_ids`, and the problems for which none can be used.

    Args:
        path: The table.
        layout: Names of the columns.
        others: Rows with image_id, whose lesions or patients a table without image ids may name.
    """
    rows, problems = read_rows(path, columns=())
    ids = None if problems else image_ids(rows, layout)
    if ids is not None:
        return rows.assign(image_id=ids), []
    joined = None if problems or others is None else rows_by_image(rows, others, layout, by=_BESIDE[:2])
    if joined is not None:
        return joined, []
    return rows, problems or [f"no column of image ids ({first_five(USUAL_NAMES['image_id'])})."]


def rows_by_image(
    rows: pd.DataFrame, others: pd.DataFrame, layout: Layout, *, by: Sequence[str]
) -> pd.DataFrame | None:
    """Give each image of `others` the row of its lesion (or what else is in `by`); None where the tables name none."""
    for held in by:
        own, theirs = layout.find(rows, held), layout.find(others, held)
        if own is not None and theirs is not None:
            images = pd.DataFrame({own: whole_ids(others[theirs]), "image_id": others["image_id"]})
            log.info("%d rows are joined to images by %s.", len(rows), own)
            rows = rows.assign(**{own: whole_ids(rows[own])})
            return rows.reset_index(names="line").merge(images, on=own).set_index("line")
    return None


def joined_facts(
    rows: pd.DataFrame, labels: Path, metadata: Path | None, layout: Layout
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Collect the facts of a label file and its metadata file, whose values win.

    Returns:
        The facts by image id; the column of each fact that was found; and problems of the files.
    """
    columns = layout.fact_columns(rows)
    if metadata is None:
        return facts_by_image(rows, layout), columns, named_by_file(labels, fact_problems(rows, layout))
    table, problems = read_identified(metadata, layout, others=rows)
    if problems:
        return pd.DataFrame(), columns, named_by_file(metadata, problems)
    ids = table["image_id"]
    known = ids.isin(rows["image_id"])
    problems = [*fact_problems(table[known], layout), *repeated_ids(ids)]
    if not known.any():
        pair = f"has {first_five(ids[:2])}, and {labels.name} {first_five(rows['image_id'][:2])}"
        problems.append(f"no row for any image of the label file; is it of other images? It {pair}.")
    elif without := int((~rows["image_id"].isin(ids)).sum()):
        log.warning("%s: no row for %d of %d images: their facts are unknown.", metadata.name, without, len(rows))
    facts = facts_by_image(table[known], layout).combine_first(facts_by_image(rows, layout))
    return facts, columns | layout.fact_columns(table), named_by_file(metadata, problems)


def facts_by_image(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Give the facts as text by image id, under their own names, NaN where empty."""
    columns = {fact: rows[name].to_numpy() for fact, name in layout.fact_columns(rows).items()}
    texts = pd.DataFrame(columns, index=rows["image_id"].to_numpy(), dtype=object)
    return texts.where(texts != "")[~texts.index.duplicated()]


def fact_problems(rows: pd.DataFrame, layout: Layout) -> Iterator[str]:
    """Yield the entries of facts that cannot be used, as far as the columns are there."""
    for name, column in layout.fact_columns(rows).items():
        fact = layout.described.get(name)
        if fact is None:
            continue
        if fact.kind == NUMBER and (faulty := fact.numbers(rows[column])[1]).any():
            expected = f"{fact.expected}, such as 55, 55.0, 85+ or 70-79, or nothing where unknown"
            yield f"faulty {column}: {by_line(rows.loc[faulty, column])}; expected {expected}."
        if name == "sex" and (wrong := [word not in _SEXES for word in fact.words(rows[column])]).count(True):
            expected = f"{', '.join(_SEXES)}, or F and M; write them so"
            yield f"unknown {column}: {by_line(rows.loc[wrong, column])}; expected {expected}."


def checked_frame(
    rows: pd.DataFrame,
    facts: pd.DataFrame,
    files: Mapping[str, Sequence[str]] | None,
    layout: Layout,
    *,
    groups: Path | None,
) -> pd.DataFrame:
    """Join diagnoses, facts by image id and files to a frame of `COLUMNS`; rows without a file are left out."""
    rows = rows if files is None else rows[rows["image_id"].isin(list(files))]
    rows = rows.sort_values("image_id")
    ids, described = rows["image_id"].tolist(), layout.described
    names = ("lesion_id", "patient_id", "dx_type", "dataset", *described)
    known = facts.reindex(index=ids, columns=list(names)).astype(object)
    known = with_dicom_facts(known.where(known.notna(), ""), files or {})
    values = {name: fact.numbers(known[name])[0] if fact.kind == NUMBER else fact.words(known[name])
              for name, fact in described.items()}  # fmt: skip
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "lesion_id": np.where(is_known(known["lesion_id"]), known["lesion_id"], ids).tolist(),
            "diagnosis": rows["diagnosis"].tolist(),
            "dx_type": known["dx_type"].replace(_CONFIRMATIONS).tolist(),
            **values,
            "dataset": known["dataset"].tolist(),
            "path": ["" if files is None else files[image_id][0] for image_id in ids],
            "patient_id": np.where(is_known(known["patient_id"]), known["patient_id"], "").tolist(),
        }
    )
    together = {} if groups is None else read_groups(groups, frame["image_id"])
    frame = frame.assign(group_id=group_ids(frame, together))
    return frame[[*COLUMNS, *further_facts(frame)]]


def report_columns(
    frame: pd.DataFrame, texts: pd.DataFrame, columns: Mapping[str, str], layout: Layout, unread: Sequence[str]
) -> None:
    """Say which column holds what, which facts are unknown, and what images are kept together."""
    log.info("Facts: %s.", ", ".join(f"{fact} from {column}" for fact, column in columns.items()) or "none")
    read_as = [
        f"{fact.name} {text!r} as {read}"
        for fact in layout.facts
        for text, read in _mapped(fact, texts.get(fact.name)).items()
    ]
    if read_as:
        log.info("Read: %s.", first_five(read_as))
    others = f"not read: {first_five(unread)}." if unread else ""
    if lost := [fact.name for fact in layout.facts if fact.name not in columns]:
        advice = f"; {others} {layout.advice(lost[0])}" if unread else "."
        log.warning("No column of %s, unknown for all images%s", ", ".join(lost), advice)
    elif unread:
        log.info("Columns %s", others)
    counts = {name: int((frame[name].isna() | (frame[name] == UNKNOWN)).sum()) for name in columns if name in frame}
    if some := [f"{name} of {count}" for name, count in counts.items() if count and name in layout.described]:
        log.info("Unknown among %d images: %s.", len(frame), ", ".join(some))
    alone = int((frame["lesion_id"] == frame["image_id"]).sum())
    if alone:
        log.info("%d of %d images have no lesion_id: each counts as a lesion of its own.", alone, len(frame))
    nameless = unread and not (frame["patient_id"] != "").any()
    way = f" If a column names patients, give it as {layout.key}.columns.patient=NAME." if nameless else ""
    log.info("%s%s", describe_groups(frame), way)


def _mapped(fact: FactSpec, texts: "pd.Series[str] | None") -> dict[str, str]:
    """Entries that are read as something else than they spell, with what they are read as."""
    words = {} if texts is None else {str(text): normalize_words([text])[0] for text in texts.dropna().unique()}
    if fact.kind == NUMBER:
        odd = [text for text, word in words.items() if word != UNKNOWN and np.isnan(parse_number(word))]
        return {text: f"{value:g}" for text, value in zip(odd, fact.numbers(odd)[0], strict=True)}
    return {text: read for text, read in zip(words, fact.words(words), strict=True) if read != words[text]}
