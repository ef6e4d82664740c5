"""Figures of pictures: what is in them, not how their pixels fall."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from derm_hash import plots
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.plots.pictures import format_distance
from derm_hash.plots.style import DASHED
from tests.plots.common import CODES, PICTURES, RNG, texts, titles


@pytest.fixture(scope="module")
def dataset():
    labels = ["MEL", "NV", "NV", "BCC", "BKL", "BKL"]
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "label": labels})
    return LesionDataset(torch.from_numpy(PICTURES).permute(0, 3, 1, 2).contiguous(), table)


def test_image_grid_labels_every_picture():
    figure = plots.image_grid(PICTURES[:5], list("abcde"), columns=3, title="five")
    assert titles(figure) == list("abcde") and figure.get_suptitle() == "five"
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 5 and len(figure.axes) == 6
    np.testing.assert_array_equal(shown[3].images[0].get_array(), PICTURES[3])


def test_montage_has_a_row_for_every_class(dataset):
    def pictures(figure):
        return [ax.images[0].get_array().tobytes() for ax in figure.axes if ax.images]

    figure = plots.montage(dataset)
    rows = [text for ax in figure.axes for text in texts(ax)]
    assert rows == ["MEL\n1 images", "NV\n2 images", "BCC\n1 images", "BKL\n2 images"]
    assert set(pictures(figure)) == {picture.tobytes() for picture in PICTURES}
    assert pictures(figure) == pictures(plots.montage(dataset))


def test_a_query_has_its_class_file_and_code(dataset):
    (ax,) = plots.plot_query(dataset, 3, CODES[0]).axes
    assert ax.get_title() == "query 3: BCC\n3"
    np.testing.assert_array_equal(ax.images[0].get_array(), PICTURES[3])
    assert len(ax.collections) == 1 and len(plots.plot_query(dataset, 3).axes[0].collections) == 0


def test_a_code_shows_values_and_bits():
    code, ax = np.array([0.1, 0.9, 0.6, 0.4]), Figure().subplots()
    assert plots.plot_code(code, ax=ax) is ax
    assert texts(ax) == ["0", "1", "1", "0"] and "bit" in ax.get_xlabel()
    np.testing.assert_allclose(ax.collections[0].get_facecolor()[:, 0], 1 - code)
    with pytest.raises(InputError, match="soft code"):
        plots.plot_code(np.array([0.2, 1.4]))


def test_orbit_marks_and_counts_the_bits_that_differ():
    codes = np.array([[0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.8, 0.7, 0.2]])
    figure = plots.plot_orbit(PICTURES[:4], codes)
    assert titles(figure) == ["0°", "90°", "180°", "270°"]
    below = ["code", *(f"{n} of 3 bits differ" for n in (1, 3, 0))]
    assert [texts(ax) for ax in figure.axes] == [[text] for text in below]
    _, frames, wedges = figure.axes[1].collections
    assert len(frames.get_paths()) == len(wedges.get_paths()) == 1
    assert frames.get_paths()[0].vertices[:, 0].min() == pytest.approx(1 / 3)  # around bit 1
    assert len(figure.axes[3].collections) == 1
    assert not plots.plot_orbit(PICTURES[:4]).axes[1].collections


def test_hits_are_told_right_from_wrong_without_colour():
    labels, distances = ["MEL", "NV", "MEL"], ([0, 2, 3, -1], [0.1, 0.25, 0.5, np.nan])
    figure = plots.plot_hits(
        PICTURES[0], PICTURES[1:4], labels, "MEL", *distances, CODES[0], CODES[1:4]
    )
    expected = ["1. MEL ✓\n0 bits, 0.100", "2. NV ✗\n2 bits, 0.250", "3. MEL ✓\n3 bits, 0.500"]
    assert titles(figure) == ["query: MEL", *expected]
    frames = [p for ax in figure.axes for p in ax.patches if isinstance(p, Rectangle)]
    assert [frame.get_linestyle() for frame in frames] == ["-", DASHED, "-"]


def test_hits_of_a_query_without_a_class_are_neither_right_nor_wrong():
    figure = plots.plot_hits(PICTURES[0], PICTURES[1:2], ["MEL"], None, [1], [0.2])
    assert titles(figure) == ["query: class not known", "1. MEL\n1 bit, 0.200"]
    assert not any(ax.patches for ax in figure.axes)


def test_a_query_without_hits_says_so():
    assert texts(plots.plot_hits(PICTURES[0], [], [], "MEL", [], []).axes[1]) == ["no hits"]


def test_small_distances_are_not_shown_as_zero():
    shown = [format_distance(d) for d in (0.0, 4.03e-05, 0.0005, 0.25)]
    assert shown == ["0", "4e-05", "0.001", "0.250"]


def test_dollar_signs_in_names_are_not_read_as_formulas(dataset):
    name = r"$\frac{$"
    table = dataset.table.assign(label=dataset.table["label"].replace("MEL", name))
    named = LesionDataset(dataset.images, table)
    balance = pd.DataFrame({part: [1, 1] for part in ("database", "val", "query")}, [name, "all"])
    leakage = pd.DataFrame({"queries": 1, "with_mate": 1, "share": 1.0}, [name, "all"])
    for figure in [
        plots.plot_hits(PICTURES[0], PICTURES[1:3], [name, "NV"], name, [1, 2], [0.1, 0.2]),
        plots.image_grid(PICTURES[:1], [name]),
        plots.plot_query(named, 0),
        plots.montage(named),
        plots.plot_heatmaps(PICTURES[0], {name: np.zeros((4, 4))}),
        plots.plot_class_bars({name: 3, "NV": 4}),
        plots.plot_audit(balance, leakage),
    ]:
        plots.figure_png(figure)
        assert any(name in text.get_text() for text in figure.findobj(Text))


def test_gates_state_their_range():
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
    # A cold map leaves the picture as it is, a hot one covers it.
    plain, cold, hot = (ax.images[0].get_array() for ax in figure.axes[:3])
    np.testing.assert_array_equal(cold, plain)
    assert np.abs(hot.astype(int) - plain).mean() > 10
    empty = plots.plot_heatmaps(PICTURES[0], heat, np.zeros((32, 32), dtype=bool))
    assert len(empty.axes[0].collections) == 0
