"""Input of a predictor: images of any kind, and facts about their patients, checked."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from skinlesion.data.dicom import dicom_facts
from skinlesion.data.image_files import Listing, list_tree
from skinlesion.data.image_formats import SUFFIXES
from skinlesion.data.image_io import Image, read, upright
from skinlesion.data.metadata import NUMBER, UNKNOWN, FactSpec, MetadataEncoder
from skinlesion.errors import ConfigError, DataError, counted
from skinlesion.inference.members import Fact, Facts

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


def to_array(image: "str | Path | PillowImage | Image") -> Image:
    """An image as RGB pixels (h, w, 3) uint8, upright.

    Raises:
        DataError: It cannot be read, or is no 8-bit RGB array.
    """
    if isinstance(image, str | Path):
        path = _expanded(image)
        return _of_npz(path) if path.parent.suffix == ".npz" else read(path)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(
                f"an array {image.shape} of {image.dtype}: expected an RGB image, (h, w, 3) of uint8, 0..255"
            )
        return image
    return upright(image)


def _of_npz(path: Path) -> Image:
    from skinlesion.data.medmnist import open_images  # needs pandas, which a bundle alone does without

    images = open_images(path.parent)
    if path not in images:
        raise DataError(f"{path}: no such image; expected a name such as {next(iter(images), path.parent).name}")
    return images[path]


def _expanded(path: str | Path) -> Path:
    """A path with ~ as a shell has it, unless a file is called that."""
    return Path(path) if os.path.lexists(path) else Path(path).expanduser()


def image_paths(path: Path) -> list[Path]:
    """As `image_listing`, without what is passed over."""
    return image_listing(path).images


def image_listing(path: Path) -> Listing:
    """List an image file itself, the image files in a folder and the folders inside it, or the images of an .npz.

    Raises:
        DataError: There is no such file or folder, or no image in it.
    """
    if not path.is_dir():
        if not os.path.lexists(path) and path.parent.suffix != ".npz":
            raise DataError(f"{path}: no such file or folder")
        if path.suffix == ".npz":
            from skinlesion.data.medmnist import open_images

            return Listing([*open_images(path)], [])
        return Listing([path], [])  # whatever it is, the reader says so
    listing = list_tree(path)
    if not listing.images:
        raise DataError(f"{path}: no image in this folder; expected files ending in {', '.join(SUFFIXES)}")
    return listing


def check_facts(encoder: MetadataEncoder, facts: Facts) -> dict[str, Fact]:
    """Read what is known of a patient as `parse_fact` does: each fact of the model, None where it is unknown.

    Raises:
        ConfigError: A fact or a value is not known to the model; it names what is known.
    """
    for fact, value in facts.items():
        if fact not in encoder.names and value is not None:
            close = difflib.get_close_matches(fact, encoder.names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(encoder.names)}"
            raise ConfigError(f"{fact}={value}: not a fact that the model knows; {hint}")
    return {fact.name: parse_fact(fact, facts.get(fact.name)) for fact in encoder.facts}


def with_file_facts(encoder: MetadataEncoder, image: object, facts: Facts) -> Facts:
    """The facts about an image, with the age and sex that its DICOM file says where they are unknown.

    Raises:
        ImageError: The extra is not installed.
    """
    path = _expanded(image) if isinstance(image, str | Path) else None
    said = dicom_facts(path) if path is not None and path.is_file() else {}
    found = {fact: value for fact, value in said.items() if fact in encoder.names and facts.get(fact) is None}
    return {**facts, **found} if found else facts


def parse_fact(fact: FactSpec, entry: object) -> Fact:
    """Read an entry as tables, the command line and the service take it, upper or lower case.

    Returns:
        A number, or a word of the training; None where the entry says unknown or nothing.

    Raises:
        ConfigError: It is none of these.
    """
    if fact.kind == NUMBER:
        (number,), (faulty,) = fact.numbers([entry])
        if faulty:
            raise ConfigError(f"{fact.name}={entry}: expected {fact.expected}, or {UNKNOWN}")
        return None if np.isnan(number) else float(number)
    (word,) = fact.words([entry])
    if word not in fact.categories:
        raise ConfigError(f"{fact.name}={entry}: not known to the model; expected {fact.expected}")
    return None if word == UNKNOWN else word


def encode_facts(encoder: MetadataEncoder, rows: Sequence[Facts]) -> npt.NDArray[np.float32]:
    """Encoded facts (N, M); the facts of one patient, given for many images, are encoded once."""
    encoded = {id(row): encoder.encode_patient(row) for row in {id(row): row for row in rows}.values()}
    return np.stack([encoded[id(row)] for row in rows])


def list_images(images: Any) -> list[Any]:
    """One image or many as a list; a folder as its image files."""
    if isinstance(images, str | Path):
        return list(image_paths(_expanded(images)))
    if hasattr(images, "convert"):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return [images]
    return list(images)


def facts_of_each(facts: Any, known: Facts, count: int) -> list[Facts]:
    """The facts about the patient of each image."""
    if facts is not None and known:
        raise DataError(f"facts and {', '.join(known)}: expected either a table of facts, or facts by name")
    if facts is None or isinstance(facts, Mapping):
        return [known if facts is None else facts] * count
    rows = facts.to_dict("records") if hasattr(facts, "to_dict") else list(facts)
    if len(rows) != count:
        raise DataError(
            f"{counted(count, 'image')} and the facts of {counted(len(rows), 'patient')}; expected as many of each"
        )
    return rows
