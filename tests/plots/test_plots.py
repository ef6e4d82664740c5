"""The figures: what is in them, not how their pixels fall."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from derm_hash import plots
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.losses import PENALTIES

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
CODES = RNG.random((6, 8)).astype(np.float32)

# Colours as somebody without red or without green cones sees them (Machado, Oliveira and
# Fernandes, IEEE TVCG 15, 2009, severity 1), on linear RGB.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]]
PROTAN += [[-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]]
DEUTAN += [[-0.011820, 0.042940, 0.968881]]
# Linear sRGB (D65) to XYZ.
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def lab(color, seen_by):
    """CIE L*a*b* of a colour."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(seen_by @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.fixture(scope="module")
def dataset():
    labels = ["MEL", "NV", "NV", "BCC", "BKL", "BKL"]
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "label": labels})
    return LesionDataset(torch.from_numpy(PICTURES).permute(0, 3, 1, 2).contiguous(), table)


@pytest.mark.parametrize("seen_by", [np.eye(3), PROTAN, DEUTAN], ids=["all", "protan", "deutan"])
def test_class_colours_differ_for_colour_blind_readers(seen_by):
    colors = {name: lab(c, seen_by) for name, c in plots.CLASS_COLORS.items() if name != "AKIEC"}
    for a, b in itertools.combinations(colors, 2):
        # 10 is several times what can just be seen side by side.
        assert np.linalg.norm(colors[a] - colors[b]) > 10, (a, b)


def test_a_class_keeps_its_colour():
    assert plots.class_color("AKIEC") == plots.class_color("AK")
    assert plots.class_color("other") == plots.class_color("other")


def test_image_grid_labels_every_picture():
    figure = plots.image_grid(PICTURES[:5], list("abcde"), columns=3, title="five")
    assert titles(figure) == list("abcde")
    assert figure.get_suptitle() == "five"
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 5 and len(figure.axes) == 6
    np.testing.assert_array_equal(shown[3].images[0].get_array(), PICTURES[3])


def test_pictures_may_be_network_input():
    x = torch.linspace(-1, 1, 3 * 4 * 4).view(3, 4, 4)
    picture = plots.as_picture(x)
    assert picture.shape == (4, 4, 3) and picture.dtype == np.uint8
    assert picture[0, 0, 0] == 0 and picture[3, 3, 2] == 255


def test_montage_has_a_row_for_every_class(dataset):
    figure = plots.montage(dataset, per_class=2)
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts == ["MEL\n1 images", "NV\n2 images", "BCC\n1 images", "BKL\n2 images"]
    assert sum(bool(ax.images) for ax in figure.axes) == 6
    same = plots.montage(dataset, per_class=2)
    for a, b in zip(figure.axes, same.axes, strict=True):
        assert len(a.images) == len(b.images)
        if a.images:
            np.testing.assert_array_equal(a.images[0].get_array(), b.images[0].get_array())


def test_the_query_says_who_it_is(dataset):
    (ax,) = plots.plot_query(dataset, 3, CODES[0]).axes
    assert ax.get_title() == "query 3: BCC\n3"
    np.testing.assert_array_equal(ax.images[0].get_array(), PICTURES[3])
    assert len(ax.collections) == 1 and len(plots.plot_query(dataset, 3).axes[0].collections) == 0


@pytest.mark.parametrize("color", plots.CLASS_COLORS.values())
def test_text_on_a_class_colour_can_be_read(color):
    shades = {"text": lab(plots.text_color(color), np.eye(3)), "sheet": lab(color, np.eye(3))}
    assert abs(shades["text"][0] - shades["sheet"][0]) > 35  # lightness, of 100


def test_a_code_shows_bits_and_marks_what_differs():
    code, reference = np.array([0.1, 0.9, 0.6, 0.4]), np.array([0.2, 0.8, 0.4, 0.45])
    ax = plots.plot_code(code, reference).axes[0]
    assert [text.get_text() for text in ax.texts] == ["0", "1", "1", "0"]
    cells, frames, wedges = ax.collections
    np.testing.assert_allclose(cells.get_facecolor()[:, 0], 1 - code)
    assert len(frames.get_paths()) == len(wedges.get_paths()) == 1
    assert frames.get_paths()[0].vertices[:, 0].min() == 1.5  # around bit 2
    assert "bit" in ax.get_xlabel()


def test_a_code_draws_into_given_axes():
    ax = Figure().subplots()
    assert plots.plot_code(CODES[0], CODES[0], ax=ax) is ax
    assert len(ax.collections) == 1  # nothing differs
    with pytest.raises(InputError, match="soft code"):
        plots.plot_code(np.array([0.2, 1.4]))


def test_orbit_counts_the_bits_that_differ():
    codes = np.array([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.8, 0.7, 0.2]])
    figure = plots.plot_orbit(PICTURES[:4], codes)
    assert titles(figure) == ["0°", "90°", "180°", "270°"]
    below = [ax.texts[0].get_text() for ax in figure.axes]
    assert below == ["code"] + [f"{n} of 3 bits differ" for n in (1, 3, 0)]


def test_hits_are_told_right_from_wrong_without_colour():
    labels = ["MEL", "NV", "MEL"]
    figure = plots.plot_hits(
        PICTURES[0], PICTURES[1:4], labels, "MEL", [0, 2, 3, -1], [0.1, 0.25, 0.5, np.nan],
        CODES[0], CODES[1:4],
    )  # fmt: skip
    expected = ["1. MEL ✓\n0 bits, 0.100", "2. NV ✗\n2 bits, 0.250", "3. MEL ✓\n3 bits, 0.500"]
    assert titles(figure) == ["query: MEL", *expected]
    frames = [p for ax in figure.axes for p in ax.patches if isinstance(p, Rectangle)]
    assert [frame.get_linestyle() for frame in frames] == ["-", plots.DASHED, "-"]


def test_hits_of_a_query_without_a_class_are_neither_right_nor_wrong():
    figure = plots.plot_hits(PICTURES[0], PICTURES[1:3], ["MEL", "NV"], None)
    assert titles(figure) == ["query: class not known", "1. MEL", "2. NV"]
    assert not any(ax.patches for ax in figure.axes)


def test_no_hits_are_said():
    figure = plots.plot_hits(PICTURES[0], [], [], "MEL")
    assert figure.axes[1].texts[0].get_text() == "no hits"


def test_dollar_signs_in_names_are_no_formulas(dataset):
    name = r"$\frac{$"
    table = dataset.table.assign(label=dataset.table["label"].replace("MEL", name))
    named = LesionDataset(dataset.images, table)
    balance, leakage = (frame.rename(index={"MEL": name}) for frame in audit_tables())
    figures = [
        plots.plot_hits(PICTURES[0], PICTURES[1:3], [name, "NV"], name),
        plots.image_grid(PICTURES[:1], [name]),
        plots.plot_query(named, 0),
        plots.montage(named, per_class=1),
        plots.plot_heatmaps(PICTURES[0], {name: np.zeros((4, 4))}),
        plots.plot_class_bars({name: 3, "NV": 4}),
        plots.plot_audit(balance, leakage),
    ]
    for figure in figures:
        plots.figure_png(figure)
        shown = [text.get_text() for text in figure.findobj(Text)]
        assert any(name in text for text in shown)


def history(epochs):
    epoch = np.arange(1, epochs + 1)
    score = {"val_precision_at_10": [0.5, 0.7, 0.6][:epochs], "lr": 0.1}
    parts = {"cross_entropy": 1 / epoch, "invariance": 0.5 / epoch}
    return pd.DataFrame({"epoch": epoch, "loss": 1.25 / epoch, **parts, **score})


def test_history_shows_the_parts_of_the_loss_and_the_best_epoch():
    left, right = plots.plot_history(history(3)).axes
    labels = [line.get_label() for line in left.lines]
    assert labels == ["total", "cross-entropy", "invariance"]
    assert len({line.get_linestyle() for line in left.lines}) == 3
    assert right.lines[1].get_xdata() == [2] and "0.700" in right.get_title()
    assert left.get_xlabel() == right.get_xlabel() == "epoch"
    alone = plots.plot_history(history(1).drop(columns="invariance"))
    assert len(alone.axes[0].lines) == 2


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


def test_gates_say_their_range():
    maps = {"layer1.0": RNG.random((1, 8, 8)) * 0.2 + 0.4, "layer4.0": np.full((2, 2), 0.5)}
    figure = plots.plot_gates(PICTURES[0], maps)
    low, high = maps["layer1.0"].min(), maps["layer1.0"].max()
    assert titles(figure)[1:] == [f"layer1.0\n{low:.2f} to {high:.2f}", "layer4.0\n0.50 to 0.50"]
    assert figure.axes[-1].get_ylabel() == "gate"


def test_heatmaps_carry_the_outline_of_the_lesion():
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:20, 8:20] = True
    heat = {"class MEL": np.zeros((32, 32)), "bit 3": np.ones((32, 32))}
    figure = plots.plot_heatmaps(PICTURES[0], heat, mask)
    assert titles(figure) == ["image, lesion outlined", "class MEL", "bit 3"]
    assert [len(ax.collections) for ax in figure.axes[:3]] == [2, 2, 2]
    # Nothing is laid over a picture where the map is cold, something where it is hot.
    plain, cold, hot = (ax.images[0].get_array() for ax in figure.axes[:3])
    np.testing.assert_array_equal(cold, plain)
    assert np.abs(hot.astype(int) - plain).mean() > 10
    empty = plots.plot_heatmaps(PICTURES[0], heat, np.zeros((32, 32), dtype=bool))
    assert len(empty.axes[0].collections) == 0


@pytest.mark.parametrize("gamma", [0.2, 1.0])
def test_penalty_curves_are_the_formulas(gamma):
    d = np.linspace(0, 1, 7)
    expected = {
        "cauchy": (np.log(1 + d / gamma), 1 / (gamma + d)),
        "l1": (d / gamma, np.full(7, 1 / gamma)),
        "l2": ((d / gamma) ** 2 / 2, d / gamma**2),
        "gaussian": (
            1 - np.exp(-((d / gamma) ** 2) / 2),
            d / gamma**2 * np.exp(-((d / gamma) ** 2) / 2),
        ),
    }
    assert set(expected) == set(PENALTIES)
    for kind, (value, slope) in expected.items():
        np.testing.assert_allclose(plots.penalty_curve(kind, gamma, d)[0], value, atol=1e-12)
        np.testing.assert_allclose(plots.penalty_curve(kind, gamma, d)[1], slope, atol=1e-12)


def test_penalties_are_side_by_side():
    figure = plots.plot_penalties(0.3, ["cauchy", "l2"])
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["Cauchy", "L2"]
    assert len(right.lines) == 2 and "0.3" in figure.get_suptitle()
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle()


def test_class_bars_have_counts_and_shares():
    ax = plots.plot_class_bars({"MEL": 1000, "NV": 3000}).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [1000, 3000]
    assert [text.get_text() for text in ax.texts] == ["1,000  (25%)", "3,000  (75%)"]


def audit_tables():
    parts = {"database": [80, 300, 380], "val": [10, 40, 50], "query": [10, 60, 70]}
    balance = pd.DataFrame(parts, index=["MEL", "NV", "all"]).assign(all=[100, 400, 500])
    leaks = {"queries": [10, 60, 70], "with_mate": [8, 12, 20], "share": [0.8, 0.2, 2 / 7]}
    return balance, pd.DataFrame(leaks, index=["MEL", "NV", "all"])


def test_audit_shows_every_part_and_every_share():
    left, right = plots.plot_audit(*audit_tables()).axes
    widths = [bar.get_width() for bar in left.patches]
    np.testing.assert_allclose(widths, [80 / 380, 300 / 380, 0.2, 0.8, 1 / 7, 6 / 7])
    texts = [text.get_text() for text in left.texts]
    assert texts == ["database 80", "database 300", "val 10", "val 40", "query 10", "query 60"]
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], [0.8, 0.2, 2 / 7])
    texts = [text.get_text() for text in right.texts]
    assert texts == ["80%  (8 of 10)", "20%  (12 of 60)", "29%  (20 of 70)"]
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["MEL", "NV", "all"]


def test_audit_says_what_is_not_known():
    balance, leakage = audit_tables()
    leakage.loc["NV", ["queries", "with_mate", "share"]] = 0, 0, np.nan
    leakage.loc["MEL", "share"] = np.nan
    right = plots.plot_audit(balance * 0, leakage).axes[1]
    texts = [text.get_text() for text in right.texts]
    assert texts == ["not known", "no queries", "29%  (20 of 70)"]


def test_rotation_takes_one_report_or_several():
    report = pd.DataFrame({"angle": [90, 180, 270], "flipped_bits": [0.1, 0.2, 0.3]})
    ax = plots.plot_rotation(report).axes[0]
    assert len(ax.lines) == 1 and ax.get_legend() is None
    ax = plots.plot_rotation({"with": report, "without": report}).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["with", "without"]
    assert ax.lines[0].get_marker() != ax.lines[1].get_marker()
    assert "degrees" in ax.get_xlabel()


def test_polar_rotation_turns_as_the_images_do_and_closes():
    report = pd.DataFrame({"angle": [90, 180, 270], "flipped_bits": [0.1, 0.2, 0.3]})
    ax = plots.plot_rotation_polar(report).axes[0]
    # Unturned on top, without flips; then counter-clockwise, and back.
    assert ax.get_theta_direction() == 1 and ax.get_theta_offset() == pytest.approx(np.pi / 2)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.pi / 2 * np.arange(5))
    assert ax.lines[0].get_ydata().tolist() == [0, 0.1, 0.2, 0.3, 0]
    assert ax.get_legend() is None
    assert [text.get_text() for text in ax.texts] == ["10 %", "20 %", "30 %"]
    assert "flipped" in ax.get_title()


def test_polar_rotation_stays_open_where_angles_are_missing():
    report = pd.DataFrame({"angle": [60, 0, 30, 90], "overlap_at_10": [0.6, 1, 0.8, 0.5]})
    ax = plots.plot_rotation_polar({"with": report, "without": report}, "overlap_at_10").axes[0]
    np.testing.assert_allclose(np.rad2deg(ax.lines[0].get_xdata()), [0, 30, 60, 90])
    assert ax.lines[1].get_ydata().tolist() == [1, 0.8, 0.6, 0.5]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["with", "without"]
    assert ax.get_ylim() == (0, 1)


def test_polar_rotation_draws_into_axes_and_needs_the_column():
    report = pd.DataFrame({"angle": [90, 180], "code_distance": [0.1, 0.2]})
    ax = plots.new_figure(4, 4).add_subplot(projection="polar")
    assert plots.plot_rotation_polar(report, "code_distance", ax) is ax
    with pytest.raises(InputError, match="index="):
        plots.plot_rotation_polar(report, "overlap_at_10")


def test_scores_show_every_run_and_the_mean():
    rows = [("hdcsa", 0.7), ("hdcsa", 0.9), ("none", 0.5), ("none", 0.6)]
    results = pd.DataFrame(rows, columns=["attention", "map"]).assign(seed=[0, 1, 0, 1])
    figure = plots.plot_scores(results, "attention", ["map"])
    ax = figure.axes[0]
    points = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections])
    np.testing.assert_allclose(sorted(points), [0.5, 0.6, 0.7, 0.9])
    means = next(line for line in ax.lines if line.get_marker() == "|")
    np.testing.assert_allclose(means.get_xdata(), [0.8, 0.55])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["hdcsa", "none"]
    assert (
        len(plots.plot_scores(results.assign(f=0.1), ["attention", "seed"], ["map", "f"]).axes) == 2
    )


def test_differences_show_intervals_and_fill_what_leaves_out_zero():
    rows = [("a", "map", 0.1, 0.05, 0.15, 0.02), ("b", "map", -0.01, -0.06, 0.04, np.nan)]
    columns = ["loss", "score", "difference", "low", "high", "seed_std"]
    table = pd.DataFrame(rows, columns=columns)
    (ax,) = plots.plot_differences(table, "loss").axes
    deviations, bars, points = ax.collections
    (low, high), _ = (path.vertices[:, 0] for path in deviations.get_paths())
    assert (low, high) == pytest.approx((0.08, 0.12))
    drawn = [path.vertices[:, 0] for path in bars.get_paths()]
    np.testing.assert_allclose(drawn, [[0.05, 0.15], [-0.06, 0.04]])
    np.testing.assert_allclose(points.get_offsets(), [[0.1, 0], [-0.01, 1]])
    assert [tuple(c[:3]) for c in points.get_facecolor()] == [to_rgb("#0072b2"), to_rgb("white")]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    both = pd.concat([table, table.assign(score="flipped_bits")], ignore_index=True)
    assert len(plots.plot_differences(both, ["loss"]).axes) == 2


def test_png_is_small_and_keeps_flat_colours():
    plots.use_style()
    figure = plots.image_grid(PICTURES[:3], colors=[plots.class_color("MEL")] * 3)
    png = plots.figure_png(figure)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    colors = {color for _, color in image.getcolors(1 << 20)}
    wanted = tuple(round(255 * c) for c in to_rgb(plots.class_color("MEL")))
    assert len(colors) <= 256 and wanted in colors and (255, 255, 255) in colors
    plain = io.BytesIO()
    figure.savefig(plain, format="png")
    assert len(png) < 0.6 * len(plain.getvalue())


def test_figures_are_unknown_to_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plots.image_grid(PICTURES)
    plots.plot_penalties()
    assert plt.get_fignums() == before


def test_small_distances_are_not_shown_as_none():
    assert [plots.fine(d) for d in (0.0, 4.03e-05, 0.0005, 0.25)] == [
        "0",
        "4e-05",
        "0.001",
        "0.250",
    ]
