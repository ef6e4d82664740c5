"""What every test starts from: no display, the same random examples each time, and a cache folder
inside the checkout."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("DERM_HASH_HOME", str(ROOT / "build" / "cache"))
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_addoption(parser):
    """The option that `make test-full` adds."""
    parser.addoption("--full", action="store_true", help="the fault tests at full length")


@pytest.fixture(scope="session")
def full(pytestconfig):
    """Whether the tests that inject faults run at full length."""
    return pytestconfig.getoption("--full")
