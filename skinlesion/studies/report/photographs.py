"""Photographs of patients in a report: only where the user asks for them (samples=true)."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy.typing as npt

from skinlesion.data.image_io import decode, find_files, find_folders
from skinlesion.errors import DataError
from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.plots.classification import sample_sheet
from skinlesion.studies.report.sources import Sources

_SIZE = (150, 200)  # height and width, pixels


def sheet(sources: Sources) -> str:
    """The sample sheet of the test part as a JPEG data URI.

    Raises:
        DataError: The images are not there.
    """
    data = next(iter(sources.recipes.values()), {}).get("data") or {}
    if sources.root is None or not data.get("images"):
        raise DataError("samples=true: the images are not found; give metadata=FILE in the folder of the data set")
    folders, _ = find_folders(sources.root, data["images"])
    files = find_files(folders)

    def image_of(image_id: str) -> npt.NDArray[Any]:
        if image_id not in files:
            raise DataError(f"samples=true: no image file of {image_id} in {sources.root}")
        return decode(Path(files[image_id][0]), _SIZE)

    figure = sample_sheet(with_calibration(sources.tables["test"], sources.about.get("calibration")), image_of)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=110, pil_kwargs={"quality": 85})
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
