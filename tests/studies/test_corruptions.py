"""Corruptions: the neutral step changes nothing, and larger steps change more; out-of-distribution images and facts."""

import io

import numpy as np
import pandas as pd
import pytest
from conftest import DIAGNOSES
from PIL import Image as PillowImage

from skinlesion.errors import ConfigError
from skinlesion.studies.robustness.corruptions import ALTERED, CORRUPTIONS, NON_DERMOSCOPIC, check_steps
from skinlesion.studies.robustness.study import altered_facts
from skinlesion.synthetic.images import paint, photograph

STEPS = {
    "hair": [10, 40, 120],
    "ruler": [0.3, 0.6, 1],
    "vignette": [0.2, 0.4, 0.8],
    "blur": [0.5, 1, 3],
    "jpeg": [60, 25, 5],
    "brightness": [0.8, 0.5, 0.2],
    "colour": [0.1, 0.2, 0.4],
    "skin_tone": [-5, -15, -30],
    "lesion_removed": [0.2, 0.5, 1],
}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    patch = paint("mel", "vidir_modern", width=120, rng=np.random.default_rng(1))
    return photograph(patch, "vidir_modern", image_size=(120, 90), rng=np.random.default_rng(2)).image


def corrupted(image: np.ndarray, name: str, step: float) -> np.ndarray:
    return CORRUPTIONS[name].apply(image, step, np.random.default_rng(7))


def test_every_corruption_is_tested() -> None:
    assert set(STEPS) == set(CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_neutral_step_changes_nothing(name: str, image: np.ndarray) -> None:
    assert np.array_equal(corrupted(image, name, CORRUPTIONS[name].neutral), image)


@pytest.mark.parametrize("name", STEPS)
def test_each_step_goes_further_and_is_repeatable(name: str, image: np.ndarray) -> None:
    before = image.copy()
    changed = [corrupted(image, name, step) for step in STEPS[name]]
    away = [np.abs(each.astype(float) - image).mean() for each in changed]
    assert 0 < away[0] < away[1] < away[2]
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in changed)
    assert np.array_equal(corrupted(image, name, STEPS[name][0]), changed[0])
    assert np.array_equal(image, before)


def test_a_larger_step_holds_the_hairs_of_a_smaller(image: np.ndarray) -> None:
    few, many = (corrupted(np.full_like(image, 255), "hair", count) < 200 for count in (10, 40))
    assert few.any()
    assert (many | ~few).all()


def test_the_painted_share_lies_around_the_centre(image: np.ndarray) -> None:
    random = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    for share in (0.2, 0.5):
        changed = corrupted(random, "lesion_removed", share)
        painted = (changed == changed[45, 60]).all(axis=2)
        assert painted.mean() == pytest.approx(share, abs=0.002)
        assert not painted[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    everything = corrupted(image, "lesion_removed", 1)
    assert len(np.unique(everything.reshape(-1, 3), axis=0)) == 1


def test_the_rim_gives_the_colour() -> None:
    image = np.full((100, 100, 3), 30, np.uint8)
    image[5:-5, 5:-5] = 200
    assert (corrupted(image, "lesion_removed", 0.5)[50, 50] == 30).all()


def test_a_vignette_leaves_the_opening_as_it_was(image: np.ndarray) -> None:
    changed = corrupted(image, "vignette", 0.4)
    radius = 0.6 * np.hypot(60, 45)
    y, x = np.mgrid[:90, :120] + 0.5
    inside = np.hypot(x - 60, y - 45) <= radius
    assert np.array_equal(changed[inside], image[inside])
    assert (changed[~inside] == 0).all()


def test_brightness_and_colour_by_hand() -> None:
    image = np.full((4, 4, 3), (100, 150, 200), np.uint8)
    assert corrupted(image, "brightness", 0.5)[0, 0].tolist() == [50, 75, 100]
    assert corrupted(image, "brightness", 2)[0, 0].tolist() == [200, 255, 255]
    assert corrupted(image, "colour", 0.2)[0, 0].tolist() == [151, 150, 149]
    assert corrupted(image, "colour", -0.2)[0, 0].tolist() == [49, 150, 251]
    assert corrupted(image, "colour", 0.4)[0, 0].tolist() == [202, 150, 98]
    assert corrupted(image, "colour", 1)[0, 0].tolist() == [255, 150, 0]


def test_compression_is_that_of_pillow(image: np.ndarray) -> None:
    """Pillow's file of the same quality differs from the image by as much."""
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=25)
    other = np.asarray(PillowImage.open(file)).astype(float)
    ours = corrupted(image, "jpeg", 25).astype(float)
    assert np.abs(ours - other).mean() < 0.2 * np.abs(other - image).mean()


def test_blur_keeps_the_mean_and_is_alike_at_every_size(image: np.ndarray) -> None:
    changed = corrupted(image, "blur", 2)
    assert changed.mean() == pytest.approx(image.mean(), abs=1.5)
    line = np.zeros((50, 200, 3), np.uint8)
    line[:, 100] = 255
    width = corrupted(line, "blur", 2)[25, :, 0].astype(float)
    spread = np.sqrt((width * (np.arange(200) - 100) ** 2).sum() / width.sum())
    assert spread == pytest.approx(4, abs=0.4)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"haar": [1]}, "steps=haar: expected one of hair"),
        ({"hair": [-1]}, r"steps.hair=\[-1\]: expected numbers from 0 to 1000 \(number of hairs\)"),
        ({"jpeg": [0, 50]}, "steps.jpeg"),
        ({"blur": []}, "steps.blur"),
        ({"blur": [1, 1]}, "each once"),
        ({"blur": 1}, "steps.blur=1"),
        ({"blur": ["much"]}, "steps.blur"),
        ({"colour": [float("nan")]}, "steps.colour"),
    ],
)
def test_invalid_steps_are_refused(steps: dict[str, list[float]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_steps(steps)


@pytest.mark.parametrize("kind", [*NON_DERMOSCOPIC, *ALTERED])
def test_ood_images_have_the_shape_and_differ(kind: str, image: np.ndarray) -> None:
    draw = {**NON_DERMOSCOPIC, **ALTERED}[kind]
    drawn = [draw(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert all(each.dtype == np.uint8 for each in drawn)
    assert np.abs(drawn[0].shape[0] - image.shape[0]) < 8, "scrambled crops to a multiple of 8"
    assert drawn[0].shape != image.shape or not np.array_equal(drawn[0], image)
    if kind in NON_DERMOSCOPIC:
        assert not np.array_equal(drawn[0], drawn[2])


def test_scrambling_keeps_the_pixels() -> None:
    image = np.arange(16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)
    mixed = ALTERED["scrambled"](image, np.random.default_rng(0))
    assert sorted(mixed.ravel()) == sorted(image.ravel())
    assert not np.array_equal(mixed, image)


FRAME = pd.DataFrame(
    {
        "diagnosis": ["mel", "nv", "nv", "bcc"],
        "age": [70.0, 20.0, np.nan, 60.0],
        "sex": ["male", "female", "unknown", "male"],
        "localization": ["back", "face", "scalp", "trunk"],
    }
)


def test_altered_facts() -> None:
    altered = altered_facts(FRAME, FRAME, seed=1)
    assert list(altered) == ["no_age", "no_sex", "no_localization", "nothing_known", "permuted", "contradictory"]
    assert altered["no_age"]["age"].isna().all()
    assert altered["no_age"]["sex"].tolist() == FRAME["sex"].tolist()
    assert set(altered["nothing_known"]["localization"]) == {"unknown"}
    permuted = altered["permuted"]["localization"].tolist()
    assert sorted(permuted) == sorted(FRAME["localization"])
    assert all(now != then for now, then in zip(permuted, FRAME["localization"], strict=True))
    category = {diagnosis.code: diagnosis.category for diagnosis in DIAGNOSES}
    of_place = dict(zip(FRAME["localization"], FRAME["diagnosis"].map(category), strict=True))
    taken = altered["contradictory"]["localization"].map(of_place)
    assert (taken.to_numpy() != FRAME["diagnosis"].map(category).to_numpy()).all()


def test_no_contradiction_among_patients_of_one_category() -> None:
    benign = FRAME[FRAME["diagnosis"] == "nv"].reset_index(drop=True)
    assert "contradictory" not in altered_facts(benign, benign, seed=1)
