"""A run that was stopped, killed or interrupted goes on as if it never had been, to the bit."""

import functools
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch
from filelock import FileLock
from helpers import (
    RUN_FILES,
    Stop,
    assert_same_run,
    one_sentence,
    sixteen_bits,
    tiny,
    train_quietly,
)

from derm_hash import training
from derm_hash.objectives import OBJECTIVES
from derm_hash.runs import Run
from derm_hash.tensors import save_state

pytestmark = pytest.mark.usefixtures("one_thread")
HASHING = [name for name in OBJECTIVES if name != "classification"]


STEPS = {"schedule": "steps", "milestones": [1]}
RECIPES = {
    "onecycle": {},
    "steps": STEPS | {"optimizer": "sgd", "learning_rate": 0.01, "augment": False},
    "adamw steps": STEPS | {"weight_decay": 0},
    "sgd onecycle": {"optimizer": "sgd", "learning_rate": 0.01},
    "no momentum": {"optimizer": "sgd", "momentum": 0, "schedule": "steps", "milestones": (2,)},
}


@pytest.fixture
def checkpoint_every_step(monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)


def stop(*args):
    raise Stop


@pytest.mark.usefixtures("checkpoint_every_step")
@pytest.mark.parametrize("name", HASHING)
def test_every_objective_with_the_invariance_resumes_to_the_bit(data, tmp_path, name, steps):
    config, steps.stop_at = tiny(objective=name, random_rotations=True), 5
    with pytest.raises(Stop):
        train_quietly(config, data, tmp_path / "stopped")
    whole = train_quietly(config, data, tmp_path / "whole")
    assert (whole.history["invariance"] > 0).all()
    assert_same_run(train_quietly(config, data, tmp_path / "stopped"), whole)


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


def test_a_checkpoint_of_another_network_is_refused_in_one_sentence(finished, data, tmp_path):
    (tmp_path / "tiny").mkdir()
    shutil.copy(finished.path / "config.json", tmp_path / "tiny")
    save_state(tmp_path / "tiny" / "checkpoint.safetensors", {"model": {}, "optimizer": {}})
    with one_sentence("checkpoint.safetensors does not fit this", "folder and start again"):
        train_quietly(tiny(), data, tmp_path)


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
