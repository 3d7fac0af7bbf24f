"""Images that a model was trained on or selected by, found by their id or by similarity."""

from collections.abc import Mapping, Sequence

import pandas as pd

from skinlesion.data.image_statistics import ImageDescriptors
from skinlesion.data.near_duplicates import similar_pairs

COLUMNS = ("image_id", "known_as", "part", "found_by", "distance", "similarity")
"""Columns of the frames here: an image; the same image in the training data; its part, train or val; "id" or "hash";
and, for "hash", the number of differing bits (0 to 64) and the correlation of the fine detail."""

PARTS = ("train", "val")
"""Parts that leak: weights come from train; the epoch, the members and the calibration from val."""

_TYPES = {"distance": "Int64", "similarity": "Float64"}  # nullable: an image found by id has neither
_SUFFIX = "_downsampled"  # of ISIC 2019's reduced copies of an archive's image


def parts_of_training(split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Map each image id of `PARTS` to its part."""
    return {image_id: part for part in PARTS for image_id in split.get(part, ())}


def find_by_id(image_ids: Sequence[str], part_of: Mapping[str, str]) -> pd.DataFrame:
    """Find images of the training data by their id; an archive's image and its reduced copy are one.

    Args:
        image_ids: To look for.
        part_of: Part by image id, as from `parts_of_training`.

    Returns:
        Columns `COLUMNS`.
    """
    known = {image_id.removesuffix(_SUFFIX): image_id for image_id in part_of}
    pairs = [(image_id, known.get(image_id.removesuffix(_SUFFIX))) for image_id in image_ids]
    rows = [(image_id, other, part_of[other], "id", None, None) for image_id, other in pairs if other is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)


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
        images: To look for.
        training: Of the training data; images in no part of `part_of` are skipped.
        part_of: Part by image id.
        distance: Bits of 64 in which the perceptual hashes differ at most.
        similarity: Least correlation of the fine detail, up to 1.

    Returns:
        Columns `COLUMNS`, sorted by image_id.
    """
    pairs = similar_pairs(images.hashes, training.hashes, distance=distance, similarity=similarity)
    rows = [
        (images.image_ids[a], known, part_of[known], "hash", int(bits), float(correlation))
        for a, b, bits, correlation in zip(pairs.a, pairs.b, pairs.distance, pairs.similarity, strict=True)
        if (known := training.image_ids[b]) in part_of
    ]
    found = pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)
    found = found.sort_values(["image_id", "similarity", "known_as"], ascending=[True, False, True], kind="stable")
    return found.drop_duplicates("image_id", ignore_index=True)
