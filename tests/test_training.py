"""Training: the loss of a step by hand, resuming to the bit, and a run's folder."""

import functools
import itertools
import math
import re
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from helpers import (
    CLASSES,
    RUN_FILES,
    SPLITS,
    Pocket,
    Stop,
    assert_same_run,
    checkpoint_of,
    color_data,
    network_input,
    sixteen_bits,
    tiny,
    train_quietly,
)
from torch import Tensor, nn

from derm_hash import training
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.files import save_state
from derm_hash.model import DermHash, HashOutput
from derm_hash.objectives import OBJECTIVES
from derm_hash.rotations import disc_mask, inside_disc
from derm_hash.runs import Run, load_model
from derm_hash.settings import TrainConfig
from derm_hash.training import make_optimizer, make_scheduler, step_losses

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return color_data()


@pytest.fixture
def checkpoint_every_step(monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)


def stop(*args):
    raise Stop


class Step(NamedTuple):
    x: Tensor
    y: Tensor
    weights: Tensor | None
    progress: float


class Steps(list):
    stop_at = None


@pytest.fixture
def steps(monkeypatch):
    """What each step of training was given; training stops at the step number ``stop_at``."""
    seen = Steps()

    def spy(model, x, y, config, weights, progress, *more):
        seen.append(Step(x.clone(), y.clone(), weights, progress))
        if len(seen) == seen.stop_at:
            raise Stop
        return step_losses(model, x, y, config, weights, progress, *more)

    monkeypatch.setattr(training, "step_losses", spy)
    return seen


# --- one step -----------------------------------------------------------------------------


class Stub(nn.Module):
    """A small network that can be worked out by hand, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        code = torch.sigmoid(x[:, 0, 0, :2])  # two pixels of the upper edge: they turn
        return HashOutput(torch.cat([code, -code[:, :1]], dim=1), code)


def orbit_of(x):
    return [np.ascontiguousarray(np.rot90(x.numpy(), k, axes=(2, 3))) for k in range(4)]


@pytest.mark.parametrize("classify", ["orbit", "upright"])
@pytest.mark.parametrize("mode", ["inverse", "released", "none"])
def test_the_loss_of_a_step_by_hand(classify, mode):
    x, y = network_input(5, 4), torch.tensor([0, 0, 0, 1, 2])
    config = tiny(classify=classify, class_weights=mode, invariance_weight=0.7, gamma=0.3)
    weights = {
        "inverse": torch.tensor([5 / 9, 5 / 3, 5 / 3]),
        "released": torch.tensor([3 / 5, 1 / 5, 1 / 5]),
        "none": torch.ones(3),
    }[mode]
    # Only the released weights come from the batch; the others are given.
    given = {"inverse": weights, "released": None, "none": None}[mode]
    outputs = [Stub()(torch.from_numpy(turned)) for turned in orbit_of(x)]
    seen = outputs if classify == "orbit" else outputs[:1]
    nll = torch.cat([-F.log_softmax(out.logits, 1)[range(5), y] for out in seen])
    share = weights[y].repeat(len(seen))
    cross_entropy = (share * nll).sum() / share.sum()
    codes = torch.stack([out.code for out in outputs])
    invariance = torch.log(1 + (codes - codes.mean(0)).abs() / 0.3).mean(dim=(1, 2)).sum()
    losses = step_losses(Stub(), x, y, config, given)
    torch.testing.assert_close(losses["cross_entropy"], cross_entropy)
    torch.testing.assert_close(losses["invariance"], invariance)
    torch.testing.assert_close(losses["loss"], cross_entropy + 0.7 * invariance)


@pytest.mark.parametrize(
    ("rise", "progress", "share"),
    [(0.5, 0, 0), (0.5, 0.125, 0.25), (0.5, 0.5, 1), (0.5, 0.9, 1), (1, 0.3, 0.3), (0, 0, 1)],
)
def test_the_weight_of_the_invariance_rises(rise, progress, share):
    x, y = network_input(3, 4), torch.tensor([0, 1, 2])
    config = tiny(invariance_rise=rise, invariance_weight=0.8)
    losses = step_losses(Stub(), x, y, config, share_done=progress)
    assert losses["invariance"] > 0.1
    expected = losses["cross_entropy"] + share * 0.8 * losses["invariance"]
    torch.testing.assert_close(losses["loss"], expected)


def test_progress_and_class_weights_of_the_database_reach_every_step(data, tmp_path, steps):
    train_quietly(tiny(class_weights="inverse"), data, tmp_path)
    assert [step.progress for step in steps] == pytest.approx([i / 6 for i in range(6)])
    # Of the 28 database images 10 are of the first class, 9 of each other.
    for step in steps:
        assert step.weights.tolist() == pytest.approx([28 / 30, 28 / 27, 28 / 27])
    train_quietly(tiny(class_weights="none"), data, tmp_path / "other")
    assert steps[-1].weights is None


@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        ({}, 4),
        ({"classify": "upright"}, 4),
        ({"invariance": None}, 4),
        ({"invariance": None, "classify": "upright"}, 1),
        ({"orbit": 2}, 2),
    ],
)
def test_the_whole_orbit_goes_through_in_one_pass(changes, copies):
    seen = []
    stub = Stub()
    stub.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    config = tiny(**changes)
    losses = step_losses(stub, torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2]), config)
    assert stub.calls == 1
    assert seen == [3 * copies]
    assert config.copies == copies
    assert ("invariance" in losses) == (config.invariance is not None)


@pytest.mark.parametrize("kind", ["l1", "l2", "gaussian"])
def test_the_other_penalties_reach_the_loss(kind):
    x = network_input(3, 4)
    codes = torch.stack([Stub()(torch.from_numpy(turned)).code for turned in orbit_of(x)])
    d = (codes - codes.mean(0)).abs() / 0.5
    rho = {"l1": d, "l2": d**2 / 2, "gaussian": 1 - torch.exp(-(d**2) / 2)}[kind]
    losses = step_losses(Stub(), x, torch.tensor([0, 1, 2]), tiny(invariance=kind))
    torch.testing.assert_close(losses["invariance"], rho.mean(dim=(1, 2)).sum())


# --- objectives -----------------------------------------------------------------------------

HASHING = [name for name in OBJECTIVES if name != "classification"]


@pytest.mark.parametrize("classify", ["orbit", "upright"])
@pytest.mark.parametrize("name", HASHING)
def test_an_objective_reaches_the_loss_beside_the_classifier_and_the_invariance(name, classify):
    x, y, weights = network_input(5, 4), torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1.0, 2, 3])
    config = tiny(objective=name, classify=classify)
    outputs = [Stub()(torch.from_numpy(turned)) for turned in orbit_of(x)]
    seen = outputs if classify == "orbit" else outputs[:1]
    codes, logits = torch.cat([out.code for out in seen]), torch.cat([out.logits for out in seen])
    expected = OBJECTIVES[name](codes, logits, y.repeat(len(seen)), weights)
    losses = step_losses(Stub(), x, y, config, weights)
    assert list(losses) == ["cross_entropy", "loss", "hashing", "invariance"]
    torch.testing.assert_close(losses["hashing"], expected)
    factor = 2 if name == "supcon" else 1  # the classifier shapes the code as well
    total = factor * losses["cross_entropy"] + losses["hashing"] + 0.5 * losses["invariance"]
    torch.testing.assert_close(losses["loss"], total)


def test_the_classifier_of_a_hashing_objective_reads_the_code_without_shaping_it():
    torch.manual_seed(0)
    model = DermHash("pocket", bits=8, classes=3)
    x, y = network_input(4), torch.tensor([0, 1, 2, 0])
    for shapes in (True, False):
        model.detach_classifier = not shapes
        model.zero_grad()
        step_losses(model, x, y, tiny(objective="csq"))["cross_entropy"].backward()
        assert model.classifier.weight.grad.abs().max() > 0
        assert (model.hash_layer.weight.grad is not None) == shapes


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


@pytest.mark.usefixtures("checkpoint_every_step")
@pytest.mark.parametrize("name", HASHING)
def test_every_objective_with_the_invariance_resumes_to_the_bit(data, tmp_path, name, steps):
    config, steps.stop_at = tiny(objective=name, random_rotations=True), 5
    with pytest.raises(Stop):
        train_quietly(config, data, tmp_path / "stopped")
    whole = train_quietly(config, data, tmp_path / "whole")
    assert (whole.history["invariance"] > 0).all()
    assert_same_run(train_quietly(config, data, tmp_path / "stopped"), whole)


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


@pytest.mark.parametrize(
    ("changes", "disc"),
    [
        ({}, False),
        ({"orbit": 8}, True),
        ({"orbit": 3, "classify": "upright"}, True),
        ({"orbit": 2}, False),
        ({"orbit": 8, "invariance": None, "classify": "upright"}, False),  # no orbit is made
        ({"disc": True}, True),
    ],
)
def test_a_model_sees_the_disc_where_its_orbit_did(changes, disc):
    assert tiny(**changes).sees_disc == disc


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


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run that nobody disturbed."""
    return train_quietly(tiny(), data, tmp_path_factory.mktemp("runs"))


def test_the_same_seed_gives_the_same_numbers(finished, data, tmp_path):
    torch.manual_seed(12345)  # whatever happened before
    torch.rand(7)
    assert_same_run(train_quietly(tiny(), data, tmp_path, progress=True), finished)
    other = train_quietly(tiny(seed=1), data, tmp_path / "other")
    assert (other.history["loss"] != finished.history["loss"]).all()


STEPS = {"schedule": "steps", "milestones": [1]}
RECIPES = {
    "onecycle": {},
    "steps": STEPS | {"optimizer": "sgd", "learning_rate": 0.01, "augment": False},
    "adamw steps": STEPS | {"weight_decay": 0},
    "sgd onecycle": {"optimizer": "sgd", "learning_rate": 0.01},
    "no momentum": {"optimizer": "sgd", "momentum": 0, "schedule": "steps", "milestones": (2,)},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_stopped_after_an_epoch_resumes_to_the_bit(data, tmp_path, recipe):
    config = tiny(**RECIPES[recipe])

    with pytest.raises(Stop):
        train_quietly(config, data, tmp_path / "a", on_epoch=stop)
    assert len(Run.load(tmp_path / "a" / "tiny").history) == 1
    resumed = train_quietly(config, data, tmp_path / "a")
    assert_same_run(resumed, train_quietly(config, data, tmp_path / "b"))
    assert len(resumed.history) == 2


@pytest.mark.usefixtures("checkpoint_every_step")
@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_run_stopped_within_an_epoch_resumes_to_the_bit(finished, data, tmp_path, steps, stop_at):
    steps.stop_at = stop_at
    with pytest.raises(Stop):
        train_quietly(tiny(), data, tmp_path)
    assert_same_run(train_quietly(tiny(), data, tmp_path), finished)
    # One step was stopped; the six of two epochs were each done once.
    assert len(steps) == 1 + 6


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize("scale", [2.0**8, 2.0**24], ids=["rising", "too high at first"])
@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_run_in_mixed_precision_resumes_to_the_bit(data, tmp_path, scale, stop_at):
    config = tiny(epochs=5)

    def stop(history):
        if len(history) == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train_quietly(config, data, tmp_path / "a", on_epoch=stop, fabric=sixteen_bits(scale, 2))
    whole, half = sixteen_bits(scale, 2), sixteen_bits(scale, 2)
    expected = train_quietly(config, data, tmp_path / "b", fabric=whole)
    assert_same_run(train_quietly(config, data, tmp_path / "a", fabric=half), expected)
    kept = [fabric.strategy.precision.state_dict() for fabric in (half, whole)]
    assert kept[0] == kept[1] and kept[0]["scale"] != scale


@pytest.mark.usefixtures("checkpoint_every_step")
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (training, "val_score", 1),
        (training, "save_model", 1),
        (training, "save_checkpoint", 1),
        (training, "save_checkpoint", 4),  # after the three steps of an epoch
        (pd.DataFrame, "to_csv", 1),
        (pd.DataFrame, "to_csv", 2),
    ],
)
def test_a_run_stopped_before_a_write_resumes_to_the_bit(
    finished, data, tmp_path, owner, name, call
):
    calls, write = [], getattr(owner, name)

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Stop
        return write(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stopping)
        with pytest.raises(Stop):
            train_quietly(tiny(), data, tmp_path)
    assert_same_run(train_quietly(tiny(), data, tmp_path), finished)


def test_what_a_killed_process_has_left_is_removed(data, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / ".metrics.csv.4242.part").write_text("half a ta")
    train_quietly(tiny(epochs=1), data, tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def test_a_finished_run_is_not_trained_again(finished, data, steps):
    before = (finished.path / "checkpoint.safetensors").read_bytes()
    assert_same_run(train_quietly(tiny(), data, finished.path.parent), finished)
    assert (finished.path / "checkpoint.safetensors").read_bytes() == before
    assert steps == []


def test_a_second_process_waits_for_the_first_and_takes_its_result(
    finished, data, tmp_path, steps, capsys
):
    folder = tmp_path / "tiny"
    folder.mkdir()
    started = threading.Event()

    def first():
        with FileLock(folder / ".lock"):
            started.set()
            time.sleep(0.5)
            for name in RUN_FILES - {".lock"}:
                shutil.copy(finished.path / name, folder / name)

    threading.Thread(target=first).start()
    started.wait()
    assert_same_run(train_quietly(tiny(), data, tmp_path), finished)
    assert "tiny is being trained by another process" in capsys.readouterr().out
    assert steps == []


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


def test_fewer_images_than_a_batch_make_one_step(data, tmp_path):
    few = data.select([0, 1, 2, 28, 29, 30])
    run = train_quietly(tiny(epochs=1, batch_size=64), few, tmp_path)
    state = checkpoint_of(run.path)
    assert state["model"]["backbone.bn1.num_batches_tracked"] == 1
    assert math.isfinite(run.history["loss"][0])


def test_a_run_that_was_compiled_for_an_epoch_has_the_weights_of_a_plain_one(
    finished, data, tmp_path, monkeypatch
):
    graphs = []

    def backend(graph, inputs):  # the default one needs a C++ compiler
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with pytest.raises(Stop):
        train_quietly(tiny(), data, tmp_path, on_epoch=stop, compiled=True)
    assert len(graphs) > 1  # a trial, and the network
    run = train_quietly(tiny(), data, tmp_path)
    for name, value in run.model.state_dict().items():
        expected = finished.model.state_dict()[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_images_may_lie_in_memory_in_any_order(finished, data, tmp_path):
    pixels_last = data.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    other = LesionDataset(pixels_last, data.table, CLASSES)
    assert_same_run(train_quietly(tiny(), other, tmp_path), finished)


# --- the folder of a run ----------------------------------------------------------------


def test_the_history_gives_the_learning_rate_of_each_epoch(data, tmp_path):
    run = train_quietly(tiny(epochs=3, **RECIPES["steps"]), data, tmp_path)
    assert run.history["lr"].tolist() == pytest.approx([0.01, 0.001, 0.001])


def test_the_history_is_handed_out_after_every_epoch(finished, data, tmp_path):
    seen = []
    train_quietly(tiny(), data, tmp_path, on_epoch=seen.append)
    assert [len(history) for history in seen] == [1, 2]
    pd.testing.assert_frame_equal(seen[1], finished.history)


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


def test_a_checkpoint_of_another_network_is_refused_in_one_sentence(finished, data, tmp_path):
    (tmp_path / "tiny").mkdir()
    shutil.copy(finished.path / "config.json", tmp_path / "tiny")
    save_state(tmp_path / "tiny" / "checkpoint.safetensors", {"model": {}, "optimizer": {}})
    with pytest.raises(InputError, match=r"checkpoint\.safetensors does not fit this") as error:
        train_quietly(tiny(), data, tmp_path)
    assert "folder and start again" in str(error.value)
    assert "\n" not in str(error.value)


# --- what it trains with ----------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["steps", "onecycle"])
def test_the_released_optimizer_and_schedules_are_torchs(schedule):
    config = TrainConfig.preset("released", schedule=schedule, epochs=100)
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(config, model)
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.SGD)
    scheduler = make_scheduler(config, optimizer, steps=3)
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            scheduler.step()
    if schedule == "steps":
        expected = [0.01] * 40 + [0.001] * 20 + [1e-4] * 20 + [1e-5] * 20
        assert rates == pytest.approx(expected)
    else:
        assert max(rates) == pytest.approx(0.01, rel=0.01)
        assert rates[0] < 0.001
        assert rates[-1] < 1e-5
        assert rates.index(max(rates)) in range(28, 33)  # it rises for three tenths
    assert group["momentum"] == 0.9  # the schedule moves the learning rate alone


# --- Ctrl-C -----------------------------------------------------------------------------


def ctrl_c_at(monkeypatch, name, call):
    """Press Ctrl-C amid call number ``call`` of a function of the training module."""
    real, calls = getattr(training, name), []

    def pressed(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(training, name, pressed)


@pytest.mark.parametrize(
    ("name", "call", "said"),
    [
        ("step_losses", 1, "step 1 of epoch 1; a checkpoint is kept"),
        ("step_losses", 5, "step 2 of epoch 2; a checkpoint is kept"),
        ("add_losses", 2, "step 2 of epoch 1; a checkpoint is kept"),
        ("val_score", 1, "step 3 of epoch 1; a checkpoint is kept"),
        ("save_model", 1, "after epoch 1; a checkpoint is kept"),
        ("close_epoch", 2, "after epoch 2; a checkpoint is kept"),
        ("train_epoch", 1, "before the end of the first step: nothing is kept"),
    ],
)
def test_ctrl_c_keeps_a_checkpoint_and_the_run_goes_on_as_if_never_stopped(
    finished, data, tmp_path, monkeypatch, name, call, said
):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=said):
        ctrl_c_at(patch, name, call)
        train_quietly(tiny(), data, tmp_path)
    assert (tmp_path / "tiny" / "checkpoint.safetensors").exists() is ("nothing" not in said)
    assert signal.getsignal(signal.SIGINT) is before
    assert_same_run(train_quietly(tiny(), data, tmp_path), finished)


def test_ctrl_c_twice_in_a_step_still_waits_for_its_end(finished, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="step 2 of"):
        ctrl_c_at(patch, "step_losses", 2)
        ctrl_c_at(patch, "add_losses", 2)
        train_quietly(tiny(), data, tmp_path)
    assert_same_run(train_quietly(tiny(), data, tmp_path), finished)


def test_training_outside_of_the_main_thread_leaves_ctrl_c_alone(finished, data, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train_quietly, tiny(), data, tmp_path).result()
    assert_same_run(run, finished)


def test_the_bar_shows_loss_and_learning_rate(data, tmp_path, capsys):
    train_quietly(tiny(), data, tmp_path, progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"tiny, val \d\.\d{3}: 100%.*loss=\d+\.\d{3}, lr=\d\.\de-\d\d", last)


# --- members of the orbit -------------------------------------------------------------------


def test_the_penalty_on_drawn_members_pulls_as_the_whole_orbit_does_on_average(data):
    torch.manual_seed(0)
    model = DermHash("pocket", 8, 3, None).eval()
    x, y = data.batch(range(6))
    settings = {"attention": None, "invariance": "l2", "classify": "orbit"}
    whole = step_losses(model, x, y, tiny(**settings))["invariance"]
    drawn = [
        step_losses(model, x, y, tiny(**settings, orbit_sample=2), members=torch.tensor(pair))
        for pair in itertools.combinations(range(4), 2)
    ]
    mean = torch.stack([losses["invariance"] for losses in drawn]).mean()
    assert mean.item() == pytest.approx(whole.item(), rel=1e-5)


def test_each_step_draws_its_own_members(data, tmp_path, monkeypatch):
    drawn = []

    def spy(*given):
        drawn.append(tuple(given[7].tolist()))
        return step_losses(*given)

    monkeypatch.setattr(training, "step_losses", spy)
    train_quietly(tiny(attention=None, orbit_sample=2, epochs=4), data, tmp_path)
    assert {len(set(pair)) for pair in drawn} == {2} and len(set(drawn)) > 2
    with pytest.raises(InputError, match="between 2 and the orbit's 4 members"):
        tiny(orbit_sample=5)
