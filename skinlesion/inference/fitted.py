"""Schema of what is fitted after the vote, as ensemble.json and bundle.json keep it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from skinlesion.errors import DataError
from skinlesion.inference import ood
from skinlesion.inference.calibration import Calibration, Decision, calibrated
from skinlesion.inference.conformal import ConformalSets
from skinlesion.inference.members import PostHoc
from skinlesion.inference.ood import OodFile
from skinlesion.inference.operating_points import OperatingPoint, flagged
from skinlesion.inference.specialist import Correction, corrected
from skinlesion.taxonomy import Taxonomy

MAKE_AGAIN = "make it again with skinlesion ensemble"


class Fitted(BaseModel):
    """Keys of ensemble.json and bundle.json; null: was not fitted."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    calibration: Calibration | None = None
    decision: Decision | None = None
    operating_points: list[OperatingPoint] | None = None
    conformal: list[ConformalSets] | None = None  # the first is the one in use
    novelty: OodFile | None = None
    specialist: Correction | None = None

    def posthoc(self, folder: Path, *, taxonomy: Taxonomy, members: int) -> PostHoc:
        """Read what lies beside the file, and try everything on even probabilities.

        Args:
            folder: Of the file.
            taxonomy: Of the model.
            members: That vote.

        Raises:
            CheckpointError: The statistics cannot be read.
            DataError: A key does not fit the taxonomy or the members; it is named.
        """
        even = np.full((1, len(taxonomy)), 1 / len(taxonomy))
        statistics = None if self.novelty is None else ood.read(folder / self.novelty["file"])
        if self.specialist is not None:
            _try("specialist", partial(corrected, even, [0.5], self.specialist, taxonomy.codes))
        _try("calibration", partial(calibrated, even, self.calibration))
        found: dict[str, Any] = dict(self.calibration or {})
        for key in ("bias", "vector"):
            scaling = found.get(key)
            if scaling is not None and not len(scaling["weight"]) == len(scaling["bias"]) == len(taxonomy):
                raise DataError(f"calibration.{key}: expected {len(taxonomy)} numbers of each, one a diagnosis")
        for place, point in enumerate(self.operating_points or []):
            _try(f"operating_points.{place}.target", partial(flagged, even, point, taxonomy=taxonomy))
        by_code: dict[str, Any] = {} if self.decision is None else {"decision.prior": self.decision["prior"]}
        for place, sets in enumerate(self.conformal or []):
            by_code[f"conformal.{place}.thresholds"] = sets["thresholds"]
        for key, given in by_code.items():
            if tuple(given) != taxonomy.codes:
                raise DataError(f"{key}: expected one for each of {', '.join(taxonomy.codes)}, in this order")
        if statistics is not None and float(statistics["members"]) != members:
            count = float(statistics["members"])
            raise DataError(f"novelty.file: holds the statistics of {count:g} members, expected {members}")
        fitted = (self.calibration, self.operating_points, self.conformal, statistics, self.decision)
        return PostHoc(*fitted, self.specialist)


def _try(key: str, use: Callable[[], object]) -> None:
    try:
        use()
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{key}: does not fit this model ({type(error).__name__}: {error})") from error
