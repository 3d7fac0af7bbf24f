"""Colours balanced by an independent formula, and treatments before the padding."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.image_cache import open_cache
from skinlesion.data.image_io import decode, fit_area
from skinlesion.data.skin import remove_hair
from skinlesion.data.treatment import Treatment, shades_of_gray


def test_a_tinted_light_is_taken_out_and_its_strength_stays() -> None:
    rng = np.random.default_rng(1)
    grey = np.repeat(rng.integers(20, 120, (40, 50, 1)), 3, axis=2)
    tinted = np.clip((grey * np.array([1.6, 1.0, 0.7])).round(), 0, 255).astype(np.uint8)
    found = shades_of_gray(tinted)
    np.testing.assert_allclose(found.astype(float).std(axis=2).max(), 0, atol=1.2)  # grey but for roundings
    light = np.array([np.linalg.norm(tinted[..., channel].ravel() / 255, 6) for channel in range(3)])
    gains = np.linalg.norm(light) / np.sqrt(3) / light
    np.testing.assert_allclose(found, np.clip(tinted * gains, 0, 255), atol=0.501)
    np.testing.assert_array_equal(shades_of_gray(grey.astype(np.uint8)), grey)
    np.testing.assert_array_equal(shades_of_gray(np.zeros((4, 4, 3), np.uint8)), 0)


@pytest.mark.parametrize("treatment", [Treatment("remove"), Treatment(colour_constancy="shades_of_gray")], ids=str)
def test_images_are_treated_before_the_padding_and_have_a_cache_of_their_own(
    tmp_path: Path, treatment: Treatment
) -> None:
    hairy = np.full((150, 200, 3), (225, 172, 140), np.uint8)
    hairy[60:62] = hairy[:, 90:92] = (25, 18, 15)
    Image.fromarray(hairy).save(tmp_path / "a.png")
    expected = np.zeros((200, 200, 3), np.uint8)
    expected[25:175] = remove_hair(hairy) if treatment.hair == "remove" else shades_of_gray(hairy)
    assert (expected[25:175] != hairy).any()
    np.testing.assert_array_equal(decode(tmp_path / "a.png", (200, 200), treatment), expected)
    np.testing.assert_array_equal(fit_area(hairy, (150, 200), treatment), expected[25:175])
    frame = pd.DataFrame({"image_id": ["a"], "path": [str(tmp_path / "a.png")]})
    plain, treated = (
        open_cache(frame, size=(200, 200), cache_dir=tmp_path / "cache", treatment=each)
        for each in (Treatment(), treatment)
    )
    assert plain.path != treated.path
    assert plain.key != treated.key
    np.testing.assert_array_equal(treated.image("a"), expected)
    np.testing.assert_array_equal(plain.image("a")[25:175], hairy)
