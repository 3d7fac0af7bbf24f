"""What the figures of a data set draw is what is in the data set."""

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import CODES
from matplotlib.figure import Figure

from skinlesion.plots import audit as audit_plots
from skinlesion.plots.style import PAGE_WIDTH
from skinlesion.synthetic.dataset import synthetic_table

ALL = ("diagnoses", "ages", "sexes", "localizations", "images_per_lesion")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    table = synthetic_table(300, np.random.default_rng(0))
    return table.rename(columns={"dx": "diagnosis"}).sort_values("image_id", ignore_index=True)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_figures_render_at_page_width_and_leave_no_state(frame: pd.DataFrame) -> None:
    for name in ALL:
        before = frame.copy()
        figure = getattr(audit_plots, name)(frame)
        figure.savefig(BytesIO(), format="png", dpi=40)  # a warning, as of text that does not fit, is an error
        assert figure.get_size_inches()[0] == PAGE_WIDTH
        axes = figure.axes[0]
        assert axes.get_title()
        assert axes.get_xlabel()
        pd.testing.assert_frame_equal(frame, before)
    assert plt.get_fignums() == []


def test_ages_that_nobody_knows_leave_an_empty_figure(frame: pd.DataFrame) -> None:
    figure = audit_plots.ages(frame.assign(age=np.nan))
    figure.savefig(BytesIO(), format="png", dpi=40)
    assert texts(figure) == ["no age is known"]


def test_bars_are_the_counts(frame: pd.DataFrame) -> None:
    figure = audit_plots.diagnoses(frame)
    images, lesions = ([bar.get_width() for bar in bars] for bars in figure.axes[0].containers)
    assert images == [(frame["diagnosis"] == code).sum() for code in CODES]
    assert lesions == [frame.loc[frame["diagnosis"] == code, "lesion_id"].nunique() for code in CODES]
    nevi = (frame["diagnosis"] == "nv").sum()
    assert f"{nevi} ({nevi / 300:.1%})" in texts(figure)


def test_box_plots_stand_at_the_medians(frame: pd.DataFrame) -> None:
    axes = audit_plots.ages(frame).axes[0]
    medians = {line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 2}
    assert medians == set(frame.groupby("diagnosis")["age"].median())
    labels = " ".join(label.get_text() for label in axes.get_yticklabels())
    assert labels.count("without age") == frame.loc[frame["age"].isna(), "diagnosis"].nunique()


@pytest.mark.parametrize("name", ["sexes", "images_per_lesion"])
def test_shares_fill_the_row(frame: pd.DataFrame, name: str) -> None:
    containers = getattr(audit_plots, name)(frame).axes[0].containers
    widths = np.asarray([[bar.get_width() for bar in bars] for bars in containers])
    np.testing.assert_allclose(widths.sum(axis=0), 1)
    if name == "sexes":
        women = [(frame.loc[frame["diagnosis"] == code, "sex"] == "female").mean() for code in CODES]
        np.testing.assert_allclose(widths[0], women)
    else:
        sizes = frame.groupby("lesion_id").agg(code=("diagnosis", "first"), size=("image_id", "size"))
        single = [(sizes.loc[sizes["code"] == code, "size"] == 1).mean() for code in CODES]
        np.testing.assert_allclose(widths[0], single)


def test_heat_map_is_the_share_of_the_diagnosis(frame: pd.DataFrame) -> None:
    figure = audit_plots.localizations(frame)
    shares = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    most_frequent = frame["localization"].value_counts().index[0]
    assert figure.axes[0].get_yticklabels()[0].get_text().startswith(f"{most_frequent}, n = ")
    on_top = [((frame["diagnosis"] == code) & (frame["localization"] == most_frequent)).sum() for code in CODES]
    assert [text.split("\n")[0] for text in texts(figure)[:7]] == [str(count) for count in on_top]


def test_diagnoses_without_images_keep_their_row(frame: pd.DataFrame) -> None:
    nevi = frame[frame["diagnosis"] == "nv"].assign(sex="female")
    for name in ALL:
        getattr(audit_plots, name)(nevi).savefig(BytesIO(), format="png", dpi=40)
    assert len(audit_plots.diagnoses(nevi).axes[0].get_yticklabels()) == 7


def test_sample_sheet_shows_different_lesions_of_each_diagnosis(frame: pd.DataFrame) -> None:
    asked: list[str] = []

    def image_of(image_id: str) -> np.ndarray:
        asked.append(image_id)
        return np.full((3, 4, 3), len(asked), np.uint8)

    figure = audit_plots.sample_sheet(frame, image_of, samples_per_class=4, seed=0)
    shown = frame.set_index("image_id").loc[asked]
    assert list(shown["diagnosis"]) == [code for code in CODES for _ in range(4)]
    assert shown["lesion_id"].is_unique
    assert [axes.get_title() for axes in figure.axes] == asked
    assert [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes] == list(range(1, 29))
    first = asked.copy()
    asked.clear()
    audit_plots.sample_sheet(frame.sample(frac=1, random_state=1), image_of, samples_per_class=4, seed=0)
    assert asked == first


def test_sample_sheet_copes_with_few_lesions(frame: pd.DataFrame) -> None:
    few = frame.drop_duplicates("diagnosis")
    figure = audit_plots.sample_sheet(few, lambda _: np.zeros((3, 4, 3), np.uint8), samples_per_class=3, seed=0)
    assert sum(len(axes.images) for axes in figure.axes) == 7
    figure.savefig(BytesIO(), format="png", dpi=40)
