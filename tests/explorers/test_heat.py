"""The heatmap explorer: maps, scores, and whether a map turns with its image."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.explorers import Guess, HeatmapExplorer
from derm_hash.explorers import heat as module
from derm_hash.explorers.heat import lesion_scores
from derm_hash.heatmaps import BitTarget, MatchTarget, gate_maps, grad_cam
from derm_hash.model import DermHash
from derm_hash.retrieval import build_index
from tests.explorers.common import SIZE, ask, few


def test_heatmaps_are_those_of_the_module(heat, model, index):
    x = to_input(heat.query.image)[None]
    assert {"match with the hit", "gate layer1.0", "class MEL", "bit 11"} <= set(heat.subjects)
    heat.subject = "bit 3"
    np.testing.assert_allclose(heat.view()["heat"], grad_cam(model, x, BitTarget(3))[0], atol=1e-6)
    heat.subject, heat.place = "match with the hit", 2
    view = heat.view()
    target = MatchTarget(index.codes[view["hits"][2]["position"]])
    np.testing.assert_allclose(view["heat"], grad_cam(model, x, target)[0], atol=1e-6)
    heat.subject = "gate layer2.0"
    gate, view = gate_maps(model, x)["layer2.0"][0], heat.view()
    assert gate.min() - 1e-6 <= view["low"] < view["high"] <= gate.max() + 1e-6
    assert view["heat"].min() == 0 and view["heat"].max() == 1


def test_turning_turns_mask_and_map(heat):
    heat.subject = "gate layer1.0"
    upright = heat.view()
    assert upright["follows"] is None
    heat.angle = 90
    turned = heat.view()
    np.testing.assert_array_equal(turned["mask"], np.rot90(upright["mask"]))
    assert -1 <= turned["follows"] <= 1
    heat.angle = 30
    assert not heat.view()["mask"][0, 0] and heat.view()["heat"][0, 0] == 0


def test_maps_that_are_kept_are_those_that_would_be_computed(heat, model, index, dataset):
    for angle in (0, 30, 60, 30, 90, 0):
        for subject in ("match with the hit", "bit 2", "match with the hit"):
            heat.subject, heat.angle = subject, angle
            view = heat.view()
            fresh = HeatmapExplorer(model, index, dataset, subject=subject, angle=angle)
            again = fresh.view()
            for name in ("heat", "hit_heat"):
                np.testing.assert_allclose(view[name], again[name], atol=1e-4)
                assert view[name].shape == (SIZE, SIZE)
            assert view["follows"] == pytest.approx(again["follows"], abs=1e-3)
            assert 0 <= view["energy"] <= 1 and len(view["hits"]) == 10
            fresh.close()


def test_a_map_that_turns_with_its_image_is_followed_in_full(heat, monkeypatch):
    """Brightness turns with the image; a map that stays in place does not."""
    heat.subject = "bit 0"
    monkeypatch.setattr(module, "grad_cam", lambda model, x, target: x.mean(1).numpy() + 1)
    heat.angle = 90
    assert heat.view()["follows"] == pytest.approx(1)
    heat.angle = 30
    assert heat.view()["follows"] == pytest.approx(1, abs=0.02)
    slope = np.tile(np.arange(SIZE, dtype=np.float32), (SIZE, 1))
    monkeypatch.setattr(module, "grad_cam", lambda model, x, target: slope[None])
    heat._map.cache_clear()
    heat.angle = 180
    assert heat.view()["follows"] == pytest.approx(-1)


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_page_gets_pictures_and_json(heat, sent):
    ask(heat, "map", subject="bit 1", place=1, angle=30, mirrored=True)
    content, (values, hit, mask, hit_mask, picture) = sent.pop()
    assert json.loads(json.dumps(content))["place"] == 1
    view = heat.view()
    for found, expected in ((values, view["heat"]), (hit, view["hit_heat"])):
        assert np.abs(opened(found)[..., 3] / 255 - expected).max() < 0.01  # opaque where it is hot
    assert opened(picture).shape == (SIZE, SIZE, 3)
    white, opaque = opened(hit_mask)[..., 0] > 0, opened(hit_mask)[..., 1] > 0
    inside = np.kron(view["hit_mask"], np.ones((8, 8), dtype=bool))  # the outline has 256 pixels
    assert white.any() and opaque[white].all() and not opaque[inside].any() and mask != hit_mask
    assert (heat.subject, heat.place, heat.angle, heat.mirrored) == ("bit 1", 1, 30, True)


def test_scores_compare_with_a_flat_map():
    mask, whole = np.zeros((8, 8), dtype=bool), np.ones((8, 8), dtype=bool)
    mask[:2] = True
    scores = lesion_scores(np.ones((8, 8)), mask, whole)
    assert scores["energy"] == scores["area"] == 0.25
    peak = np.zeros((8, 8))
    peak[0, 3] = 1
    scores = lesion_scores(peak, mask, whole)
    assert scores["energy"] == 1 and scores["points"]
    assert set(lesion_scores(peak, None, whole).values()) == {None}


def test_a_query_of_the_database_has_one_hit_less(dataset, model, sent):
    heat = HeatmapExplorer(*few(dataset, model, 5), place=4)
    assert heat.view()["place"] == 4
    ask(heat, "ask", origin="database", position=0)
    view = heat.view()
    assert view["place"] == 3 and len(view["hits"]) == 4
    heat.close()
    alone = HeatmapExplorer(*few(dataset, model, 1))
    ask(alone, "ask", origin="database", position=0)
    assert "no hits for the only image" in sent.pop()[0]["text"]
    alone.close()


def test_a_model_without_gates_has_grad_cam_still(dataset):
    torch.manual_seed(0)
    model = DermHash("resnet8", bits=8, attention=None)
    heat = HeatmapExplorer(model, build_index(model, dataset.split("database")), dataset)
    assert not any(title.startswith("gate") for title in heat.subjects)
    assert heat.view()["heat"].shape == (SIZE, SIZE)
    heat.close()


@pytest.mark.parametrize(
    ("kind", "truth", "wrong"),
    [({"high": 16}, 3, "three"), ({"options": ["a", "b"]}, "b", "c"), ({"x": [1, 2]}, [0, 1], [1])],
)
def test_a_guess_takes_the_truth_of_its_kind(kind, truth, wrong):
    guess = Guess("What will it be?", **kind)
    with pytest.raises(InputError, match="no answer to the question 'What will it be"):
        guess.reveal(wrong)
    assert guess.truth is None
    guess.reveal(truth)
    assert guess.truth == truth
    guess.close()
