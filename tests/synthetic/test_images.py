"""Synthetic images: diagnoses can be learned from them, photographs of one lesion differ, any size is painted."""

import numpy as np
import pandas as pd
import pytest
from conftest import CODES
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skinlesion.synthetic.images import EXTENT, RECIPES, paint, photograph


@pytest.fixture(scope="module")
def gallery() -> pd.DataFrame:
    """Two photographs of each of 24 lesions of each diagnosis, all of one source."""
    rows = []
    for target, code in enumerate(CODES):
        for number in range(24):
            rng = np.random.default_rng([target, number])
            patch = paint(code, "vidir_molemax", width=32, rng=rng)
            for view in range(2):
                image = photograph(patch, "vidir_molemax", image_size=(32, 24), rng=rng).image
                colours = np.quantile(image.reshape(-1, 3), [0.02, 0.1, 0.25, 0.5, 0.75, 0.9], axis=0).ravel()
                rows.append({"target": target, "number": number, "view": view, "colours": colours})
    return pd.DataFrame(rows)


def test_diagnoses_can_be_learned_but_overlap(gallery: pd.DataFrame) -> None:
    train, test = gallery[gallery["number"] < 16], gallery[gallery["number"] >= 16]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(np.stack(train["colours"]), train["target"])
    score = balanced_accuracy_score(test["target"], model.predict(np.stack(test["colours"])))
    assert 2 / 7 < score < 0.9  # chance is 1/7; colours alone must not be enough


def test_photographs_of_one_lesion_look_alike_but_differ(gallery: pd.DataFrame) -> None:
    views = [np.stack(rows["colours"]) for _, rows in gallery.groupby("view")]
    siblings = np.linalg.norm(views[0] - views[1], axis=1)
    others = np.linalg.norm(views[0] - np.roll(views[1], 1, axis=0), axis=1)  # mostly of the same diagnosis
    assert siblings.min() > 0
    assert siblings.mean() < 0.8 * others.mean()


def test_every_recipe_paints_at_any_size() -> None:
    assert tuple(RECIPES) == CODES
    for code in CODES:
        for width in (16, 90):
            patch = paint(code, "rosendahl", width=width, rng=np.random.default_rng(0))
            assert patch.shape == (EXTENT * width, EXTENT * width, 4)
            assert patch.dtype == np.float32
            assert 0 <= patch.min() < patch.max() <= 1.2
