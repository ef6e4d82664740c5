"""Handing out and grading through nbgrader, with a tiny assignment and with a real one."""

import copy
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from helpers import KERNELSPEC
from nbformat.v4 import new_code_cell, new_notebook

from tests.exercises.notebooks import EXERCISES, FOLDER, code_cells, mark, points, read

SCRIPT = FOLDER / "grading.py"
TINY = "01_double"
SOLVED = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
TESTED = """
def test_double():
    assert double(2) == 4
    ### BEGIN HIDDEN TESTS
    assert double(3) == 6
    ### END HIDDEN TESTS


test_double()
""".strip()


def nbgrader_cell(source, grade_id, **changes):
    known = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
    cell = new_code_cell(source)
    cell.metadata["nbgrader"] = known | {"grade_id": grade_id} | changes
    return cell


@pytest.fixture
def grading(tmp_path, monkeypatch):
    """The module, with one exercise of three points that needs no package."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("grading", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "grading", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path / "exercises")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    cells = [nbgrader_cell(SOLVED, "double", solution=True)]
    cells.append(nbgrader_cell(TESTED, "test_double", grade=True, locked=True, points=3))
    notebook = new_notebook(cells=cells, metadata=KERNELSPEC)
    module.HERE.mkdir()
    nbformat.write(notebook, module.HERE / f"{TINY}.ipynb")
    return module


@pytest.fixture
def course(grading, tmp_path):
    return grading.Course(tmp_path / "course", seconds=20)


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


def answer(grading, source, drop_tests=False):
    """The tiny assignment with this answer, as text."""
    notebook = read(grading.HERE / f"{TINY}.ipynb")
    notebook.cells[0].source = source
    notebook.cells[1].source = "assert True  # a student's own idea of a test"
    notebook.cells = notebook.cells[: 1 if drop_tests else 2]
    return nbformat.writes(notebook)


def row(table, student):
    (found,) = table[table["student"] == student].itertuples()
    return found


# --- what is handed out -----------------------------------------------------------------


@pytest.mark.slow
def test_the_students_versions_have_stubs_and_no_hidden_tests(tmp_path):
    done = run("--course", tmp_path, "release")
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written] == [path.name for path in EXERCISES]
    for path, source in zip(written, EXERCISES, strict=True):
        text = path.read_text("utf-8")
        assert "SOLUTION" not in text and "HIDDEN" not in text
        stubs = sum("raise NotImplementedError()" in c.source for c in code_cells(read(path)))
        assert stubs == len(code_cells(read(source), "solution"))
        assert points(read(path)) == points(read(source))
        for shown, whole in zip(code_cells(read(path)), code_cells(read(source)), strict=True):
            assert len(shown.source) < len(whole.source) or not mark(whole).get("grade")


def run(*options):
    """The script as `make` starts it: with this Python, which may not be on the PATH."""
    command = [sys.executable, SCRIPT, *options]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)


# --- from release to a table of grades --------------------------------------------------


def variant(path, right, wrong):
    """An exercise in which a part of the solution is another one, as text."""
    notebook = read(path)
    assert sum(right in cell.source for cell in notebook.cells) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace(right, wrong)
    return nbformat.writes(notebook)


@pytest.mark.slow
def test_a_class_from_the_release_to_the_table(tmp_path, hand_in):
    (path,) = (path for path in EXERCISES if path.stem == "04_rotation_loss")
    course, name = tmp_path / "course", path.stem
    assert run("--course", course, "release").returncode == 0
    hand_in("ada", variant(path, "bits = codes", "np.log([0.0])  # warns\n    bits = codes"), name)
    hand_in("bob", course / "release" / name / path.name, name)
    wrong = variant(path, "(pull - pull.mean(dim=0))", "(pull.mean(dim=0) - pull)")
    submissions = hand_in("cleo", wrong, name)

    done = run("--course", course, "grade", "--timeout", "300", submissions)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(course / "grades.csv", keep_default_na=False)
    assert table.values.tolist() == [
        ["ada", name, 10, 10, ""],
        ["bob", name, 0, 10, ""],
        ["cleo", name, 8, 10, ""],
    ]
    assert re.search(r"^ *cleo 04_rotation_loss +8 +10$", done.stdout, re.MULTILINE)
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_what_students_do(grading, course, hand_in):
    """Good and bad code, and code that would stop a grader that trusts it."""
    hand_in("right", answer(grading, "double = lambda x: x + x"))
    hand_in("half right", answer(grading, "double = lambda x: 4"))  # the shown test alone passes
    hand_in("no tests", answer(grading, "double = lambda x: 4", drop_tests=True))
    hand_in("endless", answer(grading, "while True:\n    pass"))
    hand_in("dead", answer(grading, "import os\nos._exit(1)"))
    hand_in("asks", answer(grading, "double = lambda x: input()"))
    hand_in("raises", answer(grading, "raise SystemExit(1)"))
    submissions = hand_in("shadows", answer(grading, "import random\ndouble = lambda x: x + x"))
    hand_in("shadows", "raise RuntimeError('not Python's')", file="random.py")

    old = json.loads(answer(grading, "double = lambda x: x + x")) | {"nbformat_minor": 4}
    for cell in old["cells"]:
        del cell["id"]
    hand_in("old program", json.dumps(old))

    course = grading.Course(course.root, seconds=4)
    table = grading.grade(course, submissions)
    given = {item.student: item.points for item in table.itertuples()}
    assert math.isnan(given.pop("dead"))
    zero = ("half right", "no tests", "endless", "asks", "raises")
    assert given == dict.fromkeys(("right", "shadows", "old program"), 3) | dict.fromkeys(zero, 0)
    assert row(table, "endless").note == "Cells stopped after 4 s: 1"
    assert row(table, "dead").note.startswith("The kernel died while it ran the code")
    assert "DeadKernelError" in course.log.read_text()
    assert [item.student for item in table.itertuples() if item.note] == ["dead", "endless"]


def copies(grading, *sources, tests=1, before=()):
    """The tiny assignment whose answer was copied or split into cells with these sources."""
    notebook = read(grading.HERE / f"{TINY}.ipynb")
    answers = [nbgrader_cell(source, "double", solution=True) for source in sources]
    tested = [copy.deepcopy(notebook.cells[1]) for _ in range(tests)]
    notebook.cells = [*map(new_code_cell, before), *answers, *tested]
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    return nbformat.writes(notebook)


STUB = "def double(x):\n    raise NotImplementedError()"
RIGHT = "def double(x):\n    return 2 * x"


@pytest.mark.parametrize(
    ("sources", "kept"),
    [
        ([RIGHT, STUB], RIGHT),  # a copy of the empty cell, below
        ([STUB, RIGHT], RIGHT),  # the copy has the answer
        (["def double(x):", "    return 2 * x"], RIGHT),  # split inside a function
        (["def half(x):\n    return x / 2", RIGHT], f"def half(x):\n    return x / 2\n{RIGHT}"),
        (["def double(x):\n    return 2 *", RIGHT], RIGHT),  # a first try that was left
        ([STUB, STUB], STUB),
    ],
)
def test_a_doubled_answer_becomes_one(grading, sources, kept, tmp_path):
    release = tmp_path / "release.ipynb"
    release.write_text(copies(grading, STUB))
    notebook = nbformat.reads(copies(grading, *sources, tests=2), as_version=4)
    assert grading.merge_doubled(notebook, release) == ["double", "test_double"]
    assert [cell.source for cell in notebook.cells] == [kept, TESTED]


@pytest.mark.slow
def test_what_happens_to_notebooks_on_their_way(grading, course, hand_in):
    """Doubled cells, folders and files as Moodle, Windows and older programs make them."""
    right = answer(grading, RIGHT)
    names = ["Lovelace, Ada_123_assignsubmission_file", "O'Brien", "Zoë", "Zoe\u0308", "[2] Li"]
    for i, name in enumerate(names):
        hand_in(name, right, flat=i % 2 == 0)
    files = {"bom": "utf-8-sig", "utf 16": "utf-16", "no ids": "utf-8"}
    for name, encoding in files.items():
        text = right if name != "no ids" else re.sub(r'"id": "[^"]*",', "", right)
        hand_in(name, text.encode(encoding))
    hand_in("copy", copies(grading, RIGHT, STUB))
    submissions = hand_in("split", copies(grading, "def double(x):", "    return 2 * x", tests=2))
    table = grading.grade(course, submissions)
    assert dict(zip(table["student"], table["points"], strict=True)) == dict.fromkeys(
        [*names, *files, "copy", "split"], 3
    )
    assert {item.student: item.note for item in table.itertuples() if item.note} == {
        "copy": "Doubled cells were merged: double",
        "split": "Doubled cells were merged: double, test_double",
    }
    assert grading.grade(course, submissions).equals(table)


@pytest.mark.slow
def test_the_time_limit_is_for_the_answers(grading, course, hand_in, monkeypatch):
    """Imports take long on a loaded machine; what prepares the exercise may never cost points."""
    slow = "import time\ntime.sleep(4)"
    hand_in("imports", copies(grading, RIGHT, before=[slow]))
    submissions = hand_in("answers", copies(grading, f"{slow}\n{RIGHT}"))
    table = grading.grade(grading.Course(course.root, seconds=2), submissions)
    assert row(table, "imports").points == 3 and row(table, "imports").note == ""
    assert row(table, "answers").note == "Cells stopped after 2 s: 1"

    notebook = read(grading.HERE / f"{TINY}.ipynb")
    notebook.cells.insert(0, nbgrader_cell(slow, "setup", locked=True))
    nbformat.write(notebook, grading.HERE / f"{TINY}.ipynb")
    monkeypatch.setattr(grading, "FIRST", 1)
    shutil.rmtree(submissions)
    submissions = hand_in("busy", nbformat.writes(notebook))
    course = grading.Course(course.root.with_name("busy"), seconds=2)
    busy = row(grading.grade(course, submissions), "busy")
    assert math.isnan(busy.points)
    assert "The cell setup" in busy.note and "too busy; run the same command again" in busy.note
    monkeypatch.setattr(grading, "FIRST", 60)
    assert row(grading.grade(course, submissions), "busy").points == 3


@pytest.mark.parametrize(
    ("log", "note"),
    [
        ("RuntimeError: Kernel didn't respond in 300 seconds", "No kernel started in time"),
        ("nbclient.exceptions.DeadKernelError: Kernel died", "The kernel died"),
        ("the kernel became unresponsive", "The time limit could not stop a cell"),
        ("ValidationError: Duplicate grade id: x\n", r"\(ValidationError: Duplicate grade id: x\)"),
        ("", "unknown error"),
    ],
)
def test_failures_are_told_apart(grading, log, note):
    assert re.search(note, grading.cause(log))


@pytest.mark.slow
def test_only_what_is_new_is_graded_again(grading, course, hand_in, monkeypatch):
    right, wrong = answer(grading, "double = lambda x: 2 * x"), answer(grading, "double = abs")
    hand_in("ada", right)
    submissions = hand_in("bob", wrong)
    assert grading.grade(course, submissions)["points"].tolist() == [3, 0]

    started, convert = [], grading.Course.convert

    def note(self, converter, **ids):
        started.append(ids.get("student_id"))
        convert(self, converter, **ids)

    monkeypatch.setattr(grading.Course, "convert", note)
    assert grading.grade(course, submissions)["points"].tolist() == [3, 0]
    assert started == [None], "the assignment is released again, nobody is graded"

    hand_in("bob", right)
    assert grading.grade(course, submissions)["points"].tolist() == [3, 3]
    assert started[1:] == [None, "bob"]

    # new tests: everybody is graded again
    path = grading.HERE / f"{TINY}.ipynb"
    path.write_text(path.read_text().replace("double(3) == 6", "double(3) == 7"))
    assert grading.grade(course, submissions)["points"].tolist() == [0, 0]


def test_what_cannot_be_graded_gets_a_row_and_a_sentence(grading, course, hand_in, monkeypatch):
    hand_in("absent", "", file="notes.txt")
    hand_in("copy", "{}", file=f"{TINY}-Copy1.ipynb")
    hand_in("folder", "{}", name="double", file=f"{TINY}.ipynb")
    hand_in("other", nbformat.writes(new_notebook(cells=[nbgrader_cell("1", "of_another")])))
    hand_in("marks", nbformat.writes(new_notebook(cells=[new_code_cell(metadata={"nbgrader": 1})])))
    hand_in("big", "x" * 200_000)
    monkeypatch.setattr("submissions.LARGEST", 150_000)
    no_notebooks = {
        "half": nbformat.writes(new_notebook())[:-9],
        "json": '{"answer": 42}',
        "list": "[1, 2]",
        "deep": "[" * 100_000,
        "odd": json.dumps(new_notebook() | {"nbformat": "4"}),
        "zoe [2]": "{}",
    }
    for name, text in (no_notebooks | {".hidden": "{}"}).items():
        submissions = hand_in(name, text)

    table = grading.grade(course, submissions)
    assert table["points"].isna().all() and (table["maximum"] == 3).all()
    damaged = f"{TINY}.ipynb is damaged: it is not a Jupyter notebook"
    another = f"{TINY}.ipynb holds no cell of this assignment: is it another one?"
    missing, found = f"There is no {TINY}/{TINY}.ipynb", "rename it if that is meant"
    assert dict(zip(table["student"], table["note"], strict=True)) == {
        "absent": missing,
        "copy": f"{missing}; found {TINY}/{TINY}-Copy1.ipynb: {found}",
        "folder": f"{missing}; found double/{TINY}.ipynb: {found}",
        "big": f"{TINY}.ipynb is larger than 20 MB: ask for it without outputs",
        **dict.fromkeys(no_notebooks, damaged),
        **dict.fromkeys(["other", "marks"], another),
    }
    path = grading.save(table, course.root / "grades.csv")
    assert pd.read_csv(path)["note"].tolist() == table["note"].tolist()


@pytest.mark.parametrize("layout", [None, "", "ada", f"ada/{TINY}.ipynb"])
def test_a_folder_without_submissions_is_refused(grading, course, tmp_path, layout):
    submissions = tmp_path / "somewhere"
    if layout is not None:
        (submissions / layout).mkdir(parents=True)
    wrong = "no folder" if layout is None else f"STUDENT/ASSIGNMENT.*one of {TINY}"
    with pytest.raises(grading.InputError, match=wrong):
        grading.grade(course, submissions)
    assert not course.root.exists()


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_a_time_limit_that_is_none_is_refused(grading, capsys, seconds):
    with pytest.raises(SystemExit):
        grading.main(["grade", "submissions", "--timeout", seconds])
    assert "a second or more" in capsys.readouterr().err


def test_cells_that_changed_after_grading_are_refused_with_the_remedy(grading, course, hand_in):
    submissions = hand_in("ada", answer(grading, "double = abs"))
    grading.grade(course, submissions)
    notebook = read(grading.HERE / f"{TINY}.ipynb")
    notebook.cells.append(nbgrader_cell("pass", "more", grade=True, locked=True, points=1))
    nbformat.write(notebook, grading.HERE / f"{TINY}.ipynb")
    with pytest.raises(grading.InputError, match=f"could not release {TINY}.*move .* away"):
        grading.grade(course, submissions)
