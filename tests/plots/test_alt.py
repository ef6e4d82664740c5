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
    assert text.startswith("Two panels. Share of images: share against class: 0.25, 0.75. ")
    assert text.endswith("precision from 1 at 0 to 0 at 100, lowest 0 at 100, highest 1 at 0")


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
