"""Figures: what they show against an independent count, that they keep within the page, and saving them."""

import errno
from collections.abc import Callable
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import CODES, DIAGNOSES
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from sklearn import metrics as sk

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import report
from skinlesion.plots.classification import confusion_matrix, precision_recall, reliability, roc, sample_sheet
from skinlesion.plots.style import PAGE_WIDTH, save

PUBLISHED = (17, 26, 49, 4, 20, 495, 7)  # test images of each diagnosis in the published split
EDGES = [(0, 0, 0, 0, 1, 0, 0), (0, 2, 0, 0, 0, 5, 0), (3, 3, 0, 3, 3, 3, 3), PUBLISHED]


def random_table(counts: tuple[int, ...], *, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    actual = np.repeat(np.arange(7), counts)
    weights = np.exp(1.3 * rng.normal(size=(len(actual), 7)) + 2.5 * np.eye(7)[actual])
    names = [f"ISIC_{24306 + number:07d}" for number in range(len(actual))]
    values = weights / weights.sum(axis=1, keepdims=True)
    return Predictions.build(names, [""] * len(names), probabilities=values, actual=[CODES[k] for k in actual])


def random_image(image_id: str) -> np.ndarray:
    return np.random.default_rng(int(image_id[-4:])).integers(0, 255, (36, 48, 3), dtype=np.uint8)


TABLE_FIGURES: dict[str, Callable[[Predictions], Figure]] = {
    "confusion_matrix": confusion_matrix,
    "precision_recall": precision_recall,
    "roc": roc,
    "reliability": lambda table: reliability(table, bins=10),
    "sample_sheet": lambda table: sample_sheet(table, random_image),
}


def assert_on_the_page(figure: Figure) -> None:
    """Draw the figure; nothing may stick out of it, where it would be cut off."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width == PAGE_WIDTH
    assert height <= 10  # inches between the margins
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width + 1e-6
    assert box.y1 <= height + 1e-6


def line_of(axes: Axes, name: str) -> Line2D:
    (line,) = [line for line in axes.get_lines() if str(line.get_label()).startswith(f"{name}: ")]
    return line


def points_of(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


@pytest.mark.parametrize("name", TABLE_FIGURES)
@pytest.mark.parametrize("counts", EDGES)
def test_figures_of_tables_keep_within_the_page(name: str, counts: tuple[int, ...]) -> None:
    table = random_table(counts)
    before = table.probabilities.copy()
    assert_on_the_page(TABLE_FIGURES[name](table))
    np.testing.assert_array_equal(table.probabilities, before)


@pytest.mark.parametrize("name", TABLE_FIGURES)
def test_certain_probabilities_can_be_drawn(name: str) -> None:
    table = Predictions.build(
        ["I1", "I2", "I3"], [""] * 3, probabilities=np.eye(7)[[5, 4, 5]], actual=["nv", "mel", "mel"]
    )
    figure = sample_sheet(table, lambda _: np.ones((9, 9, 3))) if name == "sample_sheet" else TABLE_FIGURES[name](table)
    assert_on_the_page(figure)


def test_the_cells_are_counts_and_shares() -> None:
    cells = {
        ("nv", "nv"): (297, "99%"),
        ("nv", "df"): (2, "1%"),
        ("nv", "mel"): (1, "<1%"),
        ("mel", "mel"): (2, "67%"),
        ("mel", "nv"): (1, "33%"),
        ("df", "vasc"): (4, "100%"),
    }
    pairs = [pair for pair, (count, _) in cells.items() for _ in range(count)]
    values = np.eye(7)[[CODES.index(predicted) for _, predicted in pairs]]
    names = [f"I{number}" for number in range(len(pairs))]
    table = Predictions.build(names, [""] * len(pairs), probabilities=values, actual=[actual for actual, _ in pairs])
    axes = confusion_matrix(table).axes[0]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(shown) == 49
    for (row, actual), (column, predicted) in product(enumerate(CODES), enumerate(CODES)):
        count, share = cells.get((actual, predicted), (0, ""))
        assert shown[column, row] == f"{count}\n{share}".strip()
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CODES)
    totals = {"nv": 300, "mel": 3, "df": 4}
    for label, diagnosis in zip(axes.get_yticklabels(), DIAGNOSES, strict=True):
        words = f"{diagnosis.name} ({diagnosis.code}) n = {totals.get(diagnosis.code, 0)}"
        assert label.get_text().replace("\n", " ") == words
    colours = axes.get_images()[0].get_array()
    assert colours is not None
    np.testing.assert_allclose(colours[4], [0, 0, 0, 0, 2 / 3, 1 / 3, 0])
    assert np.ma.masked_invalid(colours)[2].mask.all()  # no benign keratosis: no shares, no colour


@pytest.mark.parametrize("counts", EDGES[1:])
def test_the_area_under_each_roc_curve_is_that_of_the_report(counts: tuple[int, ...]) -> None:
    table = random_table(counts, seed=2)
    axes, judged = roc(table).axes[0], report(table).to_dict()
    for code, count in zip(CODES, counts, strict=True):
        line = line_of(axes, code)
        if count == 0:
            assert line.get_label() == f"{code}: undefined (n = 0)"
            assert len(points_of(line)[0]) == 0
            continue
        x, y = points_of(line)
        assert np.trapezoid(y, x) == pytest.approx(judged["per_diagnosis"][code]["auroc"])
        assert line.get_label() == f"{code}: {judged['per_diagnosis'][code]['auroc']:.3f} (n = {count})"
    x, y = points_of(line_of(axes, "macro"))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(judged["macro_auroc"], abs=1e-3)
    assert line_of(axes, "macro").get_label() == f"macro: {judged['macro_auroc']:.3f}"


@pytest.mark.parametrize("counts", EDGES)
def test_the_area_under_each_precision_recall_step_line_is_the_average_precision(counts: tuple[int, ...]) -> None:
    table = random_table(counts, seed=3)
    actual, values = table.targets, table.probabilities
    axes = precision_recall(table).axes[0]
    areas = []
    for k, code in enumerate(CODES):
        line = line_of(axes, code)
        if counts[k] == 0:
            assert line.get_label() == f"{code}: undefined (n = 0)"
            continue
        x, y = points_of(line)
        areas.append(sk.average_precision_score(actual == k, values[:, k]))
        assert line.get_drawstyle() == "steps-pre"  # the precision at a recall holds up to it
        assert (np.diff(x) * y[1:]).sum() == pytest.approx(areas[-1])
        assert line.get_label() == f"{code}: {areas[-1]:.3f} (n = {counts[k]})"
    x, y = points_of(line_of(axes, "macro"))
    assert (np.diff(x) * y[1:]).sum() == pytest.approx(np.mean(areas))


def test_without_a_second_diagnosis_there_is_no_roc_curve() -> None:
    axes = roc(random_table((0, 0, 0, 0, 4, 0, 0))).axes[0]
    labels = [str(line.get_label()) for line in axes.get_lines() if len(points_of(line)[0]) == 0]
    assert labels == [f"{code}: undefined (n = {4 * (code == 'mel')})" for code in CODES]


def test_each_diagnosis_has_a_colour_of_its_own_and_the_same_in_both_figures() -> None:
    table = random_table(PUBLISHED)
    colours = [
        [to_hex(line_of(draw(table).axes[0], name).get_color()) for name in (*CODES, "macro")]
        for draw in (roc, precision_recall)
    ]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 8


def test_the_bars_of_the_reliability_diagram_are_accuracies_and_counts() -> None:
    rest = [0.0] * 5
    values = [[0.75, 0.25, *rest], [0.75, 0.25, *rest], [1, 0, *rest], [0.625, 0.375, *rest]]
    table = Predictions.build(list("abcd"), [""] * 4, probabilities=values, actual=["akiec", "bcc", "akiec", "akiec"])
    above, below = reliability(table, bins=5).axes
    bars = {round(bar.get_x(), 6): bar.get_height() for bar in above.patches}
    assert bars == {0.6: 2 / 3, 0.8: 1.0}
    assert {round(bar.get_x(), 6): bar.get_height() for bar in below.patches} == {0.6: 3, 0.8: 1}
    error = (abs(3 * 2 / 3 - 2.125) + abs(1 - 1)) / 4
    assert above.get_title() == f"Reliability (n = 4): expected calibration error {error:.3f}"


def test_the_whiskers_of_the_reliability_diagram_are_wilsons() -> None:
    actual = ["akiec"] * 8 + ["bcc"] * 2
    table = Predictions.build(
        list("abcdefghij"), [""] * 10, probabilities=[[0.75, 0.25, 0, 0, 0, 0, 0]] * 10, actual=actual
    )
    container = reliability(table, bins=4).axes[0].containers[1]
    (segment,) = container[2][0].get_segments()
    # Brown, Cai & DasGupta (2001), the interval of 8 in 10 to four digits
    np.testing.assert_allclose(segment, [[0.75, 0.4902], [0.75, 0.9433]], atol=5e-5)


def test_the_sheet_shows_the_extremes_and_the_median() -> None:
    confidence = {"a": 0.9, "b": 0.3, "c": 0.5, "d": 0.7, "e": 0.6}
    values = [[p, 1 - p, 0, 0, 0, 0, 0] for p in confidence.values()]  # b, at 0.3, is taken for bcc with 0.7
    table = Predictions.build(list(confidence), [""] * 5, probabilities=values, actual=["akiec"] * 5)
    asked: list[str] = []

    def image_of(image_id: str) -> np.ndarray:
        asked.append(image_id)
        return np.zeros((6, 8, 3))

    figure = sample_sheet(table, image_of)
    assert asked == ["a", "d", "c"]
    titles = [axes.get_title().split("\n") for axes in figure.axes]
    assert titles == [["a", "✓ akiec 0.90"], ["d", "✓ akiec 0.70"], ["c", "✓ akiec 0.50"]]
    headings = [axes.get_ylabel() for axes in figure.axes]
    assert headings == ["most confident", "median", "least confident"]


def test_wrong_predictions_are_marked_by_sign_and_colour() -> None:
    table = Predictions.build(["a", "b"], ["", ""], probabilities=np.eye(7)[[4, 5]], actual=["nv", "nv"])
    first, _, last = sample_sheet(table, lambda _: np.zeros((4, 4, 3))).axes
    assert first.get_title() == "a\n✗ mel 1.00"
    assert last.get_title() == "b\n✓ nv 1.00"
    assert first.title.get_color() != last.title.get_color()


def test_few_images_are_shown_once_and_absent_diagnoses_have_no_column() -> None:
    table = random_table((1, 0, 2, 0, 0, 3, 0), seed=4)
    asked: list[str] = []

    def image_of(image_id: str) -> np.ndarray:
        asked.append(image_id)
        return random_image(image_id)

    figure = sample_sheet(table, image_of)
    shown = [[len(axes.get_images()) for axes in figure.axes[column::3]] for column in range(3)]
    assert shown == [[1, 0, 0], [1, 0, 1], [1, 1, 1]]
    assert len(figure.axes) == 9
    assert sorted(asked) == table.image_id.tolist()


def test_the_sheet_of_every_diagnosis_agrees_with_sorting() -> None:
    table = random_table(PUBLISHED, seed=5)
    asked: list[str] = []

    def image_of(image_id: str) -> np.ndarray:
        asked.append(image_id)
        return random_image(image_id)

    sample_sheet(table, image_of)
    frame = table.to_frame()
    frame["confidence"] = [row[code] for (_, row), code in zip(frame.iterrows(), frame["predicted"], strict=True)]
    expected = []
    for code in CODES:
        own = frame[frame["actual"] == code].sort_values("confidence", ascending=False)["image_id"].tolist()
        expected += [own[0], own[len(own) // 2], own[-1]]
    assert asked == expected


def test_a_saved_figure_is_a_png_of_page_width(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figure.png"
    save(confusion_matrix(random_table(EDGES[1])), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 7 * 200
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = confusion_matrix(random_table(EDGES[1]))

    def fail(target: Path, **_: object) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_leave_no_state_in_pyplot() -> None:
    table = random_table(EDGES[1])
    for draw in TABLE_FIGURES.values():
        draw(table)
    assert plt.get_fignums() == []


def test_figures_of_images_without_diagnosis_are_refused() -> None:
    table = Predictions.build(["a"], [""], probabilities=np.eye(7)[:1], actual=[""])
    assert table.predicted_targets.tolist() == [0]
    for draw in TABLE_FIGURES.values():
        with pytest.raises(DataError, match="No actual diagnosis"):
            draw(table)


def test_the_sample_sheet_leaves_no_wide_gaps() -> None:
    figure = sample_sheet(random_table((1, 1, 3, 1, 2, 30, 1)), random_image)
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes if axes.get_images()]
    pictures = sum(box.width for box in boxes[:1]) * 7
    assert pictures > 0.7 * figure.bbox.width, "seven columns fill the page"
