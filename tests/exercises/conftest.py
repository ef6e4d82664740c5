"""The grader with a tiny assignment, and a folder of submissions."""

import importlib.util
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import KERNELSPEC
from nbformat.v4 import new_notebook

from tests.exercises.notebooks import FOLDER
from tests.exercises.tiny import SCRIPT, SOLVED, TESTED, TINY, nbgrader_cell


@pytest.fixture
def script(monkeypatch):
    """The grader as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("grading", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "grading", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def grading(script, tmp_path, monkeypatch):
    """The module, with one exercise of three points that needs no package."""
    monkeypatch.setattr(script, "HERE", tmp_path / "exercises")
    cells = [nbgrader_cell(SOLVED, "double", solution=True)]
    cells.append(nbgrader_cell(TESTED, "test_twice_as_much", grade=True, locked=True, points=3))
    notebook = new_notebook(cells=cells, metadata=KERNELSPEC)
    script.HERE.mkdir()
    nbformat.write(notebook, script.HERE / f"{TINY}.ipynb")
    return script


@pytest.fixture
def course(grading, tmp_path):
    return grading.Course(tmp_path / "course", seconds=20, trust=not grading.running.has_sandbox())


@pytest.fixture
def contained(grading):
    if not grading.running.has_sandbox():
        pytest.skip("needs bubblewrap")


@pytest.fixture
def hand_in(tmp_path):
    """Write a submission: a notebook's path, or text, or an answer to the tiny assignment."""

    def write(student, content, name=TINY, file=None, flat=False):
        folder = tmp_path / "submissions" / student
        path = (folder if flat else folder / name) / (file or f"{name}.ipynb")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "submissions"

    return write
