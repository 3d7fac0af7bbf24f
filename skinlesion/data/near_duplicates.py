"""Exact and near duplicates among the images of a data set.

Candidates are found by perceptual hash and confirmed by their fine detail: on HAM10000 the hash alone finds
hundreds of pairs that are not alike, because round dark spots on pale skin share their coarse structure.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image as PillowImage
from PIL import ImageOps

from skinlesion.errors import DataError

COLUMNS = ("image_a", "image_b", "distance", "similarity", "exact", "same_lesion", "split_a", "split_b")
"""The columns of the frame that `duplicate_pairs` returns."""

_ROWS = 256  # hashes compared with all others at a time: 20 MB for 10,000 images
_PAIRS = 1024  # details compared at a time: 25 MB
_DETAIL = (64, 48)  # width and height at which detail is compared, pixels
_COARSE = 3.0  # standard deviation of the blur that is taken away to leave the detail, pixels

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Hashes:
    """Hashes of N images."""

    perceptual: npt.NDArray[np.uint64]  # (N,) images that look alike differ in few bits
    detail: npt.NDArray[np.float16]  # (N, 3072) of unit length: fine structure in grey, without what is coarse
    exact: tuple[str, ...]  # SHA-256 of size and pixels: equal for equal images only


def hash_images(images: Iterable[Path | str | Image]) -> Hashes:
    """Hash images for the search of duplicates.

    The perceptual hash is `imagehash.phash`: signs of the 8x8 lowest frequencies of the cosine transform, about
    their median, of the image in grey at 32x32 pixels. It withstands scaling, compression and lighting, but not
    turning or mirroring.

    Args:
        images: Files, or decoded images (H, W, 3); taken one by one, so that an iterator needs little memory.

    Raises:
        DataError: If a file cannot be read as an image.
    """
    perceptual: list[int] = []
    detail: list[npt.NDArray[np.float16]] = []
    exact: list[str] = []
    for image in images:
        pixels = image if isinstance(image, np.ndarray) else _decoded(Path(image))
        perceptual.append(int(str(imagehash.phash(PillowImage.fromarray(pixels))), 16))
        detail.append(_detail(pixels))
        exact.append(hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest())
    details = np.stack(detail) if detail else np.empty((0, _DETAIL[0] * _DETAIL[1]), np.float16)
    return Hashes(np.asarray(perceptual, dtype=np.uint64), details, tuple(exact))


def duplicate_pairs(
    frame: pd.DataFrame, split: pd.DataFrame, *, hashes: Hashes, distance: int, similarity: float
) -> pd.DataFrame:
    """Find the pairs of images that are equal or look alike.

    Args:
        frame: image_id and lesion_id, one row an image, in any order.
        split: image_id and split.
        hashes: Of the images of `frame`, in its order.
        distance: In how many of 64 bits the perceptual hashes of near duplicates differ at most.
        similarity: The least correlation of their detail, up to 1.

    Returns:
        Columns `COLUMNS`, the most similar pairs first: image_a < image_b; distance in bits; similarity; exact,
        whether all pixels are equal; same_lesion; split_a and split_b, "" for an image that the split leaves out.
    """
    order = np.argsort(frame["image_id"].to_numpy(), kind="stable")
    a, b, bits = _close(hashes.perceptual[order], distance)
    a, b = order[a], order[b]
    likeness = _likeness(hashes.detail, hashes.detail, a, b)
    exact = np.asarray(hashes.exact, dtype=object)
    split_of = dict(zip(split["image_id"], split["split"], strict=True))
    columns = {
        "image": frame["image_id"].to_numpy(),
        "lesion": frame["lesion_id"].to_numpy(),
        "split": np.asarray([split_of.get(image_id, "") for image_id in frame["image_id"]], dtype=object),
    }
    pairs = pd.DataFrame(
        {
            "image_a": columns["image"][a],
            "image_b": columns["image"][b],
            "distance": bits,
            "similarity": likeness,
            "exact": (exact[a] == exact[b]).astype(bool),
            "same_lesion": (columns["lesion"][a] == columns["lesion"][b]).astype(bool),
            "split_a": columns["split"][a],
            "split_b": columns["split"][b],
        },
        columns=list(COLUMNS),
    )
    alike = pairs[pairs["exact"] | (pairs["similarity"] >= similarity)]
    return alike.sort_values(
        ["exact", "similarity", "image_a", "image_b"], ascending=[False, False, True, True], ignore_index=True
    )


def alike(
    first: Hashes, second: Hashes, *, distance: int, similarity: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Find the images of one set that are equal to, or look like, images of another.

    Args:
        first: Hashes of N images; N at a time need N times 8 bytes an image of `second`.
        second: Of the others.
        distance: In how many of 64 bits the perceptual hashes of near duplicates differ at most.
        similarity: The least correlation of their detail, up to 1.

    Returns:
        Positions in `first` and in `second`, bits that differ, and similarity, of each pair.
    """
    bits = np.bitwise_count(first.perceptual[:, None] ^ second.perceptual[None, :])
    a, b = np.nonzero(bits <= distance)
    exact = np.array([first.exact[i] == second.exact[j] for i, j in zip(a, b, strict=True)], dtype=bool)
    likeness = _likeness(first.detail, second.detail, a, b)
    kept = exact | (likeness >= similarity)
    return a[kept], b[kept], bits[a[kept], b[kept]].astype(np.int64), likeness[kept]


def _close(
    hashes: npt.NDArray[np.uint64], distance: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Positions a < b of the pairs at most `distance` bits apart, and how far apart they are."""
    found = list(_close_blocks(hashes, distance))
    a, b, bits = (np.concatenate([block[k] for block in found] or [np.empty(0)]) for k in range(3))
    return a.astype(np.intp), b.astype(np.intp), bits.astype(np.int64)


def _close_blocks(hashes: npt.NDArray[np.uint64], distance: int) -> Iterator[tuple[npt.NDArray[np.generic], ...]]:
    for start in range(0, len(hashes), _ROWS):
        rest = hashes[start:]
        bits = np.bitwise_count(rest[:_ROWS, None] ^ rest[None, :])
        a, b = np.nonzero(np.triu(bits <= distance, k=1))
        yield a + start, b + start, bits[a, b]


def _likeness(
    first: npt.NDArray[np.float16],
    second: npt.NDArray[np.float16],
    a: npt.NDArray[np.intp],
    b: npt.NDArray[np.intp],
) -> npt.NDArray[np.float64]:
    """Correlations (P,) of the detail of the pairs a of first, b of second, rounded to three digits."""
    likeness = np.empty(len(a))
    for start in range(0, len(a), _PAIRS):
        block = slice(start, start + _PAIRS)
        left, right = first[a[block]].astype(np.float32), second[b[block]].astype(np.float32)
        likeness[block] = np.einsum("pd,pd->p", left, right)
    return likeness.round(3)


def _detail(pixels: Image) -> npt.NDArray[np.float16]:
    """Grey values (3072,) without their coarse part and mean, scaled to unit length; zero if nothing is left."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, _DETAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), _COARSE)
    fine = fine - fine.mean()
    return np.asarray((fine / max(float(np.linalg.norm(fine)), 1e-6)).ravel(), np.float16)


def _decoded(path: Path) -> Image:
    try:
        with PillowImage.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error}); restore it, or delete it and its row.") from error
