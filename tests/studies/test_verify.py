"""`skinlesion verify`: published tables against the shipped predictions, and tables of other programs."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import CODES, composed
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from skinlesion.commands.verify import run
from skinlesion.config.studies import VerifyConfig
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.summary import metrics_with_ci
from skinlesion.studies.report.formats import ranged

MALIGNANT = ("akiec", "bcc", "mel")
COLUMNS = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]


def frame_of(n: int = 140, *, seed: int = 0) -> pd.DataFrame:
    """Made-up predictions in the columns of a shipped table: two folds, two sources."""
    rng = np.random.default_rng(seed)
    actual = np.arange(n) % 7
    logits = rng.normal(size=(n, 7))
    rows = np.arange(n)
    logits[rows, actual] += 1.5
    values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "image_id": [f"image{row:03d}" for row in rows],
            "lesion_id": [f"lesion{row // 2:03d}" for row in rows],
            "fold": rows // 2 % 2,
            "source": np.where(rows % 3 == 0, "near", "far"),
            "confirmation": "histo",
            "actual": np.asarray(CODES)[actual],
            **dict(zip(CODES, values.T, strict=True)),
        }
    )


def ship(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))


METRICS = "{accuracy: acc, macro_f1: F1, auroc_malignant: AUROC}"


def command(
    tmp_path: Path, *more: str, rows: str = "[{label: ours, predictions: ours}]", metrics: str = METRICS
) -> VerifyConfig:
    """The command's configuration with one table, whose page is there."""
    page = tmp_path / "page.md"
    if not page.exists():
        page.write_text("# Results\n<!-- table: folds -->\n<!-- end -->\nAfter.\n")
    tables = tmp_path / "tables.yaml"
    tables.write_text(f"tables: {{folds: {{pages: [page.md], metrics: {metrics}, rows: {rows}}}}}")
    places = f"root={tmp_path}", f"folder={tmp_path}", f"tables={tables}"
    return composed("verify", VerifyConfig, *places, "resamples=100", *more)


def test_a_written_table_holds_the_metrics_and_a_changed_digit_is_named(tmp_path: Path) -> None:
    frame = frame_of()
    ship(frame, tmp_path / "ours.csv.gz")
    run(command(tmp_path, "write=true"))
    page = tmp_path / "page.md"
    text = page.read_text()
    assert text.startswith("# Results\n")
    assert text.endswith("After.\n")
    predicted = frame[list(CODES)].to_numpy().argmax(axis=1)
    macro_f1 = f1_score(frame["actual"], np.asarray(CODES)[predicted], average="macro")
    auroc = roc_auc_score(frame["actual"].isin(MALIGNANT), frame[list(MALIGNANT)].sum(axis=1))
    row = next(line for line in text.splitlines() if line.startswith("| ours"))
    assert [cell.split("[")[0].strip() for cell in row.split("|")[3:5]] == [f"{macro_f1:.3f}", f"{auroc:.3f}"]
    run(command(tmp_path))  # agrees
    page.write_text(text.replace(f"{macro_f1:.3f} [", f"{macro_f1 + 0.001:.3f} ["))
    with pytest.raises(DataError, match=rf"ours, F1: printed {macro_f1 + 0.001:.3f} .* {macro_f1:.3f}"):
        run(command(tmp_path))


def test_rows_can_be_some_of_the_images_or_a_difference(tmp_path: Path) -> None:
    frame = frame_of()
    ship(frame, tmp_path / "ours.csv.gz")
    ship(frame_of(seed=1), tmp_path / "other.csv.gz")
    rows = "[{label: far, predictions: ours, only: {source: not near}}, {label: less, predictions: ours, minus: other}]"
    run(command(tmp_path, "write=true", rows=rows))
    lines = (tmp_path / "page.md").read_text().splitlines()

    def accuracy(table: pd.DataFrame) -> float:
        return float((np.asarray(CODES)[table[list(CODES)].to_numpy().argmax(axis=1)] == table["actual"]).mean())

    far = next(line for line in lines if line.startswith("| far"))
    assert f"| {100 * accuracy(frame[frame['source'] == 'far']):.1f} [" in far
    less = next(line for line in lines if line.startswith("| less"))
    assert f"| {100 * (accuracy(frame) - accuracy(frame_of(seed=1))):+.1f} [" in less


def test_a_mean_of_tables_is_that_of_their_metrics(tmp_path: Path) -> None:
    frames = [frame_of(seed=seed) for seed in (0, 1)]
    for seed, frame in enumerate(frames):
        ship(frame, tmp_path / f"seed{seed}.csv.gz")
    run(command(tmp_path, "write=true", rows='[{label: "mean of two", mean_of: [seed0, seed1]}]'))
    predicted = [np.asarray(CODES)[frame[list(CODES)].to_numpy().argmax(axis=1)] for frame in frames]
    pairs = list(zip(frames, predicted, strict=True))
    accuracy = np.mean([(frame["actual"] == codes).mean() for frame, codes in pairs])
    macro_f1 = np.mean([f1_score(frame["actual"], codes, average="macro") for frame, codes in pairs])
    assert f"| mean of two | {100 * accuracy:.1f} [–] | {macro_f1:.3f} [–] |" in (tmp_path / "page.md").read_text()


def test_flags_use_the_threshold_of_their_own_folds_validation_part(tmp_path: Path) -> None:
    frame, validation = frame_of(), frame_of(seed=2)
    ship(frame, tmp_path / "ours.csv.gz")
    ship(validation, tmp_path / "ours_val.csv.gz")
    rule = "{validation: ours_val, target: mel, sensitivity: 0.8}"
    rows = f"[{{label: mel, predictions: ours, threshold: {rule}}}]"
    run(command(tmp_path, "write=true", rows=rows, metrics="{sensitivity: sensitivity}"))
    flagged = np.zeros(len(frame), dtype=bool)
    for fold in (0, 1):
        own = validation.query("fold == @fold and actual == 'mel'")["mel"].sort_values(ascending=False)
        threshold = own.iloc[int(np.ceil(0.8 * len(own))) - 1]
        flagged |= ((frame["fold"] == fold) & (frame["mel"] >= threshold)).to_numpy()
    wanted = flagged[frame["actual"] == "mel"].mean()
    assert f"| mel | {wanted:.3f} " in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[{label: a, predictions: ours, only: {source: here}}]", "ours has no here; it has"),
        ("[{label: a, predictions: ours, only: {clinic: near}}]", "no such column in ours"),
        ("[{label: a}]", "expected one of predictions, mean_of"),
        ("[{label: a, prediction: ours}]", r"tables.yaml: .*prediction: unknown key"),
        ("[{label: a, predictions: absent}]", "absent.csv.gz: no predictions table"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, message: str) -> None:
    ship(frame_of(), tmp_path / "ours.csv.gz")
    with pytest.raises((ConfigError, DataError), match=message):
        run(command(tmp_path, rows=rows))


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_the_published_tables_agree_with_the_shipped_predictions(quick: bool, tmp_path: Path) -> None:
    """Those with many rows, and that of differences with its permutations, which take most of the time, apart."""
    root = Path(__file__).parent.parent.parent
    shipped = root / "docs" / "predictions"
    tables = yaml.safe_load((shipped / "tables.yaml").read_text())["tables"]
    kept = {name: each for name, each in tables.items() if (name in ("headline", "squares")) is quick}
    assert len(kept) >= 2
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump({"tables": kept}, sort_keys=False))
    places = f"root={root}", f"folder={shipped}", f"tables={tmp_path / 'tables.yaml'}"
    run(composed("verify", VerifyConfig, *places))


def test_the_example_report_is_of_the_shipped_predictions() -> None:
    """Its main results, recomputed from fold 0; the intervals for one column, to the printed digit."""
    docs = Path(__file__).parents[2] / "docs"
    card = (docs / "report" / "model_card.md").read_text().partition("**Main results**")[2].strip().splitlines()
    names, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in card[:9])
    shown = pd.DataFrame(lines, columns=names).set_index("metric")
    columns = {
        "test, per image": ("lite0", "actual == actual"),
        "test, without vidir_molemax": ("lite0", "source != 'vidir_molemax'"),
        "test, histology alone": ("lite0", "confirmation == 'histo'"),
        "validation, per image": ("lite0_val", "actual == actual"),
    }
    for title, (name, kept) in columns.items():
        rows = (
            pd.read_csv(docs / "predictions" / f"{name}.csv.gz", keep_default_na=False).query("fold == 0").query(kept)
        )
        values, codes = rows[list(CODES)].to_numpy(), rows["actual"].to_numpy()
        likeliest = np.asarray(CODES)[values.argmax(axis=1)]
        found = {
            "accuracy": (likeliest == codes).mean(),
            "balanced accuracy": balanced_accuracy_score(codes, likeliest),
            "macro-F1": f1_score(codes, likeliest, average="macro"),
            "AUROC of melanoma": roc_auc_score(codes == "mel", rows["mel"]),
            "AUROC of malignant": roc_auc_score(np.isin(codes, MALIGNANT), rows[list(MALIGNANT)].sum(axis=1)),
        }
        assert {metric: f"{value:.3f}" for metric, value in found.items()} == {
            metric: shown.loc[metric, title].partition(" ")[0] for metric in found
        }
    histology = Predictions.from_frame(rows_of(docs / "predictions" / "lite0.csv.gz"), source="fold 0")
    intervals = metrics_with_ci(histology, BootstrapConfig(resamples=2000, seed=1, level=0.95, method="bca"), bins=10)
    for metric, title in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"), ("auroc_mel", "AUROC of melanoma")):
        assert ranged(intervals[metric]) == shown.loc[title, "test, histology alone"]


def rows_of(path: Path) -> pd.DataFrame:
    """Histology-confirmed images of fold 0, as text."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table[(table["fold"] == "0") & (table["confirmation"] == "histo")].drop(
        columns=["fold", "source", "confirmation"]
    )


def test_a_competitors_table_is_read(tmp_path: Path) -> None:
    """Class columns in another order and case with a prefix, and diagnoses as positions in it."""
    ours = frame_of()
    foreign = ours[["image_id", "lesion_id", "fold"]].assign(
        y_true=[COLUMNS.index(code.upper()) for code in ours["actual"]],
        y_pred=[COLUMNS.index(CODES[k].upper()) for k in ours[list(CODES)].to_numpy().argmax(axis=1)],
        **{f"prob_{name}": ours[name.lower()] for name in COLUMNS},
    )
    path = tmp_path / "theirs.csv"
    foreign.to_csv(path, index=False)
    read = Predictions.read(path)
    np.testing.assert_allclose(read.probabilities, ours[list(CODES)], atol=1e-6)
    assert list(read.actual) == list(ours["actual"])
    foreign["y_pred"] = 0
    foreign.to_csv(path, index=False)
    with pytest.raises(DataError, match="the predicted diagnosis is not the likeliest"):
        Predictions.read(path)
    foreign.assign(prob_mel=0.1).to_csv(path, index=False)
    with pytest.raises(DataError, match="several columns stand for mel"):
        Predictions.read(path)
