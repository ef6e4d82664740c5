"""Coarse-to-fine search against a double loop over queries and database."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.spatial import distance as scipy_distance

from derm_hash import files as storage
from derm_hash import retrieval
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import RANKS, HashIndex, build_index, pack_bits

pytestmark = pytest.mark.usefixtures("one_thread")

METRIC = {
    "cosine": scipy_distance.cosine,
    "euclidean": scipy_distance.euclidean,
    "manhattan": scipy_distance.cityblock,
    "hamming": lambda a, b: float(((a > 0.5) != (b > 0.5)).sum()),
}


def random_codes(count, bits, seed):
    return np.random.default_rng(seed).random((count, bits), dtype=np.float32)


def make_index(codes):
    return HashIndex.build(codes, np.arange(len(codes)) % 3, range(len(codes)))


def double_loop(database, queries, k, radius, rank):
    """ids, hamming and distance, each (Q, k), one pair of codes at a time in 64 bits."""
    database, queries = database.astype(np.float64), queries.astype(np.float64)
    ids = np.full((len(queries), k), -1)
    hamming, distance = ids.copy(), np.full(ids.shape, np.nan)
    for q, query in enumerate(queries):
        found = []
        for i, code in enumerate(database):
            bits_apart = sum((a > 0.5) != (b > 0.5) for a, b in zip(query, code, strict=True))
            if radius is None or bits_apart <= radius:
                found.append((METRIC[rank](query, code), i, bits_apart))
        for place, (d, i, bits_apart) in enumerate(sorted(found)[:k]):
            ids[q, place], hamming[q, place], distance[q, place] = i, bits_apart, d
    return ids, hamming, distance


def assert_hits(hits, expected):
    ids, hamming, distance = expected
    np.testing.assert_array_equal(hits.ids, ids)
    np.testing.assert_array_equal(hits.hamming, hamming)
    np.testing.assert_allclose(hits.distance, distance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [5, 16, 20, 48])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("radius", [None, 0.45])
def test_search_is_the_double_loop(bits, rank, radius):
    radius = radius and int(radius * bits)
    database, queries = random_codes(60, bits, seed=bits), random_codes(7, bits, seed=1)
    hits = make_index(database).search(queries, k=9, radius=radius, rank=rank)
    assert_hits(hits, double_loop(database, queries, 9, radius, rank))
    assert (hits.ids.dtype, hits.hamming.dtype, hits.distance.dtype) == (
        np.int64,
        np.int64,
        np.float32,
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 12),
    bits=st.integers(1, 12),
    k=st.integers(1, 15),
    radius=st.none() | st.integers(0, 13),
    rank=st.sampled_from(RANKS),
)
def test_search_is_the_double_loop_with_ties(seed, size, bits, k, radius, rank):
    # A few different rows, repeated: most distances tie.
    rng = np.random.default_rng(seed)
    rows = rng.choice([0.125, 0.375, 0.5, 0.75, 1.0], (3, bits)).astype(np.float32)
    database, queries = rows[rng.integers(0, 3, size)], rows[:2]
    hits = make_index(database).search(queries, k, radius, rank)
    expected = double_loop(database, queries, k, radius, rank)
    np.testing.assert_array_equal(np.sort(hits.hamming), np.sort(expected[1]))
    np.testing.assert_allclose(hits.distance, expected[2], rtol=1e-5, atol=1e-6)
    for ids, distance in zip(hits.ids, hits.distance, strict=True):
        found = ids[ids >= 0].tolist()
        assert found == [i for _, i in sorted(zip(distance.tolist(), found, strict=False))]
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("rank", RANKS)
def test_equal_distances_keep_the_order_of_the_database(rank):
    row = random_codes(1, 20, seed=3)
    other = 1 - row
    database = np.concatenate([row, other, row, row, other, row])
    hits = make_index(database).search(row, k=6, radius=None, rank=rank)
    assert hits.ids.tolist() == [[0, 2, 3, 5, 1, 4]]
    short = make_index(database).search(row, k=3, radius=None, rank=rank)
    assert short.ids.tolist() == [[0, 2, 3]]


@pytest.mark.parametrize("rank", RANKS)
def test_the_order_of_everything_is_a_search_for_everything(rank, monkeypatch):
    database, queries = random_codes(90, 12, seed=8), random_codes(7, 12, seed=9)
    database[30:60] = database[:30]  # ties
    queries[:3] = database[:3]
    index = make_index(database)
    expected = index.search(queries, k=90, radius=None, rank=rank).ids
    np.testing.assert_array_equal(index.order(queries, rank), expected)
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 200)
    np.testing.assert_array_equal(index.order(queries, rank), expected)
    assert index.order(queries[:0], rank).shape == (0, 90)
    if rank == "cosine":
        np.testing.assert_array_equal(index.order(queries), expected)
    with pytest.raises(InputError, match="12 bits"):
        index.order(random_codes(2, 16, seed=0), rank)


@pytest.mark.parametrize("rank", RANKS)
def test_a_query_finds_the_same_alone_in_company_and_in_portions(rank, monkeypatch):
    coarse = HashIndex._candidates
    database, queries = random_codes(50, 16, seed=0), random_codes(11, 16, seed=1)
    index = make_index(database)
    for field, expected in zip(
        index.search(queries), index.search(queries, 10, 4, "cosine"), strict=True
    ):
        np.testing.assert_array_equal(field, expected)
    together = index.search(queries, 7, 9, rank)
    for q in range(len(queries)):
        alone = index.search(queries[q : q + 1], 7, 9, rank)
        for field, expected in zip(alone, together, strict=True):
            np.testing.assert_array_equal(field[0], expected[q])
    pairs = []
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 150)  # three queries in one go
    monkeypatch.setattr(
        HashIndex, "_candidates", lambda *args: pairs.append(len(args[1]) * 50) or coarse(*args)
    )
    for field, expected in zip(index.search(queries, 7, 9, rank), together, strict=True):
        np.testing.assert_array_equal(field, expected)
    # Memory stays bounded; a ranking by Hamming distance has no candidates.
    assert pairs == ([] if rank == "hamming" else [150, 150, 150, 100])


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_portion_is_no_larger_than_asked_for(at_once, monkeypatch):
    """Three queries in one go, and one at a time where not even one has room."""
    index, queries = make_index(random_codes(50, 16, seed=0)), random_codes(7, 16, seed=1)
    expected = index.search(queries, 10, None, "hamming"), index.order(queries, "manhattan")
    pairs, packed = [], []
    distance, pack = retrieval.soft_distance, retrieval.pack_bits
    monkeypatch.setattr(
        retrieval, "soft_distance", lambda *args: pairs.append(len(args[0])) or distance(*args)
    )
    monkeypatch.setattr(
        retrieval, "pack_bits", lambda codes: packed.append(len(codes)) or pack(codes)
    )
    portions = [3, 3, 1] if at_once == 3 else [1] * 7
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 10 * at_once if at_once > 1 else 9)
    for field, whole in zip(index.search(queries, 10, None, "hamming"), expected[0], strict=True):
        np.testing.assert_array_equal(field, whole)
    assert packed == portions
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 50 * at_once if at_once > 1 else 49)
    np.testing.assert_array_equal(index.order(queries, "manhattan"), expected[1])
    assert pairs == portions
    packed.clear()
    index.search(queries, 10, 4)
    assert packed == portions


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


@pytest.mark.parametrize("rank", RANKS)
def test_an_image_of_the_database_finds_itself_first(rank):
    codes = random_codes(40, 16, seed=0)
    hits = make_index(codes).search(codes, k=1, radius=0, rank=rank)
    if rank != "hamming":
        assert hits.ids.ravel().tolist() == list(range(40))
    assert (hits.distance == 0).all()
    assert (hits.hamming == 0).all()


def test_distances_by_hand():
    # Query (1, 0, 1, 0), database (1, 1, 1, 0): dot 2, norms sqrt 2 and sqrt 3.
    index = make_index(np.array([[1, 1, 1, 0]], dtype=np.float32))
    query = np.array([[1, 0, 1, 0]], dtype=np.float32)
    by_hand = {"cosine": 1 - 2 / math.sqrt(6), "euclidean": 1, "manhattan": 1, "hamming": 1}
    for rank, expected in by_hand.items():
        hits = index.search(query, k=1, rank=rank)
        assert hits.distance.item() == pytest.approx(expected, rel=1e-6)
        assert hits.hamming.item() == 1


def test_a_bit_is_what_exceeds_a_half():
    codes = np.array([[0.5, 0.50001, 0.0, 1.0, 0.49999]], dtype=np.float32)
    assert pack_bits(codes).tolist() == [[0b01010000]]
    assert pack_bits(np.ones((2, 9), np.float32)).tolist() == [[255, 128]] * 2


def test_fewer_hits_than_wanted_are_padded():
    index = make_index(random_codes(3, 16, seed=0))
    hits = index.search(random_codes(2, 16, seed=1), k=5, radius=None)
    assert hits.ids.shape == (2, 5)
    assert (hits.ids[:, 3:] == -1).all()
    assert (hits.hamming[:, 3:] == -1).all()
    assert np.isnan(hits.distance[:, 3:]).all()
    assert [field.dtype for field in hits] == [np.int64, np.int64, np.float32]
    assert sorted(hits.ids[0, :3].tolist()) == [0, 1, 2]
    assert np.isfinite(hits.distance[:, :3]).all()


@pytest.mark.parametrize("rank", RANKS)
def test_hits_beyond_the_database_cost_no_search(rank, monkeypatch):
    asked, no_hits = [], retrieval.no_hits
    monkeypatch.setattr(retrieval, "no_hits", lambda q, k: asked.append(k) or no_hits(q, k))
    database, queries = random_codes(3, 16, seed=0), random_codes(2, 16, seed=1)
    hits = make_index(database).search(queries, k=50, radius=9, rank=rank)
    assert_hits(hits, double_loop(database, queries, 50, 9, rank))
    assert max(asked[:-1], default=3) <= 3 and asked[-1] == 47
    make_index(database).search(queries, k=3, rank=rank)
    assert asked[-1] == 3


def test_more_hits_than_a_million_are_refused_unless_there_are_as_many(monkeypatch):
    index, query = make_index(random_codes(5, 16, seed=0)), random_codes(1, 16, seed=1)
    with pytest.raises(InputError, match="holds 5 images, so that 10000000000 hits are too many"):
        index.search(query, k=10**10)
    monkeypatch.setattr(retrieval, "MOST_HITS", 4)
    assert index.search(query, k=5, radius=None).ids.shape == (1, 5)
    with pytest.raises(InputError, match="choose a smaller k"):
        index.search(query, k=6)
    monkeypatch.setattr(retrieval, "MOST_HITS", 6)
    assert index.search(query, k=6).ids.shape == (1, 6)


@pytest.mark.parametrize("rank", RANKS)
def test_a_query_without_candidates_has_no_hits_beside_one_that_has(rank):
    database = np.zeros((4, 16), np.float32)
    database[2] = 0.1
    queries = np.stack([np.ones(16, np.float32), database[2], np.ones(16, np.float32)])
    hits = make_index(database).search(queries, k=2, radius=4, rank=rank)
    assert hits.ids[[0, 2]].tolist() == [[-1, -1]] * 2
    assert np.isnan(hits.distance[[0, 2]]).all()
    assert (hits.ids[1] >= 0).all()
    nothing = make_index(database).search(queries[:1], k=2, radius=4, rank=rank)
    assert nothing.ids.tolist() == [[-1, -1]]


def test_no_query_has_no_hits():
    hits = make_index(random_codes(4, 16, seed=0)).search(np.empty((0, 16)), k=3)
    assert hits.ids.shape == hits.hamming.shape == hits.distance.shape == (0, 3)


@pytest.mark.parametrize("radius", [0, 4, 7, 20, 100, None])
def test_within_counts_the_coarse_candidates(radius):
    database, queries = random_codes(80, 20, seed=0), random_codes(6, 20, seed=1)
    apart = ((queries[:, None] > 0.5) != (database > 0.5)).sum(axis=2)
    expected = (apart <= (20 if radius is None else radius)).sum(axis=1)
    assert make_index(database).within(queries, radius).tolist() == expected.tolist()
    if radius == 4:
        assert make_index(database).within(queries).tolist() == expected.tolist()


def test_numbers_and_codes_may_come_from_numpy_torch_or_lists():
    codes = random_codes(9, 16, seed=0)
    index = make_index(torch.from_numpy(codes))
    expected = index.search(codes, k=3, radius=6).ids
    for same in (torch.from_numpy(codes), codes.tolist(), codes.astype(np.float64)):
        hits = index.search(same, k=np.int64(3), radius=np.int64(6))
        np.testing.assert_array_equal(hits.ids, expected)


# --- shortcuts against the plain way ---------------------------------------------------


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
def test_many_queries_find_to_the_last_bit_what_the_two_steps_find(codes, radius, k, monkeypatch):
    used = []
    rank = HashIndex._rank
    monkeypatch.setattr(HashIndex, "_rank", lambda *args: used.append(len(args[3])) or rank(*args))
    index, queries = make_index(codes[40:2981].copy()), codes[:40]
    fast = index.search(queries, k, radius)
    pairs = used.copy()
    monkeypatch.setattr(retrieval, "MANY_QUERIES", 41)
    plain = index.search(queries, k, radius)
    for field, expected in zip(fast, plain, strict=True):
        np.testing.assert_array_equal(field, expected)
    if radius is None:  # nobody has to fall back, and few pairs are looked at
        assert len(pairs) == 1
        assert pairs[0] < used[-1] or len(np.unique(codes, axis=0)) == 1


def test_many_queries_find_the_last_image_of_the_database():
    index = make_index(random_codes(1000, 16, seed=0))  # its last block is not full
    hits = index.search(np.tile(index.codes[-1], (40, 1)), k=1)
    assert hits.ids.tolist() == [[999]] * 40


def test_what_fills_up_the_last_block_is_no_hit():
    # Every image is equally far from a query of zeros, and so are the zeros that fill the last
    # block up; four images lie within the radius, where five are wanted.
    codes = np.ones((20 * retrieval.BLOCK + 10, 8), np.float32)
    codes[-4:] = 0
    hits = make_index(codes).search(np.zeros((40, 8), np.float32), k=5, radius=0)
    assert hits.ids.tolist() == [[1286, 1287, 1288, 1289, -1]] * 40


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
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        make_index(codes)


def test_packing_in_portions_is_packing_at_once(monkeypatch):
    codes, portions, pack = random_codes(30, 13, seed=0), [], np.packbits
    expected = pack(codes > 0.5, axis=1)
    monkeypatch.setattr(retrieval, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(
        np, "packbits", lambda part, axis: portions.append(len(part)) or pack(part, axis=axis)
    )
    np.testing.assert_array_equal(pack_bits(codes), expected)
    assert portions == [7, 7, 7, 7, 2]


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
    index = HashIndex.build(random_codes(6, 20, seed=0)[::2], np.arange(6)[::2], items)
    path = index.save(tmp_path / "index.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["items"]).keys() == {"columns", "data"}
    again = HashIndex.load(path)
    np.testing.assert_array_equal(again.codes, index.codes)
    np.testing.assert_array_equal(again.labels, [0, 2, 4])
    assert again.items.to_dict("list") == items.to_dict("list")
    queries = random_codes(4, 20, seed=1)
    for field, expected in zip(again.search(queries, 3), index.search(queries, 3), strict=True):
        np.testing.assert_array_equal(field, expected)


def test_a_failing_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    index = make_index(random_codes(3, 16, seed=0))
    path = index.save(tmp_path / "index.safetensors")
    before = path.read_bytes()

    def half(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(storage, "save_file", half)
    with pytest.raises(OSError, match="No space"):
        index.save(path)
    with pytest.raises(OSError, match="No space"):
        index.save(tmp_path / "other.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_missing_index_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="derm-hash encode"):
            HashIndex.load(path)


def spoil_start(path):
    path.write_bytes(b"spoiled" + path.read_bytes()[7:])


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def drop_metadata(path):
    save_file({"codes": np.zeros((1, 4), np.float32), "labels": np.zeros(1, np.int64)}, path)


def drop_codes(path):
    save_file({"labels": np.zeros(1, np.int64)}, path, {"items": "{}"})


def no_table(path):
    save_file({"codes": np.zeros((1, 4)), "labels": np.zeros(1)}, path, {"items": "[]"})


@pytest.mark.parametrize(
    "damage", [spoil_start, cut_in_half, empty, drop_metadata, drop_codes, no_table]
)
def test_a_file_that_is_no_index_is_refused_in_one_sentence(tmp_path, damage):
    path = make_index(random_codes(3, 16, seed=0)).save(tmp_path / "index.safetensors")
    damage(path)
    with pytest.raises(InputError, match="is not an index that derm-hash has saved") as error:
        HashIndex.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codes": np.zeros((2, 8))}, "codes of 16 bits and the query has shape"),
        ({"codes": np.zeros(16)}, "codes of 16 bits"),
        ({"k": 0}, "k is the number of hits wanted and must be 1 or more, not 0"),
        ({"k": -3}, "not -3"),
        ({"radius": -1}, "radius is 0 or more, or None for no limit, not -1"),
        ({"rank": "jaccard"}, "'jaccard': choose one of cosine, euclidean, manhattan, hamming"),
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
        (np.full((1, 16), -0.1), [0], "a", "not its logits"),
        (np.full((1, 16), 1.1), [0], "a", "not its logits"),
        (np.full((1, 16), np.nan), [0], "a", "not its logits"),
    ],
)
def test_what_cannot_be_indexed_is_refused(codes, labels, items, said):
    with pytest.raises(InputError, match=said):
        HashIndex.build(codes, labels, list(items))


# --- with a model -----------------------------------------------------------------------


def test_build_index_encodes_a_data_set():
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    table = pd.DataFrame({"image": list("abcde"), "label": ["NV", "MEL", "NV", "BCC", "NV"]})
    data = LesionDataset(images, table)
    model = DermHash("resnet10", bits=8, classes=3)
    index = build_index(model, data)
    np.testing.assert_array_equal(index.codes, encode(model, data))
    assert index.labels.tolist() == data.labels.tolist() == [1, 0, 1, 2, 1]
    assert index.items["image"].tolist() == list("abcde")


def test_an_index_in_bfloat16_holds_the_codes_of_encode_in_bfloat16():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    data = LesionDataset(images, pd.DataFrame({"image": list("abc"), "label": ["NV"] * 3}))
    model = DermHash("resnet10", bits=8, classes=1)
    codes = build_index(model, data, bf16=True).codes
    np.testing.assert_array_equal(codes, encode(model, data, bf16=True))
    assert 0 < np.abs(codes - build_index(model, data).codes).max() < 0.01


def test_building_an_index_shows_a_bar_only_when_it_is_asked_to(monkeypatch):
    data = LesionDataset(
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        pd.DataFrame({"image": ["a"], "label": ["NV"]}),
    )
    asked = []

    def encode(model, data, progress, bf16):
        asked.append(progress)
        return np.zeros((1, 4))

    monkeypatch.setattr(retrieval, "encode", encode)
    build_index(None, data)
    build_index(None, data, progress=True)
    assert asked == [False, True]
