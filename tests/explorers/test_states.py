"""The explorers' states against brute force; no page is needed."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import flat_png
from PIL import Image

from derm_hash.data.images import square, to_input
from derm_hash.errors import InputError
from derm_hash.explorers import states
from derm_hash.explorers.states import HeatmapState, LossState, RetrievalState
from derm_hash.heatmaps import BitTarget, MatchTarget, gate_maps, grad_cam
from derm_hash.model import DermHash
from derm_hash.retrieval import METRICS, build_index
from derm_hash.rotations import rotate
from tests.explorers.common import CLASSES, SIZE, few

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
        lambda: state.upload(flat_png(color=int(rng.integers(256))), "grey.png"),
    ]


def test_three_hundred_random_actions_give_the_views_of_brute_force(state, model, index):
    rng, origins = np.random.default_rng(1), set()
    for i in range(300):
        rng.choice(actions(state, rng))()
        view = state.view()
        if i % 3 == 0:
            check(view, state, model, index)
        origins.add(view.query.origin)
    assert origins == {"query", "database", "upload"}


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
    monkeypatch.setattr(states, "PAGE", 3)
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


def test_hits_are_written_as_a_table(state):
    state.turn(90)
    views = {"one": state.view(), "two": state.view()}
    table = pd.read_csv(io.StringIO(states.hits_csv(views, 90, False)))
    hits = views["one"].hits
    assert table["model"].tolist() == ["one"] * len(hits) + ["two"] * len(hits)
    assert table["image"][: len(hits)].tolist() == [hit.name for hit in hits]
    assert table["rank"][: len(hits)].tolist() == [*range(1, len(hits) + 1)]
    np.testing.assert_allclose(table["distance"][: len(hits)], [h.distance for h in hits], 1e-4)
    state.set_radius(0)
    state.search_in("BKL")
    state.upload(flat_png(), "none.png")
    empty = states.hits_csv({"one": state.view()}, 0, False)
    assert empty.startswith(",".join(states.CSV_COLUMNS))


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
    content = flat_png((60, 40), "L", 200)
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
        (flat_png()[:60], "damaged|not an image"),
        (b"x" * (states.MOST_BYTES + 1), "more than the 10 MB"),
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
            for values, same in ((view.heat, again.heat), (view.hit_heat, again.hit_heat)):
                np.testing.assert_allclose(values, same, atol=1e-4)
                assert values.shape == (SIZE, SIZE) and values.min() >= 0 and values.max() <= 1
            assert view.follows == pytest.approx(again.follows, abs=1e-3)
            assert 0 <= view.energy <= 1 and len(view.hits) == 10


def test_once_around_compares_every_angle_and_ends_where_it_began(heat):
    heat.explain("gate layer1.0")
    heat.turn(45)
    hit = heat.view().hit
    steps = [*heat.follow_round(hit)]
    assert [len(step) for step in steps] == [*range(2, 13)] and heat.angle == 45
    found = heat.view().followed
    assert set(found) == {*states.TURNS, 45} - {0}
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
    scores = states.lesion_scores(np.ones((8, 8)), mask, whole)
    assert scores["energy"] == scores["area"] == 0.25
    peak = np.zeros((8, 8))
    peak[0, 3] = 1
    scores = states.lesion_scores(peak, mask, whole)
    assert scores["energy"] == 1 and scores["points"]
    assert states.lesion_scores(peak, None, whole) == {}


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


def test_a_model_without_gates_has_grad_cam_still(dataset):
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=8, attention=None)
    state = HeatmapState(model, build_index(model, dataset.split("database")), dataset)
    assert not any(title.startswith("gate") for title in state.subjects)
    assert state.view().heat.shape == (SIZE, SIZE)


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
