"""Training: the loss of a step by hand, resuming to the bit, and a run's folder."""

import dataclasses
import functools
import json
import math
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from torchvision.models.resnet import BasicBlock

from derm_hash import model as model_module
from derm_hash import training
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.model import DermHash, HashOutput, make_backbone
from derm_hash.objectives import OBJECTIVES
from derm_hash.rotations import inside_disc
from derm_hash.runs import Run, load_model
from derm_hash.settings import TrainConfig
from derm_hash.training import augment, step_losses, train
from derm_hash.training_state import TrainingState, make_optimizer, make_scheduler

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("MEL", "NV", "BCC")
SPLITS = ["database"] * 28 + ["val"] * 8 + ["query"] * 4
COLOURS = torch.tensor([[60, 40, 30], [200, 150, 120], [120, 60, 200]])


class Pocket(nn.Module):
    """A residual network of one block, in the place of resnet10: a step takes milliseconds."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=4, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.block = BasicBlock(16, 16)
        self.fc = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc(self.block(self.bn1(self.conv1(x)).relu()).mean(dim=(2, 3)))


@pytest.fixture(scope="module", autouse=True)
def pocket():
    def make(name, weights):
        return Pocket() if name == "resnet10" else make_backbone(name, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "make_backbone", make)
        yield


def make_data(seed=0, splits=SPLITS):
    """40 images of 32 px; the class is the colour, under noise."""
    labels = torch.arange(len(splits)) % 3
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(-40, 41, (len(splits), 3, 32, 32), generator=generator)
    images = (COLOURS[labels][:, :, None, None] + noise).clamp(0, 255).to(torch.uint8)
    names = [f"images/{i}.png" for i in range(len(splits))]
    label = [CLASSES[i] for i in labels]
    return LesionDataset(
        images, pd.DataFrame({"image": names, "label": label, "split": splits}), CLASSES
    )


@pytest.fixture(scope="module")
def data():
    return make_data()


def tiny(**changes):
    """Three steps an epoch."""
    small = {"name": "tiny", "backbone": "resnet10", "bits": 8, "epochs": 2, "batch_size": 8}
    fixed = {"precision": "32-true", "invariance_weight": 0.5}
    return TrainConfig(**small | fixed | changes)


def quiet(config, data, root, **changes):
    return train(config, data, root, **{"progress": False} | changes)


def assert_same_run(run, expected):
    pd.testing.assert_frame_equal(run.history, expected.history, check_exact=True)
    states = run.model.state_dict(), expected.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    finals = [torch.load(r.path / "last.ckpt", weights_only=True)["model"] for r in (run, expected)]
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())


class Stop(Exception):
    """Somebody pulls the plug."""


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
    x = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.tensor([0, 0, 0, 1, 2])
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
    x = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    config = tiny(invariance_rise=rise, invariance_weight=0.8)
    losses = step_losses(Stub(), x, torch.tensor([0, 1, 2]), config, progress=progress)
    assert losses["invariance"] > 0.1
    expected = losses["cross_entropy"] + share * 0.8 * losses["invariance"]
    torch.testing.assert_close(losses["loss"], expected)


def test_the_weight_rises_over_the_steps_of_a_run(data, tmp_path, monkeypatch):
    seen = []

    def spy(*args):
        seen.append(args[5])
        return step_losses(*args)

    monkeypatch.setattr(training, "step_losses", spy)
    quiet(tiny(), data, tmp_path)
    assert seen == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


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


def test_the_gradient_of_a_step_is_that_of_four_passes():
    # In evaluation mode the copies do not meet in the batch norm.
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=8, classes=3).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.tensor([2, 0])
    step_losses(model, x, y, tiny(class_weights="none"))["loss"].backward()
    ours = model.hash_layer.weight.grad.clone()
    model.zero_grad()
    outputs = [model(torch.from_numpy(turned)) for turned in orbit_of(x)]
    codes = torch.stack([out.code for out in outputs])
    cauchy = torch.log(1 + (codes - codes.mean(0)).abs() / 0.5).mean(dim=(1, 2)).sum()
    nll = sum(F.cross_entropy(out.logits, y) for out in outputs) / 4
    (nll + 0.5 * cauchy).backward()
    torch.testing.assert_close(ours, model.hash_layer.weight.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["l1", "l2", "gaussian"])
def test_the_other_penalties_reach_the_loss(kind):
    x = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = torch.stack([Stub()(torch.from_numpy(turned)).code for turned in orbit_of(x)])
    d = (codes - codes.mean(0)).abs() / 0.5
    rho = {"l1": d, "l2": d**2 / 2, "gaussian": 1 - torch.exp(-(d**2) / 2)}[kind]
    losses = step_losses(Stub(), x, torch.tensor([0, 1, 2]), tiny(invariance=kind))
    torch.testing.assert_close(losses["invariance"], rho.mean(dim=(1, 2)).sum())


def test_augmentation_mirrors_some_and_changes_the_light_a_little():
    x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    changed = augment(x, torch.Generator().manual_seed(1))
    assert torch.equal(changed, augment(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(changed, augment(x, torch.Generator().manual_seed(2)))
    mirrored = 0
    for before, after in zip(x, changed, strict=True):
        # One straight line of brightness for the image or for its mirror image.
        fits = [
            np.polyfit(candidate.flatten().numpy(), after.flatten().numpy(), 1, full=True)
            for candidate in (before, before.flip(-1))
        ]
        residuals = [fit[1][0] for fit in fits]
        mirrored += residuals[1] < residuals[0]
        slope, shift = fits[int(np.argmin(residuals))][0]
        assert min(residuals) < 1e-9
        assert abs(slope - 1) <= 0.1 + 1e-6
        assert abs(shift) <= 0.1 + 1e-6
    assert 20 < mirrored < 44
    assert augment(torch.ones(9, 3, 2, 2), torch.Generator().manual_seed(0)).max() <= 1


# --- objectives -----------------------------------------------------------------------------

HASHING = [name for name in OBJECTIVES if name != "classification"]


@pytest.mark.parametrize("classify", ["orbit", "upright"])
@pytest.mark.parametrize("name", HASHING)
def test_an_objective_reaches_the_loss_beside_the_classifier_and_the_invariance(name, classify):
    x = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y, weights = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1.0, 2.0, 3.0])
    config = tiny(objective=name, classify=classify)
    outputs = [Stub()(torch.from_numpy(turned)) for turned in orbit_of(x)]
    seen = outputs if classify == "orbit" else outputs[:1]
    codes, logits = torch.cat([out.code for out in seen]), torch.cat([out.logits for out in seen])
    expected = OBJECTIVES[name](codes, logits, y.repeat(len(seen)), weights)
    losses = step_losses(Stub(), x, y, config, weights)
    assert list(losses) == ["cross_entropy", "loss", "hashing", "invariance"]
    torch.testing.assert_close(losses["hashing"], expected)
    total = losses["cross_entropy"] + losses["hashing"] + 0.5 * losses["invariance"]
    torch.testing.assert_close(losses["loss"], total)


def test_the_classifier_of_a_hashing_objective_reads_the_code_without_shaping_it():
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=8, classes=3)
    x, y = torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([0, 1, 2, 0])
    for shapes in (True, False):
        model.classifier_shapes_code = shapes
        model.zero_grad()
        step_losses(model, x, y, tiny(objective="csq"))["cross_entropy"].backward()
        assert model.classifier.weight.grad.abs().max() > 0
        assert (model.hash_layer.weight.grad is not None) == shapes


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_an_easy_problem(data, tmp_path, name):
    config = tiny(epochs=15, learning_rate=0.03, objective=name)
    run = quiet(config, data, tmp_path)
    column = "cross_entropy" if name == "classification" else "hashing"
    assert run.history[column].iloc[-1] < 0.7 * run.history[column].iloc[0]
    assert run.history["val_precision_at_10"].max() > 0.9
    # The classifier learns beside it, whoever shapes the code.
    assert run.history["cross_entropy"].iloc[-1] < 0.95 * run.history["cross_entropy"].iloc[0]


@pytest.mark.parametrize("name", HASHING)
def test_every_objective_with_the_invariance_resumes_to_the_bit(data, tmp_path, name, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    config, steps = tiny(objective=name, random_turns=True), []

    def counted(*args):
        steps.append(1)
        if len(steps) == 5:
            raise Stop
        return step_losses(*args)

    whole = quiet(config, data, tmp_path / "whole")
    assert (whole.history["invariance"] > 0).all()
    with monkeypatch.context() as patch:
        patch.setattr(training, "step_losses", counted)
        with pytest.raises(Stop):
            quiet(config, data, tmp_path / "stopped")
    assert_same_run(quiet(config, data, tmp_path / "stopped"), whole)


def test_csq_without_enough_centres_claims_no_folder(data, tmp_path):
    with pytest.raises(InputError, match="3 classes find no 3 different hash centres of 1 bits"):
        quiet(tiny(objective="csq", bits=1), data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_before_a_setting_existed_is_still_that_run(finished, data, tmp_path):
    shutil.copytree(finished.path, tmp_path / "tiny")
    about = json.loads((tmp_path / "tiny" / "config.json").read_text())
    for field in ("objective", "random_turns", "disc"):
        del about["config"][field]
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(about))
    assert Run.load(tmp_path / "tiny").config == tiny()
    assert_same_run(quiet(tiny(), data, tmp_path), finished)


# --- rotation augmentation, and orbits inside the disc ----------------------------------------


def seen_by_the_network(config, data, root, monkeypatch):
    """What each step hands to step_losses."""
    batches = []

    def spy(model, x, y, *rest):
        batches.append((x.clone(), y.clone()))
        return step_losses(model, x, y, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "step_losses", spy)
        quiet(config, data, root)
    return batches


def test_random_turns_are_quarter_turns_of_each_image_on_its_own(data, tmp_path, monkeypatch):
    alone = {"invariance": None, "classify": "upright", "augment": False, "epochs": 4}
    plain = seen_by_the_network(tiny(**alone), data, tmp_path / "a", monkeypatch)
    config = tiny(**alone, random_turns=True)
    assert config.copies == 1  # one forward pass for each image
    turned = seen_by_the_network(config, data, tmp_path / "b", monkeypatch)
    again = seen_by_the_network(config, data, tmp_path / "c", monkeypatch)
    counts = torch.zeros(4, dtype=torch.long)
    for (x, y), (z, labels), (repeated, _) in zip(plain, turned, again, strict=True):
        assert torch.equal(y, labels)
        assert torch.equal(z, repeated)
        for before, after in zip(x, z, strict=True):
            fits = [torch.equal(torch.rot90(before, k, (1, 2)), after) for k in range(4)]
            assert sum(fits) == 1
            counts[fits.index(True)] += 1
    assert counts.min() > 10  # of 96


def test_random_turns_leave_the_other_draws_alone(data, tmp_path, monkeypatch):
    plain = seen_by_the_network(tiny(epochs=1), data, tmp_path / "a", monkeypatch)
    turned = seen_by_the_network(
        tiny(epochs=1, random_turns=True), data, tmp_path / "b", monkeypatch
    )
    for (x, _), (z, _) in zip(plain, turned, strict=True):
        for before, after in zip(x, z, strict=True):
            assert any(torch.equal(torch.rot90(before, k, (1, 2)), after) for k in range(4))


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
        run = quiet(config, data, tmp_path)
        training.encode(run.model, data.split("query"))
        training.encode(load_model(run.path), data.split("query"))
    assert {mode for mode, _ in seen} == {True, False}
    for _, x in seen:
        assert torch.equal(x, inside_disc(x))
    # The corners of a query make no difference.
    x, _ = data.split("query").batch(range(4))
    with torch.no_grad():
        assert torch.equal(run.model(x).code, run.model(inside_disc(x)).code)
        assert torch.equal(run.model(x).code, run.model(inside_disc(x, fill=1.0)).code)


def test_an_image_changes_in_the_same_way_however_many_processes_share_the_batch():
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = augment(x, torch.Generator().manual_seed(1))
    for world in (2, 4):
        for rank in range(world):
            rng = torch.Generator().manual_seed(1)
            assert torch.equal(
                augment(x[rank::world], rng, rank=rank, world=world), whole[rank::world]
            )


# --- whole runs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run that nobody disturbed."""
    return quiet(tiny(), data, tmp_path_factory.mktemp("runs"))


def test_the_same_seed_gives_the_same_numbers(finished, data, tmp_path):
    torch.manual_seed(12345)  # whatever happened before
    torch.rand(7)
    assert_same_run(quiet(tiny(), data, tmp_path, progress=True), finished)
    other = quiet(tiny(seed=1), data, tmp_path / "other")
    assert (other.history["loss"] != finished.history["loss"]).all()


RECIPES = {
    "onecycle": {},
    "steps": {
        "optimizer": "sgd",
        "schedule": "steps",
        "milestones": (1,),
        "learning_rate": 0.01,
        "augment": False,
    },
    "adamw steps": {"schedule": "steps", "milestones": (1,), "weight_decay": 0},
    "sgd onecycle": {"optimizer": "sgd", "learning_rate": 0.01},
    "no momentum": {"optimizer": "sgd", "momentum": 0, "schedule": "steps", "milestones": (2,)},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_after_an_epoch_and_resumed_is_as_never_stopped(data, tmp_path, recipe):
    config = tiny(**RECIPES[recipe])

    def stop(history):
        raise Stop

    with pytest.raises(Stop):
        quiet(config, data, tmp_path / "a", on_epoch=stop)
    assert len(Run.load(tmp_path / "a" / "tiny").history) == 1
    resumed = quiet(config, data, tmp_path / "a")
    assert_same_run(resumed, quiet(config, data, tmp_path / "b"))
    assert len(resumed.history) == 2


@pytest.mark.parametrize("stop_at", [2, 5])
def test_stopped_amid_an_epoch_and_resumed_is_as_never_stopped(
    finished, data, tmp_path, monkeypatch, stop_at
):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    steps = []

    def counted(*args):
        steps.append(1)
        if len(steps) == stop_at:
            raise Stop
        return step_losses(*args)

    monkeypatch.setattr(training, "step_losses", counted)
    with pytest.raises(Stop):
        quiet(tiny(), data, tmp_path)
    assert_same_run(quiet(tiny(), data, tmp_path), finished)
    # One step was stopped; the six of two epochs were each done once.
    assert len(steps) == 1 + 6


def mixed(scale=2.0**16):
    """The CPU with 16-bit gradients, which Fabric offers on a GPU alone."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    return Fabric(accelerator="cpu", devices=1, plugins=[plugin])


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize("scale", [2.0**8, 2.0**24], ids=["rising", "too high at first"])
@pytest.mark.parametrize("stop_at", [1, 3])
def test_mixed_precision_stopped_and_resumed_is_as_never_stopped(data, tmp_path, scale, stop_at):
    config = tiny(epochs=5)

    def stop(history):
        if len(history) == stop_at:
            raise Stop

    with pytest.raises(Stop):
        quiet(config, data, tmp_path / "a", on_epoch=stop, fabric=mixed(scale))
    whole, half = mixed(scale), mixed(scale)
    expected = quiet(config, data, tmp_path / "b", fabric=whole)
    assert_same_run(quiet(config, data, tmp_path / "a", fabric=half), expected)
    kept = [fabric.strategy.precision.state_dict() for fabric in (half, whole)]
    assert kept[0] == kept[1] and kept[0]["scale"] != scale


def halfway(config, data, root, fabric=None):
    """Train for an epoch; the checkpoint's path and what it holds."""

    def stop(history):
        raise Stop

    with pytest.raises(Stop):
        quiet(config, data, root, on_epoch=stop, fabric=fabric)
    path = root / config.name / "last.ckpt"
    return path, torch.load(path, weights_only=True)


def test_a_checkpoint_without_a_precision_is_one_of_full_precision(finished, data, tmp_path):
    path, saved = halfway(tiny(), data, tmp_path)
    assert saved.pop("precision") == {}
    torch.save(saved, path)
    with pytest.raises(InputError, match="cannot be read"):
        quiet(tiny(), data, tmp_path, fabric=mixed())
    assert_same_run(quiet(tiny(), data, tmp_path), finished)


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"scale": 0.0},
            {"scale": -1.0},
            {"scale": 1e300},
            {"scale": "x"},
            {"growth_factor": 3.0},
        ),
        *({"_growth_tracker": -1}, {"_growth_tracker": 2}, {"growth_interval": 5}, {"other": 1}),
    ],
    ids=str,
)
def test_a_scale_of_16_bits_that_no_run_reaches_is_refused(data, tmp_path, changes):
    path, saved = halfway(tiny(), data, tmp_path, mixed())
    saved["precision"] |= changes
    torch.save(saved, path)
    with pytest.raises(InputError, match="cannot be read"):
        quiet(tiny(), data, tmp_path, fabric=mixed())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_rate_that_is_not_that_of_the_schedule_is_refused(data, tmp_path, recipe):
    config = tiny(**RECIPES[recipe])
    path, saved = halfway(config, data, tmp_path)
    saved["optimizer"]["param_groups"][0]["lr"] *= 2
    torch.save(saved, path)
    with pytest.raises(InputError, match="cannot be read"):
        quiet(config, data, tmp_path)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (training, "save_model", 1),
        (TrainingState, "save", 1),
        (TrainingState, "save", 2),
        (pd.DataFrame, "to_csv", 1),
        (pd.DataFrame, "to_csv", 2),
    ],
)
def test_stopped_before_writing_and_resumed_is_as_never_stopped(
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
            quiet(tiny(), data, tmp_path)
    assert_same_run(quiet(tiny(), data, tmp_path), finished)


def test_stopped_after_the_last_step_of_an_epoch_and_resumed_is_as_never_stopped(
    finished, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)

    def stop(*args):
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "val_score", stop)
        with pytest.raises(Stop):
            quiet(tiny(), data, tmp_path)
    assert_same_run(quiet(tiny(), data, tmp_path), finished)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(finished, data, tmp_path):
    calls, save = [], torch.save

    def fill_the_disk(state, file):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(state, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            quiet(tiny(), data, tmp_path)
    names = {".lock", "config.json", "metrics.csv", "model.safetensors", "last.ckpt"}
    assert {p.name for p in (tmp_path / "tiny").iterdir()} == names
    assert_same_run(quiet(tiny(), data, tmp_path), finished)


def test_what_a_killed_process_has_left_is_removed(data, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / ".metrics.csv.4242.part").write_text("half a ta")
    quiet(tiny(epochs=1), data, tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def test_a_finished_run_is_not_trained_again(finished, data, monkeypatch):
    monkeypatch.setattr(training, "step_losses", None)
    before = (finished.path / "last.ckpt").read_bytes()
    assert_same_run(quiet(tiny(), data, finished.path.parent), finished)
    assert (finished.path / "last.ckpt").read_bytes() == before


def test_a_second_process_waits_for_the_first_and_takes_its_result(
    finished, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training, "step_losses", None)  # nothing may be trained again
    folder = tmp_path / "tiny"
    folder.mkdir()
    started = threading.Event()

    def first():
        with FileLock(folder / ".lock"):
            started.set()
            time.sleep(0.5)
            for name in ("config.json", "metrics.csv", "model.safetensors", "last.ckpt"):
                shutil.copy(finished.path / name, folder / name)

    threading.Thread(target=first).start()
    started.wait()
    assert_same_run(quiet(tiny(), data, tmp_path), finished)
    assert "tiny is being trained by another process" in capsys.readouterr().out


def test_training_never_looks_at_the_queries(finished, data, tmp_path):
    poisoned = make_data()
    poisoned.images[36:] = 255
    poisoned.labels[36:] = 0
    assert_same_run(quiet(tiny(), poisoned, tmp_path / "poisoned"), finished)
    absent = data.select(range(36))
    assert_same_run(quiet(tiny(), absent, tmp_path / "absent"), finished)


def test_training_does_look_at_the_database_and_val(finished, tmp_path):
    changed = make_data()
    changed.images[:28] = 255 - changed.images[:28]
    other = quiet(tiny(epochs=1), changed, tmp_path)
    assert other.history["loss"][0] != finished.history["loss"][0]


def test_the_epoch_that_was_best_on_val_is_kept(data, tmp_path, monkeypatch):
    scores, states = iter([0.9, 0.9, 0.5]), []

    def scripted(model, database, val):
        assert set(database.table["split"]) == {"database"}
        assert set(val.table["split"]) == {"val"}
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(training, "val_score", scripted)
    run = quiet(tiny(epochs=3), data, tmp_path)
    assert run.history["val_precision_at_10"].tolist() == [0.9, 0.9, 0.5]
    kept = run.model.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in kept.items())
    assert not torch.equal(kept["hash_layer.weight"], states[2]["hash_layer.weight"])
    assert not run.model.training


def test_the_val_score_is_the_precision_of_the_ten_nearest(data):
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=8, classes=3)
    database, val = data.split("database"), data.split("val")
    with torch.no_grad():
        code = [
            model.eval()(part.batch(range(len(part)))[0]).code.double() for part in (val, database)
        ]
    similarity = F.normalize(code[0]) @ F.normalize(code[1]).T
    right = database.labels[similarity.topk(10).indices] == val.labels[:, None]
    expected = np.mean([right[val.labels == c].double().mean() for c in range(3)])
    assert training.val_score(model, database, val) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "expected"), [("inverse", [28 / 30, 28 / 27, 28 / 27]), ("none", None)]
)
def test_class_weights_of_the_database_reach_the_loss(data, tmp_path, monkeypatch, mode, expected):
    # Of the 28 database images 10 are of the first class, 9 of each other.
    given = []

    def spy(model, x, y, config, weights, *rest):
        given.append(weights)
        raise Stop

    monkeypatch.setattr(training, "step_losses", spy)
    with pytest.raises(Stop):
        quiet(tiny(class_weights=mode), data, tmp_path)
    if expected is None:
        assert given == [None]
    else:
        assert given[0].tolist() == pytest.approx(expected)


def test_one_forward_pass_and_one_batch_norm_update_a_step(finished, data, tmp_path, monkeypatch):
    sizes, forward = [], DermHash.forward

    def counted(self, x):
        if self.training:
            sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(DermHash, "forward", counted)
    run = quiet(tiny(epochs=1), data, tmp_path)
    assert sizes == [8 * 4] * 3
    state = torch.load(run.path / "last.ckpt", weights_only=True)["model"]
    assert {v.item() for k, v in state.items() if k.endswith("num_batches_tracked")} == {3}


def test_every_image_is_seen_at_most_once_an_epoch_in_a_new_order(data, tmp_path, monkeypatch):
    seen = []

    def spy(model, x, y, *rest):
        seen.extend(zip([image.numpy().tobytes() for image in x], y.tolist(), strict=True))
        return step_losses(model, x, y, *rest)

    monkeypatch.setattr(training, "step_losses", spy)
    quiet(tiny(augment=False), data, tmp_path)
    images, labels = data.split("database").batch(range(28))
    known = set(zip([image.numpy().tobytes() for image in images], labels.tolist(), strict=True))
    first, second = seen[:24], seen[24:]
    for epoch in (first, second):
        assert len(epoch) == len(set(epoch)) == 24  # three whole batches
        assert set(epoch) <= known
    assert first != second


def test_fewer_images_than_a_batch_make_one_step(data, tmp_path):
    few = data.select([0, 1, 2, 28, 29, 30])
    run = quiet(tiny(epochs=1, batch_size=64), few, tmp_path)
    state = torch.load(run.path / "last.ckpt", weights_only=True)
    assert state["model"]["backbone.bn1.num_batches_tracked"] == 1
    assert math.isfinite(run.history["loss"][0])


def test_a_real_backbone_trains_saves_and_resumes(data, tmp_path):
    config = tiny(epochs=1, batch_size=14)

    def stop(history):
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "make_backbone", make_backbone)
        with pytest.raises(Stop):
            quiet(config, data, tmp_path, on_epoch=stop)
        run = quiet(config, data, tmp_path)
    assert sum(p.numel() for p in run.model.parameters()) > 4e6
    assert math.isfinite(run.history["loss"][0])


def test_a_run_that_was_compiled_for_an_epoch_has_the_weights_of_a_plain_one(
    finished, data, tmp_path, monkeypatch
):
    graphs = []

    def backend(graph, inputs):  # the default one needs a C++ compiler
        graphs.append(graph)
        return graph.forward

    def stop(history):
        raise Stop

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with pytest.raises(Stop):
        quiet(tiny(), data, tmp_path, on_epoch=stop, compiled=True)
    assert graphs
    run = quiet(tiny(), data, tmp_path)
    for name, value in run.model.state_dict().items():
        expected = finished.model.state_dict()[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_an_easy_problem_is_learned(data, tmp_path):
    run = quiet(tiny(epochs=15, learning_rate=0.03), data, tmp_path)
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0] / 2
    assert run.history["val_precision_at_10"].max() > 0.9
    x, y = data.split("query").batch(range(4))
    with torch.no_grad():
        assert torch.equal(run.model(x).logits.argmax(1), y)


def test_images_may_lie_in_memory_in_any_order(finished, data, tmp_path):
    pixels_last = data.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    other = LesionDataset(pixels_last, data.table, CLASSES)
    assert_same_run(quiet(tiny(), other, tmp_path), finished)


# --- the folder of a run ----------------------------------------------------------------


def test_the_folder_holds_the_config_the_metrics_and_the_models(finished, data):
    names = {".lock", "config.json", "metrics.csv", "model.safetensors", "last.ckpt"}
    assert {p.name for p in finished.path.iterdir()} == names
    about = json.loads((finished.path / "config.json").read_text())
    assert about["config"] == dataclasses.asdict(tiny()) | {"milestones": [40, 60, 80, 100]}
    assert about["data"]["classes"] == list(CLASSES)
    assert about["data"]["size"] == 32
    table = pd.read_csv(finished.path / "metrics.csv")
    assert set(table.columns) == {
        "epoch",
        "cross_entropy",
        "invariance",
        "loss",
        "val_precision_at_10",
        "lr",
    }
    assert table["epoch"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(table, finished.history)
    total = table["cross_entropy"] + 0.5 * table["invariance"]
    # By the second of two epochs the weight of the invariance has risen to its 0.5.
    assert table["cross_entropy"][0] < table["loss"][0] < total[0]
    assert table["loss"][1] == pytest.approx(total[1], rel=1e-6)
    model = load_model(finished.path)
    assert (model.class_names, model.image_size, model.bits) == (CLASSES, 32, 8)


def test_a_run_is_loaded_as_it_was_returned(finished):
    again = Run.load(str(finished.path))
    assert again.config == finished.config == tiny()
    assert_same_run(again, finished)


def test_the_history_gives_the_learning_rate_of_each_epoch(data, tmp_path):
    run = quiet(tiny(epochs=3, **RECIPES["steps"]), data, tmp_path)
    assert run.history["lr"].tolist() == pytest.approx([0.01, 0.001, 0.001])


def test_the_history_is_handed_out_after_every_epoch(finished, data, tmp_path):
    seen = []
    quiet(tiny(), data, tmp_path, on_epoch=seen.append)
    assert [len(history) for history in seen] == [1, 2]
    pd.testing.assert_frame_equal(seen[1], finished.history)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed was 0"),
        ({"bits": 16}, "bits was 8"),
        ({"epochs": 3, "invariance": None}, "epochs was 2|invariance was 'cauchy'"),
    ],
)
def test_another_config_in_the_same_folder_is_refused(finished, data, changes, named):
    before = (finished.path / "config.json").read_bytes()
    for sentence in named.split("|"):
        with pytest.raises(InputError, match=sentence) as error:
            quiet(tiny(**changes), data, finished.path.parent)
    assert str(finished.path) in str(error.value)
    assert "choose another name, or delete that folder" in str(error.value)
    assert (finished.path / "config.json").read_bytes() == before


def test_other_data_in_the_same_folder_is_refused(finished):
    with pytest.raises(InputError, match="the data's fingerprint differs"):
        quiet(tiny(), make_data(seed=1), finished.path.parent)
    other_split = ["database"] * 27 + ["val"] * 9 + ["query"] * 4
    with pytest.raises(InputError, match="the data's fingerprint differs"):
        quiet(tiny(), make_data(splits=other_split), finished.path.parent)


def test_fabric_run_launches_its_processes_itself(monkeypatch):
    for name, value in {
        "CLI_USED": "1",
        "DEVICES": "1",
        "NUM_NODES": "1",
        "ACCELERATOR": "cpu",
    }.items():
        monkeypatch.setenv(f"LT_{name}", value)
    assert training.make_fabric("32-true").world_size == 1  # a second launch is an error


def test_processes_that_cannot_share_a_batch_are_refused():
    training.check_shares(64, 4)
    training.check_shares(1, 1)
    with pytest.raises(InputError, match="3 processes cannot share a batch of 64 images equally"):
        training.check_shares(64, 3)


@pytest.mark.parametrize("missing", ["database", "val"])
def test_an_empty_split_is_refused_and_claims_no_folder(tmp_path, missing):
    splits = ["query" if s == missing else s for s in SPLITS]
    with pytest.raises(InputError, match=f"'{missing}' has no images"):
        quiet(tiny(), make_data(splits=splits), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_weights": "balanced"}, "class weights 'balanced'|class_weights must be"),
        ({"backbone": "vgg"}, "backbone"),
        ({"attention": "none"}, "attention"),
    ],
)
def test_a_config_that_cannot_be_built_claims_no_folder(data, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        quiet(tiny(**changes), data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a checkpoint")


def another_network(path):
    torch.save({"model": {}, "optimizer": {}}, path)


@pytest.mark.parametrize("damage", [cut_in_half, empty, text, another_network])
def test_a_checkpoint_that_cannot_be_read_is_refused_in_one_sentence(
    finished, data, tmp_path, damage
):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.json", "last.ckpt"):
        (folder / name).write_bytes((finished.path / name).read_bytes())
    damage(folder / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read") as error:
        quiet(tiny(), data, tmp_path)
    assert "delete the run's folder and start again" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["", "{}", '{"config": {"epoch": 1}, "data": {}}', "[]"])
def test_a_config_file_that_cannot_be_read_is_refused(finished, data, tmp_path, config):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(config)
    (tmp_path / "tiny" / "metrics.csv").write_text("epoch\n1\n")
    for act in (lambda: quiet(tiny(), data, tmp_path), lambda: Run.load(tmp_path / "tiny")):
        with pytest.raises(InputError, match="is not the config of a run"):
            act()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no finished epoch"):
        Run.load(tmp_path)


# --- what it trains with ----------------------------------------------------------------


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_card_that_only_emulates_bfloat16_trains_in_32_bits(native, precision, monkeypatch):
    def supported(including_emulation=True):
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert training.best_precision() == precision


def test_of_equal_epochs_the_last_is_the_best_as_it_is_the_one_that_is_kept():
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "val_precision_at_10": [0.5, 0.75, 0.75, 0.6]})
    assert training.best_epoch(history)["epoch"] == 3


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


def test_milestones_may_be_a_list(data, tmp_path):
    config = tiny(**RECIPES["steps"] | {"milestones": [1], "epochs": 1})
    quiet(config, data, tmp_path)
    quiet(config, data, tmp_path)  # the same run, not another
    assert Run.load(tmp_path / "tiny").config == config
