"""Which images a model has been trained on or chosen by, found by their id or by how they look."""

from collections.abc import Mapping, Sequence

import pandas as pd

from skinlesion.data.image_statistics import Appearance
from skinlesion.data.near_duplicates import alike

COLUMNS = ("image_id", "known_as", "part", "found_by", "distance", "similarity")
"""Of the frames here: an image; the image of the training data that it is; its part, train or val; "id" or "hash";
and, of "hash", how many of 64 bits differ and the correlation of the fine detail."""

PARTS = ("train", "val")
"""Of the split: weights come from train, the epoch, the members and the calibration from val."""

_TYPES = {"distance": "Int64", "similarity": "Float64"}  # nullable: an id has neither
_SUFFIX = "_downsampled"  # ISIC 2019 calls its reduced copies of an archive's image so


def parts_of(split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The part of each image of `PARTS`, by image id."""
    return {image_id: part for part in PARTS for image_id in split.get(part, ())}


def seen_by_id(image_ids: Sequence[str], known: Mapping[str, str]) -> pd.DataFrame:
    """Find images by their id; an archive's image and its reduced copy are one.

    Args:
        image_ids: To look for.
        known: Parts by image id, as from `parts_of`.
    """
    plain = {image_id.removesuffix(_SUFFIX): image_id for image_id in known}
    pairs = [(image_id, plain.get(image_id.removesuffix(_SUFFIX))) for image_id in image_ids]
    rows = [(image_id, other, known[other], "id", None, None) for image_id, other in pairs if other is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)


def seen_by_hash(
    images: Appearance, training: Appearance, known: Mapping[str, str], *, distance: int, similarity: float
) -> pd.DataFrame:
    """Find images by how they look: the likest image of the training data, where one is alike enough.

    Args:
        images: To look for.
        training: Of the training data; those in no part of `known` are passed over.
        known: Parts by image id.
        distance: In how many of 64 bits the perceptual hashes differ at most.
        similarity: The least correlation of the fine detail.
    """
    a, b, bits, likeness = alike(images.hashes, training.hashes, distance=distance, similarity=similarity)
    rows = [
        (images.image_ids[i], training.image_ids[j], known[training.image_ids[j]], "hash", int(bit), float(like))
        for i, j, bit, like in zip(a, b, bits, likeness, strict=True)
        if training.image_ids[j] in known
    ]
    found = (
        pd.DataFrame(rows, columns=list(COLUMNS))
        .astype(_TYPES)
        .sort_values(["image_id", "similarity", "known_as"], ascending=[True, False, True], kind="stable")
    )
    return found.drop_duplicates("image_id", ignore_index=True)
