"""Baselines without an image, against regressions written out."""

import numpy as np
import pandas as pd
from conftest import CODES
from sklearn.linear_model import LogisticRegression

from skinlesion.metrics.baselines import cross_fitted, predict_without_image


def frame_of(n: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"diagnosis": rng.choice(["mel", "nv"], n), "dataset": rng.choice(["a", "b", "c"], n)})


def test_each_fold_is_predicted_from_the_others() -> None:
    frame, folds = frame_of(), np.resize([0, 1, -1], 90)
    found = cross_fitted(frame, folds, ("dataset",))
    dummies = pd.get_dummies(frame["dataset"]).to_numpy(dtype=float)
    for fold in (0, 1):
        own = folds == fold
        model = LogisticRegression(max_iter=2000).fit(dummies[~own], frame["diagnosis"][~own])
        expected = model.predict_proba(dummies[own])
        np.testing.assert_allclose(found[own][:, [CODES.index("mel"), CODES.index("nv")]], expected, atol=1e-6)
        assert found[own][:, CODES.index("bcc")].max() == 0
    assert np.isnan(found[folds == -1]).all()


def test_balanced_weights_forget_the_frequencies() -> None:
    frame = pd.DataFrame({"diagnosis": ["nv"] * 90 + ["mel"] * 10, "dataset": "a"})
    plain, balanced = (
        predict_without_image(frame, frame.head(1), ("dataset",), class_weight=weight)[0, CODES.index("mel")]
        for weight in (None, "balanced")
    )
    np.testing.assert_allclose([plain, balanced], [0.1, 0.5], atol=1e-4)
