"""The documentation: the tutorial's commands run, pages lead somewhere, and the reference has every key."""

import logging
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from test_readme import FENCE

import skinlesion
from skinlesion.cli import COMMANDS
from skinlesion.commands import help
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


def test_the_picture_of_the_path_shows_what_the_bundle_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(DOCS))
    from overview import FACTS, draw, photograph_of, stages

    bundle, image = DOCS.parent / "data" / "bundle", photograph_of("mel")
    found, table = stages(bundle, image), skinlesion.load(bundle).predict(image, FACTS)
    gated = found.feature_map * (1 + found.alpha * found.gates[:, None, None])
    assert np.abs(gated - found.gated).max() < 0.02 * np.abs(gated).max()  # 8 bits
    assert found.gates.shape == (1280,)
    assert np.abs(found.gates).max() < 1
    assert [layer.size for layer in found.funnel] == [512, 256, 128]
    picture = draw(image, found, table)
    shares = re.findall(r">(\d+) %</text>", picture)
    assert shares == [f"{share:.0f}" for share in 100 * table.probabilities[0]]
    assert len(re.findall('height="14" rx="2" fill="var\\(--up\\)"', picture)) == 1  # the predicted diagnosis
    fromstring(picture)  # well formed
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|<image|<script", picture)


def test_the_learning_curves_are_those_of_the_published_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best epoch of a fold has the macro-F1 of the published predictions of its validation part."""
    monkeypatch.syspath_prepend(str(DOCS))
    from pictures import learning_curves

    epochs = pd.read_csv(DOCS / "predictions" / "epochs.csv")
    for member in ("lite0", "lite0_restart"):
        table = pd.read_csv(DOCS / "predictions" / f"{member}_val.csv.gz")
        predicted = table[["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]].idxmax(axis=1)
        for fold, rows in table.assign(predicted=predicted).groupby("fold"):
            best = epochs[(epochs["member"] == member) & (epochs["fold"] == fold)]["val/macro_f1"].max()
            assert f1_score(rows["actual"], rows["predicted"], average="macro") == pytest.approx(best, abs=1e-4)
    panel = learning_curves(epochs).axes[-1]
    thick = [line.get_ydata() for line in panel.lines if line.get_linewidth() > 2]
    for member, drawn in zip(("lite0", "lite0_restart"), thick, strict=True):
        of_member = epochs[epochs["member"] == member]
        assert list(drawn) == pytest.approx(list(of_member.groupby("epoch")["val/macro_f1"].mean()))
    assert len(panel.lines) == 12


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_the_page(command: str) -> None:
    about = COMMANDS[command]
    said = help.page(command, about.load_schema(), about=about.help, examples=about.examples)
    assert said.splitlines()[-1].startswith("Documentation: ")
    assert f"reference/{command}.html" in said.splitlines()[-1]


def test_every_page_is_in_the_navigation() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for page in sorted(DOCS.rglob("*.md")):
        assert f": {page.relative_to(DOCS)}\n" in text, page
    for notebook in (DOCS.parent / "notebooks").glob("*.ipynb"):
        assert f": notebooks/{notebook.stem}.md\n" in text, notebook


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_key(command: str) -> None:
    about = COMMANDS[command]
    text = markdown(command, about.load_schema(), about=about.help, examples=about.examples)
    for name, key in keys(about.load_schema()).items():
        (row,) = re.findall(rf"^\| `{re.escape(name)}` \| .*\|$", text, re.MULTILINE)
        assert len(re.findall(r"(?<!\\)\|", row)) == 4, row
        assert key.meaning.replace("|", "\\|") in row
        assert not re.search(r"(?<!\w)_\w+_(?!\w)|<", re.sub("`[^`]*`", "", key.meaning)), "Markdown would change it"


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
