"""The set for examinations: can it be solved, and do the public solutions fail it?"""

import sys

import nbformat
import pytest

from tests.exercises.notebooks import EXERCISES, FOLDER, code_cells, failures, mark, points, read

sys.path.insert(0, str(FOLDER))
from exam import KNOBS, examination, turn

each = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)
each_knob = pytest.mark.parametrize(
    ("path", "knob"), [(path, knob) for path in EXERCISES for knob in KNOBS[path.stem]]
)


@each_knob
def test_a_turned_knob_can_be_solved_and_the_public_solution_loses(path, knob):
    notebook = read(path)
    turn(notebook, KNOBS[path.stem][knob])
    assert failures(notebook) == {}
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    known = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert text != known, "the students are told"
    public = {mark(cell)["grade_id"]: cell.source for cell in code_cells(read(path), "solution")}
    for cell in code_cells(notebook, "solution"):
        cell.source = public[mark(cell)["grade_id"]]
    assert points(notebook, failures(notebook)) < points(notebook)


@each
def test_a_seed_makes_one_set_that_can_be_solved(path):
    notebook = read(path)
    whole = examination(path.stem, notebook, 1)
    nbformat.validate(whole)
    assert notebook == read(path), "the public one stays as it is"
    assert failures(whole) == {}
    assert whole == examination(path.stem, read(path), 1)
    assert len({str(examination(path.stem, read(path), seed)) for seed in range(20)}) > 1
    for seed in range(5):
        assert examination(path.stem, read(path), seed).cells[1:] != read(path).cells[1:]


def test_a_knob_that_is_out_of_date_is_noticed():
    with pytest.raises(ValueError, match="no cell has 'nonsense'"):
        turn(read(EXERCISES[0]), [("nonsense", "sense")])
