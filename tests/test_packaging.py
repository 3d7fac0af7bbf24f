"""The installed wheel works in an empty folder, and a folder of the user's own extends it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from skinlesion import __version__

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder, as an installer lays it out."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT],
        check=True,
    )
    (wheel,) = folder.glob("skinlesion-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def cli(unpacked: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r}); from skinlesion.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_wheel_brings_its_configuration(unpacked: Path) -> None:
    shipped = {
        path.relative_to(unpacked / "skinlesion" / "conf")
        for path in (unpacked / "skinlesion" / "conf").rglob("*.yaml")
    }
    assert shipped == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert (unpacked / "skinlesion" / "data" / "readers.py").exists()
    page = {path.name for path in (unpacked / "skinlesion" / "deploy" / "service" / "assets").iterdir()}
    assert page == {"index.html", "page.css", "page.js", "result.js", "icon.svg"}
    for name in ("captions.yaml", "templates/report.html.j2", "templates/style.css", "checklists/claim.yaml"):
        assert (unpacked / "skinlesion" / "studies" / "report" / name).exists()
    for name in ("py.typed", "deploy/hub_card.md", "deploy/model_card.md", "synthetic/ham10000.yaml"):
        assert (unpacked / "skinlesion" / name).is_file(), name
    others = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert others == {"skinlesion"}
    (about,) = unpacked.glob("*.dist-info/METADATA")
    assert f"\nVersion: {__version__}\n" in about.read_text(encoding="utf-8")


def test_it_works_in_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    answer = cli(unpacked, tmp_path, "train", "--cfg", "job")
    assert answer.returncode == 0, answer.stderr
    assert "efficientnet_b1" in answer.stdout
    answer = cli(unpacked, tmp_path, "train", "--help")
    assert "loss.gamma=2.0 " in answer.stdout, answer.stderr
    answer = cli(unpacked, tmp_path, "synthetic", "data.root=here", "n=100", "image_size=[40,48]")
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "here" / "HAM10000_metadata").exists()


def test_a_folder_of_ones_own_extends_it(unpacked: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "x.yaml").write_text("# @package _global_\ndefaults:\n  - override /model: resnet50\nseed: 77\n")
    answer = cli(unpacked, tmp_path, "train", "--config-dir", "mine", "experiment=x", "--cfg", "job")
    assert answer.returncode == 0, answer.stderr
    assert "seed: 77" in answer.stdout
    assert "backbone: resnet50" in answer.stdout
    (mine / "bad.yaml").write_text("# @package _global_\nsead: 77\n")
    answer = cli(unpacked, tmp_path, "train", "--config-dir", "mine", "experiment=bad")
    assert answer.returncode == 1
    assert "sead: unknown key; did you mean seed?" in answer.stderr
