"""What the README shows can be typed: its commands compose, its files and targets exist."""

import re
import shlex
from html import unescape
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from skinlesion.cli import COMMANDS
from skinlesion.config.overrides import read_words
from skinlesion.config.train import TrainConfig
from skinlesion.config.validation import typed
from skinlesion.files import config_dir

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/usage.md",
    "docs/results.md",
    "docs/history.md",
    "data/README.md",
    "CONTRIBUTING.md",
    "docs/bundle.md",
    "docs/external.md",
    "docs/explanations.md",
    "docs/data.md",
    "docs/tutorial.md",
    "docs/hub.md",
    "docs/backbones.md",
    "docs/cluster.md",
    "docs/tune.md",
    "docs/report.md",
    "docs/serving.md",
    "docs/compare.md",
    "docs/method.md",
    "docs/intervals.md",
    "docs/index.md",
)
FENCE = re.compile(r"```(?:bash|sh)\n(.*?)```", re.DOTALL)


def command_lines() -> list[str]:
    found = []
    for page in PAGES:
        for block in FENCE.findall((ROOT / page).read_text()):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.split(" #")[0].strip() for line in lines if line.strip()]
    return found


def rows_of_commands() -> list[str]:
    """The commands of the table of public data sets, each in its last column."""
    rows = [line for line in (ROOT / "docs" / "data.md").read_text().splitlines() if line.startswith("| [")]
    spans = [span for row in rows for span in re.findall("`([^`]*)`", row.split("|")[-2])]
    return [f"skinlesion {span}" for span in spans if span.split()[0] in COMMANDS]


LINES = [line for line in command_lines() if line.startswith("skinlesion ")] + rows_of_commands()


def test_each_public_set_has_its_command() -> None:
    said = {word.partition("=")[2] for line in rows_of_commands() for word in line.split() if word.startswith("data=")}
    assert said == {path.stem for path in (config_dir() / "data").glob("*.yaml")} - {"ham10000"}
    fetched = {line.split()[2] for line in rows_of_commands() if line.startswith("skinlesion download")}
    assert fetched == {path.stem for path in (config_dir() / "dataset").glob("*.yaml")}


def test_every_command_is_shown() -> None:
    assert {shlex.split(line)[1] for line in LINES} == set(COMMANDS)


@pytest.mark.parametrize("line", LINES)
def test_each_command_composes(line: str, tmp_path: Path) -> None:
    command, *words = shlex.split(line)[1:]
    if "hydra/launcher=ray" in words:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray")
    best = tmp_path / "best.yaml"  # of a search
    best.write_text("overrides: [loss.gamma=1.7]")
    words = [str(best) if word == "runs/tune/best.yaml" else word for word in words]
    schema = COMMANDS[command].load_schema()
    read = read_words(words, command, schema)
    overrides = list(read.overrides)
    if read.is_multirun:  # the first of each list, as the first job has it
        overrides = [re.sub(r"=([^\[,]+),.*", r"=\1", override) for override in overrides]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(command, overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        assert typed(compose(command, overrides), schema)
    HydraConfig.instance().cfg = None


def test_each_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for line in command_lines() for name in re.findall(r"^make ([a-z-]+)", line)}
    assert {"demo", "test"} <= named <= targets


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!http|#|mailto|reference/)([^)#]+)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_the_example_report_is_small_and_shows_no_patient() -> None:
    files = [path for path in (ROOT / "docs" / "report").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    page = (ROOT / "docs" / "report" / "report.html").read_text()
    kinds = set(re.findall(r'src="data:([^;]+);', page))
    assert {"image/svg+xml"} <= kinds <= {"image/svg+xml", "image/png"}  # photographs would be JPEG
    pngs = [unescape(alt) for alt in re.findall(r'src="data:image/png[^"]*" alt="([^"]*)"', page)]
    assert len(pngs) == page.count("data:image/png")
    assert not [
        alt for alt in pngs if alt.startswith(("A figure named", "Figure "))
    ]  # a PNG that is none of the figures
    assert "<image" not in page  # nor inside a drawing
    assert "not a medical device" in page


def test_the_python_example_runs(
    synthetic_root: Path,
    trained: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a run in the place of the demo's ensemble."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "demo" / "runs").mkdir(parents=True)
    (tmp_path / "demo" / "runs" / "ensemble").symlink_to(Path(trained.out).resolve())
    (tmp_path / "demo" / "data").symlink_to(synthetic_root)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert "ISIC_0024306.jpg" in capsys.readouterr().out
