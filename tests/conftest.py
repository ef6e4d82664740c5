"""What every test starts from: no display, the same random examples each time, and a cache folder
inside the checkout."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("DERM_HASH_HOME", str(ROOT / "build" / "cache"))
# Only now, because Matplotlib reads the environment when it is loaded.
import helpers  # noqa: E402

from derm_hash import training  # noqa: E402

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def one_thread():
    """Small networks are faster on one thread, and two threads may round in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data():
    """Images in three classes, of which the class is the colour."""
    return helpers.color_data()


@pytest.fixture(scope="module")
def finished(data, one_thread, tmp_path_factory):
    """A run that nobody disturbed."""
    return helpers.train_quietly(helpers.tiny(), data, tmp_path_factory.mktemp("runs"))


class Step(NamedTuple):
    """What a step of training was given."""

    x: torch.Tensor
    y: torch.Tensor
    weights: torch.Tensor | None
    progress: float


class Steps(list):
    """The steps so far; training stops at the step of this number."""

    stop_at = None


@pytest.fixture
def steps(monkeypatch):
    """What each step of training was given."""
    seen, step_losses = Steps(), training.step_losses

    def spy(model, x, y, config, weights, progress, *more):
        seen.append(Step(x.clone(), y.clone(), weights, progress))
        if len(seen) == seen.stop_at:
            raise helpers.Stop
        return step_losses(model, x, y, config, weights, progress, *more)

    monkeypatch.setattr(training, "step_losses", spy)
    return seen


def pytest_addoption(parser):
    """The option that `make test-full` adds."""
    parser.addoption("--full", action="store_true", help="the fault tests at full length")


@pytest.fixture(scope="session")
def full(pytestconfig):
    """Whether the tests that inject faults run at full length."""
    return pytestconfig.getoption("--full")
