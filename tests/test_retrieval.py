"""Coarse-to-fine search against a double loop over queries and database."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import color_data
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from scipy.spatial import distance as scipy_distance

from derm_hash.errors import InputError
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import METRICS, HashIndex, build_index, pack_bits, soft_distance
from derm_hash.tensors import save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")

DISTANCE = {
    "cosine": scipy_distance.cosine,
    "euclidean": scipy_distance.euclidean,
    "manhattan": scipy_distance.cityblock,
    "hamming": lambda a, b: float(((a > 0.5) != (b > 0.5)).sum()),
}


def random_codes(count, bits, seed):
    return np.random.default_rng(seed).random((count, bits), dtype=np.float32)


def make_index(codes):
    return HashIndex.build(codes, np.arange(len(codes)) % 3, range(len(codes)))


def double_loop(database, queries, k, radius, metric):
    """ids, hamming and distance, each (Q, k), one pair of codes at a time in 64 bits."""
    database, queries = database.astype(np.float64), queries.astype(np.float64)
    ids = np.full((len(queries), k), -1)
    hamming, distance = ids.copy(), np.full(ids.shape, np.nan)
    for q, query in enumerate(queries):
        found = []
        for i, code in enumerate(database):
            bits_apart = sum((a > 0.5) != (b > 0.5) for a, b in zip(query, code, strict=True))
            if radius is None or bits_apart <= radius:
                found.append((DISTANCE[metric](query, code), i, bits_apart))
        for place, (d, i, bits_apart) in enumerate(sorted(found)[:k]):
            ids[q, place], hamming[q, place], distance[q, place] = i, bits_apart, d
    return ids, hamming, distance


def assert_hits(hits, expected):
    ids, hamming, distance = expected
    np.testing.assert_array_equal(hits.ids, ids)
    np.testing.assert_array_equal(hits.hamming, hamming)
    np.testing.assert_allclose(hits.distance, distance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [5, 16, 20, 48])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("radius", [None, 0.45])
def test_search_is_the_double_loop(bits, metric, radius):
    radius = radius and int(radius * bits)
    database, queries = random_codes(60, bits, seed=bits), random_codes(7, bits, seed=1)
    hits = make_index(database).search(queries, k=9, radius=radius, rank=metric)
    assert_hits(hits, double_loop(database, queries, 9, radius, metric))
    assert [field.dtype for field in hits] == [np.int64, np.int64, np.float32]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 12),
    bits=st.integers(1, 12),
    k=st.integers(1, 15),
    radius=st.none() | st.integers(0, 13),
    metric=st.sampled_from(METRICS),
)
def test_search_with_ties_is_the_double_loop_and_keeps_the_order_of_the_database(
    seed, size, bits, k, radius, metric
):
    # A few different rows, repeated: most distances tie.
    rng = np.random.default_rng(seed)
    rows = rng.choice([0.125, 0.375, 0.5, 0.75, 1.0], (3, bits)).astype(np.float32)
    database, queries = rows[rng.integers(0, 3, size)], rows[:2]
    hits = make_index(database).search(queries, k, radius, metric)
    expected = double_loop(database, queries, k, radius, metric)
    np.testing.assert_array_equal(np.sort(hits.hamming), np.sort(expected[1]))
    np.testing.assert_array_equal(hits.ids < 0, expected[0] < 0)
    np.testing.assert_allclose(hits.distance, expected[2], rtol=1e-5, atol=1e-6)
    for ids, distance in zip(hits.ids, hits.distance, strict=True):
        found = ids[ids >= 0].tolist()
        assert found == [i for _, i in sorted(zip(distance.tolist(), found, strict=False))]
        assert len(set(found)) == len(found)


def test_ten_hits_within_four_bits_by_cosine_are_the_default():
    index, queries = make_index(random_codes(50, 8, seed=0)), random_codes(5, 8, seed=1)
    expected = index.search(queries, k=10, radius=4, rank="cosine")
    for field, same in zip(index.search(queries), expected, strict=True):
        np.testing.assert_array_equal(field, same)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("radius", [3, None])
def test_a_large_search_is_many_small_ones_and_bounded_in_memory(metric, radius):
    # 6.4 million pairs of query and candidate, of which 1 million are compared at once.
    index = make_index(clustered_codes(8000, 8, seed=1, noise=3.0))
    queries = clustered_codes(800, 8, seed=2, noise=3.0)
    tracemalloc.start()
    whole = index.search(queries, 5, radius, metric)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # the differences of all pairs at once would take 205 MB
    for q in range(0, 800, 97):
        alone = index.search(queries[q : q + 1], 5, radius, metric)
        for field, one in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(field[q], one[0])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("radius", [6, None])
def test_a_search_in_many_blocks_is_the_double_loop(metric, radius, monkeypatch):
    monkeypatch.setattr("derm_hash.retrieval.PAIRS_AT_ONCE", 130)  # two hash codes at a time
    database, queries = random_codes(60, 16, seed=0), random_codes(11, 16, seed=1)
    hits = make_index(database).search(queries, 5, radius, metric)
    assert_hits(hits, double_loop(database, queries, 5, radius, metric))


@pytest.mark.parametrize("spread", [1e-3, 1e-2])
def test_codes_that_nearly_agree_are_still_ranked_by_their_distance(spread):
    # A trained model's codes: close to 0 or 1, and to those of their class.
    rng = np.random.default_rng(0)
    corner = np.array([0.0, 1.0] * 8)
    database = np.abs(corner - spread * rng.random((200, 16))).astype(np.float32)
    queries = database[:5]
    hits = make_index(database).search(queries, k=10)
    ids, _, distance = double_loop(database, queries, 10, 4, "cosine")
    np.testing.assert_allclose(hits.distance, distance, rtol=1e-4, atol=1e-12)
    assert hits.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(hits.ids, ids)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_those_of_scipy_rounded_to_32_bits(metric):
    a, b = random_codes(200, 512, seed=0), random_codes(200, 512, seed=1)
    pairs = zip(a.astype(np.float64), b.astype(np.float64), strict=True)
    expected = np.array([DISTANCE[metric](x, y) for x, y in pairs], dtype=np.float32)
    found = soft_distance(a, b, metric)
    assert found.dtype == np.float32
    np.testing.assert_array_max_ulp(found, expected)


@pytest.mark.parametrize("metric", METRICS)
def test_codes_of_the_same_bits_in_another_order_tie(metric):
    # Seen from the middle; in 32 bits the sums would depend on the order.
    row, rng = random_codes(1, 16, seed=0)[0], np.random.default_rng(1)
    index = make_index(np.array([rng.permutation(row) for _ in range(200)]))
    hits = index.search(np.full((1, 16), 0.5), 10, None, metric)
    assert hits.ids.tolist() == [[*range(10)]]


def test_a_bit_is_what_exceeds_a_half():
    codes = np.array([[0.5, 0.50001, 0.0, 1.0, 0.49999]], dtype=np.float32)
    assert pack_bits(codes).tolist() == [[0b01010000]]
    assert pack_bits(np.ones((2, 9), np.float32)).tolist() == [[255, 128]] * 2


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("radius", [4, None])
def test_a_search_without_queries_has_no_hits(metric, radius):
    hits = make_index(random_codes(4, 16, seed=0)).search(np.empty((0, 16)), 3, radius, metric)
    assert hits.ids.shape == hits.hamming.shape == hits.distance.shape == (0, 3)


@pytest.mark.parametrize("radius", [0, 4, 7, 20, 100, None])
def test_within_counts_the_coarse_candidates(radius):
    database, queries = random_codes(80, 20, seed=0), random_codes(6, 20, seed=1)
    apart = ((queries[:, None] > 0.5) != (database > 0.5)).sum(axis=2)
    expected = (apart <= (20 if radius is None else radius)).sum(axis=1)
    counts = make_index(database).within(queries, radius)
    assert counts.dtype == np.int64 and counts.tolist() == expected.tolist()
    if radius == 4:
        assert make_index(database).within(queries).tolist() == expected.tolist()


def test_numbers_and_codes_may_come_from_numpy_torch_or_lists():
    codes = random_codes(9, 16, seed=0)
    index = make_index(torch.from_numpy(codes))
    expected = index.search(codes, k=3, radius=6).ids
    for same in (torch.from_numpy(codes), codes.tolist(), codes.astype(np.float64)):
        hits = index.search(same, k=np.int64(3), radius=np.int64(6))
        np.testing.assert_array_equal(hits.ids, expected)
    fine = np.full((1, 16), 0.5 + 1e-12)  # more than a half in 64 bits only
    assert make_index(fine).search(fine, 1, radius=0).ids.tolist() == [[0]]


# --- many queries ----------------------------------------------------------------------


def clustered_codes(count, bits, seed, noise):
    """Soft codes as training leaves them: around few centres, most of them nearly saturated."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).choice([-6.0, 6.0], (4, bits))
    logits = centres[rng.integers(0, 4, count)] + rng.normal(0, noise, (count, bits))
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def cases():
    yield "spread out: fewer than k within the radius", random_codes(3000, 16, seed=0)
    yield "nearly saturated", clustered_codes(3000, 16, seed=1, noise=1.0)
    yield "saturated: distances below 1e-9", clustered_codes(3000, 16, seed=1, noise=0.01)
    yield "clusters that touch", clustered_codes(3000, 64, seed=1, noise=6.0)
    yield "many ties", np.round(clustered_codes(3000, 16, seed=1, noise=6.0), 1)
    yield "one code for all", np.tile(random_codes(1, 16, seed=0), (3000, 1))
    yield "codes of zeros, too", random_codes(3000, 3, seed=2) * (np.arange(3000) % 9 > 0)[:, None]


@pytest.mark.parametrize("codes", [pytest.param(codes, id=name) for name, codes in cases()])
@pytest.mark.parametrize("radius", [None, 0, 4])
@pytest.mark.parametrize("k", [1, 10])
def test_the_best_hits_are_the_first_of_the_whole_ranking(codes, radius, k):
    # A search for everything leaves nothing out; it is compared with brute force below.
    index, queries = make_index(codes[40:2981].copy()), codes[:40]
    everything = index.search(queries, len(index), radius)
    for field, expected in zip(index.search(queries, k, radius), everything, strict=True):
        np.testing.assert_array_equal(field, expected[:, :k])
    distance = soft_distance(queries[:, None], index.codes, "cosine")
    if radius is not None:
        distance[soft_distance(queries[:, None], index.codes, "hamming") > radius] = np.nan
    order = np.argsort(distance, axis=1, kind="stable")
    order[np.isnan(np.take_along_axis(distance, order, axis=1))] = -1
    np.testing.assert_array_equal(everything.ids, order)


def test_a_hundred_hits_are_the_first_of_the_whole_ranking_too():
    index, queries = make_index(random_codes(3000, 16, seed=0)), random_codes(40, 16, seed=1)
    everything = index.search(queries, len(index), None)
    for field, expected in zip(index.search(queries, 100, None), everything, strict=True):
        np.testing.assert_array_equal(field, expected[:, :100])


def test_what_rounds_to_the_same_distance_is_not_lost():
    # In 64 bits the second half is nearer, in the 32 bits that decide it is not.
    codes = np.full((2000, 2), [0.25, 1.0], dtype=np.float32)
    codes[1000:, 0] += np.float32(2**-25)
    query = np.tile(np.float32([1, 0]), (40, 1))
    assert codes[1000, 0] > codes[0, 0]
    hits = make_index(codes).search(query, k=5, radius=None)
    assert len(np.unique(hits.distance)) == 1
    assert (hits.ids == np.arange(5)).all()


@pytest.mark.parametrize("bits", [5, 16, 64])
@pytest.mark.parametrize("radius", [None, 0, 3])
def test_ranking_by_hamming_distance_keeps_the_order_of_ties(bits, radius):
    codes = clustered_codes(1000, bits, seed=bits, noise=4.0)
    index, queries = make_index(codes[50:]), codes[:50]
    apart = ((queries[:, None] > 0.5) != (index.codes > 0.5)).sum(axis=2)
    order = np.argsort(apart, axis=1, kind="stable")
    hamming = np.take_along_axis(apart, order, axis=1)
    order[hamming > (bits if radius is None else radius)] = -1
    for k in (1, 10, 950):
        hits = index.search(queries, k, radius, "hamming")
        np.testing.assert_array_equal(hits.ids, order[:, :k])
        np.testing.assert_array_equal(hits.hamming, np.where(order < 0, -1, hamming)[:, :k])
        np.testing.assert_array_equal(hits.distance, np.where(order < 0, np.nan, hamming)[:, :k])


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf])
def test_one_value_out_of_range_is_found(bad):
    codes = random_codes(20, 16, seed=0)
    codes[7, 3] = bad
    with pytest.raises(InputError, match=r"lies in \[0, 1\].*not its logits"):
        make_index(codes)


# --- what an index holds ------------------------------------------------------------


def test_an_index_knows_its_items():
    index = HashIndex.build(
        random_codes(2, 5, seed=0),
        torch.tensor([1, 0], dtype=torch.int32),
        pd.DataFrame({"image": "ab"}, [7, 9]),
    )
    assert (len(index), index.bits) == (2, 5)
    assert index.labels.dtype == np.int64
    assert index.items.index.tolist() == [0, 1]
    assert make_index(random_codes(2, 5, seed=0)).items["image"].tolist() == ["0", "1"]


def test_an_index_survives_saving_and_loading(tmp_path):
    items = pd.DataFrame(
        {
            "image": ["ä/1.png", "0002", "2019-01-01"],
            "lesion_id": ["", "NA", "null"],
            "age": [1, 2, 3],
            "share": [0.1, 0.25, 1e-12],
        }
    )
    index = HashIndex.build(random_codes(6, 20, seed=0)[::2], np.arange(6)[::2], items, "ABCDE")
    path = index.save(tmp_path / "index.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["items"]).keys() == {"columns", "data"}
    again = HashIndex.load(path)
    np.testing.assert_array_equal(again.codes, index.codes)
    np.testing.assert_array_equal(again.labels, [0, 2, 4])
    assert again.items.to_dict("list") == items.to_dict("list")
    assert again.classes == index.classes == tuple("ABCDE")
    queries = random_codes(4, 20, seed=1)
    for field, expected in zip(again.search(queries, 3), index.search(queries, 3), strict=True):
        np.testing.assert_array_equal(field, expected)


def test_a_missing_index_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="derm-hash encode"):
            HashIndex.load(path)


def test_another_file_is_not_taken_for_an_index(tmp_path):
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"codes": np.zeros((2, 8))}, {})
    with pytest.raises(InputError, match=r"other\.safetensors is not an index that derm-hash has"):
        HashIndex.load(path)


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codes": np.zeros((2, 8))}, "codes of 16 bits and the query has shape"),
        ({"codes": np.zeros(16)}, "codes of 16 bits"),
        ({"k": 0}, "k is the number of hits wanted and must be 1 or more, not 0"),
        ({"k": -3}, "not -3"),
        ({"radius": -1}, "radius is 0 or more, or None for no limit, not -1"),
        ({"rank": "jaccard"}, "'jaccard': use one of cosine, euclidean, manhattan, hamming"),
        ({"codes": np.full((1, 16), 1.5)}, r"lies in \[0, 1\]"),
        ({"codes": np.full((1, 16), np.nan)}, r"lies in \[0, 1\]"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(changes, said):
    index = make_index(random_codes(4, 16, seed=0))
    with pytest.raises(InputError, match=said):
        index.search(**{"codes": np.zeros((2, 16))} | changes)


def test_within_checks_its_input_too():
    index = make_index(random_codes(4, 16, seed=0))
    with pytest.raises(InputError, match="16 bits"):
        index.within(np.zeros((1, 8)))
    with pytest.raises(InputError, match="not -1"):
        index.within(np.zeros((1, 16)), -1)


@pytest.mark.parametrize(
    ("codes", "labels", "items", "said"),
    [
        (np.zeros((0, 16)), [], [], r"shape \(N, bits\), not \(0, 16\)"),
        (np.zeros((3, 0)), [0] * 3, "abc", r"not \(3, 0\)"),
        (np.zeros(16), [0], "a", r"not \(16,\)"),
        (np.zeros((2, 16)), [0], "ab", "1 labels and 2 items for 2 codes"),
        (np.zeros((2, 16)), [0, 1], "abc", "2 labels and 3 items for 2 codes"),
    ],
)
def test_what_cannot_be_indexed_is_refused(codes, labels, items, said):
    with pytest.raises(InputError, match=said):
        HashIndex.build(codes, labels, list(items))


def test_a_label_that_is_none_of_the_classes_is_refused():
    with pytest.raises(InputError, match="the label 2 is none of the 2 classes"):
        HashIndex.build(np.zeros((1, 16)), [2], "a", ("MEL", "NV"))


# --- with a model -----------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True])
def test_an_index_of_a_data_set_holds_its_codes_labels_and_rows(bf16, capsys):
    torch.manual_seed(0)
    data, model = color_data(), DermHash("resnet8", bits=8, classes=3)
    index = build_index(model, data, bf16=bf16)
    np.testing.assert_array_equal(index.codes, encode(model, data, bf16=bf16))
    assert index.labels.tolist() == data.labels.tolist()
    assert index.classes == data.classes
    assert index.items["image"].tolist() == data.table["image"].tolist()
    assert capsys.readouterr().err == ""
    exact = build_index(model, data, progress=True)
    assert capsys.readouterr().err  # the bar
    difference = np.abs(index.codes - exact.codes).max()
    assert 0 < difference < 0.01 if bf16 else difference == 0
