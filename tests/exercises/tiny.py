"""A tiny assignment of three points, and what students hand in for it."""

import copy
import os
import subprocess
import sys

import nbformat
from nbformat.v4 import new_code_cell

from tests.exercises.notebooks import FOLDER, read

SCRIPT = FOLDER / "grading.py"
TINY = "01_double"
SOLVED = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
TESTED = """
# Twice as much.
assert double(2) == 4, "twice 2 is 4"
### BEGIN HIDDEN TESTS
assert double(3) == 6, "twice 3 is 6"
### END HIDDEN TESTS
""".strip()
RIGHT = "def double(x):\n    return 2 * x"


def nbgrader_cell(source, grade_id, **changes):
    known = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
    cell = new_code_cell(source)
    cell.metadata["nbgrader"] = known | {"grade_id": grade_id} | changes
    return cell


def answer(grading, source, drop_tests=False):
    """The tiny assignment with this answer, as text."""
    notebook = read(grading.HERE / f"{TINY}.ipynb")
    notebook.cells[0].source = source
    notebook.cells[1].source = "assert True  # a student's own idea of a test"
    notebook.cells = notebook.cells[: 1 if drop_tests else 2]
    return nbformat.writes(notebook)


def released(grading, source):
    """The tiny assignment with this answer and the test as it was handed out."""
    notebook = nbformat.reads(answer(grading, source), as_version=4)
    notebook.cells[1].source = TESTED.partition("### BEGIN")[0].rstrip()
    return nbformat.writes(notebook)


def copies(grading, *sources, tests=1, before=()):
    """The tiny assignment whose answer was copied or split into cells with these sources."""
    notebook = nbformat.reads(released(grading, ""), as_version=4)
    answers = [nbgrader_cell(source, "double", solution=True) for source in sources]
    tested = [copy.deepcopy(notebook.cells[1]) for _ in range(tests)]
    notebook.cells = [*map(new_code_cell, before), *answers, *tested]
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    return nbformat.writes(notebook)


def said(grades):
    """student -> what the only test said ('' = passed), None where nothing was graded."""
    return {g.student: g.tests and g.tests["test_twice_as_much"] for g in grades}


def notes(grades):
    return {grade.student: "; ".join(grade.notes) for grade in grades if grade.notes}


def run(*options):
    """The script as `make` starts it: with this Python, which may not be on the PATH."""
    command = [sys.executable, SCRIPT, *options]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
