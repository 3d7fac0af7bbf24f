"""Exact and near duplicates among images, and images that a model was trained on or selected by.

Candidates are found by perceptual hash and confirmed by their fine detail: on HAM10000 the hash alone finds hundreds of
pairs that are not alike, because round dark spots on pale skin share their coarse structure.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image as PillowImage

from skinlesion.data.image_io import Image

COLUMNS = ("image_a", "image_b", "distance", "similarity", "exact", "same_lesion", "split_a", "split_b")
"""The columns of the frame that `duplicate_pairs` returns."""

LEAKAGE_COLUMNS = ("image_id", "known_as", "part", "found_by", "distance", "similarity")
"""Columns of leaked images: an image; the same image in the training data; its part, train or val; "id" or "hash";
and, for "hash", the number of differing bits (0 to 64) and the correlation of the fine detail."""

PARTS = ("train", "val", "calibration")
"""Parts that leak: weights come from train; the epoch, the members and the calibration from val."""

_TYPES = {"distance": "Int64", "similarity": "Float64"}  # nullable: an image found by id has neither
_SUFFIX = "_downsampled"  # of ISIC 2019's reduced copies of an archive's image
_CANDIDATES = 1 << 20  # pairs of hashes compared at a time, about: 50 MB
_PAIRS = 1024  # details compared at a time: 25 MB
_DETAIL = (64, 48)  # width and height at which detail is compared, pixels
_COARSE = 3.0  # standard deviation of the blur that is subtracted to leave the detail, pixels


@dataclass(frozen=True)
class Hashes:
    """Hashes of N images."""

    perceptual: npt.NDArray[np.uint64]  # (N,) similar images differ in few bits
    detail: npt.NDArray[np.float16]  # (N, 3072) of unit length: fine structure in grey, without the coarse one
    exact: tuple[str, ...]  # SHA-256 of size and pixels: equal for equal images only


@dataclass(frozen=True)
class ImageDescriptors:
    """Descriptors of N images."""

    image_ids: tuple[str, ...]
    statistics: npt.NDArray[np.float32]  # (N, 8) columns `image_statistics.STATISTICS`
    hashes: Hashes


class Pairs(NamedTuple):
    """P pairs of similar images."""

    a: npt.NDArray[np.intp]  # (P,) positions of the first images
    b: npt.NDArray[np.intp]  # (P,) positions of the second images
    distance: npt.NDArray[np.int64]  # (P,) bits in which their perceptual hashes differ, 0 to 64
    similarity: npt.NDArray[np.float64]  # (P,) correlation of their detail, -1 to 1, rounded to three digits
    exact: npt.NDArray[np.bool_]  # (P,) whether all pixels are equal


def hash_images(images: Iterable[Image]) -> Hashes:
    """Hash images for the search of duplicates.

    The perceptual hash is `imagehash.phash`: signs of the 8x8 lowest frequencies of the cosine transform, about their
    median, of the image in grey at 32x32 pixels. It withstands scaling, compression and lighting, but not turning or
    mirroring.

    Args:
        images: Decoded images (H, W, 3), RGB; taken one by one, so that an iterator needs little memory.
    """
    perceptual: list[int] = []
    detail: list[npt.NDArray[np.float16]] = []
    exact: list[str] = []
    for image in images:
        perceptual.append(int(str(imagehash.phash(PillowImage.fromarray(image))), 16))
        detail.append(_detail(image))
        exact.append(hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest())
    details = np.stack(detail) if detail else np.empty((0, _DETAIL[0] * _DETAIL[1]), np.float16)
    return Hashes(np.asarray(perceptual, dtype=np.uint64), details, tuple(exact))


def duplicate_pairs(
    frame: pd.DataFrame, split: pd.DataFrame, *, hashes: Hashes, distance: int, similarity: float
) -> pd.DataFrame:
    """Find the pairs of equal or similar images in a data set.

    Args:
        frame: image_id and lesion_id, one row per image, in any order.
        split: image_id and split.
        hashes: Hashes of the images of `frame`, in its order.
        distance: Bits of 64 in which the perceptual hashes of near duplicates differ at most.
        similarity: Least correlation of their detail, up to 1.

    Returns:
        Columns `COLUMNS`, the most similar pairs first: image_a < image_b; distance in bits; similarity; exact, whether
        all pixels are equal; same_lesion; split_a and split_b, "" for an image that the split leaves out.
    """
    pairs = similar_pairs(hashes, distance=distance, similarity=similarity)
    ids, lesions = frame["image_id"].to_numpy(dtype=object), frame["lesion_id"].to_numpy(dtype=object)
    a = np.where(ids[pairs.a] < ids[pairs.b], pairs.a, pairs.b)
    b = pairs.a + pairs.b - a
    split_of = dict(zip(split["image_id"], split["split"], strict=True))
    found = pd.DataFrame(
        {
            "image_a": ids[a],
            "image_b": ids[b],
            "distance": pairs.distance,
            "similarity": pairs.similarity,
            "exact": pairs.exact,
            "same_lesion": (lesions[a] == lesions[b]).astype(bool),
            "split_a": [split_of.get(image_id, "") for image_id in ids[a]],
            "split_b": [split_of.get(image_id, "") for image_id in ids[b]],
        },
        columns=list(COLUMNS),
    )
    return found.sort_values(
        ["exact", "similarity", "image_a", "image_b"], ascending=[False, False, True, True], ignore_index=True
    )


def parts_of_training(split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Map each image id of `PARTS` to its part."""
    return {image_id: part for part in PARTS for image_id in split.get(part, ())}


def find_by_id(image_ids: Sequence[str], part_of: Mapping[str, str]) -> pd.DataFrame:
    """Find images of the training data by their id; an archive's image and its reduced copy are one.

    Args:
        image_ids: Ids to look for.
        part_of: Part by image id, as from `parts_of_training`.

    Returns:
        Columns `LEAKAGE_COLUMNS`.
    """
    known = {image_id.removesuffix(_SUFFIX): image_id for image_id in part_of}
    pairs = [(image_id, known.get(image_id.removesuffix(_SUFFIX))) for image_id in image_ids]
    rows = [(image_id, other, part_of[other], "id", None, None) for image_id, other in pairs if other is not None]
    return pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS)).astype(_TYPES)


def find_by_hash(
    images: ImageDescriptors,
    training: ImageDescriptors,
    part_of: Mapping[str, str],
    *,
    distance: int,
    similarity: float,
) -> pd.DataFrame:
    """Find images of the training data by similarity: for each image the most similar one, if it is similar enough.

    Args:
        images: Descriptors of the images to look for.
        training: Descriptors of the training data; images in no part of `part_of` are skipped.
        part_of: Part by image id.
        distance: Bits of 64 in which the perceptual hashes differ at most.
        similarity: Least correlation of the fine detail, up to 1.

    Returns:
        Columns `LEAKAGE_COLUMNS`, sorted by image_id.
    """
    pairs = similar_pairs(images.hashes, training.hashes, distance=distance, similarity=similarity)
    rows = [
        (images.image_ids[a], known, part_of[known], "hash", int(bits), float(correlation))
        for a, b, bits, correlation in zip(pairs.a, pairs.b, pairs.distance, pairs.similarity, strict=True)
        if (known := training.image_ids[b]) in part_of
    ]
    found = pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS)).astype(_TYPES)
    found = found.sort_values(["image_id", "similarity", "known_as"], ascending=[True, False, True], kind="stable")
    return found.drop_duplicates("image_id", ignore_index=True)


def similar_pairs(first: Hashes, second: Hashes | None = None, *, distance: int, similarity: float) -> Pairs:
    """Find the images of one set that equal, or are similar to, images of another.

    Args:
        first: Hashes of some images.
        second: Hashes of the others; None: each pair within `first` once, as a < b.
        distance: Bits of 64 in which the perceptual hashes of near duplicates differ at most.
        similarity: Least correlation of their detail, up to 1.
    """
    others = first if second is None else second
    found = [np.empty((0, 2), np.intp), *_near(first.perceptual, others.perceptual, distance, ordered=second is None)]
    a, b = np.unique(np.concatenate(found), axis=0).T
    differing = np.bitwise_count(first.perceptual[a] ^ others.perceptual[b]).astype(np.int64)
    correlation = np.empty(len(a))
    for start in range(0, len(a), _PAIRS):
        block = slice(start, start + _PAIRS)
        left, right = first.detail[a[block]].astype(np.float32), others.detail[b[block]].astype(np.float32)
        correlation[block] = np.einsum("pd,pd->p", left, right)
    correlation = correlation.round(3)
    exact = np.array([first.exact[i] == others.exact[j] for i, j in zip(a, b, strict=True)], dtype=bool)
    kept = exact | (correlation >= similarity)
    return Pairs(a[kept], b[kept], differing[kept], correlation[kept], exact[kept])


def _near(
    first: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64], distance: int, *, ordered: bool
) -> Iterator[npt.NDArray[np.intp]]:
    """Yield pairs (P, 2) of hashes that differ in at most `distance` bits, some more than once; ordered: a < b alone.

    Multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012, doi:10.1109/CVPR.2012.6248043): of two such hashes one of
    four words of 16 bits differs in at most a quarter of the bits, so only hashes with such a word are compared; where
    those would be most, all are.
    """
    words = np.arange(1 << 16, dtype=np.uint64)
    few = distance < 16
    masks = words[np.bitwise_count(words) <= distance // 4] if few else words[:1]
    for shift in (0, 16, 32, 48) if few else (0,):
        own, other = ((hashes >> np.uint64(shift)) & words[-1 if few else 0] for hashes in (first, others))
        order = np.argsort(other, kind="stable")
        ends = np.cumsum(np.bincount(other.astype(np.intp), minlength=len(words)))  # in `order`, of each word
        for mask in masks:
            word = (own ^ mask).astype(np.intp)
            stop = ends[word]
            count = stop - np.where(word > 0, ends[word - 1], 0)
            reached = np.cumsum(count)
            for rows in np.split(np.arange(len(first)), np.flatnonzero(np.diff(reached // _CANDIDATES)) + 1):
                a = np.repeat(rows, count[rows])
                before = reached[rows[0]] - count[rows[0]] if len(rows) else 0
                b = order[np.repeat(stop[rows] - reached[rows] + before, count[rows]) + np.arange(len(a))]
                near = np.bitwise_count(first[a] ^ others[b]) <= distance
                yield np.stack([a, b], axis=1)[near & (a < b) if ordered else near]


def _detail(image: Image) -> npt.NDArray[np.float16]:
    """Return grey values (3072,) without their coarse part and mean, scaled to unit length; zero if nothing is left."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, _DETAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), _COARSE)
    fine = fine - fine.mean()
    return np.asarray((fine / max(float(np.linalg.norm(fine)), 1e-6)).ravel(), np.float16)
