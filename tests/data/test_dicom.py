"""DICOM files: grey and colour as a viewer shows them, and the facts about the patient."""

from pathlib import Path

import numpy as np
import pytest

from skinlesion.data.dicom import dicom_facts
from skinlesion.data.image_formats import ImageError
from skinlesion.data.image_io import dimensions, read
from skinlesion.data.manifest import file_faults

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")


def write(path: Path, pixels: np.ndarray, photometric: str, *, bits: int = 8, **tags: object) -> None:
    """A DICOM file of one frame, or of several where pixels have an axis more."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    colours = 3 if pixels.shape[-1] == 3 else 1
    shape = pixels.shape[:-1] if colours == 3 else pixels.shape
    dataset.Rows, dataset.Columns = shape[-2:]
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = colours, photometric
    if colours == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsStored, dataset.BitsAllocated, dataset.HighBit = bits, 8 * pixels.itemsize, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def shown(path: Path) -> np.ndarray:
    pixels = read(path)
    assert (pixels == pixels[..., :1]).all()
    assert file_faults([path]) == {}
    assert dimensions(path) == pixels.shape[:2]
    return pixels[..., 0]


def test_grey_is_shown_as_stored_or_inverted(tmp_path: Path) -> None:
    write(tmp_path / "2.dcm", GREY, "MONOCHROME2")
    np.testing.assert_array_equal(shown(tmp_path / "2.dcm"), GREY)
    write(tmp_path / "1.dcm", GREY, "MONOCHROME1")
    np.testing.assert_array_equal(shown(tmp_path / "1.dcm"), 255 - GREY)


def test_twelve_bits_are_spread_over_eight(tmp_path: Path) -> None:
    write(tmp_path / "A.dcm", np.array([[0, 4095], [2048, 819]], np.uint16), "MONOCHROME2", bits=12)
    np.testing.assert_array_equal(shown(tmp_path / "A.dcm"), [[0, 255], [128, 51]])


def test_rescale_and_window_are_applied(tmp_path: Path) -> None:
    """v = 2 s - 1000; the window of centre 40 and width 400 goes from -160 to 239."""
    stored = np.array([[420, 619], [520, 0]], np.uint16)
    tags = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "40", "WindowWidth": "400"}
    write(tmp_path / "A.dcm", stored, "MONOCHROME2", bits=12, **tags)
    np.testing.assert_array_equal(shown(tmp_path / "A.dcm"), [[0, round(255 * 398 / 399)], [round(255 * 200 / 399), 0]])


def test_signed_values(tmp_path: Path) -> None:
    write(tmp_path / "A.dcm", np.array([[-2048, 2047]], np.int16), "MONOCHROME2", bits=12)
    np.testing.assert_array_equal(shown(tmp_path / "A.dcm"), [[0, 255]])


def test_colour_and_the_first_of_several_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    write(tmp_path / "A.dcm", frames, "RGB")
    np.testing.assert_array_equal(read(tmp_path / "A.dcm"), frames[0])
    write(tmp_path / "B.dcm", np.full((6, 8, 3), (81, 90, 240), np.uint8), "YBR_FULL")
    assert np.abs(read(tmp_path / "B.dcm")[0, 0].astype(int) - (238, 14, 14)).max() <= 1  # JFIF's conversion


@pytest.mark.parametrize(
    ("age", "sex", "facts"),
    [
        ("045Y", "F", {"age": 45.0, "sex": "female"}),
        ("018M", "M", {"age": 1.5, "sex": "male"}),
        ("", "O", {}),
    ],
)
def test_facts_of_the_patient(tmp_path: Path, age: str, sex: str, facts: dict[str, object]) -> None:
    write(tmp_path / "A.dcm", GREY, "MONOCHROME2", PatientAge=age, PatientSex=sex)
    assert dicom_facts(tmp_path / "A.dcm") == facts


def test_other_files_have_no_facts(tmp_path: Path) -> None:
    (tmp_path / "A.dcm").write_bytes(b"text")
    assert dicom_facts(tmp_path / "A.dcm") == {}


@pytest.mark.parametrize("change", [{"PixelData": b"\0" * 10}, {"PhotometricInterpretation": "HSV"}])
def test_what_cannot_be_shown_is_refused_by_name(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path / "A.dcm", GREY, "MONOCHROME2", **change)
    with pytest.raises(ImageError, match=r"A\.dcm: not a readable image") as caught:
        read(tmp_path / "A.dcm")
    assert "\n" not in str(caught.value)
