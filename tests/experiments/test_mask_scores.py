"""Heatmaps against lesion masks: the scores of known maps, what is left out, and the intervals."""

import numpy as np
import pandas as pd
import pytest
import torch

from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments import mask_scores
from derm_hash.experiments.mask_scores import (
    BLOB,
    FLAT,
    hit_codes,
    mask_score_table,
    score_heatmaps,
    scores_of,
    scores_of_flat,
)
from derm_hash.metrics.intervals import bootstrap_interval
from derm_hash.model import DermHash
from derm_hash.retrieval import HashIndex, build_index

NAMES = ["mask_energy", "pointing_game", "iou"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DermHash("resnet10", bits=8).eval()


@pytest.mark.parametrize(
    ("target", "maps"),
    [
        ("class", ["Grad-CAM, class"]),
        ("match", ["Grad-CAM, match"]),
        ("bit", ["Grad-CAM, bit"]),
        ("gate", ["gate layer1.0", "gate layer2.0", "gate layer3.0", "gate layer4.0"]),
    ],
)
def test_every_image_gets_the_map_the_flat_one_and_the_blob(model, data, target, maps):
    index = build_index(model, data)
    table = score_heatmaps(model, data, target, n=6, index=index)
    assert set(table["map"]) == {*maps, FLAT, BLOB}
    assert (table.groupby("map")["image"].nunique() == 6).all()
    assert table[NAMES].to_numpy().min() >= 0 and table[NAMES].to_numpy().max() <= 1
    flat = table[table["map"] == FLAT].set_index("image")
    for i, image in enumerate(data.table["image"]):
        if image in flat.index:
            assert flat.loc[image, "mask_energy"] == pytest.approx(data.mask(i).mean())


def test_a_map_that_is_the_lesion_scores_one_and_an_empty_one_zero():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    assert scores_of(mask.astype(float), mask) == dict.fromkeys(NAMES, 1.0) | {"empty": False}
    assert scores_of(np.zeros((8, 8)), mask) == dict.fromkeys(NAMES, 0.0) | {"empty": True}


def test_a_flat_map_scores_what_random_pixels_score():
    rng, mask = np.random.default_rng(0), np.zeros((32, 32), bool)
    mask[4:20, 6:30] = True
    random = [scores_of(1 + 1e-9 * rng.random(mask.shape), mask) for _ in range(500)]
    means = pd.DataFrame(random)[NAMES].mean()
    expected = scores_of_flat(mask)
    assert means.to_dict() == pytest.approx({name: expected[name] for name in NAMES}, abs=0.05)
    assert means["iou"] == pytest.approx(expected["iou"], abs=0.005)


def test_images_without_a_mask_are_left_out(model, data):
    masks = np.stack([data.mask(i) for i in range(len(data))])
    masks[0] = False  # an empty mask
    table = data.table.assign(mask=["", *data.table["mask"][1:]][::-1])  # the last has none
    some = LesionDataset(data.images, table, data.classes, masks=masks)
    scored = set(score_heatmaps(model, some)["image"])
    assert scored == set(data.table["image"][1:-1])
    none = LesionDataset(data.images, table.assign(mask=""), data.classes)
    with pytest.raises(InputError, match="No image has a lesion mask"):
        score_heatmaps(model, none)
    with pytest.raises(InputError, match="1 or more, not 0"):
        score_heatmaps(model, some, n=0)


def test_a_match_is_with_another_lesion(model, data):
    """An image that lies in the database does not explain its match with itself."""
    codes = np.eye(8, dtype=np.float32)[[0, 0, 1]]
    items = pd.DataFrame({"image": ["a", "b", "c"], "lesion_id": ["1", "1", "2"]})
    index = HashIndex.build(codes, [0, 0, 0], items)
    query = data.select([0])
    query.table = query.table.assign(image="a", lesion_id="1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_scores, "encode", lambda *_: codes[:1])
        np.testing.assert_array_equal(hit_codes(model, query, index), codes[2:])
        query.table = query.table.assign(lesion_id="")
        np.testing.assert_array_equal(hit_codes(model, query, index), codes[1:2])


def test_intervals_resample_lesions_and_compare_with_the_blob():
    rng = np.random.default_rng(0)
    who = pd.DataFrame({"image": list("abcdef"), "lesion_id": ["1", "1", "2", "2", "", ""]})
    parts = []
    for name in ("Grad-CAM, class", BLOB, FLAT):
        values = pd.DataFrame(rng.random((6, 3)), columns=NAMES)
        parts.append(pd.concat([who.assign(map=name), values], axis=1).assign(empty=False))
    parts[0].loc[2, "empty"] = True
    summary = mask_score_table(pd.concat(parts)).set_index(["map", "score"])
    own, lesions = parts[0]["iou"].to_numpy(), ["1", "1", "2", "2", "e", "f"]
    expected = bootstrap_interval(own, lesions)
    row = summary.loc["Grad-CAM, class", "iou"]
    assert tuple(row[["mean", "low", "high"]]) == pytest.approx(tuple(expected))
    assert row["empty_maps"] == 1 and summary.loc[BLOB, "iou"]["empty_maps"] == 0
    difference = bootstrap_interval(own - parts[1]["iou"].to_numpy(), lesions)
    row = summary.loc[f"Grad-CAM, class minus {BLOB}", "iou"]
    assert tuple(row[["mean", "low", "high"]]) == pytest.approx(tuple(difference))
