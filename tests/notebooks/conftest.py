"""The script that runs the course, for the tests of it and of the notebooks."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "notebooks" / "build.py"


@pytest.fixture(scope="module")
def build():
    """notebooks/build.py as a module."""
    spec = importlib.util.spec_from_file_location("build", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_here(build, monkeypatch):
    """Run the script on a folder in this process, without another start of Python; its status."""

    def run(folder, *options):
        monkeypatch.setenv("MPLBACKEND", "Agg")  # the script takes it away
        places = ["--notebooks", folder, "--out", folder / "pages"]
        return build.main([str(part) for part in (*places, *options)])

    return run
