"""Plausible but wrong input to the library: the right number, or one clear error."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CLASSES, color_data

from derm_hash.data.classes import class_order, match_classes
from derm_hash.errors import InputError
from derm_hash.metrics import (
    bootstrap_interval,
    evaluate_retrieval,
    iou_at_mask_area,
    mask_energy,
    paired_test,
    pointing_game,
    query_scores,
)
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import METRICS, HashIndex, build_index
from derm_hash.rotations import rotate, rotation_orbit

NAMES = ("MEL", "NV", "BCC", "BKL")
CORNERS = np.eye(4, dtype=np.float32) * 0.8 + 0.1  # one code for each class, far from the others


def make_index(labels, classes=NAMES, items=None):
    """Each class has its own corner of the code space."""
    labels = np.asarray(labels)
    return HashIndex.build(CORNERS[labels], labels, items or range(len(labels)), classes)


def queries_of(names, class_list):
    """Codes and labels of queries of these classes, which another class list counts."""
    codes = CORNERS[[NAMES.index({"nv": "NV"}.get(name, name)) for name in names]]
    return codes, np.array([class_list.index(name) for name in names])


# --- classes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "class_list"),
    [
        (["NV", "NV"], ("NV", "VASC")),
        (["MEL", "NV", "NV"], ("MEL", "NV")),
        (["BKL", "NV"], ("BKL", "NV")),
        (["BKL", "MEL", "BCC"], ("BKL", "VASC", "BCC", "MEL", "NV")),
        (["nv", "MEL"], ("MEL", "nv")),
    ],
)
def test_queries_with_another_class_list_are_matched_by_name(names, class_list):
    index = make_index([0, 1, 2, 3] * 3)
    codes, labels = queries_of(names, class_list)
    scores = evaluate_retrieval(index, codes, labels, k=3, class_names=class_list)
    found = query_scores(index, codes, labels, k=3, class_names=class_list)
    assert scores["precision_at_3"] == scores["class_mean_map"] == scores["map"] == 1
    assert [NAMES[label].lower() for label in found["label"]] == [name.lower() for name in names]
    assert {key for key in scores if key.startswith("queries_")} == {
        f"queries_{name.upper()}" for name in names
    }


def test_class_means_go_over_the_classes_that_have_queries():
    index = make_index([0, 0, 1, 1, 2])
    codes, labels = queries_of(["NV", "MEL"], ("MEL", "NV"))
    wrong = np.concatenate([codes, CORNERS[2:3]])  # a third query of NV that finds BCC
    scores = evaluate_retrieval(index, wrong, [*labels, 1], k=1, class_names=("MEL", "NV"))
    assert scores["class_mean_precision_at_1"] == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize("score", [evaluate_retrieval, query_scores])
def test_labels_that_cannot_be_matched_are_named(score):
    codes = CORNERS[[1, 1, 1]]
    with pytest.raises(InputError, match=r"queries of SCC, VASC cannot be matched.*MEL, NV, BCC"):
        score(make_index([0, 1, 2, 3]), codes, [0, 1, 2], class_names=("NV", "VASC", "SCC"))
    both = make_index([0, 1], ("Nevus", "NEVUS"))
    with pytest.raises(InputError, match="queries of nevus cannot be matched"):  # with which?
        score(both, codes, [0, 0, 0], class_names=("nevus",))


def test_the_items_labels_stand_for_class_names_that_an_index_lacks():
    labels = np.array([1, 3, 1, 3])
    index = HashIndex.build(CORNERS[labels], labels, pd.DataFrame({"label": ["NV", "BKL"] * 2}))
    codes, labels = queries_of(["BKL", "NV"], ("BKL", "NV"))
    assert evaluate_retrieval(index, codes, labels, class_names=("BKL", "NV"))["map"] == 1
    # The same list, of which the database lacks a class: its queries have nothing to find.
    assert query_scores(index, CORNERS[[0, 1]], [0, 1], class_names=NAMES)["ap"].tolist() == [0, 1]


def test_without_any_names_one_list_counts_both():
    index = make_index([0, 1, 2, 3], None)
    assert evaluate_retrieval(index, CORNERS, [0, 1, 2, 3], class_names=NAMES)["ap_BKL"] == 1
    with pytest.raises(InputError, match="the label 3 is none of the 2 classes MEL, NV"):
        evaluate_retrieval(index, CORNERS[:2], [0, 1], class_names=("MEL", "NV"))


def test_an_index_keeps_its_classes_in_its_file(tmp_path):
    data = color_data()
    index = build_index(DermHash("pocket", 8, 3, None), data)
    path = index.save(tmp_path / "index.safetensors")
    assert HashIndex.load(path).classes == index.classes == CLASSES


def test_akiec_takes_the_place_of_ak_and_is_matched_with_it():
    names = ["VASC", "BKL", "AKIEC", "NV", "MEL", "BCC", "DF"]
    assert class_order(names) == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    assert match_classes(["AKIEC", "MEL"], ("MEL", "AK")) == {"AKIEC": "AK", "MEL": "MEL"}
    assert match_classes(["AK"], ("AKIEC", "MEL")) == {"AK": "AKIEC"}
    assert match_classes(["AK"], ("AKIEC", "AK")) == {"AK": "AK"}
    index = make_index([0, 1], ("AK", "MEL"))
    scores = evaluate_retrieval(index, CORNERS[[1, 0]], [0, 1], class_names=("MEL", "AKIEC"))
    assert scores["map"] == 1 and scores["queries_AK"] == 1


BAD_LABELS = {
    "strings": (["MEL", "NV"], "'MEL'"),
    "floats": ([0.5, 1.0], "0.5"),
    "whole floats": ([0.0, 1.0], "float64"),
    "objects": ([0, None], "object"),
    "one-hot": (np.eye(4, dtype=int)[:2], r"shape \(2, 4\).*argmax"),
    "-1": ([-1, 0], "the label -1"),
    "too large": ([0, 4], "the label 4 is none of the 4 classes MEL, NV, BCC, BKL"),
}


@pytest.mark.parametrize(("labels", "said"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_not_class_indices_are_refused(labels, said):
    for use in (
        lambda: evaluate_retrieval(make_index([0, 1, 2, 3]), CORNERS[:2], labels),
        lambda: query_scores(make_index([0, 1], None), CORNERS[:2], labels, class_names=NAMES),
        lambda: HashIndex.build(CORNERS[:2], labels, "ab", NAMES),
    ):
        with pytest.raises(InputError, match=said):
            use()


# --- images -------------------------------------------------------------------------------


def test_floats_of_bytes_are_not_encoded():
    model = DermHash("pocket", 8, 3, None)
    pixels = color_data().images
    codes = encode(model, pixels)
    np.testing.assert_allclose(encode(model, pixels / 127.5 - 1), codes, atol=1e-6)
    for wrong in (pixels.float(), pixels.long(), pixels.double() / 32):
        with pytest.raises(InputError, match=r"give uint8 images, or floating point in \[-1, 1\]"):
            encode(model, wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotations_in_16_bits_are_those_in_32_bits_rounded(dtype):
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = x.to(dtype)
    expected = rotation_orbit(x.float(), 8)
    orbit = rotation_orbit(x, 8)
    assert orbit.dtype == dtype and torch.equal(orbit, expected.to(dtype))
    assert torch.equal(rotate(x, torch.tensor([30.0])), rotate(x.float(), 30).to(dtype))
    assert rotate(x.double(), 30).dtype == torch.float64


# --- intervals and tests ------------------------------------------------------------------


def test_values_that_are_not_numbers_are_refused():
    values = np.linspace(0, 1, 20)
    for bad in (np.nan, np.inf):
        spoiled = np.where(np.arange(20) == 3, bad, values)
        with pytest.raises(InputError, match="1 of 20 values are NaN or infinite"):
            bootstrap_interval(spoiled)
        for pair in ((spoiled, values), (values, spoiled)):
            with pytest.raises(InputError, match="NaN or infinite"):
                paired_test(*pair)


@pytest.mark.parametrize("unknown", ["", None, np.nan])
def test_every_unknown_lesion_is_a_lesion_of_its_own(unknown):
    values = np.random.default_rng(0).random(60)
    lesions = ["b", "b", "a", *[unknown] * 57]
    named = ["b", "b", "a", *(f"c{i:02}" for i in range(57))]
    for ids in (lesions, np.array(lesions, dtype=object), pd.Series(lesions)):
        assert bootstrap_interval(values, ids) == bootstrap_interval(values, named)
        assert paired_test(values, 0.5 + 0 * values, ids) == paired_test(
            values, 0.5 + 0 * values, named
        )
    numbers = [7.0, 7.0, 3.0, *[np.nan] * 57]  # lesion numbers with gaps
    assert bootstrap_interval(values, numbers) == bootstrap_interval(values, named)


# --- heatmaps and masks -------------------------------------------------------------------

HEAT = np.array([[4.0, 1, 0], [3, 0, 0]])
LESION = np.array([[1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_masks_as_image_files_have_them_are_masks(full, kind):
    mask = (LESION * full).astype(kind)
    assert mask_energy(HEAT, mask) == pytest.approx(7 / 8)
    assert iou_at_mask_area(HEAT, mask) == 1
    assert pointing_game(HEAT, mask) is True
    assert pointing_game(HEAT, full - mask) is False


@pytest.mark.parametrize("score", [mask_energy, iou_at_mask_area, pointing_game])
def test_maps_and_masks_that_are_none_are_refused(score):
    for mask in (LESION * 127, LESION * 0.5, LESION - 1, LESION * 254 + 1):
        with pytest.raises(InputError, match="A mask has only 0 and 1"):
            score(HEAT, mask)
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="NaN or infinite"):
            score(np.where(HEAT == 1, bad, HEAT), LESION)


def test_negative_heat_has_no_share():
    with pytest.raises(InputError, match="negative values, such as -4"):
        mask_energy(HEAT - 4, LESION)


def test_an_empty_map_points_nowhere():
    """The lesion lies where the first pixels are, which win a tie."""
    empty = np.zeros((2, 3))
    assert (mask_energy(empty, LESION), iou_at_mask_area(empty, LESION)) == (0, 0)
    assert pointing_game(empty, LESION) is False


# --- rankings -----------------------------------------------------------------------------


def cosine_by_hand(a, b):
    if not a.any() or not b.any():
        return float(a.any() != b.any())
    return 1 - a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("radius", [None, 3])
def test_a_zero_code_finds_its_own_copies_first(k, radius):
    draw = np.random.default_rng(0)
    codes = (draw.random((300, 6)) * (draw.random((300, 1)) > 0.1)).astype(np.float32)
    queries = np.concatenate([codes[:20], np.zeros((2, 6), np.float32)])
    index = HashIndex.build(codes, np.zeros(300, int), range(300))
    hits = index.search(queries, k, radius)
    for query, ids, distances in zip(queries, hits.ids, hits.distance, strict=True):
        by_hand = np.array([cosine_by_hand(query.astype(float), c.astype(float)) for c in codes])
        if radius is not None:
            far = ((codes > 0.5) != (query > 0.5)).sum(axis=1) > radius
            by_hand = np.where(far, np.inf, by_hand)
        expected = np.sort(by_hand)[:k]
        expected = expected[np.isfinite(expected)]
        np.testing.assert_allclose(distances[: len(expected)], expected, atol=2e-7)
        assert (ids >= 0).sum() == len(expected)
    assert (codes[hits.ids[-1, 0]] == 0).all() and hits.distance[-1, 0] == 0
    for metric in METRICS:
        assert index.search(codes[:50], 1, rank=metric).distance.max() == pytest.approx(0, abs=1e-6)
