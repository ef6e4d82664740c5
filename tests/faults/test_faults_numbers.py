"""Numbers that go wrong stop training and name the images; odd batches train like any other."""

import re

import pandas as pd
import pytest
import torch
from helpers import checkpoint_of, color_data, one_sentence, sixteen_bits, tiny, train_quietly

from derm_hash import training
from derm_hash.data.views import generator
from derm_hash.errors import InputError
from derm_hash.losses import CLASS_WEIGHTS
from derm_hash.objectives import OBJECTIVES
from derm_hash.training import step_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def make_data(database="MNBMNBMNB", val="MNB", size=32):
    """A letter, the first of its class, for each image of the database and of val."""
    splits = ["database"] * len(database) + ["val"] * len(val)
    return color_data(0, splits, ["MNB".index(letter) for letter in database + val], size)


def quiet(data, root, **changes):
    return train_quietly(tiny(**{"attention": None, "batch_size": 3} | changes), data, root)


def is_finite(state):
    return all(value.isfinite().all() for value in state.values())


def spoiled_step(monkeypatch, number, spoil):
    """Let the so-many-th step of training have spoiled losses, or a spoiled network."""
    steps = []

    def step(model, *rest):
        steps.append(1)
        losses = step_losses(model, *rest)
        return spoil(model, losses) if len(steps) == number else losses

    monkeypatch.setattr(training, "step_losses", step)


# --- losses and weights that are not finite -----------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["loss", "invariance"])
def test_a_loss_that_is_not_finite_names_the_images_of_its_batch(
    tmp_path, monkeypatch, value, name
):
    data = make_data()
    spoiled_step(monkeypatch, 5, lambda _, losses: losses | {name: losses[name] * value})
    with pytest.raises(InputError) as error:
        quiet(data, tmp_path)
    order = torch.randperm(9, generator=generator(0, 1))  # of the second epoch; its second step
    expected = {f"images/{i}.png" for i in order[3:6].tolist()}
    assert set(re.findall(r"images/\d+\.png", str(error.value))) == expected
    assert f"The {name} is {float(value)} in step 2 of epoch 2" in str(error.value)
    assert "learning_rate" in str(error.value) and "\n" not in str(error.value)


def test_training_goes_on_from_the_last_good_checkpoint(tmp_path, monkeypatch):
    data = make_data()
    with pytest.MonkeyPatch.context() as patch:
        spoiled_step(patch, 5, lambda _, losses: losses | {"loss": losses["loss"] * torch.nan})
        with pytest.raises(InputError, match="the last checkpoint is still good"):
            quiet(data, tmp_path / "a")
    assert checkpoint_of(tmp_path / "a" / "tiny")["epoch"] == 1
    ours, expected = quiet(data, tmp_path / "a"), quiet(data, tmp_path / "b")
    pd.testing.assert_frame_equal(ours.history, expected.history, check_exact=True)


def poison(model, losses):
    with torch.no_grad():
        model.module.hash_layer.bias[0] = torch.nan
    return losses


@pytest.mark.parametrize(("step", "seconds"), [(2, -1), (3, -1), (3, 300), (6, 300)])
def test_weights_that_are_not_finite_reach_no_checkpoint_and_no_model(
    tmp_path, monkeypatch, step, seconds
):
    """The loss of the step is finite, and what the optimiser made of it is not."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    spoiled_step(monkeypatch, step, poison)
    with one_sentence("The weights are not finite in epoch"):
        quiet(make_data(), tmp_path)
    left = tmp_path / "tiny" / "checkpoint.safetensors"
    if left.exists():
        assert is_finite(checkpoint_of(left.parent)["model"])
    assert left.exists() == (seconds < 0 or step > 3)
    assert left.with_name("model.safetensors").exists() == (step > 3)


def test_a_learning_rate_that_is_far_too_large_is_one_sentence(tmp_path):
    changes = {"optimizer": "sgd", "learning_rate": 1e30, "epochs": 20, "schedule": "steps"}
    with pytest.raises(InputError, match=r"not finite in|The \w+ is (nan|inf)") as error:
        quiet(make_data(), tmp_path, **changes)
    assert "smaller learning_rate" in str(error.value)


# --- mixed precision ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def test_an_overflow_of_16_bits_costs_steps_and_no_weights(tmp_path):
    """With a scale of 2^40 the first gradients overflow; the scaler halves it until they do not.

    On a GPU Fabric makes the same plugin for "16-mixed".
    """
    fabric, seen = sixteen_bits(2.0**40, growth_interval=1000), []

    def watch(history):
        seen.append(fabric.strategy.precision.scaler.get_scale())

    config = tiny(attention=None, batch_size=3, epochs=12)
    run = train_quietly(config, make_data(), tmp_path, fabric=fabric, on_epoch=watch)
    assert seen[0] < 2.0**40  # it did overflow
    assert seen[-1] == seen[-2] > 1  # and found its level
    assert is_finite(run.model.state_dict())
    start = quiet(make_data(), tmp_path / "start", epochs=1, learning_rate=1e-30).model
    moved = run.model.hash_layer.weight - start.hash_layer.weight
    assert moved.abs().max() > 1e-4


# --- odd batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("database", "batch_size"),
    [
        ("MMMNNNBBB", 1),
        ("M", 64),  # one image is all there is
        ("MMMMMMMMM", 3),  # one class is
        ("MMMMMNNNB", 3),  # one of a class
        ("MMMMNNNN", 4),  # and none
    ],
    ids=["batch of one", "one image", "one class", "one of a class", "none of a class"],
)
def test_odd_batches_train(tmp_path, objective, database, batch_size):
    run = quiet(make_data(database, "MN"), tmp_path, objective=objective, batch_size=batch_size)
    assert len(run.history) == 2
    assert run.history.map(pd.notna).all(axis=None)
    assert is_finite(run.model.state_dict())


@pytest.mark.parametrize("weights", CLASS_WEIGHTS)
@pytest.mark.parametrize("classify", ["orbit", "upright"])
def test_a_batch_of_one_class_trains_with_all_class_weights(tmp_path, weights, classify):
    first = torch.randperm(6, generator=generator(0, 0))[:3].tolist()  # the first epoch's batch
    data = make_data("".join("M" if i in first else "N" for i in range(6)))
    run = quiet(data, tmp_path, class_weights=weights, classify=classify, epochs=1)
    assert run.history.map(pd.notna).all(axis=None)


def test_a_single_number_a_channel_is_refused_before_training(tmp_path, monkeypatch):
    alone = {"batch_size": 1, "invariance": None, "classify": "upright"}
    with pytest.raises(InputError, match="a single image of 32 px, which batch norm cannot"):
        quiet(make_data(), tmp_path, **alone)
    assert list(tmp_path.iterdir()) == []
    assert len(quiet(make_data(size=64), tmp_path, **alone).history) == 2
