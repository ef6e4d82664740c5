"""Expected scores of rankings with ties, against brute force and independent references."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from benchmarks import ranked
from benchmarks.ranked import criteria_scores, label_scores
from derm_hash.metrics.scores import query_scores
from derm_hash.retrieval import HashIndex


@pytest.fixture(params=[1_000_000, 50], ids=["one block", "blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(ranked, "PAIRS_AT_ONCE", request.param)


def drawn(seed, queries=7, database=40, bits=6, binary=False):
    """Codes of queries and of a database, and their classes."""
    rng = np.random.default_rng(seed)
    codes = [rng.random((n, bits)).astype(np.float32) for n in (queries, database)]
    if binary:
        codes = [(each > 0.5).astype(np.float32) for each in codes]
    return *codes, rng.integers(3, size=queries), rng.integers(3, size=database)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("binary", "prefix"), [(False, ""), (True, "tie_aware_")])
def test_scores_are_those_of_an_index(binary, prefix):
    queries, database, own, labels = drawn(0, binary=binary)
    index = HashIndex.build(database, labels, range(len(database)))
    wanted = query_scores(index, queries, own)
    found = label_scores(queries, database, own[:, None] == labels)
    for score in ("ap", "precision_at_10"):
        assert np.allclose(found[score], wanted[prefix + score])


def test_tied_images_count_as_the_mean_over_their_orders():
    database = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    relevant = np.array([True, False, True, False, False])
    aps = []
    for order in permutations(range(5)):
        if {0, 1, 3} == set(order[:3]):  # the three equal codes come first, in any order
            hits = relevant[list(order)]
            aps.append((np.cumsum(hits) / np.arange(1, 6))[hits].mean())
    found = label_scores(database[:1], database, relevant[None])
    assert found["ap"].item() == pytest.approx(np.mean(aps))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("binary", [False, True])
def test_an_image_that_is_left_out_might_as_well_not_be_there(binary):
    queries, database, own, labels = drawn(1, binary=binary)
    relevant = own[:, None] == labels
    left_out = np.random.default_rng(0).random(relevant.shape) < 0.3
    found = label_scores(queries, database, relevant, left_out)
    for i, kept in enumerate(~left_out):
        alone = label_scores(queries[i : i + 1], database[kept], relevant[i : i + 1, kept])
        assert np.allclose(found.iloc[i], alone.iloc[0])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("binary", [False, True])
def test_criteria_scores_are_those_of_scikit_learn(binary):
    codes = drawn(2, queries=30, binary=binary)[0]
    rng = np.random.default_rng(3)
    shown = (rng.random((30, 3)) < 0.4).astype(int)
    shown[0] = 0
    left_out = np.eye(30, dtype=bool)
    left_out[4, 9] = left_out[9, 4] = True
    found = criteria_scores(codes, codes, shown, left_out)
    rows = np.flatnonzero(shown.any(axis=1))
    assert len(found) == len(rows) < 30
    unit = codes / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    for i, (_, scores) in zip(rows, found.iterrows(), strict=True):
        kept = ~left_out[i]
        similar = -(codes[i] != codes[kept]).sum(axis=1) if binary else unit[kept] @ unit[i]
        gains = shown[kept] @ shown[i]
        wanted = ndcg_score(gains[None], similar[None].astype(float), k=10)
        assert scores["ndcg_at_10"] == pytest.approx(wanted)
        for criterion in range(3):
            if not shown[i, criterion]:
                assert np.isnan(scores[criterion])
            elif not binary:  # scikit-learn has another convention for ties
                ap = average_precision_score(shown[kept, criterion], similar)
                assert scores[criterion] == pytest.approx(ap)


def test_a_query_that_shares_no_criterion_with_another_image_has_no_ndcg():
    codes, shown = np.random.default_rng(0).random((3, 4)), np.array([[1, 0], [0, 1], [0, 1]])
    found = criteria_scores(codes, codes, shown, np.eye(3, dtype=bool))
    assert np.isnan(found["ndcg_at_10"][0]) and (found["ndcg_at_10"][1:] > 0.6).all()
