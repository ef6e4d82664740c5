"""The explorers without a browser: their states against brute force, their views by what they
hold, and what a page without a kernel gets."""

import gc
import io
import os
import re
import sys
import threading
from base64 import b64decode
from collections import deque
from datetime import UTC, datetime

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import square, to_input
from derm_hash.errors import InputError
from derm_hash.explorers import parts as explorer_parts
from derm_hash.explorers import states as explorer_states
from derm_hash.explorers import widgets
from derm_hash.explorers.widgets import (
    HeatmapExplorer,
    HeatmapState,
    LossExplorer,
    LossState,
    RetrievalExplorer,
    RetrievalState,
)
from derm_hash.heatmaps import BitTarget, MatchTarget, gate_maps, grad_cam
from derm_hash.model import DermHash
from derm_hash.retrieval import METRICS, HashIndex, build_index
from derm_hash.rotations import rotate

SIZE, CLASSES = 32, ("MEL", "NV", "BCC", "BKL")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def dataset():
    """30 database images and 10 queries: soft blobs; some queries share a lesion with them."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((40, 3, 5, 5)))
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    table = pd.DataFrame(
        {
            "image": [f"images/blob{i}.png" for i in range(40)],
            "label": [CLASSES[i % 4] for i in range(40)],
            "lesion_id": [f"L{i % 20}" if i % 3 else "" for i in range(40)],
            "split": ["query" if i % 4 == i // 10 else "database" for i in range(40)],
        }
    )
    masks = np.zeros((40, SIZE, SIZE), dtype=bool)
    masks[:, 6:20, 10:30] = True
    return LesionDataset((images * 255).to(torch.uint8), table, masks=masks)


@pytest.fixture(scope="module")
def foldered(dataset):
    """The images in class folders that all count from 000; but the last one's id is its alone."""
    names = [f"images/{label}/{i // 4:03}.png" for i, label in enumerate(dataset.table["label"])]
    table = dataset.table.assign(image=[*names[:-1], "images/BKL/alone.png"])
    return LesionDataset(dataset.images, table)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=12).eval()
    with torch.no_grad():  # untrained codes are all alike: spread them
        model.hash_layer.weight.mul_(60)
        model.hash_layer.bias.zero_()
    model.class_names = CLASSES
    return model


@pytest.fixture(scope="module")
def index(model, dataset):
    return build_index(model, dataset.split("database"))


@pytest.fixture
def state(model, index, dataset):
    return RetrievalState(model, index, dataset)


def png(size=(40, 50), mode="RGB", color=128):
    buffer = io.BytesIO()
    color = color if mode == "L" else (color,) * 3
    Image.new(mode, size, color).save(buffer, format="PNG")
    return buffer.getvalue()


# --- retrieval ------------------------------------------------------------------------


def by_brute_force(index, code, k, radius, rank, without=None, labels=None):
    """Ids of the k nearest codes, the order of the database where distances are equal."""
    bits = (index.codes > 0.5) != (code > 0.5)
    hamming = bits.sum(axis=1)
    difference = index.codes.astype(float) - code.astype(float)
    cosine = index.codes @ code / np.linalg.norm(index.codes, axis=1) / np.linalg.norm(code)
    distance = {
        "hamming": hamming,
        "euclidean": np.sqrt((difference**2).sum(axis=1)),
        "manhattan": np.abs(difference).sum(axis=1),
        "cosine": 1 - cosine,
    }[rank]
    near = [i for i in range(len(index)) if radius is None or hamming[i] <= radius]
    near = [i for i in near if i != without and (labels is None or labels[i])]
    return sorted(near, key=lambda i: distance[i])[:k], hamming, distance


def check(view, state, model, index):
    """A view is what its state asks for, computed another way."""
    x = view.query.image[None]
    moved = x.flip(-1) if state.mirrored else x
    if state.angle % 90:
        upright, moved = rotate(x, 0), rotate(moved, state.angle)
    else:
        upright, moved = x, torch.rot90(moved, round(state.angle / 90), (-2, -1))
    with torch.no_grad():
        reference, code = (model(image).code[0].numpy() for image in (upright, moved))
    np.testing.assert_allclose(view.code, code, atol=1e-5)
    np.testing.assert_allclose(view.reference, reference, atol=1e-5)
    itself = view.query.position if view.query.origin == "database" else None
    table = state.database.table
    only = (table["label"] == state.hits_from) | (state.hits_from is None)
    args = (state.k, state.radius, state.rank, itself, only.to_numpy())
    ids, hamming, distance = by_brute_force(index, view.code, *args)
    assert [hit.hamming for hit in view.hits] == hamming[[h.position for h in view.hits]].tolist()
    np.testing.assert_allclose([hit.distance for hit in view.hits], distance[ids], atol=1e-5)
    before, _, _ = by_brute_force(index, view.reference, *args)
    assert view.before == len(before)
    near = only if state.radius is None else only & (hamming <= state.radius)
    assert view.within == near.sum()
    assert view.flipped == ((view.code > 0.5) != (view.reference > 0.5)).sum()
    right = [state.database.table["label"][hit.position] == view.query.label for hit in view.hits]
    if view.query.label is None:
        assert view.precision is None and all(hit.right is None for hit in view.hits)
    else:
        assert view.precision == (np.mean(right) if right else 0)
        assert [hit.right for hit in view.hits] == right
    if not state.is_turned:
        assert view.kept == len(view.hits) and view.flipped == 0


def use_hit(state, place):
    """Ask about the hit at a place of the view, as a press on its picture does."""
    state.ask_database(state.view().hits[place].position)


def actions(state, rng):
    """Everything that can be done, with random values."""
    return [
        lambda: state.choose(int(rng.integers(len(state.queries)))),
        lambda: state.step(int(rng.choice([-1, 1]))),
        state.random,
        lambda: state.show_class([None, *CLASSES][rng.integers(5)]),
        lambda: state.turn(float(rng.choice([0, 17, 90, 180, 270, 333, 360]))),
        lambda: state.mirror(bool(rng.integers(2))),
        lambda: state.set_k(int(rng.integers(1, 21))),
        lambda: state.set_radius([None, 0, 2, 4, 12][rng.integers(5)]),
        lambda: state.set_rank(str(rng.choice(METRICS))),
        lambda: state.search_in([None, *CLASSES][rng.integers(5)]),
        lambda: state.choose_id(str(rng.choice(state.database.table["image"]))),
        lambda: state.leaf(int(rng.choice([-1, 1]))),
        lambda: use_hit(state, int(rng.integers(3))) if len(state.view().hits) > 2 else None,
        state.back,
        lambda: state.upload(png(color=int(rng.integers(256))), "grey.png"),
    ]


def size_of(value, seen):
    """Bytes of the arrays, tensors and containers that an object holds, each counted once."""
    if id(value) in seen or isinstance(value, LesionDataset | HashIndex | DermHash):
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return 64 + sum(size_of(each, seen) for each in (*value.keys(), *value.values()))
    if isinstance(value, list | tuple | deque):
        return 64 + sum(size_of(each, seen) for each in value)
    return size_of(vars(value), seen) if hasattr(value, "__dict__") else 64


def test_three_hundred_random_actions(model, index, dataset, monkeypatch):
    monkeypatch.setattr(explorer_states, "UNDO", 20)
    state = RetrievalState(model, index, dataset)
    rng = np.random.default_rng(1)
    origins, sizes = set(), []
    for i in range(300):
        rng.choice(actions(state, rng))()
        view = state.view()
        if i % 3 == 0:
            check(view, state, model, index)
        origins.add(view.query.origin)
        sizes.append(size_of(state, set()))
    assert origins == {"query", "database", "upload"}
    # Nothing grows but the way back, which is full after the first third.
    assert max(sizes[200:]) <= max(sizes[100:200]) + 2 * state.query.image.nbytes


def test_memory_of_heatmaps_is_steady(heat):
    rng = np.random.default_rng(3)
    sizes = []
    for _ in range(40):
        heat.explain(str(rng.choice([*heat.subjects])))
        heat.turn(float(rng.integers(360)))
        heat.set_place(int(rng.integers(10)))
        heat.view()
        sizes.append(size_of(heat, set()))
    assert len(heat._kept) <= explorer_states.MAPS_KEPT
    assert max(sizes[20:]) < 1.2 * max(sizes[10:20])


def test_hits_are_those_of_the_index(state, index):
    view = state.view()
    expected = index.search(view.code[None], 10, 4, "cosine")
    assert [hit.position for hit in view.hits] == [i for i in expected.ids[0] if i >= 0]
    assert [hit.name for hit in view.hits] == index.items["image"][
        [hit.position for hit in view.hits]
    ].tolist()


def test_a_query_from_the_database_does_not_find_itself(state):
    state.set_radius(None)
    for position in (0, 7, 29):
        state.ask_database(position)
        found = [hit.position for hit in state.view().hits]
        assert len(found) == 10 and position not in found


def test_one_class_is_searched_before_the_best_are_taken(state):
    state.set_radius(None)
    state.set_k(7)
    for name in CLASSES:
        state.search_in(name)
        hits = state.view().hits
        # All seven or eight of the class, though few of them are among the best of all.
        assert len(hits) == 7 and {hit.label for hit in hits} == {name}
        found = [state.database.table["image"][hit.position] for hit in hits]
        assert found == [hit.name for hit in hits]
    state.search_in(None)
    assert len({hit.label for hit in state.view().hits}) > 1
    with pytest.raises(InputError, match="no image of the class VASC"):
        state.search_in("VASC")


def test_an_image_is_found_by_its_id(state):
    for part, origin in ((state.queries, "query"), (state.database, "database")):
        for name in (part.table["image"][5], f" {part.table['image'][5][7:-4]} "):
            state.choose_id(name)
            assert (state.query.origin, state.query.position) == (origin, 5)
    with pytest.raises(InputError, match=r"no image 'blob99' among the 10 queries and 30 data"):
        state.choose_id("blob99")
    assert state.query.position == 5


def test_an_id_that_several_images_have_asks_about_none_of_them(model, index, foldered):
    state = RetrievalState(model, index, foldered)
    before = state.query
    with pytest.raises(InputError, match=r"4 images have the id '002'.*path.*images/NV/002\.png"):
        state.choose_id("002")
    assert state.query is before
    for part in (state.queries, state.database):
        for path in part.table["image"]:
            state.choose_id(state.id_of(path))
            assert state.query.name == path
    assert state.id_of("images/MEL/002.png") == "images/MEL/002.png"
    assert state.id_of("images/BKL/alone.png") == "alone"


def test_the_pages_of_pictures_hold_every_query_of_the_class_once(state, monkeypatch):
    monkeypatch.setattr(explorer_states, "PAGE", 3)
    seen = []
    for _ in range(4):
        seen += state.on_page()
        state.leaf(1)
    assert seen == [*range(10)] and state.on_page() == [0, 1, 2]
    state.leaf(-1)
    assert state.on_page() == [9]
    state.choose(4)
    assert state.on_page() == [3, 4, 5]
    state.show_class("NV")
    assert set(state.queries.table["label"][state.on_page()]) == {"NV"}


def test_a_second_model_is_asked_the_same(state, dataset):
    torch.manual_seed(1)
    other = DermHash("resnet10", bits=10).eval()
    theirs = build_index(other, dataset.split("database"))
    beside = RetrievalState(other, theirs, state.queries, state.database)
    state.ask_database(3)
    state.turn(35)
    state.set_rank("manhattan")
    state.set_k(4)
    state.search_in("NV")
    beside.follow(state)
    check(beside.view(), beside, other, theirs)
    assert beside.view().query is state.query and len(beside.view().hits) == 4


def test_hits_as_a_table(state):
    state.turn(90)
    views = {"one": state.view(), "two": state.view()}
    table = pd.read_csv(io.StringIO(explorer_states.hits_csv(views, 90, False)))
    hits = views["one"].hits
    assert table["model"].tolist() == ["one"] * len(hits) + ["two"] * len(hits)
    assert table["image"][: len(hits)].tolist() == [hit.name for hit in hits]
    assert table["rank"][: len(hits)].tolist() == [*range(1, len(hits) + 1)]
    np.testing.assert_allclose(table["distance"][: len(hits)], [h.distance for h in hits], 1e-4)
    state.set_radius(0)
    state.search_in("BKL")
    state.upload(png(), "none.png")
    empty = explorer_states.hits_csv({"one": state.view()}, 0, False)
    assert empty.startswith(",".join(explorer_states.CSV_COLUMNS))


def test_hits_from_the_same_lesion_are_flagged(state):
    state.set_radius(None)
    state.set_k(20)
    database = state.database.table
    flagged = 0
    for position in range(len(state.queries)):
        state.choose(position)
        for hit in state.view().hits:
            same = database["lesion_id"][hit.position] == state.query.lesion_id != ""
            assert hit.same_lesion == same
            flagged += same
    assert flagged > 0


def test_clicking_through_hits_and_back(state):
    state.choose(3)
    state.turn(90)
    hits = state.view().hits
    use_hit(state, 1)
    assert state.query.name == hits[1].name and state.angle == 0
    use_hit(state, 0)
    state.back()
    assert state.query.name == hits[1].name
    state.back()
    assert (state.query.origin, state.query.position) == ("query", 3)
    while state.can_go_back:
        state.back()
    state.back()
    assert state.query.position == 0


def test_previous_and_next_go_round_in_the_class(state):
    state.show_class("NV")
    members = np.flatnonzero(state.queries.table["label"] == "NV").tolist()
    assert state.query.position == members[0]
    seen = []
    for _ in members:
        state.step(1)
        seen.append(state.query.position)
    assert seen == [*members[1:], members[0]]
    state.step(-1)
    assert state.query.position == members[-1]
    state.ask_database(2)
    state.step(1)  # goes on from where the queries were left
    assert state.query.position == members[0]


def test_an_upload_is_cut_square_and_its_label_is_not_known(state):
    content = png((60, 40), "L", 200)
    state.upload(content, "grey.png")
    expected = np.asarray(square(Image.open(io.BytesIO(content)).convert("RGB"), SIZE))
    expected = to_input(torch.from_numpy(expected.copy()).permute(2, 0, 1))
    torch.testing.assert_close(state.query.image, expected)
    assert state.query.label is None and state.view().precision is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no image at all", "not an image"),
        (b"", "not an image"),
        (png()[:60], "damaged|not an image"),
        (b"x" * (widgets.MOST_BYTES + 1), "more than the 10 MB"),
    ],
)
def test_a_bad_upload_leaves_the_query_as_it_was(state, content, sentence):
    before = state.query
    with pytest.raises(InputError, match=sentence):
        state.upload(content, "bad.jpg")
    assert state.query is before and not state.can_go_back


@pytest.mark.parametrize(
    "action",
    [
        lambda s: s.set_k(0),
        lambda s: s.set_k(21),
        lambda s: s.set_radius(-1),
        lambda s: s.set_rank("nearest"),
        lambda s: s.choose(10),
        lambda s: s.ask_database(30),
        lambda s: s.show_class("VASC"),
    ],
)
def test_what_is_not_possible_is_refused(state, action):
    before = (state.query, state.k, state.radius, state.rank)
    with pytest.raises(InputError):
        action(state)
    assert (state.query, state.k, state.radius, state.rank) == before


def test_the_index_must_belong_to_database_and_model(model, index, dataset):
    with pytest.raises(InputError, match="not made from this database"):
        RetrievalState(model, index, dataset, database=dataset.split("query"))
    with pytest.raises(InputError, match="12 bits and the model makes 8"):
        RetrievalState(DermHash("resnet10", bits=8), index, dataset)
    queries, database = dataset.split("query"), dataset.split("database")
    apart = RetrievalState(model, index, queries, database)
    together = RetrievalState(model, index, dataset)
    assert [h.name for h in apart.view().hits] == [h.name for h in together.view().hits]


# --- heatmaps -------------------------------------------------------------------------


@pytest.fixture
def heat(model, index, dataset):
    return HeatmapState(model, index, dataset)


def test_heatmaps_are_those_of_the_module(heat, model, index):
    x = heat.query.image[None]
    assert {"match with the hit", "gate layer1.0", "class MEL", "bit 11"} <= set(heat.subjects)
    heat.explain("bit 3")
    np.testing.assert_allclose(heat.view().heat, grad_cam(model, x, BitTarget(3))[0], atol=1e-6)
    heat.explain("match with the hit")
    heat.set_place(2)
    view = heat.view()
    assert view.hit is view.hits[2]
    target = MatchTarget(index.codes[view.hit.position])
    np.testing.assert_allclose(view.heat, grad_cam(model, x, target)[0], atol=1e-6)
    heat.explain("gate layer2.0")
    gate = gate_maps(model, x)["layer2.0"][0]
    view = heat.view()
    assert gate.min() - 1e-6 <= view.low < view.high <= gate.max() + 1e-6
    assert view.heat.min() == 0 and view.heat.max() == 1


def test_turning_turns_mask_and_map(heat):
    heat.explain("gate layer1.0")
    upright = heat.view()
    assert upright.follows is None
    heat.turn(90)
    turned = heat.view()
    np.testing.assert_array_equal(turned.mask, np.rot90(upright.mask))
    np.testing.assert_array_equal(turned.picture, np.rot90(upright.picture))
    assert -1 <= turned.follows <= 1
    heat.turn(30)
    assert not heat.view().mask[0, 0] and heat.view().heat[0, 0] == 0


def test_maps_that_are_kept_are_those_that_would_be_computed(heat, model, index, dataset):
    for angle in (0, 30, 60, 30, 90, 0):
        for subject in ("match with the hit", "bit 2", "match with the hit"):
            heat.explain(subject)
            heat.turn(angle)
            view = heat.view()
            fresh = HeatmapState(model, index, dataset)
            fresh.explain(subject)
            fresh.turn(angle)
            again = fresh.view()
            np.testing.assert_allclose(view.heat, again.heat, atol=1e-4)
            np.testing.assert_allclose(view.hit_heat, again.hit_heat, atol=1e-4)
            assert view.follows == pytest.approx(again.follows, abs=1e-3)


def test_once_around_compares_every_angle_and_ends_where_it_began(heat):
    heat.explain("gate layer1.0")
    heat.turn(45)
    hit = heat.view().hit
    steps = [*heat.follow_round(hit)]
    assert [len(step) for step in steps] == [*range(2, 13)] and heat.angle == 45
    found = heat.view().followed
    assert set(found) == {*explorer_states.TURNS, 45} - {0}
    heat.turn(120)
    assert found[120] == heat.view().follows
    heat.explain("gate layer2.0")
    assert set(heat.view().followed) == {120}  # another map has its own


def test_a_map_that_turns_with_its_image_is_followed_in_full(heat, monkeypatch):
    """Brightness turns with the image; a map that stays in place does not."""
    bright = lambda x, other: x.mean(1).numpy() + 1  # noqa: E731
    monkeypatch.setattr(heat, "_maps", bright)
    heat.turn(90)
    assert heat.view().follows == pytest.approx(1)
    heat.turn(30)
    assert heat.view().follows == pytest.approx(1, abs=0.02)
    slope = np.tile(np.arange(SIZE, dtype=np.float32), (1, SIZE, 1))
    heat.random()
    monkeypatch.setattr(heat, "_maps", lambda x, other: slope)
    heat._kept.clear()
    heat.turn(180)
    assert heat.view().follows == pytest.approx(-1)


def test_scores_compare_with_a_flat_map():
    mask = np.zeros((8, 8), dtype=bool)
    mask[:2] = True
    whole = np.ones((8, 8), dtype=bool)
    scores = explorer_states.lesion_scores(np.ones((8, 8)), mask, whole)
    assert scores["energy"] == scores["area"] == 0.25
    peak = np.zeros((8, 8))
    peak[0, 3] = 1
    scores = explorer_states.lesion_scores(peak, mask, whole)
    assert scores["energy"] == 1 and scores["points"]
    assert explorer_states.lesion_scores(peak, None, whole) == {}


def test_random_actions_on_heatmaps(heat):
    rng = np.random.default_rng(2)
    for _ in range(25):
        rng.choice([
            heat.random,
            lambda: heat.step(1),
            lambda: heat.explain(str(rng.choice([*heat.subjects]))),
            lambda: heat.set_place(int(rng.integers(10))),
            lambda: heat.set_opacity(float(rng.random())),
            lambda: heat.turn(float(rng.choice([0, 45, 90, 200]))),
            lambda: heat.mirror(bool(rng.integers(2))),
        ])()  # fmt: skip
        view = heat.view()
        for values in (view.heat, view.hit_heat):
            assert values.shape == (SIZE, SIZE) and values.min() >= 0 and values.max() <= 1
        assert 0 <= view.energy <= 1 and len(view.hits) == 10


def few(dataset, model, n):
    """Queries, and a database of n images with its index: what an explorer is made of."""
    database = dataset.split("database").select(range(n))
    return model, build_index(model, database), dataset.split("query"), database


def test_a_query_of_the_database_has_one_hit_less(dataset, model):
    heat = HeatmapState(*few(dataset, model, 5))
    heat.set_place(4)
    assert heat.view().place == 4
    heat.ask_database(0)
    view = heat.view()
    assert view.place == 3 and view.hit is view.hits[3]
    with pytest.raises(InputError, match="no hit number 5"):
        heat.set_place(4)
    heat.back()
    assert heat.view().place == 4


def test_the_only_image_of_a_database_has_no_hits(dataset, model):
    heat = HeatmapState(*few(dataset, model, 1))
    before = heat.query
    with pytest.raises(InputError, match="There are no hits"):
        heat.choose_id(heat.database.table["image"][0])
    assert heat.query is before and len(heat.view().hits) == 1


def test_a_model_without_gates_has_grad_cam_still(dataset):
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=8, attention=None)
    state = HeatmapState(model, build_index(model, dataset.split("database")), dataset)
    assert not any(title.startswith("gate") for title in state.subjects)
    assert state.view().heat.shape == (SIZE, SIZE)


def test_the_outline_lies_on_the_edge_of_the_mask():
    mask = np.zeros((6, 6), dtype=bool)
    mask[1:5, 1:5] = True
    inner = explorer_parts.edge(mask)
    assert inner.sum() == 12 and not inner[2:4, 2:4].any() and not (inner & ~mask).any()


# --- the loss -------------------------------------------------------------------------


def test_loss_by_hand():
    state = LossState()
    state.set_odd(1.0)
    state.set_others(0.2)
    state.set_gamma(0.5)
    view = state.view()  # mean 0.4
    np.testing.assert_allclose(view.distance, [0.6, 0.2, 0.2, 0.2])
    assert view.loss["l1"] == pytest.approx(1.2 / 0.5)
    assert view.loss["cauchy"] == pytest.approx(np.log(2.2) + 3 * np.log(1.4))
    assert view.loss["l2"] == pytest.approx((0.36 + 3 * 0.04) / 0.25 / 2)
    # The odd bit moves its own distance by 3/4 and each of the others' by 1/4.
    assert view.pull["l1"] == pytest.approx((0.75 + 3 * 0.25) / 0.5)
    assert view.pull["cauchy"] == pytest.approx(0.75 / 1.1 + 3 * 0.25 / 0.7)
    assert view.pull["l2"] == pytest.approx((0.75 * 0.6 + 3 * 0.25 * 0.2) / 0.25)


@pytest.mark.parametrize(
    "action",
    [
        lambda s: s.set_gamma(0),
        lambda s: s.set_odd(1.1),
        lambda s: s.set_others(-0.1),
        lambda s: s.set_kinds([]),
        lambda s: s.set_kinds(["huber"]),
    ],
)
def test_the_loss_refuses_what_makes_no_sense(action):
    state = LossState()
    with pytest.raises(InputError):
        action(state)
    assert state == LossState(grid=state.grid)


# --- views ----------------------------------------------------------------------------


def shown(explorer):
    """What a reader sees: every picture and text."""
    return [part.value for part in widgets.parts_of(explorer) if isinstance(part, ipywidgets.HTML)]


def pictures(html):
    """The pictures in HTML, and their alternative texts."""
    found = re.findall(r'<img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', html)
    return {words: Image.open(io.BytesIO(b64decode(data))) for words, data in found}


@pytest.fixture
def explorer(model, index, dataset):
    explorer = RetrievalExplorer(model, index, dataset)
    yield explorer
    explorer.close()


def visible(explorer):
    return [cell for cell in explorer.panels[0].cells if cell.layout.display != "none"]


def test_controls_change_what_is_shown(explorer):
    explorer.radius.label = "no limit"
    assert len(visible(explorer)) == 10
    for control, value in [
        (explorer.k, 3), (explorer.angle, 35), (explorer.mirrored, True),
        (explorer.radius, 2), (explorer.classes, "BKL"),
    ]:  # fmt: skip
        before = shown(explorer)
        control.value = value
        assert shown(explorer) != before, control.description
    assert explorer.state.k == 3 and explorer.state.radius == 2
    explorer.rank.value = "manhattan"
    assert explorer.state.rank == "manhattan"


def test_the_page_shows_the_view(explorer):
    explorer.radius.label = "no limit"
    view = explorer.state.view()
    for place, (cell, hit) in enumerate(zip(visible(explorer), view.hits, strict=True)):
        assert f"{place + 1}. {hit.label} {hit.mark}" in cell.face.value
        assert ("same lesion" in cell.face.value) == hit.same_lesion
        assert ("dashed" in cell.face.value) == (not hit.right)
        [(words, picture)] = pictures(cell.face.value).items()
        assert words == f"hit {place + 1}: {hit.label}, {hit.name[7:-4]}"
        picture = np.asarray(picture, dtype=int)
        original = explorer.state.database.picture(hit.position).astype(int)
        assert np.abs(picture - original).mean() < 4  # JPEG
    bits = "".join(str(int(bit)) for bit in view.code > 0.5)
    assert f"code {bits}" in explorer.panels[0].strip.value
    assert f"precision@10: {view.precision:.2f}" in explorer.panels[0].summary.value


def test_every_picture_has_an_alternative_text(explorer):
    seen = [value for value in shown(explorer) if "<img" in value]
    assert len(seen) > 20 and all(words for value in seen for words in pictures(value))


def test_flipped_bits_are_marked_with_more_than_colour():
    code, reference = np.array([0.2, 0.7, 0.6]), np.array([0.1, 0.2, 0.9])
    strip = explorer_parts.code_strip(code, reference)
    assert strip.count("▾") == 1 and strip.count("outline:") == 1
    assert 'title="bit 1: 0.700, unturned 0.200: flipped"' in strip


def test_hits_can_be_clicked_and_left_again(explorer):
    explorer.radius.label = "no limit"
    first, target = explorer.state.query, explorer.view.hits[4]
    explorer.angle.value = 90
    target = explorer.view.hits[4]
    explorer.panels[0].cells[4].choose.click()
    assert explorer.state.query.name == target.name
    assert explorer.angle.value == 0 and not explorer.back.disabled
    explorer.back.click()
    assert explorer.state.query is first and explorer.back.disabled


def upload(explorer, content, name):
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    explorer.file.value = ({**file, "last_modified": datetime.now(UTC)},)


def test_uploading_a_picture_and_what_is_none(explorer):
    before = shown(explorer)
    upload(explorer, b"<script>no</script>", "<b>evil</b>.png")
    assert "not an image" in explorer.message.value and 'role="alert"' in explorer.message.value
    assert "<b>evil" not in explorer.message.value and "Traceback" not in explorer.message.value
    assert explorer.file.value == ()
    explorer.message.value = ""
    assert shown(explorer) == before
    upload(explorer, png(), "<i>good</i>.png")
    assert explorer.message.value == "" and explorer.state.query.origin == "upload"
    assert "class not known" in explorer.caption.value and "<i>" not in explorer.caption.value


def test_an_uploaded_picture_is_never_written(explorer, tmp_path):
    watching, written = [True], []

    def watch(event, arguments):  # a hook stays for good, so it is told when to look
        if watching and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(arguments[0])

    sys.addaudithook(watch)
    (tmp_path / "seen").write_text("by the hook")
    upload(explorer, png(), "good.png")
    explorer.angle.value = 30
    watching.clear()
    assert explorer.state.query.origin == "upload"
    assert written == [str(tmp_path / "seen")]


def test_thumbnails_and_id(explorer):
    explorer.thumbnails.cells[6].choose.click()
    assert explorer.state.query.position == 6 and explorer.name.value == short_of(explorer)
    [words] = pictures(explorer.thumbnails.cells[6].face.value)
    assert words.startswith("query 6: ") and explorer.thumbnails.cells[6].choose.tooltip == words
    explorer.name.value = "blob0"
    assert explorer.state.query.name == "images/blob0.png" and explorer.message.value == ""
    explorer.name.value = "nobody"
    assert "no image &#x27;nobody&#x27;" in explorer.message.value
    assert explorer.name.value == "blob0"
    assert all(cell.layout.display != "none" for cell in explorer.thumbnails.cells)
    explorer.classes.value = "NV"
    shown_cells = [c for c in explorer.thumbnails.cells if c.layout.display != "none"]
    assert len(shown_cells) == (explorer.state.queries.table["label"] == "NV").sum()


@pytest.mark.parametrize("kind", [RetrievalExplorer, HeatmapExplorer])
def test_where_an_id_is_not_enough_the_path_is_offered(kind, model, index, foldered):
    explorer = kind(model, index, foldered)
    assert {"images/MEL/002.png", "alone"} <= set(explorer.name.options)
    assert "002" not in explorer.name.options
    for name in ("images/MEL/002.png", "alone", "images/NV/002.png"):
        explorer.name.value = name
        assert explorer.name.value == name == explorer.state.id_of(explorer.state.query.name)
        assert any(name in text for text in shown(explorer)) and explorer.message.value == ""
    hit = explorer.view.hits[0]
    assert any(explorer.state.id_of(hit.name) in text for text in shown(explorer))
    explorer.name.value = "002"
    assert "4 images have the id" in explorer.message.value
    assert explorer.name.value == "images/NV/002.png"
    explorer.close()


def short_of(explorer):
    return explorer_states.short(explorer.state.query.name)


def saved(html, kind):
    """Name and content of the file that a link in HTML saves."""
    name, data = re.search(
        rf'<a download="([^"]*)" href="data:{kind};base64,([^"]*)"', html
    ).groups()
    return name, b64decode(data)


def test_export_of_one_and_of_two_models(explorer, model, index, dataset):
    explorer.angle.value = 30
    explorer.export.click()
    name, content = saved(explorer.links.value, "image/png")
    one = Image.open(io.BytesIO(content))
    assert name == f"{short_of(explorer)}-30.png" and one.width > 300
    name, content = saved(explorer.links.value, "text/csv")
    table = pd.read_csv(io.BytesIO(content))
    assert table["image"].tolist() == [hit.name for hit in explorer.view.hits]
    explorer.k.value = 3
    assert explorer.links.value == ""  # an older view cannot be taken for this one
    both = RetrievalExplorer(model, index, dataset, other=(model, index), names=("a", "<b>"))
    both.export.click()
    assert Image.open(io.BytesIO(saved(both.links.value, "image/png")[1])).height > one.height * 1.5
    assert "&lt;b&gt;" in both.panels[1].children[0].value
    first, second = (panel.cells[0].face.value for panel in both.panels)
    assert first == second  # one model twice
    both.panels[1].cells[0].choose.click()
    assert both.state.query.origin == "database"
    both.close()


def test_the_picture_of_an_upload_calls_no_hit_right_or_wrong(explorer):
    explorer.radius.label = "no limit"
    upload(explorer, png(), "good.png")
    query, *hits = explorer.figure().axes
    assert query.get_title() == "query: class not known" and len(hits) == 10
    assert not any(mark in ax.get_title() for ax in hits for mark in "✓✗")


def test_an_explorer_that_cannot_be_made_goes_quietly(model, index, dataset, recwarn):
    with pytest.raises(InputError):
        RetrievalExplorer(model, index, dataset, dataset.split("query"))
    gc.collect()
    assert not [w for w in recwarn if "unraisable" in str(w.category).lower()]


def test_what_comes_in_from_another_thread_is_not_lost(explorer):
    """JupyterLab hands messages from the page to several threads of the kernel."""
    begun, go_on, done = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go_on.wait(10)
        done.append("slow")

    first = threading.Thread(target=explorer.act, args=(slow,))
    second = threading.Thread(target=explorer.act, args=(done.append, "quick"))
    first.start()
    assert begun.wait(10)
    second.start()
    second.join(0.2)
    assert done == [] and second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert done == ["slow", "quick"]


def test_a_failing_model_is_a_sentence(explorer, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(explorer_states, "encode", broken)
    explorer.angle.value = 45
    assert "out of memory" in explorer.message.value
    monkeypatch.undo()
    explorer.angle.value = 50
    assert explorer.message.value == ""


def test_heatmap_controls_change_what_is_shown(model, index, dataset):
    explorer = HeatmapExplorer(model, index, dataset)
    explorer.subject.value = "gate layer2.0"
    for control, value in [
        (explorer.hit, 3), (explorer.opacity, 0.2), (explorer.angle, 90),
        (explorer.classes, "NV"), (explorer.subject, "gate layer1.0"),
    ]:  # fmt: skip
        before = shown(explorer)
        control.value = value
        assert shown(explorer) != before, control.description
    assert explorer.hit.value == 3 and explorer.angle.value == 0
    assert "of the heat is on the lesion" in explorer.summary.value
    assert explorer.message.value == ""
    explorer.close()


def test_the_chosen_hit_stays_on_a_short_list(dataset, model):
    explorer = HeatmapExplorer(*few(dataset, model, 5))
    explorer.hit.value = 4
    explorer.name.value = explorer_states.short(explorer.state.database.table["image"][0])
    assert explorer.message.value == "" and explorer.state.query.origin == "database"
    assert len(explorer.hit.options) == 4 and explorer.hit.value == 3
    assert "hit 4: " in explorer.pictures[2].value
    assert explorer.figure().axes[2].get_title().startswith("hit 4: ")
    explorer.close()


def test_a_database_of_the_query_alone_is_said_to_have_no_hits(dataset, model):
    alone = few(dataset, model, 1)
    retrieval, heat = RetrievalExplorer(*alone), HeatmapExplorer(*alone)
    retrieval.radius.label = "no limit"
    before = [picture.value for picture in heat.pictures]
    for explorer in (retrieval, heat):
        explorer.name.value = explorer_states.short(explorer.state.database.table["image"][0])
    assert "no hits: the query is the only image" in retrieval.panels[0].summary.value
    assert retrieval.figure().axes[1].texts[0].get_text() == "no hits"
    assert "There are no hits" in heat.message.value
    assert [picture.value for picture in heat.pictures] == before
    assert heat.name.value == short_of(heat)
    retrieval.close()
    heat.close()


def test_loss_controls_change_what_is_shown():
    explorer = LossExplorer()
    for control, value in [
        (explorer.gamma, 0.3), (explorer.odd, 0.5), (explorer.others, 0.7),
        (explorer.kinds[0], False),
    ]:  # fmt: skip
        before = explorer.chart.value
        control.value = value
        assert explorer.chart.value != before, control.description
    chart = explorer.chart.value
    assert "Cauchy" not in chart and "Gaussian" in chart
    for box in explorer.kinds[1:]:
        box.value = False
    assert "at least one" in explorer.message.value and explorer.kinds[3].value
    explorer.close()


def test_svg_is_well_formed_and_has_its_points_on_the_curves():
    from xml.etree import ElementTree

    state = LossState(kinds=("l1",), gamma=0.5, odd=1.0, others=0.2)
    root = ElementTree.fromstring(explorer_parts.svg_charts(state.view(), 0.5))
    space = {"s": "http://www.w3.org/2000/svg"}
    circles = root.findall("s:circle", space)
    lines = root.findall("s:polyline", space)
    assert len(circles) == len(lines) == 2
    for circle, line in zip(circles, lines, strict=True):
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        points = np.array([p.split(",") for p in line.get("points").split()], dtype=float)
        assert y == pytest.approx(np.interp(x, points[:, 0], points[:, 1]), abs=0.2)


def points_of(chart):
    """Angle -> correlation, of the points of a chart."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)
    return {
        round((float(x) - 44) / 294 * 360): pytest.approx((130 - float(y)) / 52 - 1, abs=0.01)
        for x, y in found
    }


def test_a_chart_of_turns_ends_as_it_begins():
    chart = explorer_parts.svg_follows({90: 0.5}, 90, mirrored=False)
    assert points_of(chart) == {0: 1, 90: 0.5, 360: 1}  # unturned, it is itself
    chart = explorer_parts.svg_follows({0: 0.194, 90: 0.5}, 90, mirrored=True)
    assert points_of(chart) == {0: 0.194, 90: 0.5, 360: 0.194}


def test_a_chart_of_a_mirrored_query_has_no_point_that_was_not_looked_at():
    assert points_of(explorer_parts.svg_follows({90: 0.5}, 90, mirrored=True)) == {90: 0.5}
    assert points_of(explorer_parts.svg_follows({}, 0, mirrored=True)) == {}


def test_the_chart_of_turns_knows_that_the_query_is_mirrored(model, index, dataset):
    explorer = HeatmapExplorer(model, index, dataset)
    explorer.mirrored.value = True
    followed = explorer.view.followed[0]
    assert points_of(explorer.chart.value) == {0: followed, 360: followed} and followed < 0.9
    explorer.mirrored.value = False
    assert points_of(explorer.chart.value) == {0: 1, 360: 1}
    explorer.close()


def test_fallback_for_a_page_without_a_kernel(explorer, model, index, dataset):
    heat, loss = HeatmapExplorer(model, index, dataset), LossExplorer()
    explorer.k.value = 2
    for made in (explorer, heat, loss):
        bundle = made._repr_mimebundle_()
        assert set(bundle) == {WIDGET_VIEW, "image/png", "text/plain"}
        picture = Image.open(io.BytesIO(bundle["image/png"]))
        assert picture.format == "PNG" and picture.width > 300
        assert len(bundle["image/png"]) < 250_000
    heat.close()
    loss.close()


def open_widgets():
    return len(ipywidgets.widgets.widget._instances)


def test_closing_leaves_nothing_behind(model, index, dataset):
    before = open_widgets()
    made = [RetrievalExplorer(model, index, dataset), HeatmapExplorer(model, index, dataset)]
    made.append(LossExplorer())
    assert open_widgets() > before + 100
    angle, state = made[0].angle, made[0].state
    for explorer in made:
        explorer.close()
    assert open_widgets() == before
    angle.value = 90  # unlinked: nobody listens
    assert state.angle == 0


def test_running_a_cell_again_closes_what_it_made(monkeypatch):
    class Shell:
        cell, run = "a", 0

        def get_parent(self):
            return {"metadata": {"cellId": self.cell}, "header": {"msg_id": str(self.run)}}

    monkeypatch.setattr(widgets, "get_ipython", lambda: shell)
    monkeypatch.setattr(widgets, "OPEN", {})
    shell = Shell()
    LossExplorer()
    other = LossExplorer()  # in the same run of the same cell: both stay
    assert other.comm is not None
    once = open_widgets()
    for shell.run in range(1, 51):
        last = LossExplorer()
        assert open_widgets() < once
    assert other.comm is None and last.comm is not None
    shell.cell = "b"
    LossExplorer()
    assert last.comm is not None
    ipywidgets.Widget.close_all()


def test_hits_without_labels_and_index_made_by_hand(model, dataset):
    database = dataset.split("database").select(range(4))
    codes = np.tile([0.9, 0.1, 0.8], (4, 4)).astype(np.float32)
    index = HashIndex.build(codes, database.labels, database.table)
    state = RetrievalState(model, index, dataset.split("query"), database)
    state.set_radius(None)
    hits = state.view().hits  # fewer than k; all equally far: the database's order
    assert [hit.position for hit in hits] == [0, 1, 2, 3]
