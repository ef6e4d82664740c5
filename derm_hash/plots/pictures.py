"""Figures of pictures: grids of lesions, hits, codes, gates and heatmaps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError, counted
from derm_hash.plots.style import (
    BARE,
    DASHED,
    GREY,
    INK,
    OPACITY,
    RIGHT,
    WIDTH,
    WRONG,
    as_picture,
    class_color,
    new_axes,
    new_figure,
    overlay,
    picture_axes,
    show_picture,
)

MONTAGE_COLUMNS = 8


def image_grid(
    pictures: Sequence,
    titles: Sequence[str],
    columns: int = 8,
    colors: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Pictures in rows, a title above each.

    ``colors`` are those of frames around the pictures, such as ``class_color(label)``.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns) or 1
    side = min(WIDTH / columns, 2.2)
    lines = 0.2 * max((title.count("\n") + 1 for title in titles), default=1)
    figure = new_figure(side * columns, (side + lines) * rows + 0.3 * bool(title), title)
    axes = picture_axes(figure, rows, columns)
    colors = colors or [None] * len(pictures)
    for ax, picture, text, color in zip(axes, pictures, titles, colors, strict=False):
        show_picture(ax, picture, text, color)
    return figure


def montage(dataset: LesionDataset, seed: int = 0) -> Figure:
    """A row of random pictures for each class, with its number of images."""
    rng = np.random.default_rng(seed)
    rows = len(dataset.classes)
    side = WIDTH / (MONTAGE_COLUMNS + 0.8)
    figure = new_figure(WIDTH, side * rows + 0.1)
    axes = picture_axes(figure, rows, MONTAGE_COLUMNS).reshape(rows, MONTAGE_COLUMNS)
    for label, name in enumerate(dataset.classes):
        members = np.flatnonzero(dataset.labels.numpy() == label)
        shown = rng.permutation(members)[:MONTAGE_COLUMNS]
        for ax, i in zip(axes[label], shown, strict=False):
            show_picture(ax, dataset.picture(i))
        _label_row(axes[label][0], f"{name}\n{len(members)} images", class_color(name))
    return figure


def _label_row(ax: Axes, text: str, color: str) -> None:
    """Write a name to the left of a row, with a bar in its colour."""
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    place |= {"ha": "right", "va": "center", "parse_math": False}
    ax.annotate(text, (0, 0.5), xytext=(-14, 0), **place)
    bar = Rectangle((-0.11, 0), 0.06, 1, transform=ax.transAxes, color=color, clip_on=False)
    ax.add_patch(bar)


def plot_query(queries: LesionDataset, query: int, code=None) -> Figure:
    """Image ``query`` of a data set, with its class, its file name, and its soft code (bits,)."""
    row = queries.table.iloc[query]
    figure = new_figure(2.4, 2.9 + 0.25 * (code is not None))
    (ax,) = picture_axes(figure, 1, 1)
    text = f"query {query}: {row['label']}\n{Path(row['image']).stem}"
    show_picture(ax, queries.picture(query), text, class_color(row["label"]))
    if code is not None:
        strip_below(ax, code)
    return figure


def plot_code(code, ax: Axes | None = None) -> Figure | Axes:
    """A soft code (bits,) in [0, 1] as a strip: shades show its values, digits the hash code."""
    n = len(code)
    target, result = new_axes(ax, min(0.4 * n + 0.4, WIDTH), 0.95)
    draw_code(target, code, None, (-0.5, 0, n, 1), target.transData)
    for i, bit in enumerate(_hash_code(code)):
        size, color = float(np.clip(130 / n, 4, 9)), "white" if bit else INK
        target.text(i, 0.45, int(bit), color=color, fontsize=size, ha="center", va="center")
    target.set(xlim=(-0.5, n - 0.5), ylim=(0, 1.35), yticks=[], xticks=range(n))
    target.set_xlabel("bit (shade: soft value, white 0 to black 1)", fontsize=9)
    target.grid(False)
    target.spines[:].set_visible(False)
    return result


def draw_code(ax: Axes, code, reference, box, transform) -> None:
    """Draw a soft code (bits,) as a strip of cells in a box.

    The box is (x, y, width, height) in the coordinates of the matplotlib ``transform``. Bits that
    differ from the soft code ``reference`` get a frame and a wedge above.
    """
    code = np.asarray(code, dtype=float)
    if code.ndim != 1 or code.min() < 0 or code.max() > 1:
        raise InputError(f"A soft code has shape (bits,) and values in [0, 1], not {code.shape}")
    x, y, width, height = box
    width /= len(code)
    square = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    cells = np.array([x, y]) + square + np.arange(len(code))[:, None, None] * (width, 0)
    style = {"transform": transform, "clip_on": False}
    shades = [str(1 - value) for value in code]
    ax.add_collection(PolyCollection(cells, facecolors=shades, edgecolors=GREY, lw=0.8, **style))
    if reference is not None and (changed := _hash_code(code) != _hash_code(reference)).any():
        top = np.array([(0.1, 1.3), (0.9, 1.3), (0.5, 1.05)]) * (width, height)
        wedges = np.array([x, y]) + top + np.flatnonzero(changed)[:, None, None] * (width, 0)
        frames = PolyCollection(cells[changed], facecolors="none", edgecolors=WRONG, lw=2, **style)
        ax.add_collection(frames)
        ax.add_collection(PolyCollection(wedges, facecolors=WRONG, edgecolors="none", **style))


def _hash_code(code) -> np.ndarray:
    return np.asarray(code) > 0.5


def format_distance(distance: float) -> str:
    """A distance between soft codes; those of trained codes are often below 0.001."""
    return f"{distance:.3f}" if distance >= 0.0005 else f"{distance:.0e}" if distance else "0"


def plot_orbit(pictures: Sequence, codes=None) -> Figure:
    """Pictures rotated by 360 k / n degrees, k = 0..n-1, with their soft codes (n, bits) below.

    Bits that differ from the first picture's are marked.
    """
    n = len(pictures)
    figure = image_grid(pictures, [f"{360 * k / n:g}°" for k in range(n)], columns=n)
    if codes is None:
        return figure
    figure.set_figheight(figure.get_figheight() + 0.62)
    for k, ax in enumerate(figure.axes):
        strip_below(ax, codes[k], None if k == 0 else codes[0])
        changed = int((_hash_code(codes[k]) != _hash_code(codes[0])).sum())
        text = "code" if k == 0 else f"{changed} of {len(codes[k])} bits differ"
        ax.text(0.5, -0.2, text, fontsize=9, ha="center", va="top", transform=ax.transAxes)
    return figure


def strip_below(ax: Axes, code, reference=None) -> None:
    """Draw the soft code of a picture below it; ``reference`` as in :func:`draw_code`."""
    draw_code(ax, code, reference, (0, -0.15, 1, 0.1), ax.transAxes)


def plot_hits(
    query_picture,
    hit_pictures: Sequence,
    hit_labels: Sequence[str],
    query_label: str | None,
    hamming: Sequence[int],
    distance: Sequence[float],
    query_code=None,
    hit_codes=None,
    title: str | None = None,
) -> Figure:
    """A query and its hits, nearest first, with their soft codes (bits,), (k, bits) below if given.

    Hits of the query's class have a tick and a solid frame, others a cross and a dashed frame; if
    the query's class is None, hits are not marked. ``hamming`` and ``distance`` are rows of
    ``Hits``; the padding after the last hit is ignored.
    """
    found, coded = len(hit_pictures), query_code is not None and hit_codes is not None
    columns = max(2, min(5, found))
    rows = -(-found // columns) or 1
    height = max(rows * (1.95 + 0.25 * coded), 2.5) + 0.3 * bool(title)
    figure = new_figure(1.55 * (columns + 1.35), height, title)
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=[1.35] + [1] * columns)
    ax = figure.add_subplot(grid[:, 0], **BARE)
    show_picture(ax, query_picture, f"query: {query_label or 'class not known'}")
    if coded:
        strip_below(ax, query_code)
    if not found:
        ax = figure.add_subplot(grid[0, 1:], **BARE)
        ax.text(0.5, 0.5, "no hits", ha="center", va="center")
    for i in range(found):
        ax = figure.add_subplot(grid[i // columns, 1 + i % columns], **BARE)
        mark, frame = "", (None, "-")
        if query_label is not None:
            right = hit_labels[i] == query_label
            mark, frame = ("✓", (RIGHT, "-")) if right else ("✗", (WRONG, DASHED))
        text = f"{i + 1}. {hit_labels[i]} {mark}".rstrip()
        text += f"\n{counted(hamming[i], 'bit')}, {format_distance(distance[i])}"
        show_picture(ax, hit_pictures[i], text, *frame)
        if coded:
            strip_below(ax, hit_codes[i], query_code)
    return figure


def plot_gates(picture, maps: Mapping[str, np.ndarray]) -> Figure:
    """The attention gate of every block, by name, laid over the picture.

    Since some gates are much flatter than others, each block has its own scale, from its lowest to
    its highest value; this range is written above the map. A gate is (h, w) in (0, 1), or (1, h, w)
    as ``gate_maps`` returns for one image.
    """
    picture = as_picture(picture)
    pictures, titles = [picture], ["image\n"]
    for name, gate in maps.items():
        low, high = float(gate.min()), float(gate.max())
        pictures.append(overlay(picture, np.squeeze(gate - low) / max(high - low, 1e-9)))
        titles.append(f"{name}\n{low:.2f} to {high:.2f}")
    figure = image_grid(pictures, titles, columns=5)
    _heat_bar(figure, "gate", ["lowest", "highest"])
    return figure


def plot_heatmaps(
    picture, heatmaps: Mapping[str, np.ndarray], mask=None, columns: int = 4
) -> Figure:
    """Heatmaps (h, w) in [0, 1], by title, over a picture; a mask (S, S) bool gets an outline."""
    picture = as_picture(picture)
    pictures = [picture, *(overlay(picture, np.squeeze(heat)) for heat in heatmaps.values())]
    titles = ["image" if mask is None else "image, lesion outlined", *heatmaps]
    figure = image_grid(pictures, titles, columns)
    if mask is not None and 0 < np.mean(mask) < 1:
        for ax in figure.axes[: len(pictures)]:
            for color, width in (("black", 2.6), ("white", 1.2)):  # stands out on any picture
                ax.contour(np.asarray(mask, float), levels=[0.5], colors=color, linewidths=width)
    _heat_bar(figure, "heat (share of its maximum)", ["0", "1"])
    return figure


def _heat_bar(figure: Figure, label: str, ends: list[str]) -> None:
    """Add a colour bar of ``overlay`` on skin, where cold colours are transparent."""
    figure.set_figwidth(figure.get_figwidth() + 0.7)
    x = np.linspace(0, 1, 12)[:, None]
    skin, heat = np.array([0.82, 0.65, 0.6]), mpl.colormaps["inferno"](x[:, 0])[:, :3]
    colors = ListedColormap(skin * (1 - OPACITY * x) + heat * OPACITY * x)
    heat = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), colors)
    bar = figure.colorbar(heat, ax=figure.axes, fraction=0.02, pad=0.01, aspect=30)
    bar.set_ticks([0, 1], labels=ends)
    bar.set_label(label, labelpad=2, fontsize=9)
    bar.outline.set_color(GREY)
