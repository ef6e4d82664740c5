"""Curves: training, penalties, rotation."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from derm_hash.losses import PENALTIES, penalty_curve
from derm_hash.plots.alt import describe
from derm_hash.plots.style import INK, WIDTH, figure_png, new_figure

PENALTY_STYLES = {"cauchy": "-", "l1": "--", "l2": "-.", "gaussian": ":"}
PENALTY_COLORS = {"cauchy": "#d55e00", "l1": "#0072b2", "l2": "#009e73", "gaussian": "#7a1f4f"}
PENALTY_NAMES = {"cauchy": "Cauchy", "l1": "L1", "l2": "L2", "gaussian": "Gaussian"}


def plot_history(history: pd.DataFrame, title: str | None = None) -> Figure:
    """Losses and validation score of each epoch, from ``Run.history``."""
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
    scores = history.set_index("epoch")["val_precision_at_10"]
    best = scores.iloc[::-1].idxmax()  # on a tie, the later epoch, as in training
    right.plot(scores, marker="o", markersize=4, color="#009e73")
    right.plot(best, scores[best], "*", color=INK, markersize=13)
    text = f"Retrieval on val (★ best: {scores[best]:.3f})"
    right.set(title=text, xlabel="epoch", ylabel="class-mean precision@10", ylim=(0, 1.04))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


class LiveCurves:
    """Curves that grow below a cell while a model trains: ``train(..., on_epoch=LiveCurves())``."""

    def __init__(self, title: str | None = None):
        self.title, self._handle = title, None

    def __call__(self, history: pd.DataFrame) -> None:
        """Show :func:`plot_history` of the epochs so far."""
        from IPython.display import Image, display  # installed only with notebooks

        figure = plot_history(history, self.title)
        picture = Image(figure_png(figure), alt=describe(figure))
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def plot_penalties(gamma: float = 0.5, kinds: Sequence[str] = tuple(PENALTIES)) -> Figure:
    """Penalties (names in ``losses.PENALTIES``) of a bit at distance d from the orbit's mean, and
    their gradients; ``gamma`` is in units of the soft code.
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


def plot_rotation(report: pd.DataFrame) -> Figure:
    """The share of bits that flip in a ``metrics.rotation_report``, over the angle in degrees."""
    figure = new_figure(6.5, 3.2)
    ax = figure.subplots()
    ax.plot(report["angle"], report["flipped_bits"], "o-", color="#d55e00", markersize=5)
    ax.set(xlabel="turned by (degrees)", ylabel="flipped bits (share)")
    ax.set_ylim(0, max(0.05, report["flipped_bits"].max() * 1.15))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    last = report["angle"].max()
    ax.set_xticks(np.arange(0, last + 1, 45 if last <= 360 else 90))
    return figure


def plot_rotation_polar(reports: Mapping[str, pd.DataFrame]) -> Figure:
    """The share of bits that flip, at the angle by which the image is rotated, for named models.

    The image at 0 degrees, with no bit flipped, is added to each ``metrics.rotation_report``; a
    curve all the way round is closed.
    """
    figure = new_figure(5.2, 4.6 + 0.25 * (len(reports) > 1))
    ax = figure.add_subplot(projection="polar")
    styles = [("o-", "#d55e00"), ("s--", "#0072b2"), ("^-.", "#009e73"), ("D:", "#7a1f4f")]
    for i, (name, report) in enumerate(reports.items()):
        line, color = styles[i % len(styles)]
        angles, flipped = _round(report)
        ax.plot(
            np.deg2rad(angles), flipped, line, color=color, label=name, markersize=5, clip_on=False
        )
    ax.set_theta_zero_location("N")  # counter-clockwise, as images are rotated
    ax.set_xticks(np.deg2rad(np.arange(0, 360, 45)))
    top = max(0.05, *(report["flipped_bits"].max() * 1.1 for report in reports.values()))
    rings = [ring for ring in MaxNLocator(4).tick_values(0, top) if 0 < ring <= top]
    ax.set(ylim=(0, top), yticks=rings, yticklabels=[])
    # The labels stand on white above the curves, which may run anywhere.
    sheet = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    middle = {"ha": "center", "va": "center", "fontsize": 8}
    for ring in rings:
        ax.text(np.deg2rad(22.5), ring, f"{100 * ring:g} %", **middle, bbox=sheet, zorder=5)
    ax.spines["polar"].set_color("#e6e6e6")
    ax.set_title("flipped bits (share), by angle turned", pad=14)
    if len(reports) > 1:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "handlelength": 3}
        ax.legend(**below, ncols=2)
    return figure


def _round(report: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Angles from 0 degrees and their flipped bits, closed unless a wide gap is left."""
    rotated = report[report["angle"] % 360 != 0]
    angles, order = np.unique(rotated["angle"] % 360, return_index=True)
    angles = np.append(0.0, angles)
    flipped = np.append(0.0, rotated["flipped_bits"].to_numpy()[order])
    if len(angles) > 2 and 360 - angles[-1] <= np.diff(angles).max():
        return np.append(angles, 360.0), np.append(flipped, 0.0)
    return angles, flipped
