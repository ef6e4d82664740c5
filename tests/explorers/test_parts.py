"""The parts of a page: outlines, code strips and charts."""

from xml.etree import ElementTree

import numpy as np
import pytest

from derm_hash.explorers import parts
from derm_hash.explorers.states import LossState
from tests.explorers.common import points_of


def test_the_outline_lies_on_the_edge_of_the_mask():
    mask = np.zeros((6, 6), dtype=bool)
    mask[1:5, 1:5] = True
    inner = parts.edge(mask)
    assert inner.sum() == 12 and not inner[2:4, 2:4].any() and not (inner & ~mask).any()


def test_flipped_bits_are_marked_with_more_than_colour():
    code, reference = np.array([0.2, 0.7, 0.6]), np.array([0.1, 0.2, 0.9])
    strip = parts.code_strip(code, reference)
    assert strip.count("▾") == 1 and strip.count("outline:") == 1
    assert 'title="bit 1: 0.700, unturned 0.200: flipped"' in strip


def test_svg_is_well_formed_and_has_its_points_on_the_curves():
    state = LossState(kinds=("l1",), gamma=0.5, odd=1.0, others=0.2)
    root = ElementTree.fromstring(parts.svg_charts(state.view(), 0.5))
    space = {"s": "http://www.w3.org/2000/svg"}
    circles = root.findall("s:circle", space)
    lines = root.findall("s:polyline", space)
    assert len(circles) == len(lines) == 2
    for circle, line in zip(circles, lines, strict=True):
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        points = np.array([p.split(",") for p in line.get("points").split()], dtype=float)
        assert y == pytest.approx(np.interp(x, points[:, 0], points[:, 1]), abs=0.2)


def test_a_chart_of_turns_ends_as_it_begins():
    chart = parts.svg_follows({90: 0.5}, 90, mirrored=False)
    assert points_of(chart) == {0: 1, 90: 0.5, 360: 1}  # unturned, it is itself
    chart = parts.svg_follows({0: 0.194, 90: 0.5}, 90, mirrored=True)
    assert points_of(chart) == {0: 0.194, 90: 0.5, 360: 0.194}


def test_a_chart_of_a_mirrored_query_has_no_point_that_was_not_looked_at():
    assert points_of(parts.svg_follows({90: 0.5}, 90, mirrored=True)) == {90: 0.5}
    assert points_of(parts.svg_follows({}, 0, mirrored=True)) == {}
