"""The figures that the notebooks share, in one visual language.

Every function returns a matplotlib Figure that pyplot does not know of: in a notebook it
is shown where it is the last value of a cell, once, or with ``display(figure)``. Where a
function can draw into an ``ax`` of yours it returns that instead. A picture is a uint8
array (S, S, 3), or network input (3, S, S) in [-1, 1].

Classes and right or wrong never differ by colour alone: there is always a word, a mark
or a line style too.
"""

import io
import sys
import zlib
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image, ImageOps

from derm_hash.data import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments import SCORES
from derm_hash.heatmaps import overlay
from derm_hash.images import from_input
from derm_hash.losses import PENALTIES
from derm_hash.training import best_epoch

# Okabe and Ito's palette, with two dark tones more: tells classes apart for colour-blind
# readers too ("Color Universal Design", 2008).
CLASS_COLORS = {
    "MEL": "#d55e00",
    "NV": "#0072b2",
    "BCC": "#009e73",
    "AK": "#e69f00",
    "AKIEC": "#e69f00",
    "BKL": "#cc79a7",
    "DF": "#56b4e9",
    "VASC": "#7a1f4f",
    "SCC": "#111111",
}
OTHER_COLORS = ("#332288", "#117733", "#aa4499", "#999933", "#882255", "#44aa99", "#661100")

INK = "#262626"  # text and lines
GREY = "#767676"  # what is beside the point; still readable on white
RIGHT, WRONG = "#0072b2", "#d55e00"
DASHED = (0, (2, 1))
POLAR_TITLES = {
    "flipped_bits": "flipped bits (share), by angle turned",
    "topk_overlap": "hits in common with the upright image (share), by angle turned",
    "code_distance": "mean distance of soft codes, by angle turned",
}
PENALTY_STYLES = {"cauchy": "-", "l1": "--", "l2": "-.", "gaussian": ":"}
PENALTY_COLORS = {"cauchy": "#d55e00", "l1": "#0072b2", "l2": "#009e73", "gaussian": "#7a1f4f"}
PENALTY_NAMES = {"cauchy": "Cauchy", "l1": "L1", "l2": "L2", "gaussian": "Gaussian"}
WIDTH = 9.0  # inches: as wide as a cell of a notebook
DPI = 96

STYLE = {
    # A white sheet in the light and in the dark JupyterLab, so that both read the same.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that it is the same everywhere
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 2,
    "axes.prop_cycle": mpl.cycler(color=list(dict.fromkeys(CLASS_COLORS.values()))),
}


# --- style and the parts of a figure ------------------------------------------------


def use_style() -> None:
    """Set fonts, sizes and colours for all figures, and let notebooks keep them as small PNGs."""
    # IPython is not needed to draw, and only there in notebooks.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        mpl.get_backend()  # now rather than later: it sets its own way of showing figures
        shell.display_formatter.formatters["image/png"].for_type(Figure, figure_png)
    sns.set_theme(style="whitegrid", rc=STYLE)


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, cut to what is drawn, with 256 colours: less than half the usual size."""
    buffer, small = io.BytesIO(), io.BytesIO()
    # Figures with a layout of their own keep everything inside; others may not.
    tight = None if figure.get_layout_engine() else "tight"
    figure.savefig(buffer, format="png", bbox_inches=tight)
    image = Image.open(buffer).convert("RGB")
    # What is not white, and a margin.
    image = ImageOps.expand(image.crop(ImageOps.invert(image).getbbox()), 8, "white")
    with_palette(image).save(small, format="PNG", optimize=True)
    return small.getvalue()


def with_palette(image: Image.Image, flat: int = 64) -> Image.Image:
    """An RGB image with 256 colours: its most frequent ones exactly, a median cut of the others.

    The flat colours of lines, bars and frames carry meaning, and a median cut alone gives
    them away for the many shades of the pictures.
    """
    r, g, b = np.moveaxis(np.asarray(image, dtype=np.int64), -1, 0)
    packed = r << 16 | g << 8 | b
    colors, counts = np.unique(packed, return_counts=True)
    exact = colors[np.argsort(-counts, kind="stable")[:flat]]
    result = image.quantize(256 - len(exact), Image.Quantize.MEDIANCUT, kmeans=1)
    shades = result.getpalette()
    indices = np.asarray(result) + np.uint8(len(exact))
    for i, color in enumerate(exact):
        indices[packed == color] = i
    result = Image.fromarray(indices)
    result.putpalette([*np.stack([exact >> 16, exact >> 8 & 255, exact & 255], 1).flat, *shades])
    return result


def class_color(name: str) -> str:
    """The colour of a class, as a hexadecimal string: the same for a name in all figures."""
    return CLASS_COLORS.get(name, OTHER_COLORS[zlib.crc32(name.encode()) % len(OTHER_COLORS)])


def text_color(background: str) -> str:
    """Ink or white, whichever is easier to read on a colour: contrast as WCAG 2 defines it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background)
    ]
    luminance = np.dot([0.2126, 0.7152, 0.0722], linear)
    return INK if (luminance + 0.05) / 0.07 > 1.05 / (luminance + 0.05) else "white"


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """An empty figure, sizes in inches, that fits its parts together by itself."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title)
    return figure


def as_picture(image) -> np.ndarray:
    """uint8 (S, S, 3) as it is; network input (3, S, S) in [-1, 1] as uint8 (S, S, 3)."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = from_input(image) if image.is_floating_point() else image
        image = image.movedim(0, -1) if image.ndim == 3 and image.shape[0] == 3 else image
    return np.asarray(image)


def show_picture(ax: Axes, image, title: str = "", frame: str | None = None, line="-") -> None:
    """A picture (or a map (S, S), in grey) without axes, with a frame of a colour if wanted.

    The title may have names from the data in it: its dollar signs are no formulas.
    """
    ax.imshow(as_picture(image), cmap="gray", interpolation="bilinear")
    ax.set_axis_off()
    ax.set_title(title, fontsize=9, pad=4, parse_math=False)
    if frame:
        box = {"transform": ax.transAxes, "clip_on": False, "fill": False}
        ax.add_patch(Rectangle((0, 0), 1, 1, ec=frame, lw=3, ls=line, capstyle="butt", **box))


def picture_axes(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Axes (rows * columns,) for pictures: without ticks, which would take long to make."""
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    return figure.subplots(rows, columns, squeeze=False, subplot_kw=bare).ravel()


def _new_axes(ax: Axes | None, width: float, height: float) -> tuple[Axes, Figure | Axes]:
    """Axes to draw into, and what to return in the end."""
    if ax is not None:
        return ax, ax
    figure = new_figure(width, height)
    return figure.subplots(), figure


# --- pictures ---------------------------------------------------------------------------


def image_grid(
    pictures: Sequence,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    colors: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Pictures in rows.

    Parameters
    ----------
    pictures : sequence of pictures
    titles : what stands above each; by default its number
    columns : int
    colors : colours of frames around them, such as ``class_color(label)``
    title : of the figure
    """
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns) or 1
    side = min(WIDTH / columns, 2.2)
    titles = [str(i) for i in range(len(pictures))] if titles is None else titles
    lines = 0.2 * max((str(t).count("\n") + 1 for t in titles), default=1)
    figure = new_figure(side * columns, (side + lines) * rows + 0.3 * bool(title), title)
    axes = picture_axes(figure, rows, columns)
    colors = colors or [None] * len(pictures)
    for ax, picture, text, color in zip(axes, pictures, titles, colors, strict=False):
        show_picture(ax, picture, str(text), color)
    for ax in axes[len(pictures) :]:
        ax.set_axis_off()
    return figure


def montage(dataset: LesionDataset, per_class: int = 8, seed: int = 0) -> Figure:
    """Random pictures of every class, one row each, with the number of images it has."""
    rng = np.random.default_rng(seed)
    rows = len(dataset.classes)
    side = min(WIDTH / (per_class + 0.8), 1.3)
    figure = new_figure(side * (per_class + 0.8), side * rows + 0.1)
    axes = picture_axes(figure, rows, per_class).reshape(rows, per_class)
    for label, name in enumerate(dataset.classes):
        members = np.flatnonzero(dataset.labels.numpy() == label)
        shown = rng.permutation(members)[:per_class]
        for ax, i in zip(axes[label], shown, strict=False):
            show_picture(ax, dataset.picture(i))
        for ax in axes[label][len(shown) :]:
            ax.set_axis_off()
        _label_row(axes[label][0], f"{name}\n{len(members)} images", class_color(name))
    return figure


def _label_row(ax: Axes, text: str, color: str) -> None:
    """A name to the left of a row, with a bar in its colour."""
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    place |= {"ha": "right", "va": "center", "parse_math": False}
    ax.annotate(text, (0, 0.5), xytext=(-14, 0), **place)
    bar = Rectangle((-0.11, 0), 0.06, 1, transform=ax.transAxes, color=color, clip_on=False)
    ax.add_patch(bar)


def plot_query(queries: LesionDataset, query: int, code=None) -> Figure:
    """One image by itself, with its diagnosis, the name of its file, and its code if given.

    Parameters
    ----------
    queries : LesionDataset
    query : its place among them
    code : (bits,) soft code, optional
    """
    row = queries.table.iloc[query]
    figure = new_figure(2.4, 2.9 + 0.25 * (code is not None))
    (ax,) = picture_axes(figure, 1, 1)
    text = f"query {query}: {row['label']}\n{Path(row['image']).stem}"
    show_picture(ax, queries.picture(query), text, class_color(row["label"]))
    if code is not None:
        strip_below(ax, code)
    return figure


# --- codes ------------------------------------------------------------------------------


def plot_code(code, reference=None, ax: Axes | None = None) -> Figure | Axes:
    """A code as a strip of bits: the shade is the soft value, the digit the bit.

    Parameters
    ----------
    code : (bits,) soft code in [0, 1]
    reference : (bits,) soft code, optional
        Bits that differ from it get a frame and a wedge above.
    ax : Axes, optional
    """
    n = len(code)
    target, result = _new_axes(ax, min(0.4 * n + 0.4, WIDTH), 0.95)
    draw_code(target, code, reference, (-0.5, 0, n, 1), target.transData)
    for i, bit in enumerate(_bits(code)):
        size, color = float(np.clip(130 / n, 4, 9)), "white" if bit else INK
        target.text(i, 0.45, int(bit), color=color, fontsize=size, ha="center", va="center")
    target.set(xlim=(-0.5, n - 0.5), ylim=(0, 1.35), yticks=[], xticks=range(n))
    target.set_xlabel("bit (shade: soft value, white 0 to black 1)", fontsize=9)
    target.grid(False)
    target.spines[:].set_visible(False)
    return result


def draw_code(ax: Axes, code, reference, box, transform) -> None:
    """The strip of a code in a box (x, y, width, height) of some coordinates of the axes."""
    code = np.asarray(code, dtype=float)
    if code.ndim != 1 or code.min() < 0 or code.max() > 1:
        raise InputError(f"A soft code is a row of values in [0, 1], not {code.shape}.")
    x, y, width, height = box
    width /= len(code)
    square = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    cells = np.array([x, y]) + square + np.arange(len(code))[:, None, None] * (width, 0)
    style = {"transform": transform, "clip_on": False}
    shades = [str(1 - value) for value in code]
    ax.add_collection(PolyCollection(cells, facecolors=shades, edgecolors=GREY, lw=0.8, **style))
    if reference is not None and (changed := _bits(code) != _bits(reference)).any():
        top = np.array([(0.1, 1.3), (0.9, 1.3), (0.5, 1.05)]) * (width, height)
        wedges = np.array([x, y]) + top + np.flatnonzero(changed)[:, None, None] * (width, 0)
        frames = PolyCollection(cells[changed], facecolors="none", edgecolors=WRONG, lw=2, **style)
        ax.add_collection(frames)
        ax.add_collection(PolyCollection(wedges, facecolors=WRONG, edgecolors="none", **style))


def _bits(code) -> np.ndarray:
    return np.asarray(code) > 0.5


def bits(n: int) -> str:
    """A number of bits in words."""
    return f"{n} bit" if n == 1 else f"{n} bits"


def fine(distance: float) -> str:
    """A distance between soft codes; trained codes often differ by less than a thousandth."""
    return f"{distance:.3f}" if distance >= 0.0005 else f"{distance:.0e}" if distance else "0"


def plot_orbit(pictures: Sequence, codes=None, angles: Sequence[float] | None = None) -> Figure:
    """Turned copies of a picture, with their codes below if given.

    Parameters
    ----------
    pictures : n pictures, the first one unturned
    codes : (n, bits) soft codes, optional; bits that differ from the first are marked
    angles : in degrees; by default the cyclic group's, 360 k / n
    """
    n = len(pictures)
    angles = [360 * k / n for k in range(n)] if angles is None else angles
    side = min(WIDTH / n, 2.3)
    figure = new_figure(side * n, side + 0.3 + 0.62 * (codes is not None))
    axes = picture_axes(figure, 1, n)
    for k, ax in enumerate(axes):
        show_picture(ax, pictures[k], f"{angles[k]:g}°")
        if codes is not None:
            strip_below(ax, codes[k], None if k == 0 else codes[0])
            changed = int((_bits(codes[k]) != _bits(codes[0])).sum())
            text = "code" if k == 0 else f"{changed} of {len(codes[k])} bits differ"
            ax.text(0.5, -0.2, text, fontsize=9, ha="center", va="top", transform=ax.transAxes)
    return figure


def strip_below(ax: Axes, code, reference=None) -> None:
    """The code of a picture below it."""
    draw_code(ax, code, reference, (0, -0.15, 1, 0.1), ax.transAxes)


def plot_hits(
    query_picture,
    hit_pictures: Sequence,
    hit_labels: Sequence[str],
    query_label: str | None,
    hamming: Sequence[int] | None = None,
    distance: Sequence[float] | None = None,
    query_code=None,
    hit_codes=None,
    columns: int = 5,
    title: str | None = None,
) -> Figure:
    """A query and what was found for it, best first.

    Right hits have a tick and a solid frame, wrong ones a cross and a dashed frame.

    Parameters
    ----------
    query_picture, hit_pictures : pictures
    hit_labels, query_label : class names; None where the query's is not known, so that no
        hit is right or wrong
    hamming : distances in bits, as ``Hits.hamming[i]``; the -1 of missing hits at the end
        need no pictures
    distance : between soft codes, as ``Hits.distance[i]``
    query_code, hit_codes : (bits,) and (k, bits) soft codes, drawn as strips below
    columns : hits in a row
    """
    found, coded = len(hit_pictures), query_code is not None and hit_codes is not None
    columns = max(2, min(columns, found))
    rows = -(-found // columns) or 1
    height = max(rows * (1.95 + 0.25 * coded), 2.5) + 0.3 * bool(title)
    figure = new_figure(1.55 * (columns + 1.35), height, title)
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[1.35] + [1] * columns)
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    ax = figure.add_subplot(grid[:, 0], **bare)
    show_picture(ax, query_picture, f"query: {query_label or 'class not known'}")
    if coded:
        strip_below(ax, query_code)
    if not found:
        ax = figure.add_subplot(grid[0, 1:], **bare)
        ax.text(0.5, 0.5, "no hits", ha="center", va="center")
    for i in range(found):
        ax = figure.add_subplot(grid[i // columns, 1 + i % columns], **bare)
        mark, frame = _verdict(hit_labels[i], query_label)
        text = f"{i + 1}. {hit_labels[i]} {mark}".rstrip() + _distances(hamming, distance, i)
        show_picture(ax, hit_pictures[i], text, *frame)
        if coded:
            strip_below(ax, hit_codes[i], query_code)
    return figure


def _verdict(label: str, query_label: str | None) -> tuple[str, tuple[str | None, str]]:
    """Mark and frame of a hit."""
    if query_label is None:
        return "", (None, "-")
    return ("✓", (RIGHT, "-")) if label == query_label else ("✗", (WRONG, DASHED))


def _distances(hamming, distance, i: int) -> str:
    parts = [] if hamming is None else [bits(int(hamming[i]))]
    parts += [] if distance is None else [fine(float(distance[i]))]
    return "\n" + ", ".join(parts) if parts else ""


# --- training ---------------------------------------------------------------------------


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


# --- heatmaps ---------------------------------------------------------------------------


def plot_gates(picture, maps: Mapping[str, np.ndarray], columns: int = 5) -> Figure:
    """The attention gate of every block, laid over the picture.

    Parameters
    ----------
    picture : a picture
    maps : block name -> gate (h, w) in (0, 1), or (1, h, w) as ``gate_maps`` gives for one image
        Each block has its own scale, from its lowest to its highest value (written above it),
        since some gates are much flatter than others.
    """
    picture = as_picture(picture)
    columns = min(columns, len(maps) + 1)
    rows = -(-(len(maps) + 1) // columns)
    figure = new_figure(WIDTH, rows * (WIDTH / columns + 0.25))
    axes = picture_axes(figure, rows, columns)
    show_picture(axes[0], picture, "image\n")
    for ax, (name, gate) in zip(axes[1:], maps.items(), strict=False):
        gate = np.squeeze(gate)
        low, high = float(gate.min()), float(gate.max())
        scaled = (gate - low) / max(high - low, 1e-9)
        show_picture(ax, overlay(picture, scaled), f"{name}\n{low:.2f} to {high:.2f}")
    for ax in axes[len(maps) + 1 :]:
        ax.set_axis_off()
    _heat_bar(figure, axes.tolist(), "gate", ["lowest", "highest"])
    return figure


def plot_heatmaps(picture, heatmaps: Mapping[str, np.ndarray], mask=None, columns: int = 4):
    """Heatmaps over a picture, with the outline of the lesion if its mask is given.

    Parameters
    ----------
    picture : a picture
    heatmaps : title -> map (h, w) in [0, 1]
    mask : (S, S) bool, optional

    Returns
    -------
    Figure
    """
    picture = as_picture(picture)
    columns = min(columns, len(heatmaps) + 1)
    rows = -(-(len(heatmaps) + 1) // columns)
    side = min(WIDTH / columns, 2.4)
    figure = new_figure(side * columns + 0.7, rows * (side + 0.2))
    axes = picture_axes(figure, rows, columns)
    show_picture(axes[0], picture, "image" if mask is None else "image, lesion outlined")
    for ax, (name, heat) in zip(axes[1:], heatmaps.items(), strict=False):
        show_picture(ax, overlay(picture, np.squeeze(heat)), name)
    for ax in axes[: len(heatmaps) + 1]:
        if mask is not None:
            draw_outline(ax, mask)
    for ax in axes[len(heatmaps) + 1 :]:
        ax.set_axis_off()
    _heat_bar(figure, axes.tolist(), "heat (share of its maximum)", ["0", "1"])
    return figure


def draw_outline(ax: Axes, mask) -> None:
    """The edge of a mask (S, S) bool: white on black, to be seen on light and on dark."""
    mask = np.asarray(mask, dtype=float)
    if 0 < mask.mean() < 1:
        for color, width in (("black", 2.6), ("white", 1.2)):
            ax.contour(mask, levels=[0.5], colors=color, linewidths=width)


def _heat_bar(figure: Figure, axes: list[Axes], label: str, ends: list[str]) -> None:
    """The colours of ``overlay`` as they look on skin: the colder, the more transparent."""
    x = np.linspace(0, 1, 12)[:, None]
    skin, heat = np.array([0.82, 0.65, 0.6]), mpl.colormaps["inferno"](x[:, 0])[:, :3]
    colors = ListedColormap(skin * (1 - 0.6 * x) + heat * 0.6 * x)
    heat = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colors)
    bar = figure.colorbar(heat, ax=axes, fraction=0.02, pad=0.01, aspect=30)
    bar.set_ticks([0, 1], labels=ends)
    bar.set_label(label, labelpad=2, fontsize=9)
    bar.outline.set_color(GREY)


# --- the loss ---------------------------------------------------------------------------


def penalty_curve(kind: str, gamma: float, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A penalty rho(d) and its gradient d rho / d d, by autograd, at distances d (N,)."""
    x = torch.as_tensor(d, dtype=torch.float64).clone().requires_grad_()
    value = PENALTIES[kind](x, gamma)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach().numpy(), slope.numpy()


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


# --- counts and scores ------------------------------------------------------------------


def plot_class_bars(
    counts: Mapping[str, int] | pd.Series, ax: Axes | None = None, xlabel: str = "images"
) -> Figure | Axes:
    """How many images each class has: class name -> count, in the order given."""
    counts = pd.Series(counts)
    target, result = _new_axes(ax, 6, 0.36 * len(counts) + 0.8)
    colors = [class_color(name) for name in counts.index]
    bars = target.barh(range(len(counts)), counts, color=colors)
    target.set_yticks(range(len(counts)), counts.index.astype(str), parse_math=False)
    shares = [f"{n:,}  ({n / max(counts.sum(), 1):.0%})" for n in counts]
    target.bar_label(bars, shares, padding=4, fontsize=9)
    target.set(xlabel=xlabel, xlim=(0, counts.max() * 1.22))
    target.invert_yaxis()
    target.grid(False, axis="y")
    return result


def plot_audit(balance: pd.DataFrame, leakage: pd.DataFrame) -> Figure:
    """Who is in which part of a split, and which queries the system knows already.

    Parameters
    ----------
    balance : images per class (rows, and "all") and part (columns ``database``, ``val``,
        ``query``)
    leakage : per class (rows, and "all") ``queries``, ``with_mate`` (queries whose lesion is
        in another part too) and ``share`` (nan where that is not known)
    """
    figure = new_figure(WIDTH, 0.44 * len(leakage) + 1.2)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    classes = list(balance.index.drop("all"))
    shades, height = {"database": 1.0, "val": 0.6, "query": 0.25}, 0.27
    for k, (part, alpha) in enumerate(shades.items()):
        shares = balance.loc[classes, part] / max(balance.at["all", part], 1)
        colors = [to_rgba(class_color(name), alpha) for name in classes]
        edges = [class_color(name) for name in classes]
        place = np.arange(len(classes)) + (k - 1) * height
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
    for ax, most in (
        (left, balance.div(balance.loc["all"]).loc[classes].max(axis=None)),
        (right, 1),
    ):
        ax.set_xlim(0, most * 1.35 if most > 0 else 1)
        ax.set_xticks([t for t in MaxNLocator(5).tick_values(0, most) if t <= most + 1e-9])
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.invert_yaxis()
        ax.grid(False, axis="y")
    return figure


def _leak(queries: float, mates: float, share: float) -> str:
    """A row of a leakage table in words."""
    if not queries:
        return "no queries"
    if np.isnan(share):
        return "not known"
    return f"{share:.0%}  ({mates:,.0f} of {queries:,.0f})"


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
    column : "flipped_bits" or "topk_overlap", a share, or "code_distance"
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
            f"{', '.join(POLAR_TITLES)}; topk_overlap needs rotation_report(..., index=...)."
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
    _rings(target, 1 if column == "topk_overlap" else largest, column != "code_distance")
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
    unturned = float(column == "topk_overlap")
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


def plot_scores(
    results: pd.DataFrame, by: str | Sequence[str], scores: Sequence[str] = SCORES
) -> Figure:
    """Scores of an experiment by setting: a point for each seed, mean and standard deviation.

    Parameters
    ----------
    results : DataFrame of ``experiments.run_grid``, one row a run
    by : column, or columns, that tell the settings apart
    scores : columns to show, a panel each
    """
    by = [by] if isinstance(by, str) else list(by)
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
    """A panel for each score, with a line for each setting."""
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


def plot_differences(table: pd.DataFrame, by: str | Sequence[str]) -> Figure:
    """Differences to a baseline: how large, and how sure.

    A thick bar is the 95 % interval over other queries, and the point is filled where it leaves
    out zero; a thin one is a standard deviation of the difference over seeds, to either side.

    Parameters
    ----------
    table : DataFrame of ``experiments.differences``
    by : column, or columns, that tell the settings apart
    """
    by = [by] if isinstance(by, str) else list(by)
    scores = list(table["score"].unique())
    settings = table[by].astype(str).agg(", ".join, axis=1)
    names = list(dict.fromkeys(settings))
    thin = {"fmt": "none", "color": INK, "capsize": 2, "zorder": 2.5}
    title = "difference to the baseline, 95 % interval (thick), deviation over seeds (thin)"
    figure, axes = _score_panels(scores, len(names), title)
    for ax, score in zip(axes, scores, strict=True):
        part = table[table["score"] == score]
        y = [names.index(name) for name in settings[part.index]]
        sure = (part["low"] > 0) | (part["high"] < 0)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.errorbar(part["difference"], y, xerr=part["seed_std"], **thin)
        ax.hlines(y, part["low"], part["high"], color="#56b4e9", linewidth=5, zorder=2)
        fill = ["#0072b2" if each else "white" for each in sure]
        ax.scatter(part["difference"], y, c=fill, edgecolors=INK, s=32, zorder=3)
        ax.set(xlabel=_score_label(score), yticks=range(len(names)))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set(yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    return figure
