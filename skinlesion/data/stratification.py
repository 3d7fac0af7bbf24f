"""Lesions, or groups of them, dealt out evenly by diagnosis."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import cast

import pandas as pd


def images_by_lesion(frame: pd.DataFrame, *, seed: int) -> dict[str, dict[str, int]]:
    """Return the number of images of each lesion or group, by diagnosis, in an order that the seed decides.

    Where groups have several diagnoses, the rarest diagnosis comes first, as in iterative stratification (Sechidis et
    al., doi:10.1007/978-3-642-23808-6_10).
    """
    counted = frame.groupby(["diagnosis", "lesion_id"]).size()
    sizes = cast("dict[tuple[str, str], int]", counted.to_dict())
    images = frame["diagnosis"].value_counts()
    has_one = len({lesion for _, lesion in sizes}) == len(sizes)
    codes = sorted(images.index, key=lambda code: (0 if has_one else images[code], code))
    lesions: dict[str, dict[str, int]] = {code: {} for code in codes}
    for code, lesion in sorted(sizes, key=lambda each: hashlib.sha256(f"{seed},{each[1]}".encode()).digest()):
        lesions[code][lesion] = int(sizes[code, lesion])
    return lesions


def kept_shares(counts: Mapping[str, int], *, held_out: float, leave: int) -> dict[str, int]:
    """Return how many of each diagnosis to keep when a share is held out, by largest remainders.

    At least one is kept and `leave` are held out, as far as there are so many.
    """
    total = sum(counts.values())
    kept = total - math.ceil(held_out * total)  # rounded as in scikit-learn's train_test_split
    exact = {code: n * kept / max(total, 1) for code, n in counts.items()}
    shares = {code: math.floor(share) for code, share in exact.items()}
    by_remainder = sorted(counts, key=lambda code: (shares[code] - exact[code], code))
    for code in by_remainder[: kept - sum(shares.values())]:
        shares[code] += 1
    return {code: max(min(max(shares[code], 1), n - leave), 0) for code, n in counts.items()}


def assign_evenly(lesions: Mapping[str, Mapping[str, int]], shares: Sequence[float]) -> dict[str, int]:
    """Assign lesions to parts: each to the part with the fewest images of its diagnosis for its share.

    Of equal parts, a group with several diagnoses goes to the one that lacks the others most.
    """
    held: dict[str, dict[str, int]] = {}
    for code, found in lesions.items():
        for lesion, number in found.items():
            held.setdefault(lesion, {})[code] = number
    part_of: dict[str, int] = {}
    images = [0] * len(shares)
    assigned = {code: [0] * len(shares) for code in lesions}
    totals = {code: sum(found.values()) for code, found in lesions.items()}

    def fullness(part: int, code: str, others: Sequence[str]) -> tuple[float, float, float]:
        lacking = sum(assigned[other][part] / totals[other] for other in others) if others else 0.0
        return assigned[code][part] / shares[part], lacking / shares[part], images[part] / shares[part]

    for code, found in lesions.items():
        alone = [fullness(part, code, ()) for part in range(len(shares))]  # for groups of this diagnosis alone
        # big ones first, small ones even out
        for lesion in sorted(found, key=lambda name: (-found[name], -len(held[name]))):
            if lesion in part_of:  # a group, by a rarer diagnosis
                continue
            others = [other for other in held[lesion] if other != code]
            filled = [fullness(part, code, others) for part in range(len(shares))] if others else alone
            part_of[lesion] = part = filled.index(min(filled))
            for other, number in held[lesion].items():
                assigned[other][part] += number
                images[part] += number
            alone[part] = fullness(part, code, ())
    return part_of
