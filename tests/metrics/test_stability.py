"""Turned images: flips and overlaps by hand, and by models whose code is worked by hand."""

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import network_input
from torch import nn

from derm_hash.errors import InputError
from derm_hash.metrics.stability import (
    TIED,
    expected_overlap,
    flipped_bits,
    hit_chances,
    orbit_scores,
    rotation_report,
    rotation_scores,
)
from derm_hash.model import HashOutput
from derm_hash.retrieval import HashIndex
from derm_hash.rotations import rotate


def test_flipped_bits_is_the_triple_loop():
    codes = np.random.default_rng(0).random((4, 5, 6)).round(1)  # some lie on the threshold
    changed = [
        (codes[k, i, b] > 0.5) != (codes[0, i, b] > 0.5)
        for k in range(1, 4)
        for i in range(5)
        for b in range(6)
    ]
    assert flipped_bits(codes) == pytest.approx(sum(changed) / len(changed))
    assert flipped_bits(torch.from_numpy(codes)) == flipped_bits(codes)
    assert flipped_bits(codes[:2]) == pytest.approx(np.mean(changed[: 5 * 6]))
    assert flipped_bits(np.full((4, 3, 16), 0.7)) == 0


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 3)])
def test_flipped_bits_need_an_orbit(shape):
    with pytest.raises(InputError, match="n >= 2"):
        flipped_bits(np.zeros(shape))


def shared(a, b):
    """Share of the hits (Q, k) of each query that are among those of another search, too."""
    return np.array([len(set(x) & set(y)) / len(x) for x, y in zip(a, b, strict=True)])


def test_the_expected_overlap_is_the_mean_over_random_orders_of_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 3, 30)).astype(float)  # 30 images at 6 distances: many ties
    b[0] = a[0]
    repeats, total = 4000, np.zeros(3)
    for _ in range(repeats):
        hits = [np.argsort(x + 0.5 * rng.random(x.shape), axis=1)[:, :7] for x in (a, b)]
        total += shared(*hits)
    expected = expected_overlap(hit_chances(a, 7), hit_chances(b, 7))
    np.testing.assert_allclose(expected, total / repeats, atol=0.015)  # five standard errors
    assert expected.min() > 0 and expected.max() < 1


def test_without_ties_the_expected_overlap_is_that_of_the_hits():
    a, b = np.random.default_rng(1).random((2, 20, 40))
    hits = [np.argsort(x, axis=1)[:, :10] for x in (a, b)]
    expected = expected_overlap(hit_chances(a), hit_chances(b))
    np.testing.assert_allclose(expected, shared(*hits))


def test_chances_of_hits_by_hand():
    near, tied, far = [0.1] * 2, [0.5, 0.5 + TIED, 0.5 - TIED, 0.5], [0.5 + 3 * TIED, 1]
    chances = hit_chances(np.array([near + tied + far]), 5)
    assert chances.tolist() == [[1, 1, 0.75, 0.75, 0.75, 0.75, 0, 0]]
    assert hit_chances(np.array([near + tied + far]), 6).tolist() == [[1] * 6 + [0] * 2]
    assert hit_chances(np.array([tied])).tolist() == [[1] * 4]  # fewer than ten images
    # All of twenty images are tied: each of two searches returns any ten, and 5 are in both.
    same = hit_chances(np.zeros((1, 20)))
    assert expected_overlap(same, same).tolist() == [0.5]


class HandMade(nn.Module):
    """A model whose code is any function of the images, (B, C, S, S) -> (B, bits)."""

    def __init__(self, code):
        super().__init__()
        self.code = code
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return HashOutput(self.nothing, self.code(x))


def mean_colour(x):
    return torch.sigmoid(4 * x.mean(dim=(2, 3)))


def upper_half(x):
    """One bit: whether the upper half is brighter than the lower one."""
    half = x.shape[-1] // 2
    return torch.sigmoid(x[:, 0, :half].mean(dim=(1, 2)) - x[:, 0, half:].mean(dim=(1, 2)))[:, None]


def test_a_code_of_the_mean_colour_does_not_flip():
    images = network_input(5, 16, 0)
    report = rotation_report(HandMade(mean_colour), images)
    assert report["angle"].tolist() == [90, 180, 270]
    assert report["flipped_bits"].tolist() == [0, 0, 0]
    assert report["code_distance"].max() < 1e-6


def test_a_code_of_the_upper_half_flips_by_hand():
    # Bright above (+1), dark below (-1): code sigmoid(2). Upside down: sigmoid(-2), a flip, at
    # a distance of sigmoid(2) - sigmoid(-2) = tanh(1). A quarter turn: sigmoid(0) = 1/2, and
    # 1/2 is not above the threshold: a flip, at half that distance.
    images = torch.cat([torch.ones(3, 1, 4, 8), -torch.ones(3, 1, 4, 8)], dim=2)
    report = rotation_report(HandMade(upper_half), images, (0, 90, 180, 360))
    assert report["flipped_bits"].tolist() == [0, 1, 1, 0]
    tanh = math.tanh(1)
    assert report["code_distance"].tolist() == pytest.approx([0, tanh / 2, tanh, 0], abs=1e-6)


def test_other_angles_compare_the_inscribed_discs():
    images = network_input(4, 12, 1, 1)
    row = rotation_report(HandMade(upper_half), images, (45,)).iloc[0]
    upright, turned = upper_half(rotate(images, 0)), upper_half(rotate(images, 45))
    assert row["code_distance"] == pytest.approx((turned - upright).abs().mean().item(), rel=1e-5)
    assert row["flipped_bits"] == ((turned > 0.5) != (upright > 0.5)).float().mean().item()
    # Flat images show the same disc at every angle; the whole square would not.
    flat = torch.ones(2, 1, 12, 12)
    assert rotation_report(HandMade(mean_colour), flat, (45, 10)).code_distance.max() < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_the_report_leaves_the_mode_and_takes_no_gradient(training):
    model = HandMade(mean_colour).train(training)
    rotation_report(model, torch.zeros(1, 3, 8, 8), (90,))
    model.code = None  # which fails
    with pytest.raises(TypeError):
        rotation_report(model, torch.zeros(1, 3, 8, 8), (90,))
    assert model.training is training
    assert model.nothing.grad is None


def test_no_bar_is_drawn_where_nobody_can_see_it(capsys):
    rotation_report(HandMade(mean_colour), torch.zeros(1, 3, 8, 8))
    assert capsys.readouterr().err == ""


def quadrants(x):
    """Four bits: whether each quarter of the image is brighter than the whole."""
    half = x.shape[-1] // 2
    top, bottom = x[:, 0, :half], x[:, 0, half:]
    parts = [top[..., :half], top[..., half:], bottom[..., :half], bottom[..., half:]]
    means = torch.stack([part.mean(dim=(1, 2)) for part in parts], dim=1)
    return torch.sigmoid(8 * (means - means.mean(dim=1, keepdim=True)))


@pytest.mark.parametrize("angle", [180, 30])
def test_overlap_of_the_hits_is_that_of_two_searches(angle):
    draw = torch.Generator().manual_seed(2)
    images = torch.rand(7, 1, 12, 12, generator=draw) * 2 - 1
    index = HashIndex.build(torch.rand(40, 4, generator=draw), np.zeros(40, int), range(40))
    report = rotation_report(HandMade(quadrants), images, (angle,), index)
    upright = images if angle == 180 else rotate(images, 0)
    turned = torch.rot90(images, 2, (2, 3)) if angle == 180 else rotate(images, angle)
    a, b = (index.search(quadrants(x), 10, radius=None).ids for x in (upright, turned))
    share = shared(a, b).mean()
    assert report["overlap_at_10"].item() == pytest.approx(share)
    assert 0 < share < 1
    columns = ["angle", "flipped_bits", "code_distance", "overlap_at_10", "tied_at_10"]
    assert list(report) == columns and report["tied_at_10"].item() == 0


def test_hits_of_a_rotated_image_come_from_the_whole_database():
    images = network_input(3, 8, 5, 1)
    codes = torch.rand(10, 8, generator=torch.Generator().manual_seed(6))
    index = HashIndex.build(codes, np.zeros(10, int), range(10))
    model = HandMade(lambda x: quadrants(x).repeat(1, 2))
    assert index.within(model(images).code).max() < 10  # few lie within the usual radius
    assert rotation_report(model, images, (90,), index)["overlap_at_10"].item() == 1


def test_the_report_is_the_mean_of_the_scores_of_single_images():
    images = network_input(5, 8, 3, 1)
    angles = (90, 30, 0)
    scores = rotation_scores(HandMade(quadrants), images, angles)
    assert scores["image"].tolist() == [*range(5)] * 3
    assert scores.index.tolist() == [*range(15)]
    upright, turned = quadrants(images), quadrants(torch.rot90(images, dims=(2, 3)))
    moved, flips = (turned - upright).abs(), (turned > 0.5) != (upright > 0.5)
    assert scores["code_distance"][:5].to_numpy() == pytest.approx(moved.mean(dim=1).numpy())
    assert scores["flipped_bits"][:5].tolist() == flips.double().mean(dim=1).tolist()
    assert scores["flipped_bits"][:5].nunique() > 1
    report = rotation_report(HandMade(quadrants), images, angles)
    assert report["angle"].tolist() == [90, 30, 0]
    for angle, row in report.set_index("angle").iterrows():
        here = scores[scores["angle"] == angle]
        assert row["flipped_bits"] == pytest.approx(here["flipped_bits"].mean())
        assert row["code_distance"] == pytest.approx(here["code_distance"].mean())
    # An image that is not turned is itself, and nothing moves.
    assert report["code_distance"].iloc[2] == 0
    assert "overlap_at_10" not in report


def test_the_scores_of_an_orbit_are_the_means_over_its_rotations():
    draw = torch.Generator().manual_seed(2)
    images = torch.rand(7, 1, 12, 12, generator=draw) * 2 - 1
    index = HashIndex.build(torch.rand(40, 4, generator=draw), np.zeros(40, int), range(40))

    def in_quarters(x):
        return (4 * quadrants(x)).round() / 4  # some lie on the threshold

    orbit = torch.stack([in_quarters(torch.rot90(images, k, (2, 3))) for k in range(4)])
    assert (orbit == 0.5).any()
    scores = rotation_scores(HandMade(in_quarters), images, index=index)
    columns = ["flipped_bits", "overlap_at_10", "tied_at_10"]
    expected = scores.groupby("image")[columns].mean()
    found = orbit_scores(orbit.numpy(), index)
    pd.testing.assert_frame_equal(found, expected, check_names=False)
    assert (found[columns[:2]].nunique() > 1).all()


@pytest.mark.parametrize(("size", "share", "tied"), [(3, 1, 0), (10, 1, 0), (12, 0.9, 4)])
def test_an_image_that_is_not_rotated_shares_all_hits_that_no_tie_decides(size, share, tied):
    # Three codes: of twelve images, eight are certain hits, and four are tied for two places.
    images = network_input(3, 8, 4, 1)
    codes = quadrants(images)[torch.arange(size) % 3]
    index = HashIndex.build(codes, np.zeros(size, int), range(size))
    scores = rotation_scores(HandMade(quadrants), images, (0,), index)
    assert scores["overlap_at_10"].tolist() == pytest.approx([share] * 3)
    assert scores["tied_at_10"].tolist() == [tied] * 3


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(
    # Twelve are tied for ten places; or five are certain, and the rest is tied for the other five.
    ("alike", "tied", "share"),
    [(12, 12, 10 / 12), (5, 25, (5 + 5 * 5 / 25) / 10)],
)
def test_codes_of_zeros_are_near_each_other_alone(code, alike, tied, share):
    codes = torch.full((30, 2), float(code))
    codes[alike:] = 1 - code
    index = HashIndex.build(codes, np.zeros(30, int), range(30))
    model = HandMade(lambda x: torch.full((len(x), 2), float(code)))
    scores = rotation_scores(model, torch.zeros(1, 1, 8, 8), (90,), index)
    assert scores["tied_at_10"].item() == tied
    assert scores["overlap_at_10"].item() == pytest.approx(share)


def test_many_queries_are_compared_in_blocks_that_bound_the_memory(monkeypatch):
    draw = torch.Generator().manual_seed(2)
    images = torch.rand(70, 1, 12, 12, generator=draw) * 2 - 1
    index = HashIndex.build(torch.rand(4000, 4, generator=draw), np.zeros(4000, int), range(4000))
    whole = rotation_scores(HandMade(quadrants), images, (90,), index)
    monkeypatch.setattr("derm_hash.metrics.stability.PAIRS_AT_ONCE", 20_000)
    tracemalloc.start()
    assert rotation_scores(HandMade(quadrants), images, (90,), index).equals(whole)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 70 * 4000 * 8  # the distances of all pairs


def test_a_bit_on_the_threshold_is_no_flip():
    # A flat image: the halves are equally bright, and the code is sigmoid(0) = 1/2 at any turn.
    scores = rotation_scores(HandMade(upper_half), torch.zeros(1, 1, 8, 8), (0, 180))
    assert scores["flipped_bits"].tolist() == [0, 0]
