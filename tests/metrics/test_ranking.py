"""Scores of a ranking against torchmetrics, scikit-learn, and pencil and paper."""

import warnings

import numpy as np
import pytest
import torch
from helpers import plain_scores
from sklearn.metrics import precision_recall_curve
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_normalized_dcg,
    retrieval_precision,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from derm_hash.metrics.ranking import (
    average_precision,
    cumulative_discount,
    ndcg,
    precision,
    precision_at_recall,
    recall,
    reciprocal_rank,
    relevance,
)


def rankings(cases=150):
    """Relevance of whole rankings and a k: nothing, little, half and everything relevant, and
    fewer than k items among them."""
    rng = np.random.default_rng(0)
    for case in range(cases):
        items = int(rng.integers(1, 40))
        share = (0, 0.05, 0.5, 1)[case % 4]
        yield (rng.random(items) < share).astype(np.int8)[None], int(rng.integers(1, 15))


def test_every_score_is_that_of_torchmetrics():
    seen = set()
    for relevant, k in rankings():
        score = torch.linspace(1, 0.5, relevant.shape[1])
        target = torch.from_numpy(relevant[0]).bool()
        expected = {
            "precision": retrieval_precision(score, target, k, adaptive_k=True),
            "recall": retrieval_recall(score, target, k),
            "ndcg": retrieval_normalized_dcg(score, target, k),
            "ap": retrieval_average_precision(score, target),
            "ap at k": retrieval_average_precision(score, target, k),
            "reciprocal rank": retrieval_reciprocal_rank(score, target),
            "reciprocal rank at k": retrieval_reciprocal_rank(score, target, k),
        }
        expected = {name: value.item() for name, value in expected.items()}
        scores = plain_scores(relevant, k)
        scores["reciprocal rank at k"] = reciprocal_rank(relevant[:, :k])
        scores = {name: value.item() for name, value in scores.items()}
        assert scores == pytest.approx(expected, abs=1e-6)
        seen |= {"none"} if not relevant.any() else set()
        seen |= {"all"} if relevant.all() else set()
        seen |= {"fewer than k"} if relevant.shape[1] < k else set()
    assert seen == {"none", "all", "fewer than k"}


def test_the_precision_recall_curve_is_that_of_scikit_learn():
    for relevant, _ in rankings():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn, where nothing is relevant
            p, r, _ = precision_recall_curve(relevant[0], -np.arange(relevant.shape[1]))
        p, r = p[:-1], r[:-1]  # without the point (recall 0, precision 1) that is no rank
        for level in (0, 10, 30, 50, 90, 100):
            expected = p[r >= level / 100 - 1e-9].max() if relevant.any() else 0
            curve = precision_at_recall(relevant, [level])
            assert curve.item() == pytest.approx(expected, abs=1e-12)


def test_a_level_of_recall_is_met_exactly():
    # 0.07 * 100 is more than 7 in floating point; seven of a hundred items are 7 %.
    assert 0.07 * 100 > 7
    relevant = np.concatenate([np.ones(7), np.zeros(100), np.ones(93)])[None].astype(np.int8)
    assert precision_at_recall(relevant, [7, 8, 100])[0].tolist() == [1, 1 / 2, 1 / 2]
    assert precision_at_recall(relevant)[0].tolist() == [1] + [1 / 2] * 10


def test_scores_of_single_rows_by_hand():
    relevant = np.array([[1, 0, 1, -1], [0, 0, 1, 1], [-1, -1, -1, -1], [0, 0, 0, 0]])
    wanted = np.array([2, 4, 1, 0])
    assert precision(relevant).tolist() == pytest.approx([2 / 3, 1 / 2, 0, 0])
    assert recall(relevant, wanted).tolist() == pytest.approx([1, 1 / 2, 0, 0])
    assert reciprocal_rank(relevant).tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert average_precision(relevant).tolist() == pytest.approx(
        [(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2, 0, 0]
    )
    # Discounts 1, 1/log2(3), 1/2, 1/log2(5); the best four begin with all that are wanted.
    d = 1 / np.log2([2, 3, 4, 5])
    assert ndcg(relevant, wanted).tolist() == pytest.approx(
        [(d[0] + d[2]) / (d[0] + d[1]), (d[2] + d[3]) / d.sum(), 0, 0]
    )
    np.testing.assert_allclose(cumulative_discount(4), [0, *np.cumsum(d)])


def test_relevance_marks_missing_hits():
    ids = np.array([[0, 2, -1], [1, -1, -1]])
    marks = relevance(ids, np.array([5, 6, 6]), np.array([5, 6]))
    assert marks.tolist() == [[1, 0, -1], [1, -1, -1]]
    assert marks.itemsize == 1  # a byte for each pair: there can be millions
