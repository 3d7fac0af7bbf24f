"""Facts about the patient and the lesion as numbers: age, sex, localization or any others, each possibly unknown.

An encoder is applied with numpy alone, so that a service starts without pandas.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from skinlesion.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import pandas as pd

_Columns: TypeAlias = "pd.DataFrame | Mapping[str, Sequence[object]]"

NUMBER, CATEGORY = "number", "category"
UNKNOWN = "unknown"
BLANKS = frozenset({"", "na", "n/a", "nan", "<na>", "nat", "none", "null", "?", UNKNOWN})
PLACEHOLDERS = frozenset({"unk", "-", "missing", "not known", "not specified", "not reported", "unspecified"})
"""Words that stand where a fact or an id is not known, beside those of `normalize_words`."""
_ANSWERS = {"true": "yes", "false": "no"}
_SEXES = {"f": "female", "w": "female", "woman": "female", "girl": "female", "m": "male", "man": "male", "boy": "male"}
_SEXES |= dict.fromkeys(("u", "other", "diverse", "non-binary", "nonbinary", "intersex"), UNKNOWN)
_SKIN_TYPES = {"-1": UNKNOWN, "i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}  # -1: of Fitzpatrick17k
_SYNONYMS = {"sex": _SEXES, "skin_type": _SKIN_TYPES}
_YEARS = r"years?(?:\s*old)?|yrs?|y/?o|y"  # units that an age may carry
_DIGITS = r"([0-9]+(?:\.[0-9]+|,[0-9]{1,2})?)"
_LIMIT = "(?:[<>≤≥=~]|under|over|below|above|up to|about)"
_OPEN = r"(?:\+|(?:or|and) (?:older|over|more|above|younger|under|less))"


class _Words(dict[str, str]):
    """Entries brought to lower case, each once: a table of a million rows has few words."""

    def __missing__(self, entry: str) -> str:
        word = entry.strip().lower()
        self[entry] = UNKNOWN if word in BLANKS else word
        return self[entry]


def normalize_words(values: Iterable[object]) -> list[str]:
    """Bring entries to lower case without surrounding blanks.

    Returns:
        One word per entry; "unknown" for None, NaN, "", "NA" and their like.
    """
    words = _Words()
    if hasattr(values, "to_numpy"):  # pandas goes through a column of text twenty times as slowly
        values = values.to_numpy(dtype=object)
    return [*map(words.__getitem__, map(str, values))]


@dataclass(frozen=True)
class FactSpec:
    """One fact: what it is, and how it is encoded as learned from a training split.

    A number is standardised, 0 (the mean) with a flag of 1 where it is unknown. A category is one-hot; a value that is
    missing, or that the training split did not hold, is "unknown", which always has a column of its own.

    Attributes:
        name: In tables, forms and on the command line.
        kind: `NUMBER` or `CATEGORY`.
        column: Its column in the table of the training, where that has no usual name.
        unit: Of a number, such as "mm"; "" without one.
        low: Least number that can be right; None: any.
        high: Largest number that can be right; None: any.
        mean: Of the known training numbers.
        std: Their population standard deviation, above 0.
        categories: Those of the training in order, "unknown" last.
    """

    name: str
    kind: str
    column: str | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = (UNKNOWN,)

    @property
    def expected(self) -> str:
        """What an entry may be, in words."""
        if self.kind == CATEGORY:
            return f"one of {', '.join(self.categories)}"
        low, high = ("" if end is None else f"{end:g}" for end in (self.low, self.high))
        limits = f" from {low} to {high}" if low and high else f" of {low} or more" if low else ""
        limits = limits or (f" up to {high}" if high else "")
        return f"{self.unit or 'a number'}{limits}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The name of each column of `encode`, e.g. "sex=female"."""
        if self.kind == NUMBER:
            return (self.name, f"{self.name}={UNKNOWN}")
        return tuple(f"{self.name}={value}" for value in self.categories)

    def words(self, values: Iterable[object]) -> list[str]:
        """Entries as words: lower case, `unknown` where they say so, yes and no for true and false, 3 for 3.0."""
        words = normalize_words(values)
        plain = {word: re.sub(r"^(\d+)\.0+$", r"\1", _ANSWERS.get(word, word)) for word in {*words}}
        named = {entry: word for entry, word in _SYNONYMS.get(self.name, {}).items() if entry not in self.categories}
        meant = {word: UNKNOWN if word in PLACEHOLDERS else named.get(plain[word], plain[word]) for word in plain}
        return [*map(meant.__getitem__, words)]

    def numbers(self, values: Iterable[object]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Read numbers, given as such or as text: 55, "55.0", "85+" as 85, "70-79" as 74.5, "45,5 y" as 45.5.

        Returns:
            Shape (N,), NaN where unknown; and, shape (N,), whether each entry is faulty: no number, or out of range.
        """
        words = self.words(values)
        number = {word: self._number(word) for word in {*words}}
        found = np.array([number[word] for word in words], dtype=np.float64)
        known = np.array([word != UNKNOWN for word in words], dtype=np.bool_)
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        return found, known & ~((found >= low) & (found <= high) & np.isfinite(found))

    def _number(self, word: str) -> float:
        if not math.isnan(plain := parse_number(word)):
            return plain
        unit = _YEARS if self.unit == "years" else re.escape(self.unit.lower())
        if found := re.fullmatch(rf"{_LIMIT}*\s*{_DIGITS}\s*(?:{unit})?\s*{_OPEN}?\s*(?:{unit})?", word):
            return float(found[1].replace(",", "."))
        if self.unit == "years" and (found := re.fullmatch(rf"{_DIGITS}\s*(?:months?|mos?)", word)):
            return float(found[1].replace(",", ".")) / 12
        found = re.fullmatch(rf"[(\[]?\s*{_DIGITS}\s*(?:-|–|to|,\s)\s*{_DIGITS}\s*[)\]]?\s*(?:{unit})?", word)
        low, high = (float(end.replace(",", ".")) for end in found.groups()) if found else (1.0, 0.0)
        return (low + high) / 2 if low <= high else math.nan

    def checked(self, values: Iterable[object]) -> "npt.NDArray[np.float64] | list[str]":
        """Numbers (N,), NaN where unknown, or N words.

        Raises:
            DataError: A number is faulty.
        """
        if self.kind == CATEGORY:
            return self.words(values)
        entries = list(values)
        found, faulty = self.numbers(entries)
        if faulty.any():
            raise DataError(
                f"metadata: {int(faulty.sum())} faulty {self.name}(s), the first {entries[int(faulty.argmax())]!r}; "
                f"expected {self.expected}, or nothing where the {self.name} is unknown."
            )
        return found

    def fit(self, values: Iterable[object]) -> Self:
        """Learn mean and deviation, or the categories, from the entries of a training split."""
        found = self.checked(values)
        if isinstance(found, list):
            return replace(self, categories=(*sorted({*found} - {UNKNOWN}), UNKNOWN))
        known = found[~np.isnan(found)]
        deviation = float(known.std()) if known.size else 0.0
        mean = float(known.mean()) if known.size else 0.0
        return replace(self, mean=mean, std=deviation if deviation > 0 else 1.0)  # one value only: nothing to scale by

    def encode(self, values: Iterable[object]) -> npt.NDArray[np.float64] | npt.NDArray[np.bool_]:
        """Encode N entries: shape (N, 2) of a number, (N, V) of a category."""
        found = self.checked(values)
        if isinstance(found, list):
            place = {word: number for number, word in enumerate(self.categories)}
            places = [place.get(word, place[UNKNOWN]) for word in found]
            return np.eye(len(place), dtype=np.bool_)[places].reshape(-1, len(place))
        unknown = np.isnan(found)
        return np.column_stack([np.where(unknown, 0.0, (found - self.mean) / self.std), unknown])

    def translation(self, other: Self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Matrix (own columns, other's columns) and shift (other's columns) from own encoding to that of `other`.

        Args:
            other: The same fact, as learned from other images.
        """
        if self.kind == CATEGORY:
            words = np.array([word if word in other.categories else UNKNOWN for word in self.categories])
            return (words[:, None] == other.categories).astype(float), np.zeros(len(other.categories))
        shift = (self.mean - other.mean) / other.std  # of a known number alone
        return np.array([[self.std / other.std, 0.0], [-shift, 1.0]]), np.array([shift, 0.0])

    @property
    def is_sound(self) -> bool:
        """Whether what was learned can be right."""
        ordered = self.categories[-1:] == (UNKNOWN,) and len({*self.categories}) == len(self.categories)
        return self.kind in (NUMBER, CATEGORY) and ordered and math.isfinite(self.mean) and 0 < self.std < math.inf


AGE = FactSpec("age", NUMBER, unit="years", low=0.0, high=120.0)  # 0 is a real age in HAM10000 (39 images)
SEX = FactSpec("sex", CATEGORY)
DEFAULT_FACTS = (AGE, SEX, FactSpec("localization", CATEGORY))


@dataclass(frozen=True)
class MetadataEncoder:
    """Facts as a row of numbers, as learned from a training split.

    Attributes:
        facts: In the order of their columns; a frame needs a column of each one's name, and no other is read.
    """

    facts: tuple[FactSpec, ...]

    @classmethod
    def fit(cls, frame: "pd.DataFrame", facts: Sequence[FactSpec] = DEFAULT_FACTS) -> Self:
        """Learn means, deviations and vocabularies from a training split with a column of each fact.

        Raises:
            DataError: A column is missing, a number is faulty, or there are no rows.
        """
        if len(frame) == 0:
            raise DataError("metadata: no rows to learn from; expected the images of the training split.")
        cls(tuple(facts))._require(frame)
        return cls(tuple(fact.fit(frame[fact.name]) for fact in facts))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild an encoder from the result of `state`, or from that of earlier versions.

        Raises:
            CheckpointError: `state` is not the state of an encoder.
        """
        try:
            given = _of_earlier_version(state) if "age_mean" in state else state["facts"]
            facts = tuple(FactSpec(**{**each, "categories": tuple(each["categories"])}) for each in given)
            if facts and set(state) <= {"facts", *_EARLIER} and all(fact.is_sound for fact in facts):
                return cls(facts)
        except (KeyError, TypeError, ValueError):
            pass
        raise CheckpointError(
            "metadata encoder: expected the name, kind, mean, std > 0 and categories of each fact, 'unknown' last; "
            f"take a checkpoint of this version of skinlesion. Got {state!r}."
        )

    def state(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists, for a checkpoint."""
        return {"facts": [{**asdict(fact), "categories": list(fact.categories)} for fact in self.facts]}

    def encode(self, facts: _Columns) -> npt.NDArray[np.float32]:
        """Turn facts into numbers.

        Args:
            facts: A frame or mapping with at least a column of each fact, N rows; no other column is read.

        Returns:
            Shape (N, M), M = `width`: the columns of each fact, side by side.

        Raises:
            DataError: A column is missing or a number is faulty.
        """
        self._require(facts)
        return np.concatenate([fact.encode(facts[fact.name]) for fact in self.facts], axis=1).astype(np.float32)

    def translation(self, other: Self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Matrix (M, M') and shift (M',): `encode(facts) @ matrix + shift` is `other.encode(facts)`.

        Values that this encoder does not know are unknown to the other one too.

        Args:
            other: An encoder of facts that this one knows too, as learned from other images.
        """
        matrix, shift = np.zeros((self.width, other.width)), np.zeros(other.width)
        for place, fact in enumerate(other.facts):
            own = self.names.index(fact.name)
            rows, columns = (np.equal(each.fact_of_column, at) for each, at in ((self, own), (other, place)))
            matrix[np.ix_(rows, columns)], shift[columns] = self.facts[own].translation(fact)
        return matrix, shift

    def encode_patient(self, facts: Mapping[str, float | str | None]) -> npt.NDArray[np.float32]:
        """Turn the facts of one patient into numbers, as `encode` does.

        Args:
            facts: By name; a fact that is None or left out is unknown.

        Returns:
            Shape (M,).

        Raises:
            DataError: A number is faulty.
        """
        row: npt.NDArray[np.float32] = self.encode({name: [facts.get(name)] for name in self.names})[0]
        return row

    def missing(self) -> npt.NDArray[np.float32]:
        """Return the row, shape (M,), of a patient whose facts are all unknown."""
        return self.encode_patient({})

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each fact."""
        return tuple(fact.name for fact in self.facts)

    @property
    def width(self) -> int:
        """M, the number of columns of `encode`."""
        return len(self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The name of each column of `encode`, e.g. "sex=female"."""
        return tuple(column for fact in self.facts for column in fact.columns)

    @property
    def fact_of_column(self) -> tuple[int, ...]:
        """The position in `facts` of the fact that each column of `encode` holds."""
        return tuple(place for place, fact in enumerate(self.facts) for _ in fact.columns)

    def _require(self, columns: _Columns) -> None:
        if absent := [name for name in self.names if name not in columns]:
            raise DataError(
                f"metadata: no column {', '.join(absent)}; expected {', '.join(self.names)}, empty where unknown."
            )


_EARLIER = ("age_mean", "age_std", "sexes", "localizations")


def _of_earlier_version(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The facts of a state that knew age, sex and localization alone."""
    learned: tuple[dict[str, Any], ...] = (
        {"mean": float(state["age_mean"]), "std": float(state["age_std"])},
        {"categories": state["sexes"]},
        {"categories": state["localizations"]},
    )
    return [{**asdict(fact), **own} for fact, own in zip(DEFAULT_FACTS, learned, strict=True)]


def parse_number(entry: str) -> float:
    """Return the number that `entry` spells in plain digits; NaN if it spells none."""
    try:
        return float(entry) if entry.isascii() and "_" not in entry else np.nan
    except ValueError:
        return np.nan
