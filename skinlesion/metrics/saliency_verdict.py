"""Verdicts on checks of saliency maps."""

import math
from collections.abc import Mapping

from skinlesion.metrics.estimate import NOT_COMPUTABLE, Estimate

UNRELATED = 0.3
"""Rank correlation within which, on both sides of 0, two maps count as unrelated."""

_LIMITS = {"randomisation": (-UNRELATED, UNRELATED), "deletion": (-math.inf, 0.0), "insertion": (0.0, math.inf)}
OUTCOMES = {"fails": "FAILS", "undecided": "is undecided", "passes": "passes", NOT_COMPUTABLE: "is not computable"}
_MEANINGS = {  # the worst first
    "fails": "the maps hardly depend on what was learned, so do not read them as explanations",
    "undecided": "the maps are not shown to depend on what was learned",
    "passes": "the maps depend on what was learned, which does not show that they are right",
}


def verdict(check: str, number: Estimate) -> str:
    """Verdict on a check of saliency maps: it "passes", "fails" or is "undecided".

    A check passes where the whole interval lies within the limits that maps should keep, and fails where the whole
    interval lies beyond them; a number without an interval is judged by its value.

    Args:
        check: "randomisation" (Adebayo et al., NeurIPS 2018, arXiv:1810.03292): the rank correlation of the maps of the
            trained network and of one whose weights are all randomised should lie within `UNRELATED` of 0. The paper
            sets no limit; this one is a medium correlation of Cohen (1988), doi:10.4324/9780203771587. "deletion" and
            "insertion": the area less that of random order should lie below and above 0.
        number: The result of the check.
    """
    if number.value is None:
        return NOT_COMPUTABLE
    low, high = _LIMITS[check]
    least, most = (number.value if end is None else end for end in (number.low, number.high))
    return "passes" if low < least and most < high else "fails" if most < low or least > high else "undecided"


def randomisation_verdict(members: Mapping[str, Estimate]) -> tuple[str, str]:
    """The worst verdict on the members' maps by `verdict`, and a sentence that says it.

    Args:
        members: By name, the rank correlation of the maps after the randomisation of all weights.
    """
    verdicts = {name: verdict("randomisation", each) for name, each in members.items()}
    worst = next((each for each in _MEANINGS if each in verdicts.values()), NOT_COMPUTABLE)
    named = ", ".join(f"{name} {members[name].text()}" for name, each in verdicts.items() if each == worst)
    meaning = _MEANINGS.get(worst, "the maps are constant")
    outcome = f"The sanity check of the saliency maps {OUTCOMES[worst]}: {meaning}"
    return worst, f"{outcome} (rank correlation with all weights randomised: {named})."
