"""The report on an ensemble: self-contained, accessible, equal to its tables, and explicit about missing numbers."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from skinlesion.commands.report import run
from skinlesion.config.studies import ReportConfig
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.conformal import prediction_sets
from skinlesion.inference.ledger import LEDGER, Examined
from skinlesion.inference.posthoc import fit_calibration, fit_decisions, with_calibration
from skinlesion.inference.predictions import Predictions
from skinlesion.studies.report import page
from skinlesion.studies.report.page import CHECKLISTS, UNANSWERED

FAST = ("resamples=100", "interval=percentile", "bins=5")
LESIONS = {"val": 90, "test": 120}


def members_of(part: str, *, codes: tuple[str, ...] = CODES, images: int | None = None) -> list[Predictions]:
    """Predictions of two members that are better than chance."""
    rng = np.random.default_rng(len(part))
    number = images or LESIONS[part]
    actual = rng.choice([CODES.index(code) for code in codes], number)
    ids = [f"{part}{place:04d}" for place in range(number)]
    tables = []
    for _ in range(2):
        values = np.exp(rng.normal(size=(number, 7)) + 2.5 * np.eye(7)[actual])
        shares = values / values.sum(axis=1, keepdims=True)
        names = [CODES[k] for k in actual]
        tables.append(Predictions.build(ids, [f"L{name}" for name in ids], probabilities=shares, actual=names))
    return tables


def write_ensemble(folder: Path, **kinds: Any) -> Path:
    """The folder that `ensemble` writes, without a model."""
    tables = {part: members_of(part, **kinds) for part in LESIONS}
    for part, each in tables.items():
        Predictions.soft_vote(each).write(folder / f"predictions_{part}.csv")
        for name, table in zip("ab", each, strict=True):
            table.write(folder / "members" / name / f"predictions_{part}.csv")
    calibration = fit_calibration(Predictions.soft_vote(tables["val"]), method="temperature", bins=5)
    scaled = with_calibration(Predictions.soft_vote(tables["val"]), calibration)
    about = {
        "members": [{"name": name, "checkpoint": f"../{name}/best.ckpt", "sha256": "0"} for name in "ab"],
        "chosen": [0, 1],
        "tta": "none",
        "classes": list(CODES),
        "fingerprint": "f" * 64,
        "calibration": calibration,
        **fit_decisions(scaled, sensitivities=[0.9], alphas=[0.1], score="aps"),
    }
    (folder / "ensemble.json").write_text(json.dumps(about))
    return folder


def write_metadata(path: Path, tables: list[Predictions]) -> Path:
    rows = Predictions.concatenate(tables).to_frame()
    rng = np.random.default_rng(0)
    pd.DataFrame(
        {
            "lesion_id": rows["lesion_id"],
            "image_id": rows["image_id"],
            "dx": rows["actual"],
            "dx_type": rng.choice(["histo", "consensus"], len(rows)),
            "age": rng.choice(["", "35.0", "70.0"], len(rows)),
            "sex": rng.choice(["female", "male"], len(rows)),
            "localization": rng.choice(["back", "face"], len(rows)),
            "dataset": np.where(rows["actual"] == "nv", "molemax", rng.choice(["molemax", "dias", "dias"], len(rows))),
        }
    ).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_ensemble(tmp_path_factory.mktemp("runs") / "ensemble")
    data = folder.parent / "data"
    (data / "images").mkdir(parents=True)
    write_metadata(data / "table.csv", [Predictions.read(folder / f"predictions_{part}.csv") for part in LESIONS])
    for name in "ab":
        recipe = {
            "data": {"root": str(data), "table": "table", "images": ["images"]},
            "split": {"policy": "published", "seed": 1},
            "model": {
                "backbone": "tiny",
                "pretrained": False,
                "image_size": [30, 40],
                "fusion": "gate",
                "attention": "cbam",
                "funnel": [8],
            },
            "loader": {"batch_size": 8},
            "loss": {"alpha": 0.5, "gamma": 2.0},
            "schedule": {"phases": {"head": {"epochs": 3, "rate": 0.1, "unfreeze": None, "views": 2}}},
            "seed": 7,
        }
        (folder.parent / name).mkdir()
        (folder.parent / name / "config.yaml").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def made(ensemble: Path) -> Path:
    out = ensemble.parent / "out"
    run(composed("report", ReportConfig, f"ensemble={ensemble}", f"out={out}", "prevalence.mel=0.1", *FAST))
    return out


def test_the_ledger_of_the_test_part_is_printed(ensemble: Path, made: Path, tmp_path: Path) -> None:
    assert "how often it was read is unknown" in (made / "report.html").read_text()
    folder = Path(shutil.copytree(ensemble.parent, tmp_path / "runs", ignore=shutil.ignore_patterns("out")))
    examined = Examined(
        folder / "ensemble" / "ensemble.json", {}, "f" * 64, [folder / "ensemble", ensemble.parent / "data"]
    )
    examined.record("ensemble", kind="protocol", protocol="a" * 64)
    examined.record("evaluate", protocol="a" * 64)
    replace(examined, split="another").record("train")
    replace(examined, folders=[folder / "b"]).record("robustness")
    try:
        run(composed("report", ReportConfig, f"ensemble={folder / 'ensemble'}", f"out={tmp_path / 'out'}", *FAST))
    finally:
        (ensemble.parent / "data" / LEDGER).unlink()
    assert (
        "Read 2 times as far as the ledger tells, 1 of them without a protocol"
        in (tmp_path / "out" / "model_card.md").read_text()
    )
    rows = pd.read_csv(tmp_path / "out" / "tables" / "ledger.csv")
    assert rows["command"].tolist() == ["ensemble", "evaluate", "robustness"]
    assert rows["of the protocol"].tolist() == ["a" * 12, "a" * 12, "–"]


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def strictly(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path.name}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_page_is_self_contained(made: Path) -> None:
    page = Page((made / "report.html").read_text())
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    assert "url(" not in (made / "report.html").read_text().split("</style>")[0]


def test_the_page_is_accessible(made: Path) -> None:
    page = Page((made / "report.html").read_text())
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("img")) >= 9
    assert all(len(str(image["alt"])) > 30 for image in page.all("img"))
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in page.all("a")} <= set(ids)
    assert "not a medical device" in page.words
    assert "nan" not in page.words.lower().replace("nanog", "").split()


def test_the_numbers_are_those_of_the_tables(made: Path, ensemble: Path) -> None:
    test = Predictions.read(ensemble / "predictions_test.csv")
    rows = pd.read_csv(made / "tables" / "headline.csv").set_index("metric")
    accuracy = accuracy_score(test.actual, test.predicted)
    assert rows.loc["accuracy", "test, per image"] == pytest.approx(accuracy)
    recall = recall_score(test.actual, test.predicted, labels=list(CODES), average=None)
    own = pd.read_csv(made / "tables" / "diagnoses.csv")
    np.testing.assert_allclose(own["sensitivity"], recall)
    assert (own["sensitivity low"] <= own["sensitivity"]).all()
    words = Page((made / "report.html").read_text()).words
    assert f"{100 * accuracy:.1f}".removesuffix(".0") + "\u00a0%" in words
    found = strictly(made / "report.json")
    assert found["performance"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert np.trace(found["confusion"]["counts"]) == round(accuracy * len(test))
    groups = pd.read_csv(made / "tables" / "subgroups.csv")
    table = pd.read_csv(ensemble.parent / "data" / "table.csv").set_index("image_id").loc[test.image_id]
    women = test.select((table["sex"] == "female").to_numpy())
    row = groups[(groups["fact"] == "sex") & (groups["group"] == "female")].iloc[0]
    assert row["images"] == len(women)
    assert row["accuracy"] == pytest.approx((women.actual == women.predicted).mean())


def test_lightness_of_the_skin_is_a_subgroup_once_evaluate_has_found_it(tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "ensemble")
    test = Predictions.read(folder / "predictions_test.csv")
    table = write_metadata(tmp_path / "table.csv", [test])
    tones = np.resize(["light", "tan", "unknown"], len(test))
    (folder / "evaluation").mkdir()
    pd.DataFrame({"image_id": test.image_id, "skin_tone": tones, "ita": 1.0, "error": 1.0}).to_csv(
        folder / "evaluation" / "skin_tones_test.csv", index=False
    )
    run(composed("report", ReportConfig, f"ensemble={folder}", f"metadata={table}", *FAST))
    groups = pd.read_csv(folder / "report" / "tables" / "subgroups.csv")
    row = groups[(groups["fact"].str.contains("skin")) & (groups["group"] == "tan")].iloc[0]
    tan = test.select(tones == "tan")
    assert row["images"] == len(tan)
    assert row["accuracy"] == pytest.approx((tan.actual == tan.predicted).mean())


def test_rows_within_source_stand_beside_the_headline(made: Path, ensemble: Path) -> None:
    test = Predictions.read(ensemble / "predictions_test.csv")
    facts = pd.read_csv(ensemble.parent / "data" / "table.csv").set_index("image_id")
    about = facts.loc[test.image_id]
    subsets = {
        "without molemax": (about["dataset"] != "molemax").to_numpy(),
        "histology alone": (about["dx_type"] == "histo").to_numpy(),
    }
    rows = pd.read_csv(made / "tables" / "headline.csv").set_index("metric")
    curves = strictly(made / "report.json")["strata"]
    points = pd.read_csv(made / "tables" / "operating_points.csv")
    for name, kept in subsets.items():
        own = test.select(kept)
        assert rows.loc["accuracy", f"test, {name}"] == pytest.approx((own.actual == own.predicted).mean())
        area = roc_auc_score(own.actual == "mel", own.probabilities[:, CODES.index("mel")])
        assert rows.loc["AUROC of melanoma", f"test, {name}"] == pytest.approx(area)
        assert curves[name]["images"] == kept.sum()
        assert curves[name]["net_benefit"]["mel"]["threshold"][0] == 0.02
        of_mel = points[(points["target"] == "mel") & (points["images of"] == name)].iloc[0]
        scaled = with_calibration(own, json.loads((ensemble / "ensemble.json").read_text())["calibration"])
        flagged = scaled.probabilities[:, CODES.index("mel")] >= of_mel["threshold"]
        assert of_mel["specificity"] == pytest.approx(1 - flagged[own.actual != "mel"].mean())


def test_calibration_of_targets_stands_beside_the_noise_floors(made: Path, ensemble: Path) -> None:
    test = Predictions.read(ensemble / "predictions_test.csv")
    rows = pd.read_csv(made / "tables" / "calibration_targets.csv").set_index(["probability of", "measure (ideal)"])
    for target, codes in (("melanoma", ["mel"]), ("malignant", ["akiec", "bcc", "mel"])):
        chance = test.probabilities[:, [CODES.index(code) for code in codes]].sum(axis=1)
        ratio = np.isin(test.actual, codes).sum() / chance.sum()
        assert rows.loc[(target, "observed to expected, O:E (1)"), "test, before"] == pytest.approx(ratio, rel=1e-5)
        assert rows.loc[(target, "slope (1)"), "test, before low"] < rows.loc[(target, "slope (1)"), "test, before"]
    scores = pd.read_csv(made / "tables" / "calibration.csv").set_index("score")
    floor = scores.loc["ECE, bins of equal width: noise floor"]
    assert 0 < floor["test, before low"] < floor["test, before"] < floor["test, before high"]


def test_groups_whose_sets_fall_short_are_limits(tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "ensemble")
    tables = {part: Predictions.read(folder / f"predictions_{part}.csv") for part in LESIONS}
    table = write_metadata(tmp_path / "table.csv", list(tables.values()))
    about = json.loads((folder / "ensemble.json").read_text())
    scaled = with_calibration(tables["test"], about["calibration"])
    held = prediction_sets(scaled.probabilities, about["conformal"][0])[np.arange(len(scaled)), scaled.targets]
    rows = pd.read_csv(table)
    missed = set(scaled.image_id[~held])
    assert len(missed) > 1
    rows.loc[rows["image_id"].isin(missed), "localization"] = "ear"
    rows.to_csv(table, index=False)
    report_of(folder, f"metadata={table}")
    limits = (folder / "report" / "model_card.md").read_text().partition("## Strengths")[0]
    (line,) = (
        line for line in limits.splitlines() if line.startswith("- Prediction sets hold the actual diagnosis less")
    )
    assert "localization ear" in line


def test_baselines_know_no_image(made: Path, ensemble: Path) -> None:
    test = Predictions.read(ensemble / "predictions_test.csv")
    facts = pd.read_csv(ensemble.parent / "data" / "table.csv").set_index("image_id")
    train, own = facts.drop(test.image_id), facts.loc[test.image_id]
    share = train.groupby("dataset")["dx"].apply(lambda dx: (dx == "mel").mean())  # ranks the two cameras
    expected = roc_auc_score(own["dx"] == "mel", own["dataset"].map(share))
    rows = pd.read_csv(made / "tables" / "sources.csv")
    camera = rows[(rows["images (number)"] == "all images (120)") & (rows["model"] == "camera alone")].iloc[0]
    assert camera["AUROC of melanoma"] == pytest.approx(expected)
    assert camera["accuracy"] == pytest.approx((own["dx"] == train["dx"].mode()[0]).mean(), abs=0.1)
    assert list(rows["model"].unique()) == ["ensemble", "camera alone", "metadata alone"]


def test_the_page_and_the_card_open_with_the_limits(made: Path) -> None:
    words = Page((made / "report.html").read_text()).words
    card = (made / "model_card.md").read_text()
    for text, last in ((words, "Contents"), (card, "## Model")):
        opening = text[text.index("Limits and unknowns") : text.index(last, text.index("Limits and unknowns"))]
        sentence = opening.index("The camera alone, without any image, reaches an AUROC of")
        assert (
            sentence
            < opening.index("Without molemax (")
            < opening.index("Histology alone (")
            < opening.index("Strengths")
        )
    assert card.index("Limits and unknowns") < card.index("| --- |")


def test_the_reject_option_tells_what_is_kept(made: Path, ensemble: Path) -> None:
    calibration = json.loads((ensemble / "ensemble.json").read_text())["calibration"]
    val, test = (
        with_calibration(Predictions.read(ensemble / f"predictions_{part}.csv"), calibration) for part in LESIONS
    )
    threshold = sorted(val.probabilities.max(axis=1), reverse=True)[round(0.8 * len(val)) - 1]
    kept = test.probabilities.max(axis=1) >= threshold
    rows = pd.read_csv(made / "tables" / "rejection_diagnoses.csv").set_index("diagnosis")
    of_mel = test.actual == "mel"
    assert rows.loc["melanoma (mel)", "share kept"] == pytest.approx(kept[of_mel].mean())
    right = (test.predicted == "mel")[of_mel & kept].mean()
    assert rows.loc["melanoma (mel)", "sensitivity, kept images"] == pytest.approx(right)


def test_predictive_values_use_the_given_prevalence(made: Path) -> None:
    points = strictly(made / "report.json")["operating_points"]
    mel = next(point for point in points if point["target"] == "mel")
    sensitivity, specificity = (mel["numbers"][name]["value"] for name in ("sensitivity", "specificity"))
    expected = sensitivity * 0.1 / (sensitivity * 0.1 + (1 - specificity) * 0.9)
    assert mel["numbers"]["ppv_at_prevalence"]["value"] == pytest.approx(expected)
    assert "ppv_at_prevalence" not in next(p for p in points if p["target"] == "malignant")["numbers"]


def test_the_model_card(made: Path) -> None:
    card = (made / "model_card.md").read_text()
    for said in (
        "Research use only, not a medical device",
        "f" * 64,
        "tiny",
        "CC BY-NC 4.0",
        UNANSWERED,
        "| sex | female |",
        "a dermoscopic image; age, sex and localization, each of which may be unknown.",
    ):
        assert said in card
    lines = [line for line in card.splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in lines]
    for place, line in enumerate(lines):  # each table is as wide below its rule as above it
        if set(line) <= set("|- "):
            assert widths[place - 1] == widths[place] == widths[place + 1], line


def test_checklists_are_filled_where_the_run_answers(made: Path) -> None:
    words = Page((made / "report.html").read_text()).words
    assert words.count(UNANSWERED) >= 20
    for title in ("CLAIM 2024", "CLEAR Derm", "TRIPOD+AI"):
        assert title in words
    assert "Mean of the members' probabilities: a, b." in words
    assert "Queensland, Australia" in words


@pytest.mark.parametrize(("name", "items"), [("tripod_ai", ("5b", "6a", "6b")), ("claim", ("8", "13", "16"))])
def test_the_facts_of_the_data_set_are_answered(name: str, items: tuple[str, ...], made: Path) -> None:
    title = {"tripod_ai": "TRIPOD+AI", "claim": "CLAIM 2024"}[name]
    text = (made / "report.html").read_text()
    rows = text[text.index(f"<h3>{title}</h3>") :].split("</table>")[0].split("<tr>")
    for item in items:
        (row,) = [each for each in rows if f'<th scope="row">{item}</th>' in each]
        assert UNANSWERED not in row
        assert "HAM10000" in row


def test_the_lists_have_the_items_of_their_sources() -> None:
    from omegaconf import OmegaConf

    counts = {}
    for name in CHECKLISTS:
        items = [str(each.item) for each in OmegaConf.load(page.HERE / "checklists" / f"{name}.yaml")["items"]]
        assert len(items) == len(set(items))
        counts[name] = len({item.rstrip("abcdefg") for item in items})
    assert counts == {"claim": 44, "clear_derm": 25, "tripod_ai": 27}


def test_the_report_needs_no_torch() -> None:
    folder = Path(page.__file__).parent
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    modules = ", ".join(f"skinlesion.studies.report.{name}" for name in names)
    code = f"import sys, skinlesion.commands.report, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the rendering of figures, which takes most of the time."""

    def blank(_: Figure, to: Any, **__: Any) -> None:
        if isinstance(to, Path):
            to.write_bytes(b"")

    monkeypatch.setattr(Figure, "savefig", blank)


@pytest.mark.usefixtures("undrawn")
def test_photographs_on_demand_only(made: Path, ensemble: Path, tmp_path: Path) -> None:
    assert "image/jpeg" not in (made / "report.html").read_text()
    wanted = composed("report", ReportConfig, f"ensemble={ensemble}", f"out={tmp_path}", "samples=true", *FAST)
    with pytest.raises(DataError, match="samples=true: no image file of"):
        run(wanted)
    for image_id in Predictions.read(ensemble / "predictions_test.csv").image_id:
        Image.new("RGB", (40, 30), "pink").save(ensemble.parent / "data" / "images" / f"{image_id}.jpg")
    run(wanted)
    assert "data:image/jpeg;base64," in (tmp_path / "report.html").read_text()


def report_of(folder: Path, *overrides: str) -> dict[str, Any]:
    out = folder / "report"
    run(composed("report", ReportConfig, f"ensemble={folder}", *FAST, *overrides))
    text = (out / "report.html").read_text()
    assert ">nan<" not in text
    assert ">None<" not in text
    return strictly(out / "report.json")


def test_one_diagnosis_alone_is_drawn(tmp_path: Path) -> None:
    report_of(write_ensemble(tmp_path / "e", codes=("nv",)))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kinds", [{"codes": ("nv",)}, {"codes": ("nv", "bkl", "bcc")}, {"images": 1}])
def test_missing_numbers_are_marked(tmp_path: Path, kinds: dict[str, Any]) -> None:
    found = report_of(write_ensemble(tmp_path / "e", **kinds))
    numbers = found["performance"]["test"]["numbers"]
    assert numbers["recall_df"]["value"] is None
    assert numbers["recall_df"]["note"] == "not computable: no image of df"
    assert found["net_benefit"]["mel"] == {"note": "not computable: no image of mel"}
    assert "no metadata table" in found["subgroups"]["note"]
    text = (tmp_path / "e" / "report" / "report.html").read_text()
    assert "not computable" in text
    assert "the run folders of the members are missing" in text


@pytest.mark.usefixtures("undrawn")
def test_an_ensemble_of_an_older_version_is_reported(tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "e")
    about = json.loads((folder / "ensemble.json").read_text())
    kept = {key: about[key] for key in ("members", "chosen", "tta", "classes", "fingerprint")}
    (folder / "ensemble.json").write_text(json.dumps(kept))
    (folder / "members" / "a" / "predictions_val.csv").unlink()
    found = report_of(folder)
    assert "no operating points" in found["operating_points"]["note"]
    assert "members" not in found["performance"]
    text = (folder / "report" / "report.html").read_text()
    assert "is not calibrated" in text
    assert "No comparison with the members" in text


def broken(folder: Path, what: str) -> tuple[str, ...]:
    """Break an ensemble's folder; return additional overrides."""
    path = folder / "predictions_test.csv"
    rows = path.read_text().splitlines()
    if what == "sum":
        first = rows[1].split(",")
        path.write_text("\n".join([rows[0], ",".join([*first[:2], "0.9", *first[3:]]), *rows[2:]]))
    elif what == "nan":
        first = rows[1].split(",")
        path.write_text("\n".join([rows[0], ",".join([*first[:2], "nan", *first[3:]]), *rows[2:]]))
    elif what == "vote":
        other = folder / "members" / "a" / "predictions_test.csv"
        other.write_text((folder / "members" / "b" / "predictions_test.csv").read_text())
    elif what == "facts":
        return (f"metadata={write_metadata(folder / 'table.csv', members_of('val')[:1])}",)
    elif what == "twice":
        table = write_metadata(folder / "table.csv", [members_of("test")[0]] * 2)
        return (f"metadata={table}",)
    elif what == "gone":
        return ("robustness=nowhere",)
    return ()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("sum", "the probabilities do not sum to 1: row 1"),
        ("nan", "a probability is no number from 0 to 1: row 1"),
        ("vote", "not the mean of the members' tables"),
        ("facts", "images are not among the facts"),
        ("twice", "image_id in more than one row"),
        ("gone", "robustness=nowhere: no such folder"),
    ],
)
def test_invalid_sources_are_named(tmp_path: Path, what: str, said: str) -> None:
    folder = write_ensemble(tmp_path / "e")
    more = broken(folder, what)
    with pytest.raises(DataError, match=said):
        run(composed("report", ReportConfig, f"ensemble={folder}", *FAST, *more))
    assert not (folder / "report").exists()


def test_no_ensemble_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a readable ensemble\.json"):
        run(composed("report", ReportConfig, f"ensemble={tmp_path}", *FAST))
    (tmp_path / "ensemble.json").write_text('{"members": [], "chosen": [0]}')
    with pytest.raises(CheckpointError, match=r"not a readable ensemble\.json"):
        run(composed("report", ReportConfig, f"ensemble={tmp_path}", *FAST))


def leave(folder: Path) -> None:
    """Results of `robustness`, `explain` and `evaluate` beside an ensemble, abridged."""
    number = {"value": 0.8125, "low": 0.7, "high": None}
    for name in ("robustness", "explanations", "external"):
        (folder / name).mkdir()
    measured = dict.fromkeys(("balanced_accuracy", "change_balanced_accuracy", "recall_mel", "same", "novel"), number)
    disturbed = {
        "part": "test",
        "images_judged": 7,
        "lesions_judged": 6,
        "undisturbed": {"numbers": measured},
        "without_images": {"balanced_accuracy": 0.125},
        "images": {"blur": {"unit": "sigma", "steps": [{"step": 2, "numbers": measured}]}},
        "facts": {},
    }
    (folder / "robustness" / "robustness.json").write_text(json.dumps(disturbed))
    about = {"part": "val", "images_judged": 9, "lesions_judged": 8, "deletion": {"area_less_random": number}}
    (folder / "explanations" / "explanations.json").write_text(json.dumps(about))
    for path in (
        "robustness/disturbed",
        "explanations/randomisation",
        "explanations/ISIC_1.mel",
        "external/populations",
    ):
        Image.new("RGB", (3000, 20), "white").save(folder / f"{path}.png")
    numbers = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "macro_ap"), number)
    judged = {"images": 5, "lesions": 4, "numbers": numbers}
    (folder / "external" / "metrics_external.json").write_text(json.dumps(judged))


@pytest.mark.usefixtures("undrawn")
def test_results_of_other_commands_become_sections(tmp_path: Path) -> None:
    folder = write_ensemble(tmp_path / "e")
    leave(folder)
    report_of(folder)
    page = Page((folder / "report" / "report.html").read_text())
    for text in ("Robustness and shortcuts", "9 images of 8 lesions", "5 images of 4 lesions", "See External data"):
        assert text in page.words
    pictures = [image for image in page.all("img") if str(image["src"]).startswith("data:image/png")]
    assert len(pictures) == 3
    assert "ISIC_1" not in (folder / "report" / "report.html").read_text()  # no photograph
    assert (folder / "report" / "tables" / "robustness.csv").is_file()
    (folder / "external" / "metrics_external.json").write_text('{"accuracy": 1}')
    with pytest.raises(DataError, match="no images, lesions, numbers"):
        report_of(folder)
    with pytest.raises(DataError, match=r"no metrics_\*\.json there"):
        report_of(folder, f"external=[{folder / 'members'}]")
