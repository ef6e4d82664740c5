"""Curves: training, penalties, rotation."""

import numpy as np
import pandas as pd
import pytest

from derm_hash import plots
from tests.plots.common import texts


def history(epochs):
    epoch = np.arange(1, epochs + 1)
    score = {"val_precision_at_10": [0.5, 0.7, 0.7, 0.6][:epochs], "lr": 0.1}
    parts = {"cross_entropy": 1 / epoch, "invariance": 0.5 / epoch}
    return pd.DataFrame({"epoch": epoch, "loss": 1.25 / epoch, **parts, **score})


def report(angles, values):
    return pd.DataFrame({"angle": angles, "flipped_bits": values})


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_history_shows_the_parts_of_the_loss_and_the_best_epoch():
    left, right = plots.plot_history(history(4)).axes
    assert legend(left) == ["total", "cross-entropy", "invariance"]
    assert len({line.get_linestyle() for line in left.lines}) == 3
    # On a tie, the later epoch: the one whose model is kept.
    assert right.lines[1].get_xdata() == [3] and "0.700" in right.get_title()
    assert left.get_xlabel() == right.get_xlabel() == "epoch"
    alone = plots.plot_history(history(1).drop(columns="invariance"))
    assert len(alone.axes[0].lines) == 2


def test_the_titles_of_the_history_lie_inside_the_figure():
    figure = plots.plot_history(history(4))
    figure.canvas.draw()
    for ax in figure.axes:
        title = ax.title.get_window_extent()
        assert figure.bbox.x0 <= title.x0 and title.x1 <= figure.bbox.x1
        neighbours = [other.title.get_window_extent() for other in figure.axes if other is not ax]
        assert not any(title.overlaps(other) for other in neighbours)


def test_live_curves_update_one_output(monkeypatch):
    shown, updates = [], []

    class Handle:
        def update(self, picture):
            updates.append(picture)

    def display(picture, display_id):
        shown.append(picture)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    live = plots.LiveCurves()
    for epochs in (1, 2, 3):
        live(history(epochs))
    assert len(shown) == 1 and len(updates) == 2
    assert shown[0].data.startswith(b"\x89PNG") and updates[0].data != updates[1].data


def test_penalties_are_side_by_side():
    figure = plots.plot_penalties(0.3, ["cauchy", "l2"])
    left, right = figure.axes
    assert legend(left) == ["Cauchy", "L2"]
    assert len(right.lines) == 2 and "0.3" in figure.get_suptitle()
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle()


def test_rotation_draws_flipped_bits_against_degrees():
    (ax,) = plots.plot_rotation(report([90, 180, 270], [0.1, 0.2, 0.3])).axes
    assert ax.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.3]
    assert "degrees" in ax.get_xlabel() and "flipped" in ax.get_ylabel()


def test_polar_rotation_runs_as_the_images_rotate_and_closes():
    (ax,) = plots.plot_rotation_polar({"one": report([90, 180, 270], [0.1, 0.2, 0.3])}).axes
    # From the upright image at the top, without flips, counter-clockwise and back.
    assert ax.get_theta_direction() == 1 and ax.get_theta_offset() == pytest.approx(np.pi / 2)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.pi / 2 * np.arange(5))
    assert ax.lines[0].get_ydata().tolist() == [0, 0.1, 0.2, 0.3, 0]
    assert texts(ax) == ["10 %", "20 %", "30 %"]
    assert "flipped" in ax.get_title() and ax.get_legend() is None


def test_polar_rotation_stays_open_where_angles_are_missing():
    some = report([60, 0, 30, 90], [0.4, 0, 0.2, 0.5])
    (ax,) = plots.plot_rotation_polar({"with": some, "without": some}).axes
    np.testing.assert_allclose(np.rad2deg(ax.lines[0].get_xdata()), [0, 30, 60, 90])
    assert ax.lines[1].get_ydata().tolist() == [0, 0.2, 0.4, 0.5]
    assert legend(ax) == ["with", "without"]
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()
