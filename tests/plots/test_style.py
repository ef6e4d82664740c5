"""Colours that everybody can tell apart, and figures that stay small."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from derm_hash import plots
from derm_hash.plots.style import CLASS_COLORS, as_picture
from tests.plots.common import PICTURES

NORMAL = np.eye(3)
# Colours as somebody without red or without green cones sees them (Machado, Oliveira and
# Fernandes, IEEE TVCG 15, 2009, severity 1), on linear RGB.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]]
PROTAN += [[-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]]
DEUTAN += [[-0.011820, 0.042940, 0.968881]]
# Linear sRGB (D65) to XYZ.
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(color, seen_by=NORMAL):
    """CIE L*a*b* of a colour."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(seen_by @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen_by", [NORMAL, PROTAN, DEUTAN], ids=["all", "protan", "deutan"])
def test_class_colours_differ_for_colour_blind_readers(seen_by):
    colors = {name: lab(c, seen_by) for name, c in CLASS_COLORS.items() if name != "AKIEC"}
    for a, b in itertools.combinations(colors, 2):
        # 10 is several times the smallest difference that is visible side by side.
        assert np.linalg.norm(colors[a] - colors[b]) > 10, (a, b)


def test_a_class_keeps_its_colour():
    assert plots.class_color("AKIEC") == plots.class_color("AK")
    assert plots.class_color("other") == plots.class_color("other")


@pytest.mark.parametrize("color", CLASS_COLORS.values())
def test_text_on_a_class_colour_can_be_read(color):
    assert abs(lab(plots.text_color(color))[0] - lab(color)[0]) > 35  # lightness, of 100


def test_pictures_may_be_network_input():
    picture = as_picture(torch.linspace(-1, 1, 3 * 4 * 4).view(3, 4, 4))
    assert picture.shape == (4, 4, 3) and picture.dtype == np.uint8
    assert picture[0, 0, 0] == 0 and picture[3, 3, 2] == 255


def test_png_is_small_and_keeps_flat_colours():
    plots.use_style()
    figure = plots.image_grid(PICTURES[:3], "abc", colors=[plots.class_color("MEL")] * 3)
    png = plots.figure_png(figure)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    colors = {color for _, color in image.getcolors(1 << 20)}
    wanted = tuple(round(255 * c) for c in to_rgb(plots.class_color("MEL")))
    assert len(colors) <= 256 and wanted in colors and (255, 255, 255) in colors
    plain = io.BytesIO()
    figure.savefig(plain, format="png")
    assert len(png) < 0.6 * len(plain.getvalue())


def test_several_figures_stand_one_below_the_other():
    figures = [plots.image_grid(PICTURES[:n], "abc"[:n]) for n in (1, 3)]
    one, other = (Image.open(io.BytesIO(plots.figure_png(each))) for each in figures)
    both = Image.open(io.BytesIO(plots.figure_png(*figures)))
    assert both.size == (max(one.width, other.width), one.height + other.height)
    corner = both.convert("RGB").getpixel((both.width - 1, 0))
    assert one.width < other.width and corner == (255, 255, 255)


def test_figures_are_unknown_to_pyplot():
    before = plt.get_fignums()
    plots.image_grid(PICTURES, "abcdef")
    plots.plot_penalties()
    assert plt.get_fignums() == before
