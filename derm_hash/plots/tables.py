"""Figures of tables: class counts, audits, scores of experiments and their differences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from derm_hash.data.manifest import SPLITS
from derm_hash.metrics.scores import SCORES
from derm_hash.plots.style import GREY, INK, WIDTH, class_color, new_axes, new_figure


def plot_class_bars(counts: Mapping[str, int] | pd.Series, ax: Axes | None = None) -> Figure | Axes:
    """Bars of the number of images of each class (class name -> count)."""
    counts = pd.Series(counts)
    target, result = new_axes(ax, 6, 0.36 * len(counts) + 0.8)
    colors = [class_color(name) for name in counts.index]
    bars = target.barh(range(len(counts)), counts, color=colors)
    target.set_yticks(range(len(counts)), counts.index.astype(str), parse_math=False)
    shares = [f"{n:,}  ({n / max(counts.sum(), 1):.0%})" for n in counts]
    target.bar_label(bars, shares, padding=4, fontsize=9)
    target.set(xlabel="images", xlim=(0, counts.max() * 1.22))
    target.invert_yaxis()
    target.grid(False, axis="y")
    return result


def plot_class_scores(table: pd.DataFrame) -> Figure:
    """AP and recall@10 of each class against its size, on a logarithmic axis.

    ``table`` (``experiments.evaluation.class_table``) has a row for each class, with its images in
    the column database.
    """
    figure = new_figure(WIDTH, 3.2)
    axes, sizes = figure.subplots(1, 2, sharex=True), table["database"].clip(lower=1)
    for ax, score in zip(axes, ("AP", "recall@10"), strict=True):
        ax.plot(sizes, table[score], color=GREY, linewidth=0.8, zorder=1)
        ax.scatter(sizes, table[score], s=44, c=[class_color(n) for n in table.index], zorder=2)
        for name, size in sizes.items():
            place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            ax.annotate(name, (size, table.at[name, score]), **place, parse_math=False, fontsize=9)
        ax.set(xscale="log", xlabel="images in the database", ylabel=f"{score} of the queries")
        ax.set(ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))
        ax.margins(x=0.12)
    return figure


def plot_audit(balance: pd.DataFrame, leakage: pd.DataFrame) -> Figure:
    """The classes in each part of a split, and the queries whose lesion is in another part.

    Parameters
    ----------
    balance : DataFrame
        Images per class (rows, and "all") and part (columns train, if there is one, database, val,
        query, all).
    leakage : DataFrame
        Per class (rows, and "all"): queries, with_mate (those whose lesion is in another part too)
        and share (NaN where that is not known).
    """
    figure = new_figure(WIDTH, 0.44 * len(leakage) + 1.2)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    classes = list(balance.index.drop("all"))
    parts = [part for part in SPLITS if part in balance]
    height = 0.81 / len(parts)
    for k, (part, alpha) in enumerate(zip(parts, np.linspace(1, 0.25, len(parts)), strict=True)):
        shares = balance.loc[classes, part] / max(balance.at["all", part], 1)
        colors = [to_rgba(class_color(name), alpha) for name in classes]
        edges = [class_color(name) for name in classes]
        place = np.arange(len(classes)) + (k - (len(parts) - 1) / 2) * height
        bars = left.barh(place, shares, height, color=colors, edgecolor=edges, lw=0.8)
        counts = [f"{part} {n:,}" for n in balance.loc[classes, part]]
        left.bar_label(bars, counts, padding=3, fontsize=7.5)
    left.set(title="Classes in each part", xlabel="share of the part's images")
    left.set_yticks(range(len(classes)), classes, parse_math=False)

    names = list(leakage.index)
    share = leakage["share"].fillna(0)
    colors = [INK if name == "all" else class_color(name) for name in names]
    bars = right.barh(range(len(names)), share, 0.6, color=colors)
    right.bar_label(bars, [_leak(*row) for row in leakage.to_numpy()], padding=4, fontsize=9)
    right.set(title="Queries whose lesion is known already", xlabel="share of the queries")
    right.set_yticks(range(len(names)), names, parse_math=False)
    largest = balance.div(balance.loc["all"]).loc[classes].max(axis=None)
    for ax, most in ((left, largest), (right, 1)):
        ax.set_xlim(0, most * 1.35 if most > 0 else 1)
        ax.set_xticks([t for t in MaxNLocator(5).tick_values(0, most) if t <= most + 1e-9])
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.invert_yaxis()
        ax.grid(False, axis="y")
    return figure


def _leak(queries: float, mates: float, share: float) -> str:
    """The text of a row of a leakage table."""
    if not queries:
        return "no queries"
    if np.isnan(share):
        return "not known"
    return f"{share:.0%}  ({mates:,.0f} of {queries:,.0f})"


def plot_scores(results: pd.DataFrame, by: Sequence[str], scores: Sequence[str] = SCORES) -> Figure:
    """Scores of an experiment by setting: a point for each run, mean and standard deviation.

    Parameters
    ----------
    results : DataFrame of ``experiments.run_grid``, one row per run
    by : columns that tell the settings apart
    scores : sequence of columns, one panel each
    """
    setting = results[by].astype(str).agg(", ".join, axis=1)
    title = f"by {', '.join(by)}: runs (points), mean and standard deviation (bars)"
    figure, axes = _score_panels(scores, setting.nunique(), title)
    for ax, score in zip(axes, scores, strict=True):
        place = {"x": results[score], "y": setting, "ax": ax}
        mean = {"linestyle": "none", "marker": "|", "markersize": 14, "capsize": 0.2}
        sns.pointplot(**place, **mean, color=INK, errorbar="sd", err_kws={"linewidth": 1.2})
        sns.stripplot(**place, color="#56b4e9", edgecolor=INK, linewidth=0.6, size=6, zorder=3)
        ax.set(xlabel=_score_label(score), ylabel="")
    return figure


def _score_panels(scores: Sequence[str], settings: int, title: str) -> tuple[Figure, list[Axes]]:
    """Axes for each score, with room for a line per setting."""
    columns = min(len(scores), 2)
    rows = -(-len(scores) // columns)
    figure = new_figure(WIDTH, rows * (0.9 + 0.34 * settings) + 0.3, title)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax in axes[len(scores) :]:
        ax.set_axis_off()
    for ax in axes:
        ax.grid(True, axis="x")
    return figure, list(axes[: len(scores)])


def _score_label(score: str) -> str:
    return f"{score.replace('_', ' ')} (share)"


def plot_differences(table: pd.DataFrame, by: Sequence[str]) -> Figure:
    """Differences to a baseline and their uncertainty.

    A thick bar is the 95 % interval over lesions, a thin one that over seeds; the point is filled
    where the difference is clear (:func:`derm_hash.compare`): both intervals exclude zero, after
    a correction for the number of comparisons in the table as well.

    Parameters
    ----------
    table : DataFrame of ``experiments.differences``
    by : columns that tell the settings apart
    """
    scores = list(table["score"].unique())
    settings = table[by].astype(str).agg(", ".join, axis=1)
    names = list(dict.fromkeys(settings))
    title = "difference to the baseline; 95 % over lesions (thick) and seeds (thin); filled: clear"
    figure, axes = _score_panels(scores, len(names), title)
    for ax, score in zip(axes, scores, strict=True):
        part = table[table["score"] == score]
        y = [names.index(name) for name in settings[part.index]]
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.hlines(y, part["low"], part["high"], color="#56b4e9", linewidth=5, zorder=2)
        ax.hlines(y, part["seed_low"], part["seed_high"], color=INK, linewidth=1.5, zorder=2.5)
        fill = ["#0072b2" if each else "white" for each in part["clear"]]
        ax.scatter(part["difference"], y, c=fill, edgecolors=INK, s=32, zorder=3)
        ax.set(xlabel=_score_label(score), yticks=range(len(names)))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set(yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    return figure
