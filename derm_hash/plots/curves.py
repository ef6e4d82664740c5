"""Curves: training, penalties, rotation."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from derm_hash.errors import InputError
from derm_hash.losses import PENALTIES, penalty_curve
from derm_hash.plots.style import INK, WIDTH, _new_axes, figure_png, new_figure
from derm_hash.runs import best_epoch

POLAR_TITLES = {
    "flipped_bits": "flipped bits (share), by angle turned",
    "overlap_at_10": "hits in common with the upright image (share), by angle turned",
    "code_distance": "mean distance of soft codes, by angle turned",
}
PENALTY_STYLES = {"cauchy": "-", "l1": "--", "l2": "-.", "gaussian": ":"}
PENALTY_COLORS = {"cauchy": "#d55e00", "l1": "#0072b2", "l2": "#009e73", "gaussian": "#7a1f4f"}
PENALTY_NAMES = {"cauchy": "Cauchy", "l1": "L1", "l2": "L2", "gaussian": "Gaussian"}


def plot_history(history: pd.DataFrame, title: str | None = None) -> Figure:
    """Losses and validation score against epochs.

    Parameters
    ----------
    history : ``Run.history``: epoch, loss and its parts, val_precision_at_10
    """
    figure = new_figure(WIDTH, 3.1, title)
    left, right = figure.subplots(1, 2)
    parts = {
        "loss": ("total", "-", "o", INK),
        "cross_entropy": ("cross-entropy", "--", "s", "#0072b2"),
        "hashing": ("hashing objective", "-.", "D", "#cc79a7"),
        "invariance": ("invariance", ":", "^", "#d55e00"),
    }
    for column, (name, line, marker, color) in parts.items():
        if column in history:
            options = {"linestyle": line, "marker": marker, "color": color, "markersize": 4}
            left.plot(history["epoch"], history[column], label=name, **options)
    left.set(
        title="Training loss", xlabel="epoch", ylabel="loss (mean of the epoch)", ylim=(0, None)
    )
    left.legend()
    scores = history["val_precision_at_10"]
    right.plot(history["epoch"], scores, marker="o", markersize=4, color="#009e73")
    best = best_epoch(history)
    right.plot(best["epoch"], best["val_precision_at_10"], "*", color=INK, markersize=13)
    text = f"Class-mean precision@10 on val (★ best: {best['val_precision_at_10']:.3f})"
    right.set(title=text, xlabel="epoch", ylabel="precision@10 (share of hits)", ylim=(0, 1.04))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


class LiveCurves:
    """Curves that grow while a model trains: ``train(..., on_epoch=LiveCurves())``.

    Draws :func:`plot_history` in a notebook, each time into the same place, so that one
    figure is left in the end.
    """

    def __init__(self, title: str | None = None):
        self.title, self._handle = title, None

    def __call__(self, history: pd.DataFrame) -> None:
        """Draw the history again."""
        from IPython.display import Image, display  # only there in notebooks

        png = figure_png(plot_history(history, self.title))
        picture = Image(png, alt="losses and validation score of each epoch so far")
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def plot_penalties(gamma: float = 0.5, kinds: Sequence[str] = tuple(PENALTIES)) -> Figure:
    """Penalties of a bit that stands d away from the orbit's mean, and their pull.

    Parameters
    ----------
    gamma : scale, in units of the soft code
    kinds : names in ``losses.PENALTIES``
    """
    d = np.linspace(0, 1, 201)
    figure = new_figure(WIDTH, 3.3, f"Penalties at γ = {gamma:g}")
    left, right = figure.subplots(1, 2)
    for kind in kinds:
        style = {"linestyle": PENALTY_STYLES[kind], "color": PENALTY_COLORS[kind]}
        for ax, curve in zip((left, right), penalty_curve(kind, gamma, d), strict=True):
            ax.plot(d, curve, label=PENALTY_NAMES[kind], **style)
    distance = "distance from the mean, $d = |u_k - \\bar{u}|$"
    left.set(title="What it costs", xlabel=distance, ylabel=r"loss $\rho(d)$")
    right.set(title="How hard it is pulled", xlabel=distance, ylabel=r"gradient $\rho'(d)$")
    left.legend(handlelength=3)
    return figure


def plot_rotation(
    report: pd.DataFrame | Mapping[str, pd.DataFrame], ax: Axes | None = None
) -> Figure | Axes:
    """How many bits flip when the image is turned.

    Parameters
    ----------
    report : DataFrame of ``metrics.rotation_report`` (angle in degrees, flipped_bits), or
        several by name
    ax : Axes, optional
    """
    reports = {"": report} if isinstance(report, pd.DataFrame) else report
    target, result = _new_axes(ax, 6.5, 3.2)
    for (name, table), style in zip(reports.items(), _line_styles(), strict=False):
        target.plot(table["angle"], table["flipped_bits"], label=name, **style)
    target.set(xlabel="turned by (degrees)", ylabel="flipped bits (share)")
    target.set_ylim(0, max(0.05, *(t["flipped_bits"].max() * 1.15 for t in reports.values())))
    target.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    last = max(t["angle"].max() for t in reports.values())
    target.set_xticks(np.arange(0, last + 1, 45 if last <= 360 else 90))
    if len(reports) > 1:
        target.legend(handlelength=3)
    return result


def plot_rotation_polar(
    report: pd.DataFrame | Mapping[str, pd.DataFrame],
    column: str = "flipped_bits",
    ax: PolarAxes | None = None,
) -> Figure | PolarAxes:
    """How the code moves when the image is turned, at the angle at which it is turned.

    Parameters
    ----------
    report : DataFrame of ``metrics.rotation_report``, or several by name
        The unturned image, which has nothing flipped and all hits in common, is added; the
        curve is closed where the angles go all the way round.
    column : "flipped_bits" or "overlap_at_10", a share, or "code_distance"
    ax : polar Axes, optional

    Raises
    ------
    InputError
        If a report has no such column.
    """
    reports = {"": report} if isinstance(report, pd.DataFrame) else report
    if column not in POLAR_TITLES or any(column not in table for table in reports.values()):
        raise InputError(
            f"There is no {column!r} to plot in the report: choose one of "
            f"{', '.join(POLAR_TITLES)}; overlap_at_10 needs rotation_report(..., index=...)."
        )
    if ax is None:
        figure = new_figure(5.2, 4.6 + 0.25 * (len(reports) > 1))
        target, result = figure.add_subplot(projection="polar"), figure
    else:
        target, result = ax, ax
    for (name, table), style in zip(reports.items(), _line_styles(), strict=False):
        angles, values = _round(table, column)
        target.plot(np.deg2rad(angles), values, label=name, clip_on=False, **style)
    target.set_theta_zero_location("N")  # counter-clockwise, as images are turned
    target.set_xticks(np.deg2rad(np.arange(0, 360, 45)))
    largest = max(0.05, *(t[column].max() * 1.1 for t in reports.values()))
    _rings(target, 1 if column == "overlap_at_10" else largest, column != "code_distance")
    target.spines["polar"].set_color("#e6e6e6")
    target.set_title(POLAR_TITLES[column], pad=14)
    if len(reports) > 1:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "handlelength": 3}
        target.legend(**below, ncols=2)
    return result


def _rings(ax: PolarAxes, top: float, share: bool) -> None:
    """The values, on rings up to ``top``, written above the curves, which run anywhere."""
    rings = [ring for ring in MaxNLocator(4).tick_values(0, top) if 0 < ring <= top]
    ax.set(ylim=(0, top), yticks=rings, yticklabels=[])
    sheet = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    middle = {"ha": "center", "va": "center", "fontsize": 8}
    for ring in rings:
        text = f"{100 * ring:g} %" if share else f"{ring:g}"
        ax.text(np.deg2rad(22.5), ring, text, **middle, bbox=sheet, zorder=5)


def _round(table: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Angles from 0 degrees on and their values, back to the start if no wide gap is left."""
    unturned = float(column == "overlap_at_10")
    turned = table[table["angle"] % 360 != 0]
    angles, order = np.unique(turned["angle"] % 360, return_index=True)
    angles = np.concatenate([[0.0], angles])
    values = np.concatenate([[unturned], turned[column].to_numpy()[order]])
    if len(angles) > 2 and 360 - angles[-1] <= np.diff(angles).max():
        return np.append(angles, 360.0), np.append(values, unturned)
    return angles, values


def _line_styles():
    """Marker, line and colour for one curve after another."""
    colors = cycle(["#d55e00", "#0072b2", "#009e73", "#7a1f4f"])
    for marker, line, color in zip(cycle("os^D"), cycle(["-", "--", "-.", ":"]), colors):
        yield {"marker": marker, "linestyle": line, "color": color, "markersize": 5}
