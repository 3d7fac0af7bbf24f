"""The diagnoses that a model tells apart: order, names, categories and words of tables, from `conf/taxonomy/*.yaml`.

A taxonomy travels as plain data in every checkpoint, ensemble and bundle. Needs numpy and PyYAML alone.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from itertools import starmap
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml

from skinlesion.errors import ConfigError, DataError, first_five
from skinlesion.files import config_dir

log = logging.getLogger(__name__)

BENIGN, PREMALIGNANT, MALIGNANT, UNKNOWN = CATEGORIES = ("benign", "premalignant", "malignant", "unknown")
"""Categories; decision curves and the summary of a report look for the malignant ones."""

DROP, REFUSE = "drop", "error"
"""Meanings of a word other than a diagnosis: its images are left out, or the file is refused."""


@dataclass(frozen=True)
class Diagnosis:
    """One of the classes that a model tells apart."""

    code: str  # as in the columns of predictions tables
    name: str  # for people
    category: str  # one of CATEGORIES, or "any" of several diagnoses together

    @classmethod
    def of(cls, code: str, about: Mapping[str, str | None]) -> Self:
        """The diagnosis of a configuration, which need not say all: its category is that of its code or its name."""
        name = about.get("name") or code
        known = (found for word in (code, name) for found in _with_broader(word) if found in CATEGORIES)
        return cls(code, name, about.get("category") or next(known, UNKNOWN))


@dataclass(frozen=True)
class Taxonomy:
    """The diagnoses in class order: position k of every logit and probability vector is `codes[k]`.

    Attributes:
        name: Of the YAML file.
        diagnoses: K of them.
        majority: Code whose lesions with several images the published split leaves out; None: there is none.
        targets: Codes or categories for which operating points are chosen.
        submission_order: Codes in the order of the columns of a challenge's CSV files.
        premalignant_as: Category as one of which a premalignant diagnosis counts: "malignant" or "benign".
        words: Code, `DROP` or `REFUSE` for words of tables, beside codes, names and `conf/words/diagnoses.yaml`.
        infer: Whether a word that is not known is a diagnosis of its own, see `found_in`.
    """

    name: str
    diagnoses: tuple[Diagnosis, ...]
    majority: str | None
    targets: tuple[str, ...]
    submission_order: tuple[str, ...]
    premalignant_as: str = MALIGNANT
    words: Mapping[str, str] = field(default_factory=dict, compare=False)
    infer: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        codes = self.codes
        if (len(codes) < 2 and not self.infer) or len({*codes}) != len(codes):
            raise ConfigError(
                f"taxonomy {self.name}: expected at least two different codes, got {', '.join(codes) or 'none'}"
            )
        given = {*self.targets, *self.submission_order, *([self.majority] if self.majority else [])}
        unknown = sorted(given - {*codes} - _categories(self.diagnoses, self.premalignant_as))
        if unknown and not self.infer:
            raise ConfigError(f"taxonomy {self.name}: {', '.join(unknown)} is neither a code nor a category of it")

    @classmethod
    def load(cls, name: str) -> Self:
        """Read `conf/taxonomy/NAME.yaml`.

        Raises:
            ConfigError: There is no such file, or a key of it is missing or wrong.
        """
        if not (state := read_taxonomy(name)):
            known = ", ".join(sorted(each.stem for each in (config_dir() / "taxonomy").glob("*.yaml")))
            raise ConfigError(f"taxonomy={name}: unknown choice; expected one of {known}")
        return cls.from_dict(state)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild a taxonomy from `to_dict` of any version, or from the contents of a YAML file.

        Raises:
            ConfigError: A key is missing or wrong.
        """
        try:
            return cls(
                name=str(state["name"]),
                diagnoses=tuple(starmap(Diagnosis.of, state["diagnoses"].items())),
                majority=state.get("majority"),
                targets=tuple(state["targets"]),
                submission_order=tuple(state.get("submission_order") or state["diagnoses"]),
                premalignant_as=state.get("premalignant_as", MALIGNANT),
                words=dict(state["words"] if "words" in state else read_taxonomy(state["name"]).get("words", {})),
                infer=state.get("infer", False),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"taxonomy: {type(error).__name__}: {error}; see conf/taxonomy/ham10000.yaml") from error

    @classmethod
    def configured(cls, state: Mapping[str, Any]) -> Self:
        """Build the taxonomy of a configuration, from which diagnoses of its file may have been taken away.

        Targets that none is left of go with them, and columns of submissions; images of their words are left out.

        Raises:
            ConfigError: A key is wrong.
        """
        diagnoses = tuple(starmap(Diagnosis.of, state["diagnoses"].items()))
        left = {*state["diagnoses"]} | _categories(diagnoses, state.get("premalignant_as", MALIGNANT))
        file = read_taxonomy(state["name"]).get("diagnoses", {})
        gone = {*file} - left if state.get("infer") else {*file, *CATEGORIES} - left
        kept: dict[str, Any] = {key: [each for each in state.get(key) or () if each not in gone] for key in _LISTS}
        majority = None if state.get("majority") in gone else state.get("majority")
        dropped = {word: DROP for code, about in file.items() if code in gone for word in (code, about["name"])}
        return cls.from_dict({**state, **kept, "majority": majority, "words": dropped | dict(state["words"])})

    @classmethod
    def of_codes(cls, codes: Sequence[str]) -> Self:
        """The taxonomy of some codes: the one that has these alone, or the part of the first that has them all."""
        names = {path.stem for path in (config_dir() / "taxonomy").glob("*.yaml")} - {HAM10000.name}
        known = [cls.load(name) for name in (HAM10000.name, *sorted(names))]
        if equal := [each for each in known if {*each.codes} == {*codes}]:
            return equal[0]
        wider = next((each for each in known if {*each.codes} > {*codes}), None)
        about = {"name": "table", "targets": [MALIGNANT]} if wider is None else wider.to_dict()
        found = [None if wider is None else wider.diagnosis(code) for code in codes]
        diagnoses = {code: {} if each is None else vars(each) for code, each in zip(codes, found, strict=True)}
        return cls.configured({"words": {}, **about, "diagnoses": diagnoses})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        diagnoses = {each.code: {"name": each.name, "category": each.category} for each in self.diagnoses}
        lists = {key: list(getattr(self, key)) for key in _LISTS}
        return {**asdict(self), **lists, "words": dict(self.words), "diagnoses": diagnoses}

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """The codes in class order, K of them."""
        return tuple(each.code for each in self.diagnoses)

    def __len__(self) -> int:
        return len(self.diagnoses)

    def diagnosis(self, code: str) -> Diagnosis:
        """The diagnosis of a code."""
        return self.diagnoses[self.codes.index(code)]

    def title(self, target: str) -> str:
        """Name a target for people: a diagnosis, or a category with its codes in brackets."""
        if target in self.codes:
            return self.diagnosis(target).name
        own = {code for code, held in zip(self.codes, self.mask(target), strict=True) if held}
        return f"{target} ({', '.join(code for code in self.submission_order if code in own)})"

    @property
    def count(self) -> str:
        """How many diagnoses there are, in words up to twelve."""
        words = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
        return dict(enumerate(words, start=2)).get(len(self), str(len(self)))

    @property
    def main_target(self) -> str | None:
        """The first diagnosis among the targets, whose sensitivity is reported first; None: there is none."""
        return next((target for target in self.targets if target in self.codes), None)

    @property
    def named_targets(self) -> dict[str, str]:
        """The targets in words, such as "malignant diagnoses"."""
        return {
            target: self.diagnosis(target).name if target in self.codes else f"{target} diagnoses"
            for target in self.targets
        }

    @cached_property
    def known_words(self) -> dict[str, str]:
        """Code, `DROP` or `REFUSE` of each word of this taxonomy itself, as `plain` spells it."""
        words = {
            **{each.name: each.code for each in self.diagnoses},
            **self.words,
            **{code: code for code in self.codes},
        }
        allowed = {*self.codes, DROP, REFUSE}
        return {plain(word): code if code in allowed or self.infer else DROP for word, code in words.items()}

    def meaning(self, word: str) -> str | None:
        """Give the code that a word of a table or its plural stands for, `DROP` or `REFUSE`; None: it is not known."""
        found = next((self.known_words[each] for each in _with_broader(word) if each in self.known_words), None)
        return found or ("_".join(plain(word).split()) if self.infer and plain(word) else None)

    def nearest(self, word: str) -> list[str]:
        """Name up to three codes whose words are spelled like one that is not known."""
        import difflib

        known = {each: code for each in (*self.known_words, *_broader_words()) if (code := self.meaning(each))}
        alike = difflib.get_close_matches(plain(word), known, n=9, cutoff=0.5)
        return [code for code in dict.fromkeys(known[each] for each in alike) if code in self.codes][:3]

    def found_in(self, codes: Iterable[str], names: Mapping[str, str]) -> Self:
        """The taxonomy of the diagnoses that a table has, where they are to be inferred: those of its own, then others.

        The category of one is that of its word in `conf/words/diagnoses.yaml`, or unknown.

        Args:
            codes: Of each image.
            names: Some of these codes as the table spells them.

        Raises:
            DataError: There are fewer than two.
        """
        if not self.infer:
            return self
        counts = Counter(codes)
        if len(counts) < 2:
            raise DataError(
                f"taxonomy={self.name}: expected two diagnoses or more in the table, got {', '.join(counts) or 'none'}"
            )
        named = {code: {"name": names.get(code, code.replace("_", " "))} for code in {*counts} - {*self.codes}}
        new = [*starmap(Diagnosis.of, sorted(named.items()))]
        kept = [each for each in self.diagnoses if each.code in counts] + new
        found = ", ".join(f"{each.code} ({counts[each.code]:,}, {each.category})" for each in kept)
        log.info("Diagnoses of the table, with images and category: %s.", found)
        if unsaid := [each.code for each in kept if each.category == UNKNOWN]:
            way = f"'+taxonomy.diagnoses={{{unsaid[0]}: {{category: malignant}}}}' (or premalignant, benign)"
            log.warning("Not known as benign or malignant: %s; say so with %s.", first_five(unsaid), way)
        state = replace(self, diagnoses=(*self.diagnoses, *new)).to_dict()
        state["diagnoses"] = {each.code: {"name": each.name, "category": each.category} for each in kept}
        return self.configured({**state, "infer": False, "submission_order": None})

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
        majority = self.majority and (target if own[self.codes.index(self.majority)] else rest)
        return Taxonomy(f"{self.name}: {target} or not", (first, other), majority, (target,), (target, rest))

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
        counts_as = {PREMALIGNANT: (PREMALIGNANT, self.premalignant_as)}
        chosen = [
            target == each.code or target in counts_as.get(each.category, (each.category,)) for each in self.diagnoses
        ]
        if not any(chosen):
            raise ValueError(f"target is {target}; expected {MALIGNANT} or one of {', '.join(self.codes)}")
        return np.array(chosen)


_LISTS = ("targets", "submission_order")


def _categories(diagnoses: Iterable[Diagnosis], premalignant_as: str) -> set[str]:
    """The categories that some diagnosis counts as."""
    own = {each.category for each in diagnoses}
    return own | ({premalignant_as} if PREMALIGNANT in own else set())


def plain(word: str) -> str:
    """Spell a word in lower case, with single blanks for all but letters and digits; apostrophes are left out.

    Latin letters lose their accents, which Hydra does not take in a key.
    """
    whole = re.sub(r"^([0-9]+)\.0+$", r"\1", word.strip().casefold().replace("'", ""))
    letters = "".join(each for each in unicodedata.normalize("NFKD", whole) if not unicodedata.combining(each))
    return " ".join(re.findall(r"[^\W_]+", letters if letters.isascii() else whole))


def _with_broader(word: str) -> Iterator[str]:
    """Yield a word as `plain` spells it and the ever broader words that it stands for, then those of its singular."""
    for spelling in dict.fromkeys((plain(word), plain(word).removesuffix("s"))):
        broader: str | None = spelling
        while broader is not None:
            yield broader
            broader = _broader_words().get(broader)


@cache
def _broader_words() -> dict[str, str]:
    """The broader word of each word of `conf/words/diagnoses.yaml`."""
    text = (config_dir() / "words" / "diagnoses.yaml").read_text(encoding="utf-8")
    return {plain(word): plain(broader) for broader, words in yaml.safe_load(text).items() for word in words}


def read_taxonomy(name: str) -> dict[str, Any]:
    """Read `conf/taxonomy/NAME.yaml` as plain data; {}: there is no such file."""
    path = config_dir() / "taxonomy" / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


HAM10000 = Taxonomy.load("ham10000")
