"""The exercises: are they sound, can they be solved, and do they catch what students get wrong?"""

import ast
import contextlib
import copy
import importlib
import re
import statistics
import subprocess
import sys
from typing import ClassVar

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearSolutions

from tests.exercises.notebooks import (
    EXERCISES,
    FOLDER,
    code_cells,
    failures,
    mark,
    points,
    read,
    unblocked,
)
from tests.exercises.wrong import EQUIVALENT, IMPORTED, WRONG

each = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)


def names(source):
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


# --- the files --------------------------------------------------------------------------


def test_there_is_one_for_each_skill():
    assert [path.stem for path in EXERCISES] == [
        "02_attention_gate",
        "03_hamming_search",
        "04_rotation_loss",
        "05_training_faults",
        "06_retrieval_scores",
        "07_saliency_audit",
        "08_statistics",
    ]


@each
def test_it_is_a_valid_notebook_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert [c.id for c in code_cells(notebook) if c.outputs or c.execution_count] == []


@each
def test_nbgrader_accepts_its_metadata(path):
    MetadataValidator().validate_nb(read(path))
    for cell in code_cells(read(path)):
        assert mark(cell).get("schema_version", 3) == 3
        assert mark(cell).get("locked", False) == bool(mark(cell)) - mark(cell).get("solution", 0)
    assert set(read(path).metadata["hidden"]) == {"derm_hash", "faiss", "sklearn", "torchmetrics"}


@each
def test_it_opens_with_what_one_practises_the_time_and_the_points(path):
    opening = read(path).cells[0].source
    assert opening.startswith("# Exercises ") and "practise" in opening
    assert re.search(r"\d+ minutes", opening)
    total = sum(mark(cell).get("points", 0) for cell in read(path).cells)
    assert f"**Points**: {total:g}." in opening
    headings = re.findall(
        r"^## Exercise \d: .*\((\d) points(?:, graded by hand)?\)$", prose(path), re.MULTILINE
    )
    assert sum(map(int, headings)) == total


def prose(path):
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@each
def test_the_rules_are_the_same_everywhere(path):
    first = read(EXERCISES[0]).cells[0].source.partition("**How it works.**")[2]
    assert first and first == read(path).cells[0].source.partition("**How it works.**")[2]
    setups = [code_cells(read(p))[:2] for p in (EXERCISES[0], path)]  # what is blocked, and `check`
    blocks = [
        setup.source.partition("for name in (")[2].partition("cost points")[0]
        for setup, _ in setups
    ]
    assert blocks[0] == blocks[1] and setups[0][1].source == setups[1][1].source


@each
def test_what_is_graded_by_hand_has_a_rubric_for_all_its_points(path):
    asked = [c for c in read(path).cells if mark(c).get("grade") and mark(c).get("solution")]
    assert bool(asked) == (path.stem[:2] in ("05", "07", "08"))
    for cell in asked:
        scheme = cell.source.partition("### BEGIN MARK SCHEME")[2]
        each_worth = [int(n) for n in re.findall(r"^- (\d) point", scheme, re.MULTILINE)]
        assert sum(each_worth) == mark(cell)["points"]


@each
def test_code_cells_are_clean(path):
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", str(path)]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@each
def test_code_cells_are_short(path):
    """With the solutions and the hidden tests, as a lecturer reads them."""
    cells = [cell.source.splitlines() for cell in code_cells(read(path))]
    lines = [sum(bool(line.strip()) for line in cell) for cell in cells]
    assert statistics.median(lines) <= 8 and max(lines) <= 20


@each
def test_every_solution_is_marked_and_stands_alone(path):
    """A slip in one exercise must not cost the points of another."""
    solutions = code_cells(read(path), "solution")
    defined = [ast.parse(cell.source).body[0].name for cell in solutions]
    for cell, name in zip(solutions, defined, strict=True):
        assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") > 0
        assert names(cell.source) & set(defined) - {name} == set()


@each
def test_every_test_says_what_it_tests_and_has_a_hidden_part(path):
    for cell in code_cells(read(path), "grade"):
        title = cell.source.splitlines()[0].removeprefix("# ")
        assert re.sub(r"\W+", "_", f"test {title.lower()}").strip("_") == mark(cell)["grade_id"]
        assert cell.source.count("### BEGIN HIDDEN TESTS") == 1
        shown, _, rest = cell.source.partition("### BEGIN HIDDEN TESTS")
        assert re.search(r"^ *(assert |check\w*\(|near\()", shown, re.MULTILINE)
        assert rest.count("### END HIDDEN TESTS") == 1


@each
def test_every_assertion_says_what_was_expected_and_found(path):
    for cell in code_cells(read(path), "grade"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Assert):
                assert node.msg is not None, ast.unparse(node)
                message = ast.unparse(node.msg)
                told = {"expected", "found"} <= set(re.findall("[a-z]+", message.lower()))
                assert told or message == "shapes", message


@each
def test_what_a_test_leaves_behind_hides_nothing(path):
    """Tests run in the open, so that their names must not be those of functions or modules."""
    namespace, notebook = {}, read(path)
    with unblocked(), contextlib.chdir(FOLDER):
        for cell in code_cells(notebook):
            if cell.id.startswith("see-it"):
                continue
            names_used = (type(ast), type(points), type)  # modules, functions, classes
            before = {k: v for k, v in namespace.items() if isinstance(v, names_used)}
            exec(compile(cell.source, cell.id, "exec"), namespace)
            if mark(cell).get("grade"):
                assert {name: namespace[name] for name in before} == before


# --- what they are worth ----------------------------------------------------------------


@each
def test_the_solutions_score_all_points(path):
    assert failures(read(path)) == {}


@each
def test_an_empty_notebook_scores_0_and_runs_to_its_end(path):
    notebook = read(path)
    ClearSolutions().preprocess(notebook, {})
    lost = failures(notebook)
    assert points(notebook, lost) == 0
    assert lost.keys() == {mark(cell)["grade_id"] for cell in code_cells(notebook, "grade")}
    assert all(isinstance(error, NotImplementedError) for error in lost.values())


@each
def test_what_students_see_tests_something(path):
    """The shown part of every test fails on an empty notebook too, and passes on a solution."""
    notebook = read(path)
    for cell in code_cells(notebook, "grade"):
        hidden = r" *### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?"
        cell.source = re.sub(hidden, "", cell.source, flags=re.DOTALL)
    assert failures(notebook) == {}
    ClearSolutions().preprocess(notebook, {})
    assert points(notebook, failures(notebook)) == 0


def one_exercise(path, cell_name):
    """The notebook with one exercise and what all share, the cell of its answer, its tests."""
    notebook = read(path)
    cells, current, tests = [], None, set()
    for cell in code_cells(notebook):
        current = mark(cell)["grade_id"] if mark(cell).get("solution") else current
        if mark(cell).get("grade") and current == cell_name:
            tests.add(mark(cell)["grade_id"])
        if current == cell_name or (mark(cell).get("locked") and not mark(cell).get("grade")):
            cells.append(cell)
    notebook.cells = cells
    (answer,) = (cell for cell in cells if mark(cell).get("grade_id") == cell_name)
    return notebook, answer, tests


def lost_with(path, cell_name, source):
    """The tests that a wrong answer loses and their messages, and all tests of the exercise."""
    notebook, cell, tests = one_exercise(path, cell_name)
    cell.source = source
    return {name: str(e) for name, e in failures(notebook).items() if name in tests}, tests


wrong_answers = [
    pytest.param(*where, right, wrong, id=f"{where[1]}-{number}")
    for where, rows in WRONG.items()
    for number, (right, wrong) in enumerate(rows)
]


@pytest.mark.parametrize(("path", "cell_name", "right", "wrong"), wrong_answers)
def test_a_typical_wrong_answer_loses_a_point_and_is_told_why(path, cell_name, right, wrong):
    source = one_exercise(path, cell_name)[1].source
    assert right in source
    lost, _ = lost_with(path, cell_name, source.replace(right, wrong))
    assert lost and all(lost.values())


@pytest.mark.parametrize(("where", "source"), IMPORTED.items(), ids=lambda value: value[1][:20])
def test_what_a_package_knows_earns_nothing(where, source):
    importlib.import_module("sklearn.metrics")  # other tests have loaded it: it is blocked as well
    lost, tests = lost_with(*where, source)
    assert lost.keys() == tests


class Mutant(ast.NodeTransformer):
    """Changes the `number`-th thing that can be changed: an operator, a number, a comparison."""

    swaps: ClassVar = {
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
        ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
        ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    }  # fmt: skip

    def __init__(self, number):
        self.number, self.done = number, False

    def visit(self, node):
        if isinstance(node, ast.arguments):
            return node
        change = type(node) in self.swaps or (
            isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        )
        if change:
            self.number -= 1
            if self.number == -1:
                self.done = True
                if not isinstance(node, ast.Constant):
                    return self.swaps[type(node)]()
                same = isinstance(node.value, bool)
                return ast.copy_location(
                    ast.Constant(not node.value if same else node.value + 1), node
                )
        return self.generic_visit(node)


def mutants(source):
    """The answers that differ from a solution in one operator, number or comparison."""
    for number in range(1000):
        mutant = Mutant(number)
        tree = mutant.visit(copy.deepcopy(ast.parse(source)))
        if not mutant.done:
            return
        yield ast.unparse(tree)


@each
def test_every_mutant_of_a_solution_loses_a_point(path):
    survived, caught, tests = [], set(), set()
    for name in (mark(cell)["grade_id"] for cell in code_cells(read(path), "solution")):
        source = one_exercise(path, name)[1].source
        whole = ast.unparse(ast.parse(source)).splitlines()
        wrong = [source.replace(*pair) for pair in WRONG.get((path, name), ())]
        for mutant in [*mutants(source), *wrong]:
            lost, own = lost_with(path, name, mutant)
            caught, tests = caught | lost.keys(), tests | own
            if not lost:
                survived += [f"{name}: {x.strip()}" for x in mutant.splitlines() if x not in whole]
    assert set(survived) - EQUIVALENT == set()
    assert caught == tests
