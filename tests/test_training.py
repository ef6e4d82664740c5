"""Training: what reaches each step, what a run learns, and the epoch that it keeps."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers import CLASSES, SPLITS, Pocket, assert_same_run, color_data, tiny, train_quietly

from derm_hash import training
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import DermHash
from derm_hash.objectives import OBJECTIVES
from derm_hash.rotations import disc_mask, inside_disc
from derm_hash.runs import load_model
from derm_hash.training import step_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def test_progress_and_class_weights_of_the_database_reach_every_step(data, tmp_path, steps):
    train_quietly(tiny(class_weights="inverse"), data, tmp_path)
    assert [step.progress for step in steps] == pytest.approx([i / 6 for i in range(6)])
    # Of the 28 database images 10 are of the first class, 9 of each other.
    for step in steps:
        assert step.weights.tolist() == pytest.approx([28 / 30, 28 / 27, 28 / 27])
    train_quietly(tiny(class_weights="none"), data, tmp_path / "other")
    assert steps[-1].weights is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_an_easy_problem(data, tmp_path, name):
    config = tiny(epochs=15, learning_rate=0.03, objective=name)
    run = train_quietly(config, data, tmp_path)
    column = "cross_entropy" if name == "classification" else "hashing"
    if name != "supcon":  # on these colours it starts near its least value, log of a class's size
        assert run.history[column].iloc[-1] < 0.7 * run.history[column].iloc[0]
    assert run.history["val_precision_at_10"].max() > 0.9
    # The classifier learns beside it, whoever shapes the code.
    assert run.history["cross_entropy"].iloc[-1] < 0.95 * run.history["cross_entropy"].iloc[0]
    if name == "classification":
        x, y = data.split("query").batch(range(4))
        with torch.no_grad():
            assert torch.equal(run.model(x).logits.argmax(1), y)


# --- rotation augmentation, and orbits inside the disc ----------------------------------------


@pytest.mark.parametrize("augment", [False, True])
def test_random_rotations_are_quarter_turns_of_each_image_and_change_no_other_draw(
    data, tmp_path, steps, augment
):
    alone = {"invariance": None, "classify": "upright", "augment": augment, "epochs": 4}
    turning = tiny(**alone, random_rotations=True)
    assert turning.copies == 1  # one forward pass for each image
    for folder, config in (("a", tiny(**alone)), ("b", turning), ("c", turning)):
        train_quietly(config, data, tmp_path / folder)
    counts = torch.zeros(4, dtype=torch.long)
    for plain, turned, again in zip(steps[:12], steps[12:24], steps[24:], strict=True):
        assert torch.equal(plain.y, turned.y)
        assert torch.equal(turned.x, again.x)
        for before, after in zip(plain.x, turned.x, strict=True):
            fits = [torch.equal(torch.rot90(before, k, (1, 2)), after) for k in range(4)]
            assert sum(fits) == 1
            counts[fits.index(True)] += 1
    assert counts.min() > 10  # of 96


def test_training_and_evaluation_on_c8_see_the_same_disc(data, tmp_path, monkeypatch):
    config, seen = tiny(orbit=8, epochs=1), []
    stem = Pocket.forward

    def spy(self, x):
        seen.append((self.training, x.clone()))
        return stem(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(Pocket, "forward", spy)
        run = train_quietly(config, data, tmp_path)
        training.encode(run.model, data.split("query"))
        training.encode(load_model(run.path), data.split("query"))
    assert {mode for mode, _ in seen} == {True, False}
    for _, x in seen:
        assert torch.equal(x, inside_disc(x))
    # The corners of a query make no difference.
    x, _ = data.split("query").batch(range(4))
    with torch.no_grad():
        other_corners = x.masked_fill(~disc_mask(x.shape[-1]), 1)
        assert torch.equal(run.model(x).code, run.model(other_corners).code)


# --- whole runs ---------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers(finished, data, tmp_path):
    torch.manual_seed(12345)  # whatever happened before
    torch.rand(7)
    assert_same_run(train_quietly(tiny(), data, tmp_path, progress=True), finished)
    other = train_quietly(tiny(seed=1), data, tmp_path / "other")
    assert (other.history["loss"] != finished.history["loss"]).all()


def test_training_never_looks_at_the_queries(finished, data, tmp_path):
    poisoned = color_data()
    poisoned.images[36:] = 255
    poisoned.labels[36:] = 0
    assert_same_run(train_quietly(tiny(), poisoned, tmp_path / "poisoned"), finished)
    absent = data.select(range(36))
    assert_same_run(train_quietly(tiny(), absent, tmp_path / "absent"), finished)


def test_the_epoch_that_was_best_on_val_is_kept(data, tmp_path, monkeypatch):
    scores, states = iter([0.9, 0.9, 0.5]), []

    def scripted(model, database, val):
        assert set(database.table["split"]) == {"database"}
        assert set(val.table["split"]) == {"val"}
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(training, "val_score", scripted)
    run = train_quietly(tiny(epochs=3), data, tmp_path)
    assert run.history["val_precision_at_10"].tolist() == [0.9, 0.9, 0.5]
    kept = run.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in kept.items())
    assert not torch.equal(kept["hash_layer.weight"], states[2]["hash_layer.weight"])
    assert not run.model.training


def test_the_val_score_is_the_precision_of_the_ten_nearest(data):
    torch.manual_seed(0)
    model = DermHash("pocket", bits=8, classes=3)
    database, val = data.split("database"), data.split("val")
    with torch.no_grad():
        code = [
            model.eval()(part.batch(range(len(part)))[0]).code.double() for part in (val, database)
        ]
    similarity = F.normalize(code[0]) @ F.normalize(code[1]).T
    right = database.labels[similarity.topk(10).indices] == val.labels[:, None]
    expected = np.mean([right[val.labels == c].double().mean() for c in range(3)])
    assert training.val_score(model, database, val) == pytest.approx(expected, abs=1e-6)


def test_every_image_is_seen_at_most_once_an_epoch_in_a_new_order(data, tmp_path, steps):
    def pairs(images, labels):
        return list(zip([x.numpy().tobytes() for x in images], labels.tolist(), strict=True))

    train_quietly(tiny(augment=False), data, tmp_path)
    seen = [pair for step in steps for pair in pairs(step.x, step.y)]
    known = set(pairs(*data.split("database").batch(range(28))))
    first, second = seen[:24], seen[24:]
    for epoch in (first, second):
        assert len(epoch) == len(set(epoch)) == 24  # three whole batches
        assert set(epoch) <= known
    assert first != second


def test_images_may_lie_in_memory_in_any_order(finished, data, tmp_path):
    pixels_last = data.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    other = LesionDataset(pixels_last, data.table, CLASSES)
    assert_same_run(train_quietly(tiny(), other, tmp_path), finished)


# --- the folder of a run ----------------------------------------------------------------


def test_the_history_is_handed_out_after_every_epoch_and_gives_its_learning_rate(
    finished, data, tmp_path
):
    seen = []
    train_quietly(tiny(), data, tmp_path, on_epoch=seen.append)
    assert [len(history) for history in seen] == [1, 2]
    pd.testing.assert_frame_equal(seen[1], finished.history)
    falling = {"schedule": "steps", "milestones": [1], "learning_rate": 0.01}
    run = train_quietly(tiny(epochs=3, name="falling", **falling), data, tmp_path)
    assert run.history["lr"].tolist() == pytest.approx([0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    ("changes", "missing", "said"),
    [
        ({}, "database", "'database' has no images"),
        ({}, "val", "'val' has no images"),
        ({"class_weights": "balanced"}, None, "class weights 'balanced'|class_weights must be"),
        ({"backbone": "vgg"}, None, "backbone"),
        ({"attention": "none"}, None, "attention"),
        ({"objective": "csq", "bits": 1}, None, "1 bits are too few for 3 "),
    ],
)
def test_a_run_that_cannot_be_started_claims_no_folder(tmp_path, changes, missing, said):
    splits = ["query" if s == missing else s for s in SPLITS]
    with pytest.raises(InputError, match=said):
        train_quietly(tiny(**changes), color_data(splits=splits), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- Ctrl-C -----------------------------------------------------------------------------


def test_the_bar_shows_loss_and_learning_rate(data, tmp_path, capsys):
    train_quietly(tiny(), data, tmp_path, progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"tiny, val \d\.\d{3}: 100%.*loss=\d+\.\d{3}, lr=\d\.\de-\d\d", last)


# --- members of the orbit -------------------------------------------------------------------


def test_each_step_draws_its_own_members(data, tmp_path, monkeypatch):
    drawn = []

    def spy(*given):
        drawn.append(tuple(given[7].tolist()))
        return step_losses(*given)

    monkeypatch.setattr(training, "step_losses", spy)
    train_quietly(tiny(attention=None, orbit_sample=2, epochs=4), data, tmp_path)
    assert {len(set(pair)) for pair in drawn} == {2} and len(set(drawn)) > 2
    with pytest.raises(InputError, match="must be 0, or 2 or more, not 1"):
        tiny(orbit_sample=1)
    assert tiny(orbit_sample=5).copies == 4  # there are no more members
