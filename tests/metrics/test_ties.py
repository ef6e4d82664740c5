"""Tie-aware scores against every order of the tied items."""

import itertools

import numpy as np
import pytest
from helpers import plain_scores

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


def test_many_queries_at_once_are_scored_as_each_alone():
    rng = np.random.default_rng(1)
    total = rng.integers(0, 5, (40, 4)) + np.array([1, 0, 0, 0])  # at least one item
    relevant = rng.binomial(total, 0.4)
    for k in (1, 4, 12):
        together = expected(total, relevant, k)
        for q in range(40):
            for name, value in expected(total[q : q + 1], relevant[q : q + 1], k).items():
                assert together[name][q] == pytest.approx(value.item(), abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_all_tied_is_chance(k):
    # One group of ten, four relevant, in all 210 orders.
    ours = expected(np.array([[10]]), np.array([[4]]), k)
    truth = plain_scores(every_order([10], [4]), k)
    for name, value in ours.items():
        assert value.item() == pytest.approx(truth[name].mean(), abs=1e-12)
    assert ours["precision"].item() == pytest.approx(0.4)


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


def test_large_histograms_stay_exact():
    # Twenty thousand tied items, one of them relevant: its rank is uniform, E[1/rank] = H(N)/N.
    n = 20_000
    total, relevant = np.array([[n]]), np.array([[1]])
    chance = (1 / np.arange(1, n + 1)).sum() / n
    assert expected_reciprocal_rank(total, relevant).item() == pytest.approx(chance, rel=1e-9)
    assert expected_average_precision(total, relevant).item() == pytest.approx(chance, rel=1e-9)
    assert expected_recall(total, relevant, 10).item() == pytest.approx(10 / n)
