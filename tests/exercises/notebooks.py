"""The exercises as these tests see them: read, changed, and run in this process."""

import contextlib
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import nbformat

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "exercises"
EXERCISES = sorted(FOLDER.glob("*.ipynb"))
BLOCKED = {"derm_hash", "faiss", "sklearn", "torchmetrics"}


def read(path):
    return nbformat.read(path, as_version=4)


def mark(cell):
    """What nbgrader knows about a cell; empty where it knows nothing."""
    return cell.metadata.get("nbgrader", {})


def code_cells(notebook, kind=None):
    """All code cells, or the `solution` or `grade` cells."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if kind is None or mark(cell).get(kind)]


@contextlib.contextmanager
def unblocked():
    """As in a new kernel, nothing of what exercises block is loaded; afterwards it is again."""
    before = {name: module for name, module in sys.modules.items() if _root(name) in BLOCKED}
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _root(name) in BLOCKED]:
            del sys.modules[name]
        sys.modules.update(before)


def _root(name):
    return name.partition(".")[0]


def failures(notebook, only=lambda cell: True):
    """Run the code cells one after the other, as a grader does: cell id -> what it raised.

    Pictures at the end are left out. That packages are blocked which know answers is undone.
    """
    namespace, raised = {"__name__": "__main__"}, {}
    with warnings.catch_warnings(), mpl.rc_context(), unblocked(), contextlib.chdir(FOLDER):
        for cell in filter(only, code_cells(notebook)):
            if cell.id.startswith("see-it"):
                continue
            try:
                exec(compile(cell.source, cell.id, "exec"), namespace)
            except Exception as error:  # noqa: BLE001 whatever a student's code raises
                raised[mark(cell).get("grade_id", cell.id)] = error
    return raised


def points(notebook, lost=()):
    """Sum of the points of all tests but those that are lost."""
    tests = (mark(cell) for cell in code_cells(notebook, "grade"))
    return sum(test["points"] for test in tests if test["grade_id"] not in lost)
