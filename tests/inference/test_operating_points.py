"""Operating points against counts by hand."""

import numpy as np
from conftest import CODES

from skinlesion.inference import operating_points
from skinlesion.inference.operating_points import flagged


def test_operating_points_by_hand() -> None:
    mel, nv, bcc = (CODES.index(code) for code in ("mel", "nv", "bcc"))
    given_mel = [0.9, 0.8, 0.6, 0.3, 0.1, 0.85, 0.2]
    values = np.zeros((7, 7))
    values[:, mel], values[:, nv] = given_mel, 1 - np.array(given_mel)
    actual = np.array([mel, mel, mel, mel, mel, bcc, nv])
    points = operating_points.fit(values, actual, sensitivities=[0.8, 1.0])
    assert [(each["target"], each["sensitivity"], each["threshold"]) for each in points] == [
        ("mel", 0.8, 0.3),
        ("mel", 1.0, 0.1),
        ("malignant", 0.8, 0.3),  # five of six
        ("malignant", 1.0, 0.1),
    ]
    assert flagged(values, points[0]).tolist() == [True, True, True, True, False, True, False]
    nothing = operating_points.fit(values[6:], actual[6:], sensitivities=[0.9])[0]
    assert (nothing["threshold"], nothing["note"]) == (None, "not computable: no image of mel")
