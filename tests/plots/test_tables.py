"""Figures of tables: class counts, audits, scores and their differences."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from derm_hash import plots
from tests.plots.common import texts


def ticks(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_class_bars_have_counts_and_shares():
    (ax,) = plots.plot_class_bars({"MEL": 1000, "NV": 3000}).axes
    assert [bar.get_width() for bar in ax.patches] == [1000, 3000]
    assert texts(ax) == ["1,000  (25%)", "3,000  (75%)"]


def test_class_scores_stand_at_the_classes_sizes():
    table = pd.DataFrame(
        {"database": [4000, 60], "AP": [0.9, 0.2], "recall@10": [0.01, 0.1]}, index=["NV", "DF"]
    )
    for ax, score in zip(plots.plot_class_scores(table).axes, ("AP", "recall@10"), strict=True):
        assert (
            ax.collections[0].get_offsets().tolist() == table[["database", score]].values.tolist()
        )
        assert texts(ax) == ["NV", "DF"] and ax.get_xscale() == "log"


@pytest.fixture
def audit():
    parts = {"database": [80, 300, 380], "val": [10, 40, 50], "query": [10, 60, 70]}
    balance = pd.DataFrame(parts, index=["MEL", "NV", "all"])
    leaks = {"queries": [10, 60, 70], "with_mate": [8, 12, 20], "share": [0.8, 0.2, 2 / 7]}
    return balance, pd.DataFrame(leaks, index=["MEL", "NV", "all"])


def test_audit_shows_every_part_and_every_share(audit):
    left, right = plots.plot_audit(*audit).axes
    widths = [bar.get_width() for bar in left.patches]
    np.testing.assert_allclose(widths, [80 / 380, 300 / 380, 0.2, 0.8, 1 / 7, 6 / 7])
    parts = ["database 80", "database 300", "val 10", "val 40", "query 10", "query 60"]
    assert texts(left) == parts
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [0.8, 0.2, 2 / 7])
    assert texts(right) == ["80%  (8 of 10)", "20%  (12 of 60)", "29%  (20 of 70)"]
    assert ticks(right) == ["MEL", "NV", "all"]


def test_audit_states_what_is_not_known(audit):
    balance, leakage = audit
    leakage.loc["NV", ["queries", "with_mate", "share"]] = 0, 0, np.nan
    leakage.loc["MEL", "share"] = np.nan
    _, right = plots.plot_audit(balance * 0, leakage).axes
    assert texts(right) == ["not known", "no queries", "29%  (20 of 70)"]


def test_scores_show_every_run_and_the_mean():
    rows = [("hdcsa", 0.7), ("hdcsa", 0.9), ("none", 0.5), ("none", 0.6)]
    results = pd.DataFrame(rows, columns=["attention", "map"]).assign(seed=[0, 1, 0, 1])
    (ax,) = plots.plot_scores(results, ["attention"], ["map"]).axes
    points = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections])
    np.testing.assert_allclose(sorted(points), [0.5, 0.6, 0.7, 0.9])
    means = next(line for line in ax.lines if line.get_marker() == "|")
    np.testing.assert_allclose(means.get_xdata(), [0.8, 0.55])
    assert ticks(ax) == ["hdcsa", "none"]
    three = plots.plot_scores(results.assign(f=0.1, g=0), ["attention", "seed"], ["map", "f", "g"])
    assert sum(ax.axison for ax in three.axes) == 3


def test_differences_show_both_intervals_and_fill_what_is_clear():
    rows = [
        ("a", "map", 0.1, 0.05, 0.15, 0.08, 0.12, True),
        ("b", "map", -0.01, -0.06, 0.04, np.nan, np.nan, False),
    ]
    columns = ["loss", "score", "difference", "low", "high", "seed_low", "seed_high", "clear"]
    table = pd.DataFrame(rows, columns=columns)
    (ax,) = plots.plot_differences(table, ["loss"]).axes
    *bars, points = ax.collections
    over_lesions, over_seeds = ([path.vertices[:, 0] for path in b.get_paths()] for b in bars)
    np.testing.assert_allclose(over_lesions, [[0.05, 0.15], [-0.06, 0.04]])
    np.testing.assert_allclose(over_seeds[0], [0.08, 0.12])
    assert np.isnan(over_seeds[1]).all()  # a single seed
    np.testing.assert_allclose(points.get_offsets(), [[0.1, 0], [-0.01, 1]])
    assert [tuple(c[:3]) for c in points.get_facecolor()] == [to_rgb("#0072b2"), to_rgb("white")]
    assert ticks(ax) == ["a", "b"]
    both = pd.concat([table, table.assign(score="flipped_bits")], ignore_index=True)
    assert len(plots.plot_differences(both, ["loss"]).axes) == 2
