"""A model of two classes that corrects the vote on one diagnosis: what it tells apart, the rule, and its weight.

The log-odds of the diagnosis against those that the specialist tells it from become
`(1 - weight) * vote + weight * specialist`; the others share what is left in the vote's proportions, and diagnoses that
the specialist does not know keep their probability. Needs numpy alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict  # pydantic takes this one alone before Python 3.12

from skinlesion.config.schema import Range
from skinlesion.errors import CheckpointError, DataError, first_five
from skinlesion.inference.calibration import bisect
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import refuse_other_images
from skinlesion.taxonomy import Taxonomy, plain

if TYPE_CHECKING:
    from skinlesion.training.checkpoint import TrainedModel

Floats = npt.NDArray[np.float64]

_SMALLEST = 1e-12  # a smaller probability counts as this one, so that its log-odds are finite


class Correction(TypedDict):
    """How a specialist corrects the vote, as ensemble.json and bundle.json keep it."""

    target: str  # code of its diagnosis
    against: list[str]  # codes of the diagnoses that it tells the target from
    weight: Annotated[float, Range(0, 1)]  # of its log-odds; 0: the vote stays as it is
    images: Annotated[int, Range(0)]  # to which the weight was fitted


def roles(specialist: "TrainedModel", taxonomy: Taxonomy) -> dict[str, str]:
    """The specialist's class for each diagnosis of a vote that it knows, the target's first.

    Raises:
        CheckpointError: The specialist does not tell one diagnosis of the vote from others.
    """
    own, words = specialist.taxonomy, (specialist.config.get("data") or {}).get("classes") or {}
    given = {plain(word): code for word, code in words.items()}
    meaning = {code: given.get(plain(code), own.meaning(code)) for code in taxonomy.codes}
    known = {code: name for code, name in meaning.items() if name in own.codes}
    alone = [code for code, name in known.items() if list(known.values()).count(name) == 1 and code == name]
    if len(own) != 2 or {*known.values()} != {*own.codes} or not alone:
        raise CheckpointError(
            f"specialist={specialist.path}: tells {', '.join(own.codes)} apart; expected one of "
            f"{', '.join(taxonomy.codes)} and a class of others of them (docs/usage.md: specialist)"
        )
    target = own.main_target if own.main_target in alone else alone[0]
    return {target: target, **{code: name for code, name in known.items() if code != target}}


def correction_in_words(rule: Mapping[str, Any], name: str, taxonomy: Taxonomy) -> str:
    """Say for cards and reports what a specialist corrects, and how much it counts."""
    weight, against = rule["weight"], ", ".join(rule["against"])
    return (
        f"The specialist {name} corrects the vote on {taxonomy.title(rule['target'])}: its log-odds against {against} "
        f"are {1 - weight:.2f} of the vote's and {weight:.2f} of the specialist's, fitted to {rule['images']:,} images"
    )


def check_specialist(specialist: "TrainedModel", members: "Sequence[TrainedModel]") -> None:
    """Refuse a specialist that learned from images held out by the members, or that cannot take their input.

    Raises:
        CheckpointError: It says what differs.
    """
    first, path = members[0], f"specialist={specialist.path}"
    roles(specialist, first.taxonomy)
    part_of = {image: part for part, images in first.split.items() for image in images}
    given = {image: part for part, images in specialist.split.items() for image in images}
    if moved := sorted(image for image, part in given.items() if part_of.get(image) != part):
        raise CheckpointError(
            f"{path}: {len(moved)} of its {len(given)} images are not in the same part of the members' split "
            f"({first_five(moved)}); train it with split.policy=file split.file={first.path.parent / 'split.csv'}"
        )
    own, theirs = specialist.spec.treatment, first.spec.treatment
    for name in own.differing(theirs):
        raise CheckpointError(f"{path}: data.{name}={getattr(own, name)}; its members have {getattr(theirs, name)}")
    kinds = {fact.name: (fact.kind, fact.unit) for fact in first.encoder.facts}
    facts = () if specialist.network.head.fusion == "none" else specialist.encoder.facts
    if others := [fact.name for fact in facts if kinds.get(fact.name) != (fact.kind, fact.unit)]:
        raise CheckpointError(
            f"{path}: takes {', '.join(others)}, which {first.path} does not; train it on the members' facts, or with "
            "model.fusion=none"
        )


def specialist_table(found: Predictions, specialist: "TrainedModel", taxonomy: Taxonomy) -> Predictions:
    """A specialist's predictions as those of its target against the rest; others than it knows have no diagnosis.

    Args:
        found: Its predictions for images with diagnoses of `taxonomy`.
        specialist: The model.
        taxonomy: Of the vote.
    """
    own = roles(specialist, taxonomy)
    target = next(iter(own))
    two = taxonomy.against_rest(target)
    score = found.probabilities[:, specialist.classes.index(target)].astype(np.float64)
    known: dict[str, Any] = {"lesion_id": found.lesion_id, "group_id": found.group_id, "taxonomy": two}
    actual = ["" if code not in own else target if code == target else two.codes[1] for code in found.actual]
    pairs = np.stack([score, 1 - score], axis=1)
    return Predictions.build(found.image_id.tolist(), probabilities=pairs, actual=actual, **known)


def corrected(
    vote: npt.ArrayLike, score: npt.ArrayLike | None, rule: Mapping[str, Any] | None, codes: Sequence[str]
) -> Floats:
    """Correct the vote by a specialist.

    Args:
        vote: (N, K), the members' mean.
        score: (N,), the specialist's probability of the target; None: there is no specialist.
        rule: A `Correction`, likewise None.
        codes: K, in class order.

    Returns:
        (N, K), row sums as before.
    """
    values = np.array(vote, dtype=np.float64)
    if rule is None or score is None:
        return values
    target, others = codes.index(rule["target"]), [codes.index(code) for code in rule["against"]]
    if rule["weight"] == 0:
        return values
    own, rest = values[:, target].copy(), values[:, others].sum(axis=1)
    mixed = (1 - rule["weight"]) * _log_odds(own, rest) + rule["weight"] * _log_odds(score)
    values[:, target] = (own + rest) * _sigmoid(mixed)
    values[:, others] *= ((own + rest) * _sigmoid(-mixed) / np.maximum(rest, _SMALLEST))[:, None]
    return values


def correct(vote: Predictions, specialist: Predictions, rule: Mapping[str, Any]) -> Predictions:
    """The vote corrected by a specialist's predictions for the same images."""
    ordered, own = vote.sorted(), specialist.sorted()
    _refuse_other_images(ordered, own)
    score = own.probabilities[:, own.taxonomy.codes.index(rule["target"])]
    return ordered.with_probabilities(corrected(ordered.probabilities, score, rule, ordered.taxonomy.codes))


def fit_correction(vote: Predictions, specialist: Predictions, own: Mapping[str, str]) -> Correction:
    """Fit the weight of the least negative log-likelihood of the corrected vote, which is convex in it, by bisection.

    Args:
        vote: Uncalibrated predictions for the validation part.
        specialist: Its predictions for the same images.
        own: As from `roles`.

    Raises:
        DataError: There are no images of the target, or none of the others.
    """
    target, *against = own
    ordered, found = vote.sorted(), specialist.sorted()
    _refuse_other_images(ordered, found)
    codes, is_known = ordered.taxonomy.codes, np.isin(ordered.actual.astype(str), list(own))
    is_target = (ordered.actual == target)[is_known]
    if not is_target.any() or is_target.all():
        raise DataError(f"specialist: validation has no images of {target}, or none of {', '.join(against)}")
    values = ordered.probabilities[is_known].astype(np.float64)
    places = [codes.index(code) for code in against]
    base = _log_odds(values[:, codes.index(target)], values[:, places].sum(axis=1))
    step = _log_odds(found.probabilities[is_known, found.taxonomy.codes.index(target)]) - base

    def slope(weight: float) -> float:
        return float(((_sigmoid(base + weight * step) - is_target) * step).mean())

    weight = 0.0 if slope(0.0) >= 0 else 1.0 if slope(1.0) <= 0 else bisect(slope, 0.0, 1.0)
    return {"target": target, "against": against, "weight": weight, "images": int(is_known.sum())}


def _refuse_other_images(vote: Predictions, specialist: Predictions) -> None:
    refuse_other_images(vote, replace(specialist, actual=vote.actual))


def _log_odds(own: npt.ArrayLike, rest: npt.ArrayLike | None = None) -> Floats:
    own = np.asarray(own, dtype=np.float64)
    rest = 1 - own if rest is None else np.asarray(rest, dtype=np.float64)
    return np.asarray(np.log(np.maximum(own, _SMALLEST)) - np.log(np.maximum(rest, _SMALLEST)))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))
