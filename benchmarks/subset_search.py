"""The search over 456 subsets of nine members, against one merge and one f1_score a subset."""

from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from benchmarks.measuring import Outcome, Setting, in_turn, ratios
from skinlesion.inference.subset_search import search
from skinlesion.taxonomy import HAM10000

CODES = HAM10000.codes
MEMBERS, IMAGES = 9, 926  # HAM10000's published validation part
SHARES = (0.03, 0.05, 0.11, 0.01, 0.67, 0.11, 0.02)  # of the diagnoses, as HAM10000 has them


def measure(setting: Setting) -> Outcome:
    """Nine members of about 87 % accuracy, that agree on about as many images as six real ones did."""
    actual, values = members(np.random.default_rng(0))
    names = [f"ISIC_{number:07d}" for number in range(IMAGES)]
    tables = [pd.DataFrame(each, columns=list(CODES)).assign(image_id=names, actual=actual) for each in values]
    subsets = [subset for size in range(2, 7) for subset in combinations(range(MEMBERS), size)]
    tried = subsets[:: 40 if setting.toy else 6]

    def theirs() -> list[float]:
        return [merged_macro_f1(tables, subset) for subset in tried]

    mine, part = in_turn(
        lambda: search(values, actual, smallest=2, largest=6), theirs, rounds=1 if setting.toy else 7, repeat=20
    )
    others = [seconds * len(subsets) / len(tried) for seconds in part]
    found = {each.members: each.macro_f1 for each in search(values, actual, smallest=2, largest=6)}
    apart = max(abs(found[subset] - f1) for subset, f1 in zip(tried, theirs(), strict=True))
    return Outcome(
        what="subset search over nine members, 456 subsets, 926 images",
        against="one merge and one f1_score a subset, pandas and scikit-learn",
        goal=1000,
        ratios=ratios(mine, others),
        ours=[1e3 * seconds for seconds in mine],
        theirs=[1e3 * seconds for seconds in others],
        unit="ms",
        notes={
            "largest_difference_of_macro_f1": apart,
            "subsets_timed_of_theirs": len(tried),
            "images_all_members_agree_on": float((values.argmax(-1) == values[0].argmax(-1)).all(axis=0).mean()),
            "accuracy_of_members": [round(float((each.argmax(-1) == actual).mean()), 3) for each in values],
        },
    )


def members(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,), and probabilities (M, N, 7) of members that share most of their mistakes."""
    actual = rng.choice(len(CODES), IMAGES, p=SHARES)
    hard = rng.normal(0, 1, (1, IMAGES, len(CODES)))  # what misleads all of them
    own = rng.normal(0, 0.45, (MEMBERS, IMAGES, len(CODES)))
    logits = 2.9 * np.eye(len(CODES))[actual] + hard + own
    weights = np.exp(logits)
    return actual, (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def merged_macro_f1(tables: list[pd.DataFrame], subset: tuple[int, ...]) -> float:
    """Macro-F1 of a subset, computed as in a notebook."""
    columns = ["image_id", *CODES]
    merged = tables[subset[0]]
    for member in subset[1:]:
        merged = merged.merge(tables[member][columns], on="image_id", suffixes=("", f"_{member}"))
    parts = [merged[[code if member == subset[0] else f"{code}_{member}" for code in CODES]] for member in subset]
    mean = np.mean([part.to_numpy() for part in parts], axis=0)
    return float(f1_score(merged["actual"], mean.argmax(axis=1), average="macro"))
