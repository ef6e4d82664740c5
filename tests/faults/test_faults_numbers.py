"""Numbers that go wrong stop training and name the images; odd batches train like any other."""

import dataclasses
import re

import pandas as pd
import pytest
import torch
from helpers import checkpoint_of
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from derm_hash import training
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.views import generator
from derm_hash.errors import InputError
from derm_hash.losses import CLASS_WEIGHTS
from derm_hash.model import DermHash, encode
from derm_hash.objectives import OBJECTIVES
from derm_hash.retrieval import HashIndex, build_index
from derm_hash.settings import TrainConfig
from derm_hash.training import step_losses, train

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("MEL", "NV", "BCC")


def make_data(database="MNBMNBMNB", val="MNB", size=32):
    """Noise with one letter a class for each image of the database and of val."""
    label = [{"M": "MEL", "N": "NV", "B": "BCC"}[letter] for letter in database + val]
    pixels = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(label), 3, size, size), generator=pixels)
    table = {"image": [f"images/{i}.png" for i in range(len(label))], "label": label}
    table["split"] = ["database"] * len(database) + ["val"] * len(val)
    return LesionDataset(images.to(torch.uint8), pd.DataFrame(table), CLASSES)


def config(**changes):
    settings = {"name": "run", "backbone": "pocket", "attention": None, "bits": 8}
    settings |= {"epochs": 2, "batch_size": 3, "precision": "32-true"}
    return TrainConfig(**settings | changes)


def quiet(data, root, fabric=None, **changes):
    return train(config(**changes), data, root, progress=False, fabric=fabric)


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
    assert checkpoint_of(tmp_path / "a" / "run")["epoch"] == 1
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
    with pytest.raises(InputError, match="The weights are not finite in epoch") as error:
        quiet(make_data(), tmp_path)
    assert "\n" not in str(error.value)
    left = tmp_path / "run" / "checkpoint.safetensors"
    if left.exists():
        assert is_finite(checkpoint_of(tmp_path / "run")["model"])
    assert left.exists() == (seconds < 0 or step > 3)
    assert (tmp_path / "run" / "model.safetensors").exists() == (step > 3)


def test_a_learning_rate_that_is_far_too_large_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"not finite in|The \w+ is (nan|inf)") as error:
        quiet(
            make_data(), tmp_path, optimizer="sgd", learning_rate=1e30, epochs=20, schedule="steps"
        )
    assert "smaller learning_rate" in str(error.value)


def test_input_that_is_not_finite_makes_no_index_and_no_search():
    model = DermHash("pocket", 4, 2, None)
    codes = encode(model, torch.full((2, 3, 32, 32), torch.nan))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        HashIndex.build(codes, [0, 1], ["a", "b"])
    index = build_index(model, make_data())
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        index.search(codes[:, :4])


# --- mixed precision ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def test_an_overflow_of_16_bits_costs_steps_and_no_weights(tmp_path):
    """With a scale of 2^40 the first gradients overflow; the scaler halves it until they do not.

    On a GPU Fabric makes the same plugin of "16-mixed"; here the CPU stands in for it.
    """
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[plugin])
    seen = []

    def watch(history):
        seen.append(scaler.get_scale())

    run = train(
        config(epochs=12), make_data(), tmp_path, progress=False, fabric=fabric, on_epoch=watch
    )
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
    data = make_data(database, val="MN")
    run = quiet(data, tmp_path, objective=objective, batch_size=batch_size)
    assert len(run.history) == 2
    assert run.history.map(pd.notna).all(axis=None)
    assert is_finite(run.model.state_dict())


@pytest.mark.parametrize("weights", CLASS_WEIGHTS)
@pytest.mark.parametrize("classify", ["orbit", "upright"])
def test_a_batch_of_one_class_trains_with_all_class_weights(tmp_path, weights, classify):
    order = torch.randperm(6, generator=generator(0, 0))
    letters = ["M"] * 6
    for i in order[3:].tolist():  # the first batch of the first epoch is of one class
        letters[i] = "N"
    data = make_data("".join(letters))
    run = quiet(data, tmp_path, class_weights=weights, classify=classify, epochs=1)
    assert run.history.map(pd.notna).all(axis=None)


def test_a_single_number_a_channel_is_refused_before_training(tmp_path, monkeypatch):
    alone = {"batch_size": 1, "invariance": None, "classify": "upright"}
    with pytest.raises(InputError, match="a single image of 32 px, which batch norm cannot"):
        quiet(make_data(), tmp_path, **alone)
    assert list(tmp_path.iterdir()) == []
    run = quiet(make_data(size=64), tmp_path, **alone)
    assert dataclasses.asdict(run.config)["batch_size"] == 1


@pytest.mark.slow
def test_a_batch_of_one_trains_a_real_network_at_the_smallest_size(tmp_path):
    changes = {"backbone": "resnet10", "attention": "hdcsa"}
    run = quiet(make_data("MN", "M"), tmp_path, batch_size=1, epochs=1, **changes)
    assert is_finite(run.model.state_dict())
