"""Tie-aware scores against every order, random orders, and scikit-learn."""

import itertools

import numpy as np
import pytest
from helpers import plain_scores
from sklearn.metrics import ndcg_score

from derm_hash.errors import InputError
from derm_hash.metrics.ranking import average_precision
from derm_hash.metrics.ties import (
    expected_average_precision,
    expected_average_precision_at,
    expected_ndcg,
    expected_precision,
    expected_recall,
    expected_reciprocal_rank,
    hamming_histograms,
)


def expected(total, relevant, k):
    """All expectations: histograms (Q, D) -> dict of (Q,)."""
    return {
        "precision": expected_precision(total, relevant, k),
        "recall": expected_recall(total, relevant, k),
        "ndcg": expected_ndcg(total, relevant, k),
        "ap": expected_average_precision(total, relevant),
        "ap at k": expected_average_precision_at(total, relevant, k),
        "reciprocal rank": expected_reciprocal_rank(total, relevant),
    }


def every_order(total, relevant):
    """Relevance (orders, N) of all ways to put the relevant items into each group's places."""

    def ways(t, r):
        for places in itertools.combinations(range(t), r):
            yield [int(i in places) for i in range(t)]

    groups = [list(ways(t, r)) for t, r in zip(total, relevant, strict=True)]
    return np.array([[*itertools.chain(*order)] for order in itertools.product(*groups)])


def trained(rng, items, bits=16, classes=4, spread=1.5):
    """Hash codes as training leaves them: each class about a corner, few different ones."""
    labels = rng.choice(classes, items, p=[0.15, 0.6, 0.15, 0.1][:classes])
    corners = np.random.default_rng(5).choice([-1.0, 1.0], (classes, bits))
    return 1 / (1 + np.exp(-(corners[labels] + spread * rng.normal(size=(items, bits))))), labels


def test_expectations_are_the_mean_over_every_order():
    rng = np.random.default_rng(0)
    for case in range(150):
        total = rng.integers(0, 5, rng.integers(1, 4))
        total[rng.integers(len(total))] += 1  # at least one item
        share = (0, 0.3, 0.6, 1)[case % 4]
        relevant = rng.binomial(total, share)
        k = int(rng.integers(1, total.sum() + 3))
        truth = {
            name: v.mean() for name, v in plain_scores(every_order(total, relevant), k).items()
        }
        ours = {name: v.item() for name, v in expected(total[None], relevant[None], k).items()}
        assert ours == pytest.approx(truth, abs=1e-12), (total, relevant, k)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_all_tied_is_chance(k):
    # One group of ten, four relevant, in all 210 orders.
    ours = expected(np.array([[10]]), np.array([[4]]), k)
    truth = plain_scores(every_order([10], [4]), k)
    for name, value in ours.items():
        assert value.item() == pytest.approx(truth[name].mean(), abs=1e-12)
    assert ours["precision"].item() == pytest.approx(0.4)


def test_expected_ndcg_is_the_tie_aware_one_of_scikit_learn():
    rng = np.random.default_rng(2)
    for _ in range(120):
        items, k = int(rng.integers(2, 60)), int(rng.integers(1, 20))
        distance = rng.integers(0, 5, items)
        right = rng.random(items) < rng.choice([0.0, 0.2, 0.7, 1.0])
        total = np.bincount(distance, minlength=5)[None]
        relevant = np.bincount(distance[right], minlength=5)[None]
        truth = ndcg_score(right[None], -distance[None], k=k)
        assert expected_ndcg(total, relevant, k).item() == pytest.approx(truth, abs=1e-12)


def test_histograms_count_in_plain_loops():
    rng = np.random.default_rng(3)
    # Rounded, so that some lie on the threshold.
    database, codes = rng.random((40, 10)).round(1), rng.random((6, 10)).round(1)
    classes, labels = rng.integers(0, 3, 40), rng.integers(0, 3, 6)
    total, relevant = hamming_histograms(database, classes, codes, labels)
    assert total.shape == relevant.shape == (6, 11)
    for q in range(6):
        distance = [sum((codes[q] > 0.5) != (row > 0.5)) for row in database]
        for d in range(11):
            assert total[q, d] == distance.count(d)
            assert relevant[q, d] == sum(
                x == d and c == labels[q] for x, c in zip(distance, classes, strict=True)
            )


def test_histograms_need_codes_of_one_length():
    with pytest.raises(InputError, match="8 and 16 bits"):
        hamming_histograms(np.zeros((2, 16)), np.zeros(2), np.zeros((1, 8)), np.zeros(1))


def test_how_far_the_order_of_ties_moves_plain_map():
    """16 bits, 4 classes: the same codes get any mAP of a wide range, by luck alone."""
    rng = np.random.default_rng(6)
    database, classes = trained(rng, 2000)
    codes, labels = trained(rng, 100)
    total, relevant = hamming_histograms(database, classes, codes, labels)
    expected_map = expected_average_precision(total, relevant).mean()
    distance = ((codes > 0.5)[:, None] != (database > 0.5)).sum(axis=2).astype(float)
    same = labels[:, None] == classes

    def map_of(order_within_ties):
        order = np.argsort(distance + order_within_ties, axis=1, kind="stable")
        return average_precision(np.take_along_axis(same, order, axis=1)).mean()

    lucky, unlucky = map_of(np.where(same, 0, 0.5)), map_of(np.where(same, 0.5, 0))
    assert lucky - unlucky > 0.1
    assert unlucky < expected_map < lucky
    # Random orders agree with the expectation ...
    random = np.array([map_of(rng.random(distance.shape)) for _ in range(20)])
    assert np.abs(random - expected_map).max() < 0.002
    # ... but a database that is stored class by class, as folders are, is no random order.
    by_class = [map_of(np.roll(range(4), i)[classes] / 5) for i in range(4)]
    assert max(by_class) - min(by_class) > 0.01 > 10 * random.std()


def test_large_histograms_stay_exact():
    # Twenty thousand tied items, one of them relevant: its rank is uniform, E[1/rank] = H(N)/N.
    n = 20_000
    total, relevant = np.array([[n]]), np.array([[1]])
    chance = (1 / np.arange(1, n + 1)).sum() / n
    assert expected_reciprocal_rank(total, relevant).item() == pytest.approx(chance, rel=1e-9)
    assert expected_average_precision(total, relevant).item() == pytest.approx(chance, rel=1e-9)
    assert expected_recall(total, relevant, 10).item() == pytest.approx(10 / n)
