"""Images are found by the names that files have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion.inference.inputs import list_images, to_array


def test_a_tilde_is_the_home_folder_unless_a_file_is_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels + 1).save(tmp_path / "here" / "~x.png")
    assert list_images("~/a.png") == [tmp_path / "a.png"]
    assert list_images("~x.png") == [Path("~x.png")]
    assert np.array_equal(to_array("~/a.png"), pixels)
    assert np.array_equal(to_array("~x.png"), pixels + 1)
