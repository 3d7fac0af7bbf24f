"""The numbers of an ensemble beside those of its members, and how much it gains on the best of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.inference.predictions import soft_vote
from skinlesion.metrics.classification import headline
from skinlesion.metrics.summary import judged
from skinlesion.metrics.with_ci import compare


def measure(
    tables: Mapping[str, Sequence[pd.DataFrame]],
    chosen: Sequence[int],
    names: Sequence[str],
    calibration: dict[str, Any] | None,
    **settings: Any,
) -> dict[str, Any]:
    """Judge the chosen, all members together, each member, and the chosen against the best member.

    Args:
        tables: By part, "val" among them, the predictions table of each member.
        chosen: Positions of the members that vote.
        names: Of the members.
        calibration: Of the mean of the chosen, as from `fitted.fit_calibration`.
        **settings: `resamples`, `seed`, `level`, `method` and `bins`, as of `judged`.

    Returns:
        `chosen` (names), `level`, `interval` (kind), by part what `judged` says of the vote; `calibrated`,
        `all_members` and, by name, `members`, each by part; and `against_best_member`: `name` (the best on validation
        by macro-F1) and by part as from `compare`.
    """
    voted = {part: soft_vote([each[position] for position in chosen]) for part, each in tables.items()}
    best = best_member(tables["val"])
    return {
        "chosen": [names[position] for position in chosen],
        "level": settings["level"],
        "interval": settings["method"],
        **{part: judged(table, **settings) for part, table in voted.items()},
        "calibrated": {part: judged(with_calibration(table, calibration), **settings) for part, table in voted.items()},
        "all_members": {part: judged(soft_vote(each), **settings) for part, each in tables.items()},
        "members": {
            name: {part: judged(each[position], **settings) for part, each in tables.items()}
            for position, name in enumerate(names)
        },
        "against_best_member": {
            "name": names[best],
            **{part: compare(table, tables[part][best], **settings) for part, table in voted.items()},
        },
    }


def best_member(tables: Sequence[pd.DataFrame]) -> int:
    """The position of the member with the highest macro-F1; of equals the first."""
    reached = [headline(table)["macro_f1"] for table in tables]
    return reached.index(max(reached))
