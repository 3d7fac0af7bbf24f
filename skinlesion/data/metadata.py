"""Facts about the patient as numbers: age, sex and localization, each possibly unknown.

An encoder is applied with numpy alone, so that a service starts without pandas.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from skinlesion.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import pandas as pd

_Columns: TypeAlias = "pd.DataFrame | Mapping[str, Sequence[object]]"

FACTS = ("age", "sex", "localization")
"""The three facts about the patient, and the only columns of a frame that the encoder reads."""

UNKNOWN = "unknown"
AGES = (0.0, 120.0)  # years, both ends included; 0 is a real age in HAM10000 (39 images)
_BLANKS = frozenset({"", "na", "n/a", "nan", "<na>", "nat", "none", "null", "?", UNKNOWN})


class _Words(dict[str, str]):
    """Entries brought to lower case, each once: a table of a million rows has few words."""

    def __missing__(self, entry: str) -> str:
        word = entry.strip().lower()
        self[entry] = UNKNOWN if word in _BLANKS else word
        return self[entry]


def normalize_words(values: Iterable[object]) -> list[str]:
    """Bring entries to lower case without surrounding blanks.

    Returns:
        One word per entry; "unknown" for None, NaN, "", "NA" and their like.
    """
    words = _Words()
    return [words[str(value)] for value in values]


def parse_ages(values: Iterable[object]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Read ages, given as numbers or text.

    Returns:
        Ages in years, shape (N,), NaN where unknown; and, shape (N,), whether each entry is faulty: no number, or
        outside 0 to 120.
    """
    words = normalize_words(values)
    number = {word: parse_number(word) for word in {*words}}
    years = np.array([number[word] for word in words], dtype=np.float64)
    known = np.array([word != UNKNOWN for word in words], dtype=np.bool_)
    return years, known & ~((years >= AGES[0]) & (years <= AGES[1]))


@dataclass(frozen=True)
class MetadataEncoder:
    """Age standardised, sex and localization one-hot, as learned from a training split.

    An unknown age is 0 (the mean) with a flag of 1. A sex or localization that is missing, or that the
    training split did not hold, is the value "unknown", which always has a column of its own.

    Attributes:
        age_mean: Mean of the known training ages, years.
        age_std: Their population standard deviation, years, above 0.
        sexes: Known values in order, "unknown" last.
        localizations: Known values in order, "unknown" last.
    """

    age_mean: float
    age_std: float
    sexes: tuple[str, ...]
    localizations: tuple[str, ...]

    @classmethod
    def fit(cls, frame: "pd.DataFrame") -> Self:
        """Learn mean, deviation and vocabularies from a training split with the columns of `FACTS`.

        Raises:
            DataError: A column is missing, an age is faulty, or there are no rows.
        """
        if len(frame) == 0:
            raise DataError("metadata: no rows to learn from; expected the images of the training split.")
        years = _checked_ages(frame)
        known = years[~np.isnan(years)]
        deviation = float(known.std()) if known.size else 0.0
        return cls(
            age_mean=float(known.mean()) if known.size else 0.0,
            age_std=deviation if deviation > 0 else 1.0,  # one age only, or none: nothing to scale by
            sexes=_vocabulary(frame["sex"]),
            localizations=_vocabulary(frame["localization"]),
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild an encoder from the result of `state`.

        Raises:
            CheckpointError: `state` is not the state of an encoder.
        """
        problem = (
            "metadata encoder: expected age_mean, age_std > 0, sexes and localizations, both with 'unknown' last; "
            f"take a checkpoint of this version of skinlesion. Got {state!r}."
        )
        try:
            encoder = cls(
                age_mean=float(state["age_mean"]),
                age_std=float(state["age_std"]),
                sexes=tuple(state["sexes"]),
                localizations=tuple(state["localizations"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(problem) from error
        scaled = np.isfinite([encoder.age_mean, encoder.age_std]).all() and encoder.age_std > 0
        vocabularies = (encoder.sexes, encoder.localizations)
        ordered = all(words[-1:] == (UNKNOWN,) and len({*words}) == len(words) for words in vocabularies)
        if not (scaled and ordered and set(state) == {field.name for field in fields(cls)}):
            raise CheckpointError(problem)
        return encoder

    def state(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists, for a checkpoint."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def encode(self, facts: _Columns) -> npt.NDArray[np.float32]:
        """Turn facts into numbers.

        Args:
            facts: A frame or mapping with at least the columns of `FACTS`, N rows; no other column is read.

        Returns:
            Shape (N, M), M = `width`: age in standard deviations from the mean, 1 where the age is unknown,
            one-hot sex, one-hot localization.

        Raises:
            DataError: A column is missing or an age is faulty.
        """
        years = _checked_ages(facts)
        unknown = np.isnan(years)
        parts = [
            np.column_stack([np.where(unknown, 0.0, (years - self.age_mean) / self.age_std), unknown]),
            _one_hot(facts["sex"], self.sexes),
            _one_hot(facts["localization"], self.localizations),
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def encode_patient(self, facts: Mapping[str, float | str | None]) -> npt.NDArray[np.float32]:
        """Turn the facts of one patient into numbers, as `encode` does.

        Args:
            facts: By the names in `FACTS`; a fact that is None or left out is unknown.

        Returns:
            Shape (M,).

        Raises:
            DataError: The age is faulty.
        """
        row: npt.NDArray[np.float32] = self.encode({fact: [facts.get(fact)] for fact in FACTS})[0]
        return row

    def missing(self) -> npt.NDArray[np.float32]:
        """Return the row, shape (M,), of a patient whose facts are all unknown."""
        return self.encode_patient({})

    @property
    def width(self) -> int:
        """M, the number of columns of `encode`."""
        return len(self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The name of each column of `encode`, e.g. "sex=female"."""
        sexes = (f"sex={value}" for value in self.sexes)
        localizations = (f"localization={value}" for value in self.localizations)
        return ("age", f"age={UNKNOWN}", *sexes, *localizations)

    @property
    def fact_of_column(self) -> tuple[int, ...]:
        """The position in `FACTS` of the fact that each column of `encode` holds."""
        return tuple(FACTS.index(column.partition("=")[0]) for column in self.columns)


def _checked_ages(columns: _Columns) -> npt.NDArray[np.float64]:
    absent = [fact for fact in FACTS if fact not in columns]
    if absent:
        raise DataError(f"metadata: no column {', '.join(absent)}; expected {', '.join(FACTS)}, empty where unknown.")
    years, faulty = parse_ages(columns["age"])
    if faulty.any():
        given = list(columns["age"])[int(faulty.argmax())]
        raise DataError(
            f"metadata: {int(faulty.sum())} faulty age(s), the first {given!r}; expected years from "
            f"{AGES[0]:g} to {AGES[1]:g}, or nothing where the age is unknown."
        )
    return years


def parse_number(entry: str) -> float:
    """Return the number that `entry` spells in plain digits; NaN if it spells none."""
    try:
        return float(entry) if entry.isascii() and "_" not in entry else np.nan
    except ValueError:
        return np.nan


def _vocabulary(values: Iterable[object]) -> tuple[str, ...]:
    return (*sorted({*normalize_words(values)} - {UNKNOWN}), UNKNOWN)


def _one_hot(values: Iterable[object], vocabulary: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    entries = [word if word in vocabulary else UNKNOWN for word in normalize_words(values)]
    column = np.array(entries, dtype=object).reshape(-1, 1)  # (N, 1)
    return np.asarray(column == np.array(vocabulary, dtype=object))  # (N, V)
