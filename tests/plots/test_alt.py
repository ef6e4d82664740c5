"""The alternative text says what a reader of the figure would see."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from derm_hash import plots
from tests.plots.common import PICTURES


def test_titles_axes_and_values_are_in_the_text():
    figure = Figure()
    figure.suptitle("Two panels")
    left, right = figure.subplots(1, 2)
    left.bar(["MEL", "NV"], [0.25, 0.75])
    left.set(title="Share of\nimages", xlabel="class", ylabel="share")
    right.plot(range(101), np.linspace(1, 0, 101) ** 2, label="precision")
    right.axhline(0.5)  # a helping line
    text = plots.describe(figure)
    shares = "MEL 0.25, NV 0.75"
    assert text.startswith(f"Two panels. Share of images: share against class: {shares}. ")
    assert text.endswith("precision from 1 at 0 to 0 at 100, lowest 0 at 100, highest 1 at 0")


def test_bars_come_with_the_words_at_their_ticks_and_without_powers_of_ten():
    assert "MEL 4,522, NV 12,875" in plots.describe(
        plots.plot_class_bars({"MEL": 4522, "NV": 12875})
    )
    figure = Figure()
    shares = pd.DataFrame({"MEL": [0.2, 0.5], "NV": [0.8, 0.5]}, ["none", "inverse"])
    shares.plot.bar(stacked=True, ax=figure.subplots(), rot=0)
    assert "MEL none 0.2, inverse 0.5; NV none 0.8, inverse 0.5" in plots.describe(figure)
    figure = Figure()
    figure.subplots().bar([1, 2], [3, 4])  # at numbers, which are no names
    assert plots.describe(figure) == "3, 4"


def test_differences_come_with_their_names_and_intervals():
    row = {"score": "mAP", "low": 0.1, "high": 0.3, "seed_low": 0.15, "seed_high": 0.25}
    rows = [row | {"gate": "se", "difference": 0.2, "clear": True}]
    rows += [row | {"gate": "cbam", "difference": 0.12, "clear": False}]
    rows += [rows[0] | {"score": "recall"}]  # its panel shares the names of the first
    text = plots.describe(plots.plot_differences(pd.DataFrame(rows), ["gate"]))
    assert (
        "mAP (share): se 0.2 (0.1 to 0.3); cbam 0.12 (0.1 to 0.3). recall (share): se 0.2" in text
    )


def test_a_label_of_the_figure_says_what_no_axis_can():
    figure = plots.new_figure(3, 3, "Forces")
    figure.set_label("Two points push each other apart")
    figure.subplots().plot([1, 2, 3])
    assert plots.describe(figure) == "Forces. Two points push each other apart"


def test_pictures_without_a_name_are_told_only_where_no_other_has_one():
    figure = Figure()
    for ax, title in zip(figure.subplots(1, 2), ["MEL", ""], strict=True):
        ax.imshow(PICTURES[0])
        ax.set(title=title)
    assert plots.describe(figure) == "picture: MEL"
    figure.axes[0].set_title("")
    assert plots.describe(figure) == "picture. picture"


def test_hits_are_told_with_their_labels_and_marks():
    numbers = {"hamming": [0, 2], "distance": [0.01, 0.2]}
    text = plots.describe(
        plots.plot_hits(PICTURES[0], PICTURES[:2], ["MEL", "NV"], "MEL", **numbers)
    )
    assert text.startswith(
        "picture: query: MEL. picture: 1. MEL ✓ 0 bits, 0.010. picture: 2. NV ✗ 2"
    )


@pytest.mark.parametrize("values", [[], [np.nan] * 20, ["a", "b", "c"]])
def test_odd_curves_are_no_error(values):
    figure = Figure()
    figure.subplots().plot(range(len(values)), values, label="odd")
    plots.describe(figure)


def test_a_long_text_is_cut_at_a_word():
    report = pd.DataFrame({"angle": range(0, 91, 15), "flipped_bits": np.linspace(0, 0.1, 7)})
    figure = plots.plot_rotation(report)
    assert "0.0167" in plots.describe(figure)
    figure.suptitle("word " * 1000)
    assert len(plots.describe(figure)) <= 1500 and plots.describe(figure).endswith("word ...")
