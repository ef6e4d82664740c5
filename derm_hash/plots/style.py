"""The style of all figures: colours, fonts, and the parts that they are made of."""

import io
import sys
import zlib

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageChops, ImageFilter, ImageOps

from derm_hash.data.images import from_input
from derm_hash.heatmaps import resize_map
from derm_hash.plots.alt import describe

# Okabe and Ito's palette ("Color Universal Design", 2008) and two dark tones, which
# colour-blind readers can tell apart.
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
GREY = "#767676"  # minor things; still readable on white
RIGHT, WRONG = "#0072b2", "#d55e00"
DASHED = (0, (2, 1))
OPACITY = 0.6  # of a heatmap where it is hottest
WIDTH = 9.0  # inches: as wide as a cell of a notebook
DPI = 96
BARE = {"xticks": [], "yticks": [], "frame_on": False}  # axes for a picture; ticks are slow to make

STYLE = {
    # White in the dark JupyterLab too, so that figures look the same in both.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so it is the same everywhere
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


def use_style() -> None:
    """Set fonts, sizes and colours of all figures.

    Notebooks then store them as small PNGs with an alternative text.
    """
    # IPython is loaded only in notebooks, and drawing does not need it.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        # Loaded first, since it sets a way of its own to show figures.
        plt.switch_backend(mpl.get_backend())
        shell.display_formatter.formatters["image/png"].for_type(
            Figure, lambda figure: (figure_png(figure), {"alt": describe(figure)})
        )
    sns.set_theme(style="whitegrid", rc=STYLE)


def figure_png(*figures: Figure) -> bytes:
    """Figures, one below the other, as PNG, cropped, with 256 colours: less than half the size."""
    rows = []
    for figure in figures:
        buffer = io.BytesIO()
        # A layout engine keeps everything inside the figure.
        tight = None if figure.get_layout_engine() else "tight"
        figure.savefig(buffer, format="png", bbox_inches=tight)
        image = Image.open(buffer).convert("RGB")
        # Crop to what is not white, and add a margin.
        rows.append(ImageOps.expand(image.crop(ImageOps.invert(image).getbbox()), 8, "white"))
    width = max(row.width for row in rows)
    rows = [ImageOps.expand(row, (0, 0, width - row.width, 0), "white") for row in rows]
    return as_file(with_palette(Image.fromarray(np.vstack(rows))), "PNG", optimize=True)


def as_file(image: Image.Image, kind: str, **options) -> bytes:
    """An image as the content of a file, such as "PNG"."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(picture: np.ndarray, most: int = 1000) -> bytes:
    """A picture as JPEG with its colours at full resolution, at most ``most`` pixels wide."""
    image = Image.fromarray(picture)
    image.thumbnail((most, most), Image.Resampling.BOX)
    return as_file(image, "JPEG", quality=85, subsampling=0)


def with_palette(image: Image.Image) -> Image.Image:
    """An RGB image with 256 colours: the 64 most frequent ones, and a median cut of the others.

    A median cut alone would lose the flat colours of lines, bars and frames, which have a meaning.
    """
    r, g, b = np.moveaxis(np.asarray(image, dtype=np.int64), -1, 0)
    packed = r << 16 | g << 8 | b
    colors, counts = np.unique(packed, return_counts=True)
    exact = colors[np.argsort(-counts, kind="stable")[:64]]
    # A palette chosen on a quarter of the pixels takes a tenth of the time and is as close.
    some = Image.fromarray(np.asarray(image)[::2, ::2])
    palette = some.quantize(256 - len(exact), Image.Quantize.MEDIANCUT, kmeans=1)
    result = image.quantize(palette=palette, dither=Image.Dither.NONE)
    shades = result.getpalette()
    indices = np.asarray(result) + np.uint8(len(exact))
    for i, color in enumerate(exact):
        indices[packed == color] = i
    result = Image.fromarray(indices)
    result.putpalette([*np.stack([exact >> 16, exact >> 8 & 255, exact & 255], 1).flat, *shades])
    return result


def class_color(name: str) -> str:
    """The colour of a class as a hexadecimal string, the same in all figures."""
    return CLASS_COLORS.get(name, OTHER_COLORS[zlib.crc32(name.encode()) % len(OTHER_COLORS)])


def text_color(background: str) -> str:
    """Ink or white, whichever has the higher contrast (WCAG 2) on a colour."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background)
    ]
    luminance = np.dot([0.2126, 0.7152, 0.0722], linear)
    return INK if (luminance + 0.05) / 0.07 > 1.05 / (luminance + 0.05) else "white"


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """An empty figure with sizes in inches and a constrained layout."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title)
    return figure


def as_picture(image) -> np.ndarray:
    """A picture (see :mod:`derm_hash.plots`) as uint8 (S, S, 3)."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = from_input(image) if image.is_floating_point() else image
        image = image.movedim(0, -1) if image.ndim == 3 and image.shape[0] == 3 else image
    return np.asarray(image)


def show_picture(ax: Axes, image, title: str = "", frame: str | None = None, line="-") -> None:
    """Show a picture, or a map (S, S) in grey, without axes.

    Dollar signs in the title are shown as they are; ``frame`` is the colour of a frame around it.
    """
    ax.imshow(as_picture(image), cmap="gray", interpolation="bilinear")
    ax.set_axis_off()
    ax.set_title(title, fontsize=9, pad=4, parse_math=False)
    if frame:
        box = {"transform": ax.transAxes, "clip_on": False, "fill": False}
        ax.add_patch(Rectangle((0, 0), 1, 1, ec=frame, lw=3, ls=line, capstyle="butt", **box))


def picture_axes(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Axes (rows * columns,) for pictures: they show nothing until a picture is in them."""
    return figure.subplots(rows, columns, squeeze=False, subplot_kw=BARE).ravel()


def new_axes(ax: Axes | None, width: float, height: float) -> tuple[Axes, Figure | Axes]:
    """Axes to draw into, and what a plot returns: the given axes, or a new figure."""
    if ax is not None:
        return ax, ax
    figure = new_figure(width, height)
    return figure.subplots(), figure


def overlay(picture: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Draw a heatmap (h, w) in [0, 1] over a picture: uint8 (S, S, 3) -> (S, S, 3).

    Where the map is 0 the picture does not change; the hottest point has an opacity of 0.6.
    """
    heat = np.clip(resize_map(heatmap, picture.shape[0]), 0, 1)
    colour = mpl.colormaps["inferno"](heat)[..., :3] * 255
    weight = OPACITY * heat[..., None]
    return (picture * (1 - weight) + colour * weight).round().astype(np.uint8)


def heat_layer(heatmap: np.ndarray) -> bytes:
    """A heatmap (S, S) in [0, 1] as PNG, as opaque as it is hot, to be laid over a picture."""
    colours = mpl.colormaps["inferno"](heatmap, heatmap, bytes=True)
    return as_file(Image.fromarray(colours), "PNG")


def outline_layer(mask: np.ndarray) -> bytes:
    """The edge of a mask (S, S) as PNG, white and around it black, to be laid over a picture."""
    lesion = Image.fromarray(mask).convert("L").resize((256, 256), Image.Resampling.NEAREST)
    blurred = [lesion.filter(ImageFilter.BoxBlur(pixels)) for pixels in (2, 3)]
    wider = [each.point(lambda value: 255 * (value > 0)) for each in blurred]
    white, black = (ImageChops.difference(each, lesion) for each in wider)
    return as_file(Image.merge("LA", (white, black)), "PNG")
