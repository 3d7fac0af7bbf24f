"""ensemble.json: what is odd in it is named by file and key, and members are found where it says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skinlesion.errors import CheckpointError
from skinlesion.files import file_digest, write_json
from skinlesion.inference.ensemble import describe, read_ensemble
from skinlesion.training.checkpoint import load_model

CODES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
POINT = {"target": "mel", "sensitivity": 0.9, "images": 3, "threshold": 0.5, "reached": 1.0}


@pytest.fixture
def made(sweep_folder: Path, tmp_path: Path) -> Path:
    """An ensemble.json of two members, which lie beside it."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(sweep_folder / name / "best.ckpt", tmp_path / name)
    folder = tmp_path / "ensemble"
    models = [load_model(tmp_path / name) for name in ("first", "second")]
    write_json(folder / "ensemble.json", describe(models, [0, 1], folder))
    return folder / "ensemble.json"


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    about = json.loads(path.read_text())
    edit(about)
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda about: about.update(chosen=[-1]), "chosen.0: -1: expected 0 or more"),
        (lambda about: about.update(chosen=[]), "chosen: list should have at least 1 item"),
        (lambda about: about.update(chosen=[0, 2]), "chosen: [0, 2]: expected different positions among 2 members"),
        (lambda about: about.update(chosen=[1, 1]), "chosen: [1, 1]: expected different positions"),
        (lambda about: about.update(chosen=["0"]), "chosen.0: input should be a valid integer"),
        (lambda about: about.update(members=[]), "members: list should have at least 1 item"),
        (lambda about: about["members"][0].update(sha256="0"), "members.0.sha256: '0': expected 64 hexadecimal"),
        (lambda about: about["members"][0].pop("checkpoint"), "members.0.checkpoint: field required"),
        (lambda about: about.update(tta="spins"), "tta: 'spins': expected one of none, flips, dihedral, scales"),
        (lambda about: about.update(taxonomy={}), "taxonomy: KeyError"),
        (lambda about: about.update(calibration={"method": "platt"}), "calibration.method: 'platt': expected one of"),
        (lambda about: about.update(calibration={"method": "vector"}), "calibration: does not fit"),
        (
            lambda about: about.update(operating_points=[{**POINT, "target": "x"}]),
            "operating_points.0.target: does not",
        ),
        (
            lambda about: about.update(operating_points=[{**POINT, "threshold": -1}]),
            "operating_points.0.threshold: -1.",
        ),
        (lambda about: about.update(novelty={"file": "../n", "passing": 0.9, "threshold": 1}), "novelty.file: '../n'"),
        (lambda about: about.update(novelty={"file": "n", "passing": 9, "threshold": 1}), "novelty.passing: 9.0: exp"),
    ],
)
def test_odd_values_are_named_by_file_and_key(made: Path, edit: Callable[[dict[str, Any]], object], said: str) -> None:
    read_ensemble(made)
    edited(made, edit)
    with pytest.raises(CheckpointError) as caught:
        read_ensemble(made)
    assert str(caught.value).startswith(f"{made}: {said}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("key", "value"), [("classes", CODES[::-1]), ("fingerprint", "0" * 64)])
def test_other_classes_and_splits_than_the_members_are_refused(made: Path, key: str, value: object) -> None:
    read_ensemble(made).models()
    edited(made, lambda about: about.update({key: value}))
    with pytest.raises(CheckpointError, match=f"{key}: .*but its members have"):
        read_ensemble(made).models()


def test_statistics_without_their_hash_are_not_read(made: Path) -> None:
    (made.parent / "novelty.npz").write_bytes(b"anything")
    edited(made, lambda about: about.update(novelty={"file": "novelty.npz", "passing": 0.9, "threshold": 1}))
    with pytest.raises(CheckpointError, match=r"novelty\.npz: missing, or has changed"):
        read_ensemble(made)


def test_moved_members_are_named_and_can_be_pointed_to(made: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    (tmp_path / "second").rename(away)
    with pytest.raises(CheckpointError, match=r"1 of its 2 members have moved: second \(../second/best.ckpt\).*export"):
        read_ensemble(made)
    edited(made, lambda about: about["members"][1].update(checkpoint=str(away / "best.ckpt")))
    assert read_ensemble(made).members[1] == away / "best.ckpt"
    assert file_digest(read_ensemble(made).members[1]) == json.loads(made.read_text())["members"][1]["sha256"]
