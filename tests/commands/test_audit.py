"""`skinlesion audit` on synthetic and on real data."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from conftest import composed

from skinlesion.commands.audit import run
from skinlesion.config.studies import AuditConfig
from skinlesion.data.skin import BLUE_CAST, TONES, UNKNOWN

SHARED = os.environ.get("SKINLESION_SHARED")
FIGURES = ("ages", "diagnoses", "images_per_lesion", "localizations", "sample_sheet", "sexes", "skin_tones")


def audit(root: Path, folder: Path) -> dict[str, object]:
    places = (f"data.root={root}", f"data.cache_dir={folder / 'cache'}", f"out={folder / 'audit'}")
    run(composed("audit", AuditConfig, *places, "image_size=[75,100]"))
    return json.loads((folder / "audit" / "audit.json").read_text())


def test_audit_of_synthetic_data(synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audit(synthetic_root, tmp_path)
    names = {f"{figure}.png" for figure in FIGURES} | {"audit.json", "split.csv", "duplicates.csv", "skin_tones.csv"}
    assert {path.name for path in (tmp_path / "audit").iterdir()} == names
    assert found["images"] == 240
    assert found["torn_lesions"] == []
    split = pd.read_csv(tmp_path / "audit" / "split.csv")
    assert split.groupby("lesion_id")["split"].nunique().max() == 1
    assert set(found["shortcuts"]) == {"majority", "metadata", "dx_type", "dataset"}
    assert set(found["binary_shortcuts"]) == {"metadata", "dx_type", "dataset"}
    tones = pd.read_csv(tmp_path / "audit" / "skin_tones.csv")
    assert len(tones) == 240
    assert tones["skin_tone"].isin([*TONES, BLUE_CAST, UNKNOWN]).all()
    out = capsys.readouterr().out
    assert "Lightness of the skin" in out
    assert "predicted from" in out
    assert "AUROC without the image" in out


@pytest.mark.real_data
@pytest.mark.exhaustive
@pytest.mark.skipif(SHARED is None, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_the_real_data(tmp_path: Path) -> None:
    found = audit(Path(str(SHARED)) / "ham10000", tmp_path)
    assert found["images"] == 10015
    assert found["lesions"] == 7470
    assert {part: found["splits"][part]["images"] for part in ("train", "val", "test", "left_out")} == {
        "train": 6181,
        "val": 926,
        "test": 618,
        "left_out": 2290,
    }
    assert found["missing"]["age"] == 57
    assert found["age_zero"] == 39
    young = [(each["diagnosis"], each["age"]) for each in found["implausible_ages"]]
    assert young == [*[("bkl", 0.0)] * 5, ("bkl", 5.0), ("mel", 5.0)]
    scores = found["shortcuts"]
    assert scores["dx_type"]["balanced_accuracy"] > scores["majority"]["balanced_accuracy"] + 0.1
