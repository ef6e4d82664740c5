"""What every test starts from: no display, the same random examples each time, a cache folder
inside the checkout, and as many threads as workers leave over."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
ONE_AT_A_TIME = (ROOT / "tests" / "browser", ROOT / "tests" / "notebooks")

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("DERM_HASH_HOME", str(ROOT / "build" / "cache"))
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    """Give each of several workers one thread, so that they do not fight for the cores."""
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep the tests that run whole notebooks on one worker, one after another: each of them
    uses every core, and they share the trained model."""
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in ONE_AT_A_TIME):
            item.add_marker(pytest.mark.xdist_group("notebooks"))
