"""DICOM files, by the extra `dicom`: the first frame in 8 bits, and what the file says about its patient.

Grey values pass the rescale slope and intercept and the first window, as a viewer shows them; without a window the
range of the stored bits is spread over 0..255. Of colours deeper than 8 bits the upper eight are kept.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image as PillowImage

from skinlesion.data.image_formats import MOST_PIXELS, ImageError, imported, too_large

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SUFFIXES = (".dcm", ".dicom")

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_DAYS = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}  # how many of a unit make a year
_SEXES = {"F": "female", "M": "male"}


def open_dicom(file: BinaryIO) -> PillowImage.Image:
    """Open the first frame of a DICOM file as an 8-bit image, grey or RGB.

    Raises:
        ImageError: The extra is not installed, or the file holds no image that can be shown.
    """
    pydicom = imported("pydicom", "dicom", "a DICOM file")
    try:
        dataset = pydicom.dcmread(file)
        kind = str(dataset.get("PhotometricInterpretation", ""))
        if "PixelData" not in dataset or kind not in (*_GREY, *_COLOUR):
            raise ImageError(f"a DICOM file without an image that can be shown ({kind or 'no pixels'})", "not-an-image")
        if dataset.Rows * dataset.Columns > MOST_PIXELS:
            raise too_large(f"{dataset.Columns} x {dataset.Rows} pixels")
        pixels = imported("pydicom.pixels", "dicom", "a DICOM file").pixel_array(dataset, index=0)
    except (pydicom.errors.InvalidDicomError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"its DICOM pixels cannot be read ({reason}); save it as PNG") from error
    if kind == "PALETTE COLOR":
        pixels = pydicom.pixels.apply_color_lut(pixels, dataset)
        return PillowImage.fromarray((pixels >> (8 * pixels.itemsize - 8)).astype(np.uint8))
    if kind in _COLOUR:
        return PillowImage.fromarray((pixels >> max(0, dataset.BitsStored - 8)).astype(np.uint8))
    shown = _windowed(pixels, dataset)
    return PillowImage.fromarray(255 - shown if kind == "MONOCHROME1" else shown)


def _windowed(pixels: Any, dataset: Any) -> Any:
    """Grey values as 0..255, (h, w) uint8: DICOM PS3.3, C.11.1 (rescale) and C.11.2 (window)."""
    if "VOILUTSequence" in dataset or "ModalityLUTSequence" in dataset:
        raise ImageError("its grey values need a DICOM lookup table; save it as PNG", "not-rgb")
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    if "WindowWidth" in dataset:
        centre, width = (np.atleast_1d(dataset[key].value)[0] for key in ("WindowCenter", "WindowWidth"))
        low, high = float(centre) - float(width) / 2, float(centre) + float(width) / 2 - 1
    else:
        least = -(1 << (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
        low, high = (slope * each + intercept for each in (least, least + (1 << dataset.BitsStored) - 1))
    shares = (pixels * slope + intercept - low) / max(high - low, 1e-9)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def dicom_facts(path: Path) -> dict[str, Any]:
    """Age in years and sex of the patient, as far as a DICOM file says them; none for any other file.

    Raises:
        ImageError: The extra is not installed.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return {}
    pydicom = imported("pydicom", "dicom", "a DICOM file")
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    age, sex = str(dataset.get("PatientAge") or ""), str(dataset.get("PatientSex") or "")
    known = age[:-1].isdigit() and age[-1:] in _DAYS
    facts = {"age": float(int(age[:-1]) / _DAYS[age[-1]]) if known else None, "sex": _SEXES.get(sex)}
    return {name: value for name, value in facts.items() if value is not None}


def with_dicom_facts(facts: "pd.DataFrame", files: Mapping[str, Sequence[str]]) -> "pd.DataFrame":
    """Fill in what DICOM files say about their patients where a table says nothing; text by image id."""
    known = {image_id: paths[0] for image_id, paths in files.items() if paths[0].lower().endswith(SUFFIXES)}
    found = {image_id: said for image_id, path in known.items() if (said := dicom_facts(Path(path)))}
    if not found:
        return facts
    filled = facts.copy()
    for image_id, said in found.items():
        for name, value in said.items():
            if filled.loc[image_id, name] == "":
                filled.loc[image_id, name] = str(value)
    log.info("Facts of %d DICOM files are used where the table has none.", len(found))
    return filled
