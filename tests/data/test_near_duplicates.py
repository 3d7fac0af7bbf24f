"""Hashes against imagehash and pixel by pixel comparison; pairs against counting bit by bit."""

import io
import os
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.data.image_io import read
from skinlesion.data.near_duplicates import COLUMNS, Hashes, duplicate_pairs, hash_images, similar_pairs

shared = os.environ.get("SKINLESION_SHARED")


def scene(seed: int) -> np.ndarray:
    """A textured picture (60, 80, 3) that shares nothing with those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC))


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def table_of(image_ids: list[str], lesion_ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": image_ids, "lesion_id": lesion_ids})


def split_of(**splits: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(splits), "split": list(splits.values())})


def with_equal_detail(perceptual: np.ndarray) -> Hashes:
    """Hashes of images whose detail agrees and whose pixels do not."""
    detail = np.ones((len(perceptual), 1), np.float16)
    return Hashes(perceptual, detail, tuple(map(str, range(len(perceptual)))))


def test_perceptual_hash_is_that_of_imagehash() -> None:
    images = [scene(seed) for seed in range(5)]
    expected = [int(str(imagehash.phash(Image.fromarray(image))), 16) for image in images]
    assert hash_images(images).perceptual.tolist() == expected


def test_detail_is_a_correlation_of_what_is_fine() -> None:
    image = scene(0)
    shaded = (image * 0.5 + np.linspace(0, 60, 80)[None, :, None]).astype(np.uint8)  # other light
    first, second, other = hash_images([image, shaded, scene(1)]).detail.astype(np.float64)
    assert first @ first == pytest.approx(1, abs=1e-2)
    assert first @ second > 0.97
    assert abs(first @ other) < 0.3


def test_same_pixels_in_another_shape_are_not_exact_duplicates() -> None:
    flat = np.zeros((4, 6, 3), np.uint8)
    hashes = hash_images([flat, flat.reshape(6, 4, 3), flat.copy()])
    assert hashes.exact[0] == hashes.exact[2] != hashes.exact[1]


def test_copies_are_found_and_strangers_are_not() -> None:
    images = [scene(0), scene(1), recompressed(scene(0)), scene(1).copy(), scene(2)]
    frame = table_of(["a", "b", "c", "d", "e"], ["1", "2", "3", "2", "4"])
    split = split_of(a="train", b="val", c="test", e="train")  # d is left out
    pairs = duplicate_pairs(frame, split, hashes=hash_images(images), distance=10, similarity=0.9)
    assert tuple(pairs.columns) == COLUMNS
    assert pairs[["image_a", "image_b", "exact", "same_lesion", "split_a", "split_b"]].to_numpy().tolist() == [
        ["b", "d", True, True, "val", ""],
        ["a", "c", False, False, "train", "test"],
    ]
    assert pairs["similarity"].iloc[0] == pytest.approx(1, abs=2e-3)


def test_same_coarse_structure_is_not_enough() -> None:
    hashes = with_equal_detail(np.zeros(3, np.uint64))
    unlike = Hashes(hashes.perceptual, np.asarray([[1, 0], [1, 0], [0, 1]], np.float16), hashes.exact)
    frame = table_of(["a", "b", "c"], ["1", "2", "3"])
    pairs = duplicate_pairs(frame, split_of(a="train"), hashes=unlike, distance=0, similarity=0.5)
    assert pairs[["image_a", "image_b"]].to_numpy().tolist() == [["a", "b"]]


@pytest.mark.parametrize("distance", [0, 3, 24])
def test_distances_are_counted_bit_by_bit(distance: int) -> None:
    rng = np.random.default_rng(0)
    perceptual = rng.integers(0, 2**64, 600, dtype=np.uint64)  # more than two blocks of 256
    perceptual[500] = perceptual[3] ^ np.uint64(0b1011)
    perceptual[599] = perceptual[300]
    image_ids = [f"{number:03d}" for number in range(600)]
    frame = table_of(image_ids, image_ids)
    pairs = duplicate_pairs(frame, split_of(), hashes=with_equal_detail(perceptual), distance=distance, similarity=0)
    values = perceptual.tolist()
    expected = {
        (image_ids[a], image_ids[b], bits)
        for a in range(600)
        for b in range(a + 1, 600)
        if (bits := (values[a] ^ values[b]).bit_count()) <= distance
    }
    assert expected
    found = zip(pairs["image_a"], pairs["image_b"], pairs["distance"], strict=True)
    assert set(found) == expected
    assert len(pairs) == len(expected)


def test_order_of_rows_does_not_matter() -> None:
    images = [scene(0), scene(1), recompressed(scene(0)), scene(1)]
    frame = table_of(["a", "b", "c", "d"], ["1", "2", "1", "3"])
    split = split_of(a="train", b="train", c="train", d="val")
    here = duplicate_pairs(frame, split, hashes=hash_images(images), distance=10, similarity=0.9)
    backwards = hash_images(images[::-1])
    there = duplicate_pairs(frame[::-1], split[::-1], hashes=backwards, distance=10, similarity=0.9)
    pd.testing.assert_frame_equal(here, there)
    assert len(here) == 2


def test_nothing_in_nothing_out() -> None:
    frame = table_of(["a"], ["1"])
    for rows, images in ((frame, [scene(0)]), (frame[:0], [])):
        hashes = hash_images(images)
        pairs = duplicate_pairs(rows, split_of(a="train"), hashes=hashes, distance=64, similarity=-1)
        assert tuple(pairs.columns) == COLUMNS
        assert pairs.empty


@pytest.mark.real_data
@pytest.mark.skipif(shared is None, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_two_lesions_of_ham10000_are_one() -> None:
    root = Path(str(shared)) / "ham10000"
    table = pd.read_csv(root / "HAM10000_metadata").sort_values("image_id")
    known = ["ISIC_0025226", "ISIC_0030074", "ISIC_0024366", "ISIC_0029861"]
    some = table[table["image_id"].isin(known) | (np.arange(len(table)) % 20 == 0)].reset_index(drop=True)
    files = {path.stem: path for path in root.glob("*/*.jpg")}
    hashes = hash_images(read(files[image_id]) for image_id in some["image_id"])
    pairs = duplicate_pairs(some, split_of(), hashes=hashes, distance=10, similarity=0.93)
    unlike = pairs[~pairs["same_lesion"]]
    assert unlike[["image_a", "image_b"]].to_numpy().tolist() == [["ISIC_0025226", "ISIC_0030074"]]
    assert pairs.loc[pairs["exact"], ["image_a", "image_b"]].to_numpy().tolist() == [["ISIC_0024366", "ISIC_0029861"]]


@pytest.mark.parametrize("distance", [0, 3, 10, 15, 40])
@pytest.mark.parametrize("within", [True, False])
def test_candidates_are_those_of_all_pairs(distance: int, within: bool) -> None:
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)[rng.integers(0, 60, 400)]
    for start in range(50, 400, 50):  # copies that differ in up to 14 bits
        hashes[start:] ^= np.uint64(1) << rng.integers(0, 64, 400 - start).astype(np.uint64)
    others = hashes if within else hashes[:150]
    near = [
        (a, b)
        for a, one in enumerate(hashes.tolist())
        for b, other in enumerate(others.tolist())
        if (one ^ other).bit_count() <= distance and (a < b or not within)
    ]
    assert near
    second = None if within else with_equal_detail(others)
    found = similar_pairs(with_equal_detail(hashes), second, distance=distance, similarity=0.5)
    assert list(zip(found.a, found.b, strict=True)) == near
    assert found.distance.tolist() == [(int(hashes[a]) ^ int(others[b])).bit_count() for a, b in near]
