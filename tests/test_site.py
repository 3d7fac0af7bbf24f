"""The documentation: the tutorial's commands run, pages lead somewhere, and the reference has every key."""

import logging
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_readme import FENCE

from skinlesion.cli import COMMANDS
from skinlesion.commands.help import markdown
from skinlesion.config.reference import keys
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig

DOCS = Path(__file__).parent.parent / "docs"
PHASES = ("head", "high", "middle")
TINY = {
    "synthetic": ("n=240", "min_per_class=13", "image_size=[40,48]"),
    "audit": ("image_size=[32,40]",),
    "train": (
        *(
            "loss=a05_g20",
            "expected_members=2",
            "logger=none",
            *(f"schedule.phases.{each}.epochs=1" for each in PHASES),
        ),
        *("model.image_size=[32,32]", "model.funnel=[16]", "schedule.phases.head.cached_views=1"),
    ),
    "ensemble": ("resamples=100",),
    "explain": (),
    "report": ("resamples=100",),
    "export": ("images=8",),
    "predict": (),
    "push": ("resamples=100",),
}
MADE = {  # what each command of the page leaves
    "synthetic": "demo/data/HAM10000_metadata",
    "audit": "demo/audit/audit.json",
    "train": "demo/runs/tiny_resnet-a05_g20/history.png",
    "ensemble": "demo/runs/ensemble/ensemble.json",
    "explain": "demo/explanations",
    "report": "demo/runs/ensemble/report/report.html",
    "export": "demo/bundle/bundle.json",
    "push": "demo/hub/README.md",
}


def tutorial() -> list[list[str]]:
    """The words of each command of the tutorial."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    lines = [line for block in FENCE.findall(text) for line in block.splitlines() if line.strip()]
    assert all(line.startswith("skinlesion ") for line in lines)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.slow
def test_the_tutorial_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_here: Callable[..., None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # so that no name is wrapped
    for command, *words in tutorial():
        words = [
            word for word in words if word.partition("=")[0] not in {each.partition("=")[0] for each in TINY[command]}
        ]
        run_here(command, *words, *TINY[command])
        if command in MADE:
            assert (tmp_path / MADE[command]).exists(), command
    assert {command for command, *_ in tutorial()} == {*TINY}
    assert (tmp_path / "demo/runs/ensemble/predictions_test.csv").exists()
    assert "ISIC_0024306.jpg" in capsys.readouterr().out
    logging.shutdown()


def test_the_picture_of_the_vote_shows_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from pictures import vote_gain

    rng = np.random.default_rng(0)
    ids, actual = [f"i{place}" for place in range(60)], rng.choice(["mel", "nv"], 60)
    tables = {
        name: Predictions.build(ids, ids, probabilities=rng.dirichlet(np.ones(7), 60), actual=list(actual))
        for name in ("one", "two", "vote")
    }
    panels = vote_gain(tables, BootstrapConfig(resamples=100)).axes
    drawn = [line.get_xdata()[0] for line in panels[0].lines if len(line.get_xdata()) == 1]
    right = [float((table.predicted == table.actual).mean()) for table in tables.values()]
    assert drawn == pytest.approx(right)
    gains = [line.get_xdata()[0] for line in panels[3].lines if len(line.get_xdata()) == 1]
    assert gains == pytest.approx([right[2] - right[0], right[2] - right[1]])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_key(command: str) -> None:
    about = COMMANDS[command]
    text = markdown(command, about.load_schema(), about=about.help, examples=about.examples)
    for name, key in keys(about.load_schema()).items():
        (row,) = re.findall(rf"^\| `{re.escape(name)}` \| .*\|$", text, re.MULTILINE)
        assert len(re.findall(r"(?<!\\)\|", row)) == 4, row
        assert key.meaning.replace("|", "\\|") in row


def test_links_between_pages_lead_somewhere() -> None:
    """Files alone; `make site` checks the anchors."""
    for page in DOCS.glob("*.md"):
        for link in re.findall(
            r"\]\((?!http|#|mailto|reference/|notebooks/)([^)#]+)", page.read_text(encoding="utf-8")
        ):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_site_asks_no_other_host() -> None:
    """What the theme and our pages load: nothing from elsewhere."""
    config = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config
    assert not re.findall(r"https?://", config)
    pages = [path for suffix in ("md", "css") for path in DOCS.glob(f"*.{suffix}")]
    assert len(pages) > 15
    for page in pages:
        assert not re.findall(r"(?:src=.|!\[[^\]]*\]\(|url\(|@import.*)https?:", page.read_text(encoding="utf-8")), page
