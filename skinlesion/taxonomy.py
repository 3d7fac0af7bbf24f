"""The diagnoses that a model tells apart: their order, names and categories, read from `conf/taxonomy/*.yaml`.

A taxonomy travels as plain data in every checkpoint, ensemble and bundle. Needs numpy and PyYAML alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml

from skinlesion.errors import ConfigError
from skinlesion.files import config_dir

BENIGN, MALIGNANT = "benign", "malignant"
"""Categories; the second is what operating points, decision curves and the summary of a report look for."""


@dataclass(frozen=True)
class Diagnosis:
    """One of the classes that a model tells apart."""

    code: str  # as in the table's column of diagnoses
    name: str  # for people
    category: str  # malignant or benign


@dataclass(frozen=True)
class Taxonomy:
    """The diagnoses in class order: position k of every logit and probability vector is `codes[k]`.

    Attributes:
        name: Of the YAML file.
        diagnoses: K of them.
        group: Column whose images stay together in splits and intervals.
        majority: Code of the most frequent diagnosis.
        targets: Codes or categories for which operating points are chosen.
        submission_order: Codes in the order of the columns of a challenge's CSV files.
    """

    name: str
    diagnoses: tuple[Diagnosis, ...]
    group: str
    majority: str
    targets: tuple[str, ...]
    submission_order: tuple[str, ...]

    def __post_init__(self) -> None:
        codes = self.codes
        if len(codes) < 2 or len({*codes}) != len(codes):
            raise ConfigError(f"taxonomy {self.name}: expected at least two different codes, got {', '.join(codes)}")
        known = {*codes, *(each.category for each in self.diagnoses)}
        unknown = sorted({self.majority, *self.targets, *self.submission_order} - known)
        if unknown:
            raise ConfigError(f"taxonomy {self.name}: {', '.join(unknown)} is neither a code nor a category of it")

    @classmethod
    def load(cls, name: str) -> Self:
        """Read `conf/taxonomy/NAME.yaml`.

        Raises:
            ConfigError: There is no such file, or a key of it is missing or wrong.
        """
        path = config_dir() / "taxonomy" / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(each.stem for each in path.parent.glob("*.yaml")))
            raise ConfigError(f"taxonomy={name}: unknown choice; expected one of {known}")
        return cls.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild a taxonomy from `to_dict`, or from the contents of a YAML file.

        Raises:
            ConfigError: A key is missing or wrong.
        """
        try:
            diagnoses = tuple(Diagnosis(code, **about) for code, about in state["diagnoses"].items())
            lists: dict[str, Any] = {key: tuple(state[key]) for key in ("targets", "submission_order")}
            names: dict[str, Any] = {key: str(state[key]) for key in ("name", "group", "majority")}
            return cls(diagnoses=diagnoses, **names, **lists)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"taxonomy: {type(error).__name__}: {error}; see conf/taxonomy/ham10000.yaml") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        diagnoses = {each.code: {"name": each.name, "category": each.category} for each in self.diagnoses}
        lists = {"targets": list(self.targets), "submission_order": list(self.submission_order)}
        return {**asdict(self), **lists, "diagnoses": diagnoses}

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """The codes in class order, K of them."""
        return tuple(each.code for each in self.diagnoses)

    def __len__(self) -> int:
        return len(self.diagnoses)

    def against_rest(self, target: str) -> "Taxonomy":
        """Two classes: the target, and all other diagnoses together.

        Args:
            target: A code, or a category such as "malignant".

        Raises:
            ValueError: It is neither.
        """
        own = self.mask(target)
        first = next((each for each in self.diagnoses if each.code == target), Diagnosis(target, target, target))
        rest = BENIGN if target == MALIGNANT else f"not {target}"
        benign = all(each.category == BENIGN for each, held in zip(self.diagnoses, own, strict=True) if not held)
        other = Diagnosis(rest, "any other diagnosis", BENIGN if benign else "any")
        majority = target if own[self.codes.index(self.majority)] else rest
        codes = (target, rest)
        return Taxonomy(f"{self.name}: {target} or not", (first, other), self.group, majority, (target,), codes)

    def indices(self, codes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Class indices (N,) of codes; -1 where a code is none of this taxonomy."""
        position = {code: k for k, code in enumerate(self.codes)}
        return np.array([position.get(code, -1) for code in codes], dtype=np.int64)

    def mask(self, target: str) -> npt.NDArray[np.bool_]:
        """Which diagnoses a target stands for: (K,).

        Args:
            target: A code, or a category such as "malignant".

        Raises:
            ValueError: It is neither.
        """
        chosen = np.array([target in (each.code, each.category) for each in self.diagnoses])
        if not chosen.any():
            raise ValueError(f"target is {target}; expected {MALIGNANT} or one of {', '.join(self.codes)}")
        return chosen


HAM10000 = Taxonomy.load("ham10000")
DIAGNOSES = HAM10000.diagnoses
CODES = HAM10000.codes
NEVUS = HAM10000.majority
TARGETS = HAM10000.targets
MELANOMA = TARGETS[0]
