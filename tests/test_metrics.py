"""The metrics against scikit-learn, torchmetrics, plain loops, and pencil and paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import nn
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalPrecision

from derm_hash.errors import InputError
from derm_hash.metrics import (
    average_precision,
    evaluate_retrieval,
    flipped_bits,
    iou_at_mask_area,
    mask_energy,
    pointing_game,
    precision,
    reciprocal_rank,
    relevance,
    rotation_report,
    topk_overlap,
)
from derm_hash.model import HashOutput
from derm_hash.retrieval import HashIndex
from derm_hash.rotations import rotate

CLASSES = ("MEL", "NV", "BCC")


def random_case(seed, database=80, queries=15, bits=16, classes=3):
    """Random soft codes (distances without ties) and labels: index, query codes and labels."""
    rng = np.random.default_rng(seed)
    codes = rng.random((database + queries, bits), dtype=np.float32)
    labels = rng.integers(0, classes, database + queries)
    index = HashIndex.build(codes[:database], labels[:database], range(database))
    return index, codes[database:], labels[database:]


def cosine_distances(index, codes):
    """(Q, N) float64."""
    a, b = codes.astype(float), index.codes.astype(float)
    return 1 - a @ b.T / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def mean_over_classes(values, labels):
    values, labels = np.asarray(values), np.asarray(labels)
    return np.mean([values[labels == c].mean() for c in sorted(set(labels.tolist()))])


def paper_protocol(index, codes, labels, k, radius):
    """The paper's two numbers in plain loops: precision and reciprocal rank of each query."""
    distances = cosine_distances(index, codes)
    precisions, reciprocal_ranks = [], []
    for q, label in enumerate(labels):
        near = [
            i
            for i in range(len(index))
            if sum((codes[q] > 0.5) != (index.codes[i] > 0.5)) <= radius
        ]
        hits = sorted(near, key=lambda i: distances[q, i])[:k]
        right = [index.labels[i] == label for i in hits]
        precisions.append(sum(right) / len(hits) if hits else 0.0)
        reciprocal_ranks.append(1 / (right.index(True) + 1) if any(right) else 0.0)
    return precisions, reciprocal_ranks


# --- against libraries ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_standard_scores_are_those_of_torchmetrics(seed):
    index, codes, labels = random_case(seed)
    distances = cosine_distances(index, codes)
    ours = evaluate_retrieval(index, codes, labels, radius=16, class_names=CLASSES)

    def reference(metric, queries):
        similarity = torch.from_numpy(1 - distances[queries])  # torchmetrics drops negative ones
        target = torch.from_numpy(index.labels == labels[queries, None])
        number = torch.arange(len(queries))[:, None].expand(target.shape)
        return metric(similarity.flatten(), target.flatten(), indexes=number.flatten()).item()

    everyone = np.arange(len(labels))
    per_class = [np.flatnonzero(labels == c) for c in range(3)]
    at_10 = RetrievalPrecision(top_k=10)
    expected = {
        "map": reference(RetrievalMAP(), everyone),
        "class_mean_map": np.mean([reference(RetrievalMAP(), part) for part in per_class]),
        "precision_at_10": reference(at_10, everyone),
        "class_mean_precision_at_10": np.mean([reference(at_10, part) for part in per_class]),
        # With a radius of all bits the paper's protocol searches everything, too.
        "paper_precision": np.mean([reference(at_10, part) for part in per_class]),
        "paper_reciprocal_rank": np.mean(
            [reference(RetrievalMRR(top_k=10), part) for part in per_class]
        ),
    }
    for name, part in zip(CLASSES, per_class, strict=True):
        expected[f"ap_{name}"] = reference(RetrievalMAP(), part)
        expected[f"precision_at_10_{name}"] = reference(at_10, part)
        expected[f"queries_{name}"] = len(part)
    assert ours == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    relevant = rng.random((20, 50)) < 0.2
    relevant[:, 0] |= ~relevant.any(axis=1)
    score = -np.arange(50)
    expected = [average_precision_score(row, score) for row in relevant]
    np.testing.assert_allclose(average_precision(relevant.astype(np.int8)), expected, rtol=1e-12)


# --- against plain loops ----------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, 3, 5, 8])
@pytest.mark.parametrize("k", [1, 4, 10])
def test_the_paper_protocol_in_plain_loops(radius, k):
    index, codes, labels = random_case(seed=7)
    found = index.within(codes, radius)
    if radius == 3:  # the case holds queries with nothing, and with fewer than ten
        assert found.min() == 0
        assert 0 < found.max() < 10
    ours = evaluate_retrieval(index, codes, labels, k=k, radius=radius)
    precisions, ranks = paper_protocol(index, codes, labels, k, radius)
    assert ours["paper_precision"] == pytest.approx(mean_over_classes(precisions, labels))
    assert ours["paper_reciprocal_rank"] == pytest.approx(mean_over_classes(ranks, labels))


@settings(max_examples=10)
@given(
    seed=st.integers(0, 9999),
    database=st.integers(1, 25),
    queries=st.integers(1, 8),
    classes=st.integers(1, 4),
    k=st.integers(1, 12),
)
def test_any_case_in_plain_loops(seed, database, queries, classes, k):
    index, codes, labels = random_case(seed, database, queries, 8, classes)
    ours = evaluate_retrieval(index, codes, labels, k=k, radius=2)
    precisions, ranks = paper_protocol(index, codes, labels, k, 2)
    assert ours["paper_precision"] == pytest.approx(mean_over_classes(precisions, labels))
    assert ours["paper_reciprocal_rank"] == pytest.approx(mean_over_classes(ranks, labels))
    averages, at_k = [], []
    for q, order in enumerate(np.argsort(cosine_distances(index, codes), axis=1)):
        right = (index.labels[order] == labels[q]).tolist()
        ranks = [i for i, r in enumerate(right, 1) if r]
        averages.append(sum(n / i for n, i in enumerate(ranks, 1)) / max(len(ranks), 1))
        at_k.append(sum(right[:k]) / len(right[:k]))
    assert ours["map"] == pytest.approx(np.mean(averages))
    assert ours["class_mean_map"] == pytest.approx(mean_over_classes(averages, labels))
    assert ours[f"precision_at_{k}"] == pytest.approx(np.mean(at_k))
    assert ours[f"class_mean_precision_at_{k}"] == pytest.approx(mean_over_classes(at_k, labels))
    assert all(0 <= v <= 1 for name, v in ours.items() if not name.startswith("queries"))


def test_many_queries_are_scored_in_portions(monkeypatch):
    index, codes, labels = random_case(seed=1, queries=13)
    at_once = evaluate_retrieval(index, codes, labels)
    monkeypatch.setattr("derm_hash.metrics.QUERIES_AT_ONCE", 3)
    assert evaluate_retrieval(index, codes, labels) == at_once


# --- by hand ------------------------------------------------------------------------------


def corner(bits):
    return [float(b) for b in bits]


def test_retrieval_scores_by_hand():
    # Hamming distances from 11111111 to the database: 0, 1, 2, 6; from 00000000: 8, 7, 6, 2.
    index = HashIndex.build(
        [corner("11111111"), corner("11111110"), corner("11111100"), corner("11000000")],
        [0, 1, 0, 0],
        "abcd",
    )
    queries = [corner("11111111"), corner("00000000")]
    scores = evaluate_retrieval(index, queries, [0, 1], k=2, radius=4, rank="hamming")
    # Query 0 (class 0): within 4 bits a, b, c; the first two: right, wrong -> 1/2; rank 1 -> 1.
    # Ranking a b c d = 1 0 1 1: AP = (1/1 + 2/3 + 3/4) / 3 = 29/36.
    # Query 1 (class 1): within 4 bits d alone: wrong -> 0 and 0; ranking d c b a = 0 0 1 0:
    # AP = 1/3; precision of the first two: 0.
    assert scores == pytest.approx(
        {
            "paper_precision": 1 / 4,
            "paper_reciprocal_rank": 1 / 2,
            "precision_at_2": 1 / 4,
            "class_mean_precision_at_2": 1 / 4,
            "map": (29 / 36 + 1 / 3) / 2,
            "class_mean_map": (29 / 36 + 1 / 3) / 2,
            "precision_at_2_0": 1 / 2,
            "ap_0": 29 / 36,
            "queries_0": 1,
            "precision_at_2_1": 0,
            "ap_1": 1 / 3,
            "queries_1": 1,
        }
    )


def test_class_means_are_balanced():
    # Three queries of class 0 that all hit, one of class 1 that does not.
    index = HashIndex.build([corner("1100"), corner("0011")], [0, 0], "ab")
    queries = [corner("1100")] * 3 + [corner("0011")]
    scores = evaluate_retrieval(index, queries, [0, 0, 0, 1], k=1)
    assert scores["precision_at_1"] == 3 / 4
    assert scores["class_mean_precision_at_1"] == scores["paper_precision"] == 1 / 2


def test_one_class_and_a_perfect_index():
    index = HashIndex.build(np.eye(8) * 0.9, np.zeros(8), range(8))
    scores = evaluate_retrieval(index, np.eye(8) * 0.8, np.zeros(8), class_names=("MEL",))
    assert scores.pop("queries_MEL") == 8
    assert set(scores.values()) == {1.0}


def test_a_hit_beyond_the_radius_does_not_count_for_the_paper_protocol():
    index = HashIndex.build([corner("1111111111")], [0], "a")
    scores = evaluate_retrieval(index, [corner("0000011111")], [0], radius=4)
    assert scores["paper_precision"] == scores["paper_reciprocal_rank"] == 0
    assert scores["map"] == scores["precision_at_10"] == 1
    assert evaluate_retrieval(index, [corner("0000011111")], [0], radius=5)["paper_precision"] == 1


def test_scores_of_single_rows_by_hand():
    relevant = np.array([[1, 0, 1, -1], [0, 0, 1, 1], [-1, -1, -1, -1], [0, 0, 0, 0]])
    assert precision(relevant).tolist() == pytest.approx([2 / 3, 1 / 2, 0, 0])
    assert reciprocal_rank(relevant).tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert average_precision(relevant).tolist() == pytest.approx(
        [(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2, 0, 0]
    )


def test_relevance_marks_missing_hits():
    ids = np.array([[0, 2, -1], [1, -1, -1]])
    assert relevance(ids, np.array([5, 6, 6]), np.array([5, 6])).tolist() == [
        [1, 0, -1],
        [1, -1, -1],
    ]


@pytest.mark.parametrize(("codes", "labels"), [(np.zeros((0, 4)), []), (np.zeros((2, 4)), [0])])
def test_queries_need_labels(codes, labels):
    index = HashIndex.build(np.zeros((1, 4)), [0], "a")
    with pytest.raises(InputError, match="one label a query"):
        evaluate_retrieval(index, codes, labels)


# --- how still the code holds -------------------------------------------------------------


def test_flipped_bits_by_hand():
    # Member 0: 1 0; member 1: 1 1 (one of two flips); member 2: 0 1 (both flip): 3 of 4.
    codes = [[[0.9, 0.1]], [[0.6, 0.51]], [[0.5, 1.0]]]
    assert flipped_bits(codes) == 3 / 4
    assert flipped_bits(torch.tensor(codes)) == 3 / 4
    assert flipped_bits(np.full((4, 3, 16), 0.7)) == 0


def test_flipped_bits_is_the_triple_loop():
    codes = np.random.default_rng(0).random((4, 5, 6))
    changed = [
        (codes[k, i, b] > 0.5) != (codes[0, i, b] > 0.5)
        for k in range(1, 4)
        for i in range(5)
        for b in range(6)
    ]
    assert flipped_bits(codes) == pytest.approx(sum(changed) / len(changed))


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 3)])
def test_flipped_bits_need_an_orbit(shape):
    with pytest.raises(InputError, match="n >= 2"):
        flipped_bits(np.zeros(shape))


def test_topk_overlap_by_hand():
    a = np.array([[1, 2, 3, 4], [5, -1, -1, -1]])
    b = np.array([[4, 3, 9, 8], [5, 6, -1, -1]])
    # Two of four in common, then one of four: missing hits never are.
    assert topk_overlap(a, b) == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert topk_overlap(a[:1], a[:1, ::-1]) == 1
    assert topk_overlap(np.full((2, 3), -1), np.full((2, 3), -1)) == 0


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
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    report = rotation_report(HandMade(mean_colour), images, batch_size=2)
    assert report["angle"].tolist() == [90, 180, 270]
    assert report["flipped_bits"].tolist() == [0, 0, 0]
    assert report["code_distance"].max() < 1e-6


def test_a_code_of_the_upper_half_flips_by_hand():
    # Bright above (+1), dark below (-1): code sigmoid(2). Upside down: sigmoid(-2), a flip, at
    # a distance of sigmoid(2) - sigmoid(-2) = tanh(1). A quarter turn: sigmoid(0) = 1/2, and
    # 1/2 is not above the threshold: a flip, at half that distance.
    images = torch.cat([torch.ones(3, 1, 4, 8), -torch.ones(3, 1, 4, 8)], dim=2)
    report = rotation_report(HandMade(upper_half), images, (0, 90, 180, 360), batch_size=2)
    assert report["flipped_bits"].tolist() == [0, 1, 1, 0]
    tanh = math.tanh(1)
    assert report["code_distance"].tolist() == pytest.approx([0, tanh / 2, tanh, 0], abs=1e-6)


def test_other_angles_compare_the_inscribed_discs():
    images = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
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
    assert model.training is training
    assert model.nothing.grad is None


# --- does the heatmap look at the lesion ----------------------------------------------------

HEATMAP = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]])


def test_heatmap_scores_by_hand():
    mask = np.array([[False, True, False], [True, True, False]])
    # On the lesion 1 + 3 + 4 of 10. The highest (4) lies on it. The three hottest are 4, 3, 2:
    # two of them on the lesion, four pixels in the union.
    assert mask_energy(HEATMAP, mask) == pytest.approx(0.8)
    assert pointing_game(HEATMAP, mask) is True
    assert iou_at_mask_area(HEATMAP, mask) == pytest.approx(2 / 4)
    assert mask_energy(HEATMAP, ~mask) == pytest.approx(0.2)
    assert pointing_game(HEATMAP, ~mask) is False
    assert iou_at_mask_area(HEATMAP, ~mask) == pytest.approx(1 / 5)


def test_extreme_heatmaps():
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    assert mask_energy(np.ones((4, 4)), mask) == mask.mean() == 1 / 4
    assert mask_energy(np.zeros((4, 4)), mask) == 0
    perfect = mask.astype(float)
    assert (mask_energy(perfect, mask), iou_at_mask_area(perfect, mask)) == (1, 1)
    assert iou_at_mask_area(1 - perfect, mask) == 0
    nothing = np.zeros((4, 4), bool)
    assert (mask_energy(perfect, nothing), iou_at_mask_area(perfect, nothing)) == (0, 0)


@pytest.mark.parametrize("score", [mask_energy, pointing_game, iou_at_mask_area])
def test_heatmap_and_mask_have_one_shape(score):
    with pytest.raises(InputError, match="resize the heatmap"):
        score(np.ones((4, 4)), np.ones((2, 8), bool))
