"""Heads on frozen features: the same losses and rotations as a network, in seconds."""

import numpy as np
import pytest
import torch
from helpers import color_data, tiny, train_quietly

from derm_hash.errors import InputError
from derm_hash.experiments.grid import run_grid
from derm_hash.experiments.results import read_results
from derm_hash.frozen import (
    Features,
    drawn_quarters,
    frozen_features,
    head_codes,
    network,
    train_frozen,
    train_head,
)
from derm_hash.model import encode


@pytest.fixture
def data():
    """Images in four parts."""
    return color_data(0, (["train"] * 4 + ["database"] * 2 + ["val"] + ["query"]) * 6)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path / "home"))
    frozen_features.cache_clear()


def frozen(**changes):
    return tiny(frozen=True, attention=None, **changes)


def features_of(data):
    return frozen_features("pocket", None, data, progress=False)


def test_features_are_those_of_the_rotated_images_and_are_read_from_the_cache(data, tmp_path):
    model = network("pocket", None)
    features = features_of(data)
    for k in range(4):
        wanted = encode(Features(model), torch.rot90(data.images, k, dims=(-2, -1)))
        assert np.allclose(features[k], wanted, rtol=1e-3, atol=1e-4)
    files = sorted((tmp_path / "home").glob("features-*.safetensors"))
    written = [file.stat().st_mtime_ns for file in files]
    frozen_features.cache_clear()
    assert np.array_equal(features_of(data), features) and len(files) == 4
    assert [file.stat().st_mtime_ns for file in files] == written


def test_the_same_seed_gives_the_same_head_and_the_losses_fall(data):
    features = features_of(data)
    config = frozen(epochs=8, learning_rate=0.05)
    heads = [train_head(config, data, features) for _ in range(2)]
    assert torch.equal(heads[0][0].weight, heads[1][0].weight)
    losses = [row["loss"] for row in heads[0][2]]
    assert losses[-1] < losses[0]
    other, _, _ = train_head(frozen(seed=5), data, features)
    assert not torch.equal(other.weight, heads[0][0].weight)


def test_the_penalty_makes_codes_move_less(data):
    features = features_of(data)

    def movement(**changes):
        head, _, _ = train_head(frozen(epochs=20, learning_rate=0.02, **changes), data, features)
        codes = head_codes(head, features, orbit_mean=False)
        return np.abs(codes[1:] - codes[0]).mean()

    free = movement(invariance=None)
    assert movement(invariance="cauchy", invariance_weight=20.0, invariance_rise=0.0) < 0.8 * free


def test_queries_are_not_looked_at(data):
    features = features_of(data)
    head, _, _ = train_head(frozen(), data, features)
    changed = features.copy()
    changed[:, data.positions("query")] = 0
    changed[:, data.positions("database")] = 0
    again, _, _ = train_head(frozen(), data, changed)
    assert torch.equal(head.weight, again.weight)


def test_the_orbit_mean_is_invariant(data):
    features = features_of(data)
    head, _, _ = train_head(frozen(), data, features)
    codes = head_codes(head, features, orbit_mean=True)
    each = head_codes(head, features, orbit_mean=False)
    assert np.allclose(codes[3], each.mean(axis=0)) and np.array_equal(codes[0], codes[3])


@pytest.mark.parametrize(
    ("changes", "shape", "differences"),
    [
        ({"invariance": "cauchy"}, (4, 50), {1}),  # the whole orbit
        ({"invariance": "cauchy", "orbit": 2}, (2, 50), {2}),
        ({"invariance": "cauchy", "orbit_sample": 2}, (2, 50), {1, 2, 3}),
        ({"invariance": None, "classify": "upright"}, (1, 50), set()),
    ],
)
def test_copies_are_members_of_the_orbit(changes, shape, differences):
    drawn = [drawn_quarters(frozen(**changes), 50, (0, 0, step)) for step in range(20)]
    assert all(
        each.shape == shape and set(each.unique().tolist()) <= {0, 1, 2, 3} for each in drawn
    )
    for each in drawn:
        steps = {int(d) for d in ((each[1:] - each[:-1]) % 4).unique()}
        assert steps <= differences
        assert len({tuple(column) for column in each.T.tolist()}) == 1  # upright images start at 0
    turning = drawn_quarters(frozen(random_rotations=True, **changes), 50, (0, 0, 0))
    assert set(turning[0].tolist()) == {0, 1, 2, 3}


def test_a_frozen_run_is_a_whole_model(data, tmp_path):
    run = train_frozen(frozen(name="head"), data, tmp_path, progress=False)
    codes = encode(run.model, data)
    assert codes.shape == (len(data), 8) and run.model.class_names == data.classes
    assert np.isfinite(run.history["val_precision_at_10"].iloc[-1])


def test_a_config_says_what_a_frozen_run_does(data, tmp_path):
    for wrong in ({"attention": "hdcsa"}, {"disc": True}, {"orbit": 8}):
        with pytest.raises(InputError, match="no gates and four rotations"):
            tiny(**{"frozen": True, "attention": None, "invariance": "cauchy"} | wrong)
    with pytest.raises(InputError, match="trains the whole network"):
        train_quietly(frozen(), data, tmp_path)
    with pytest.raises(InputError, match="set frozen"):
        train_frozen(tiny(attention=None), data, tmp_path, progress=False)
    assert not list(tmp_path.glob("tiny"))


def test_a_grid_compares_heads_and_baselines_on_both_databases(data, tmp_path):
    shared = {key: getattr(frozen(), key) for key in ("backbone", "bits", "batch_size", "epochs")}
    shared |= {"frozen": True, "attention": None}
    databases = {"database": ["trained", "unseen"]}
    grids = [
        {"seed": [0, 1], "readout": ["plain", "orbit-mean"], **databases},
        {"seed": [0], "system": ["LSH", "known class"], **databases},
    ]
    table = run_grid(grids, data, tmp_path / "runs", progress=False, **shared)
    assert len(table) == 8 + 4 and set(table["database"]) == {"trained", "unseen"}
    means = table[table["readout"] == "orbit-mean"]
    assert (means["flipped_bits"] == 0).all()
    assert len(read_results(tmp_path / "runs")) == len(table)
    classifier = table["system"].map({"trained": True, "LSH": False, "known class": True})
    assert (table["accuracy"].notna() == classifier).all()
    with pytest.raises(InputError, match="needs frozen features"):
        run_grid({"system": ["ITQ"]}, data, tmp_path / "other", progress=False)
