"""What every test starts from: no display, the same random examples each time, and a cache folder
inside the checkout."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("DERM_HASH_HOME", str(ROOT / "build" / "cache"))
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def one_thread():
    """Small networks are faster on one thread, and two threads may round in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_addoption(parser):
    """The option that `make test-full` adds."""
    parser.addoption("--full", action="store_true", help="the fault tests at full length")


@pytest.fixture(scope="session")
def full(pytestconfig):
    """Whether the tests that inject faults run at full length."""
    return pytestconfig.getoption("--full")
