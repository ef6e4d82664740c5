"""The scores of retrieval against plain loops, and pencil and paper."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derm_hash.errors import InputError
from derm_hash.metrics.codes import code_quality
from derm_hash.metrics.scores import evaluate_retrieval, mean_scores, paper_scores, query_scores
from derm_hash.retrieval import HashIndex

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


def among(scores, names):
    """Those of the scores that have one of the names."""
    return {name: scores[name] for name in names}


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


# --- against plain loops ----------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 9999),
    database=st.integers(1, 25),
    queries=st.integers(1, 8),
    classes=st.integers(1, 4),
    k=st.integers(1, 12),
    radius=st.integers(0, 5),
)
def test_any_case_in_plain_loops(seed, database, queries, classes, k, radius):
    index, codes, labels = random_case(seed, database, queries, 8, classes)
    ours = evaluate_retrieval(index, codes, labels, k=k, radius=radius)
    precisions, ranks = paper_protocol(index, codes, labels, k, radius)
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
    not_shares = ("queries", "distinct_codes", "code_entropy")
    assert all(0 <= v <= 1 for name, v in ours.items() if not name.startswith(not_shares))


def test_many_queries_are_scored_in_portions(monkeypatch):
    index, codes, labels = random_case(seed=1, queries=13)
    at_once = evaluate_retrieval(index, codes, labels)
    monkeypatch.setattr("derm_hash.metrics.scores.QUERIES_AT_ONCE", 3)
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
    scores = evaluate_retrieval(index, queries, [0, 1], k=2, radius=4, metric="hamming")
    # Query 0 (class 0): within 4 bits a, b, c; the first two: right, wrong -> 1/2; rank 1 -> 1.
    # Ranking a b c d = 1 0 1 1: AP = (1/1 + 2/3 + 3/4) / 3 = 29/36.
    # Query 1 (class 1): within 4 bits d alone: wrong -> 0 and 0; ranking d c b a = 0 0 1 0:
    # AP = 1/3; precision of the first two: 0.
    # Nothing ties, so that the tie-aware scores are the plain ones. Within 2 bits: of query 0
    # a, b, c, two of them right; of query 1 d, which is wrong.
    expected = {
        "paper_precision": 1 / 4,
        "paper_reciprocal_rank": 1 / 2,
        "precision_at_2": 1 / 4,
        "class_mean_precision_at_2": 1 / 4,
        "recall_at_2": (1 / 3 + 0) / 2,
        "ndcg_at_2": (1 / (1 + 1 / np.log2(3)) + 0) / 2,
        "map": (29 / 36 + 1 / 3) / 2,
        "class_mean_map": (29 / 36 + 1 / 3) / 2,
        "map_at_2": (1 + 0) / 2,
        "reciprocal_rank": (1 + 1 / 3) / 2,
        "precision_at_2_0": 1 / 2,
        "ap_0": 29 / 36,
        "queries_0": 1,
        "precision_at_2_1": 0,
        "ap_1": 1 / 3,
        "queries_1": 1,
        # Of query 0 the first hit has a third of what is wanted, and all are met at rank 4.
        "precision_at_recall_30_0": 1,
        "precision_at_recall_40_0": 3 / 4,
        "precision_at_recall_100_0": 3 / 4,
        "precision_at_recall_0_1": 1 / 3,
        "precision_within_2_bits": (2 / 3 + 0) / 2,
        "nothing_within_2_bits": 0,
        "tie_aware_map": (29 / 36 + 1 / 3) / 2,
        "tie_aware_ap_0": 29 / 36,
        "tie_aware_precision_at_2": 1 / 4,
        "tie_aware_map_at_2": 1 / 2,
        "tie_aware_reciprocal_rank": (1 + 1 / 3) / 2,
        "distinct_codes": 4,
        "code_entropy": 2,
        "quantisation_gap": 0,
    }
    assert among(scores, expected) == pytest.approx(expected)


def test_the_paper_scores_alone_are_those_among_all_scores():
    index, codes, labels = random_case(4, bits=10)  # all have more than ten within reach
    alone, table = paper_scores(index, codes, labels), query_scores(index, codes, labels)
    assert list(alone) == ["paper_precision", "paper_reciprocal_rank"]
    assert "precision_at_10" in table
    # In plain loops, with the ten hits and the radius of 4 that nobody has to ask for.
    loops = paper_protocol(index, codes, labels, 10, 4)
    for values, expected in zip(alone.values(), loops, strict=True):
        np.testing.assert_allclose(values, expected)
    for name, values in alone.items():
        np.testing.assert_array_equal(values, table[name])
        assert values.any()


def test_a_hit_beyond_the_radius_does_not_count_for_the_paper_protocol():
    index = HashIndex.build([corner("1111111111")], [0], "a")
    scores = evaluate_retrieval(index, [corner("0000011111")], [0], radius=4)
    assert scores["paper_precision"] == scores["paper_reciprocal_rank"] == 0
    assert scores["map"] == scores["precision_at_10"] == 1
    assert evaluate_retrieval(index, [corner("0000011111")], [0], radius=5)["paper_precision"] == 1
    # A radius of 4 is what is taken when nobody says another.
    for query, counts in (("0000111111", 1), ("0000011111", 0)):
        assert evaluate_retrieval(index, [corner(query)], [0])["paper_precision"] == counts


def test_the_paper_scores_take_their_own_ranking_and_radius():
    # The first has the query's direction, the second lies nearer; the third has another bit.
    index = HashIndex.build([[0.9, 0.9], [0.6, 0.55], [0.51, 0.49]], [0, 1, 0], "abc")
    query = [[0.52, 0.52]]
    for metric, right in (("cosine", 1), ("euclidean", 0)):
        for scores in (paper_scores, query_scores):
            found = scores(index, query, np.array([0]), k=1, radius=0, metric=metric)
            assert found["paper_precision"].tolist() == [right]
    # With the third in reach it is the nearest.
    beyond = paper_scores(index, query, np.array([0]), k=1, radius=1, metric="euclidean")
    assert beyond["paper_precision"].tolist() == [1]


@pytest.mark.parametrize(("codes", "labels"), [(np.zeros((0, 4)), []), (np.zeros((2, 4)), [0])])
def test_queries_need_labels(codes, labels):
    index = HashIndex.build(np.zeros((1, 4)), [0], "a")
    with pytest.raises(InputError, match="one label for each query"):
        evaluate_retrieval(index, codes, labels)


def test_where_nothing_lies_within_two_bits_the_precision_is_zero():
    index = HashIndex.build([corner("11110000"), corner("11111000")], [0, 1], "ab")
    # 4 and 3 bits away, 2 and 1 bits away, 3 and 2 bits away.
    queries = [corner("11111111"), corner("11111100"), corner("11111011")]
    scores = query_scores(index, queries, [0, 0, 1])
    assert scores["nothing_within_2_bits"].tolist() == [1, 0, 0]
    assert scores["precision_within_2_bits"].tolist() == [0, 1 / 2, 1]


def test_means_are_those_of_the_scores_of_single_queries():
    index, codes, labels = random_case(seed=2, database=60, queries=40, bits=6)
    table = query_scores(index, codes, labels, k=5, radius=2)
    scores = evaluate_retrieval(index, codes, labels, k=5, radius=2, class_names=CLASSES)
    assert table["label"].tolist() == labels.tolist()
    assert mean_scores(table, CLASSES) | code_quality(index.codes) == scores
    assert mean_scores(table)["ap_1"] == scores["ap_NV"]
    for column in table.columns.drop("label"):
        by_class = table.groupby("label")[column].mean()
        for label, mean in by_class.items():
            assert scores.pop(f"{column}_{CLASSES[label]}") == pytest.approx(mean)
        if column.startswith("paper"):
            assert scores.pop(column) == pytest.approx(by_class.mean())
            continue
        name = column.replace("ap_at_5", "map_at_5")
        name = name[:-2] + "map" if name == "ap" or name.endswith("_ap") else name
        assert scores.pop(name) == pytest.approx(table[column].mean())
        assert scores.pop(f"class_mean_{name}") == pytest.approx(by_class.mean())
    counts = {f"queries_{CLASSES[c]}": (labels == c).sum() for c in range(3)}
    assert scores == pytest.approx(counts | code_quality(index.codes))


def test_classes_are_matched_with_those_of_the_index_by_name():
    index, codes, labels = random_case(seed=5)
    named = HashIndex.build(index.codes, index.labels, range(len(index)), CLASSES)
    others = ("BCC", "MEL", "NV")
    renumbered = [others.index(CLASSES[label]) for label in labels]
    found = evaluate_retrieval(named, codes, renumbered, class_names=others)
    assert found == pytest.approx(evaluate_retrieval(index, codes, labels, class_names=CLASSES))


def test_tie_aware_scores_do_not_know_the_order_of_the_database():
    index, codes, labels = random_case(seed=3, database=50, queries=20, bits=4)
    order = np.random.default_rng(0).permutation(50)
    shuffled = HashIndex.build(index.codes[order], index.labels[order], range(50))
    tables = [query_scores(i, codes, labels, metric="hamming") for i in (index, shuffled)]
    aware = [c for c in tables[0] if c.startswith("tie_aware") or c.endswith("2_bits")]
    assert len(aware) == 8
    pd.testing.assert_frame_equal(tables[0][aware], tables[1][aware])
    assert not np.allclose(tables[0]["ap"], tables[1]["ap"])
    # Whatever ranks the plain scores, the tie-aware ones are of the Hamming distance.
    cosine = query_scores(index, codes, labels, metric="cosine")
    pd.testing.assert_frame_equal(cosine[aware], tables[0][aware])


def test_a_class_that_is_not_in_the_database_has_zero():
    index = HashIndex.build([corner("1100"), corner("0011")], [0, 0], "ab")
    table = query_scores(index, [corner("1100")], [1]).drop(columns="label")
    assert table.columns[(table != 0).any()].tolist() == []
