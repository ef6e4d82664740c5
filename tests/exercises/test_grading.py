"""Handing out, collecting and grading, with a tiny assignment and with a real one."""

import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from helpers import KERNELSPEC
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.exercises.notebooks import EXERCISES, FOLDER, code_cells, mark, points, read

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
    cells = [nbgrader_cell(SOLVED, "double", solution=True)]
    cells.append(nbgrader_cell(TESTED, "test_twice_as_much", grade=True, locked=True, points=3))
    notebook = new_notebook(cells=cells, metadata=KERNELSPEC)
    module.HERE.mkdir()
    nbformat.write(notebook, module.HERE / f"{TINY}.ipynb")
    return module


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


def said(grades):
    """student -> what the only test said ('' = passed), None where nothing was graded."""
    return {g.student: g.tests and g.tests["test_twice_as_much"] for g in grades}


def notes(grades):
    return {grade.student: "; ".join(grade.notes) for grade in grades if grade.notes}


# --- what is handed out -----------------------------------------------------------------


def test_the_students_versions_have_stubs_and_no_hidden_tests(tmp_path):
    done = run("--course", tmp_path, "release")
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written] == [path.name for path in EXERCISES]
    for path, source in zip(written, EXERCISES, strict=True):
        text = path.read_text("utf-8")
        assert "SOLUTION" not in text and "HIDDEN" not in text and "MARK SCHEME" not in text
        stubs = sum("raise NotImplementedError()" in c.source for c in code_cells(read(path)))
        assert stubs == len(code_cells(read(source), "solution"))
        assert points(read(path)) == points(read(source))
        for shown, whole in zip(code_cells(read(path)), code_cells(read(source)), strict=True):
            assert len(shown.source) < len(whole.source) or not mark(whole).get("grade")


def test_the_kit_for_students_has_no_solution(tmp_path):
    done = run("--course", tmp_path, "student-kit")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(done.stdout.strip()) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert {"derm-hash/Makefile", "derm-hash/.student-kit"} <= set(names)
        assert not any("test" in Path(name).parts or name.endswith("grading.py") for name in names)
        inside = [name for name in names if "/exercises/" in name]
        assert sorted(Path(name).name for name in inside) == sorted(
            [path.name for path in EXERCISES] + ["08_statistics.csv"]
        )
        assert all("BEGIN SOLUTION" not in archive.read(name).decode() for name in inside)


def run(*options):
    """The script as `make` starts it: with this Python, which may not be on the PATH."""
    command = [sys.executable, SCRIPT, *options]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)


# --- from release to a table of grades --------------------------------------------------


@pytest.mark.slow
def test_a_class_from_the_release_to_the_tables(grading, tmp_path, hand_in):
    """As the command does it: the solution has all points, the empty version none."""
    path = next(path for path in EXERCISES if path.stem.startswith("03"))
    course, name = tmp_path / "course", path.stem
    assert run("--course", course, "release").returncode == 0
    hand_in("ada", path, name)
    submissions = hand_in("bob", course / "release" / name / path.name, name)
    (submissions / "students.csv").write_text("student,id,name\nada,17,Ada Lovelace\n")

    trust = [] if grading.running.has_sandbox() else ["--trust"]
    options = ["grade", "--timeout", "300", "--jobs", "2", *trust, submissions]
    done = run("--course", course, *options)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(course / "grades.csv", keep_default_na=False, dtype={"id": str})
    assert table.columns.tolist() == ["student", "id", "name", name, "total", "maximum", "note"]
    full = points(read(path))
    assert table.values.tolist() == [
        ["ada", "17", "Ada Lovelace", full, full, full, ""],
        ["bob", "", "", 0, 0, full, ""],
    ]
    tests = pd.read_csv(course / "tests.csv")
    assert (tests["failed"] == 1).all() and (tests["of"] == 2).all()
    assert f"1 of 2 fail {tests['test'][0]}" in done.stdout
    moodle = pd.read_csv(course / "moodle.csv")
    assert moodle["Identifier"].tolist()[0] == "Participant 17"
    canvas = pd.read_csv(course / "canvas.csv")
    assert canvas["Student"].tolist()[:2] == ["Points Possible", "Ada Lovelace"]
    assert canvas[name].tolist() == [full, full, 0]
    feedback = (course / "feedback" / "ada.md").read_text()
    assert f"## {name}: {full:g} of {full:g}" in feedback and "HIDDEN" not in feedback


@pytest.mark.slow
def test_what_students_do(grading, course, hand_in):
    """Good and bad code, and code that would stop a grader that trusts it."""
    hand_in("right", released(grading, "double = lambda x: x + x"))
    hand_in("half right", released(grading, "double = lambda x: 4"))  # the shown test alone passes
    hand_in("changed tests", answer(grading, "double = lambda x: 4"))
    hand_in("no tests", answer(grading, "double = lambda x: 4", drop_tests=True))
    hand_in("endless", released(grading, "while True:\n    pass"))
    hand_in("dead", released(grading, "import os\nos._exit(1)"))
    hand_in("asks", released(grading, "double = lambda x: input()"))
    hand_in("raises", released(grading, "raise SystemExit(1)"))
    submissions = hand_in("shadows", released(grading, "import random\ndouble = lambda x: x + x"))
    hand_in("shadows", "raise RuntimeError('not Python's')", file="random.py")

    old = json.loads(released(grading, "double = lambda x: x + x")) | {"nbformat_minor": 4}
    for cell in old["cells"]:
        del cell["id"]
    hand_in("old program", json.dumps(old))

    course = grading.Course(course.root, seconds=4, trust=course.trust, jobs=2)
    grades = grading.grade(course, submissions)
    given = said(grades)
    assert [student for student, text in given.items() if text == ""] == [
        *("old program", "right", "shadows"),
    ]
    assert [student for student, text in given.items() if text is None] == ["dead"]
    assert given["half right"] == given["no tests"] == "twice 3 is 6"
    assert "not defined" in given["endless"] and given["asks"] and given["raises"]
    found = notes(grades)
    assert found.keys() == {"changed tests", "no tests", "endless", "dead", "raises"}
    assert found["changed tests"] == "Tests that were changed, and put back: test_twice_as_much"
    assert found["no tests"] == "Tests that were deleted, and put back: test_twice_as_much"
    assert "Cells stopped after 4 s: 1" in found["endless"]
    assert found["dead"].startswith("The kernel died while it ran the code")
    assert found["raises"] == "The cell double fails: SystemExit: 1"


RIGHT = "def double(x):\n    return 2 * x"
# What a student's cell does -> what the lecturer reads.
TRICKS = {
    "import math\nmath.sin = abs": "replaces math.sin: read it",
    "import builtins\nbuiltins.abs = len": "replaces builtins.abs: read it",
    "get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)": "changes how tests are run",
    "import ast\nclass Blind(ast.NodeTransformer):\n"
    "    def visit_Assert(self, node):\n        return ast.Pass()\n"
    "get_ipython().ast_transformers.append(Blind())": "changes how tests are run",
    "import subprocess\nsubprocess.Popen(['setsid', 'sleep', '99'], start_new_session=True)":
    "Processes that were left running and ended: 1",
    "import time\nfor i in range(20):\n    open(str(i), 'wb').write(bytes(9_000_000))\n"
    "time.sleep(5)": "It writes more than 64 MB to disk",
    "x = [b'x' * 10**8 for _ in range(4)]\nimport time\ntime.sleep(5)": "of memory",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("trick", "note"), TRICKS.items(), ids=TRICKS.values())
def test_tricks_are_refused_or_noted(grading, course, hand_in, monkeypatch, trick, note):
    monkeypatch.setattr(grading.running, "MEMORY", 4 * 10**8)
    submissions = hand_in("eve", released(grading, f"{trick}\ndouble = lambda x: 4"))
    (grade,) = grading.grade(course, submissions)
    assert note in "; ".join(grade.notes)
    assert grade.tests is None or grade.tests["test_twice_as_much"] == "twice 3 is 6"


@pytest.mark.slow
def test_names_of_a_student_do_not_reach_the_tests(grading, course, hand_in):
    """`abs` or a helper that is somebody's own variable costs no points and earns none."""
    notebook = nbformat.reads(released(grading, SOLVED), as_version=4)
    notebook.cells.insert(
        0, nbgrader_cell("near = lambda a, b: abs(a - b) < 1e-9", "setup", locked=True)
    )
    notebook.cells[2].source = TESTED.replace("double(2) == 4", "near(double(2), 4)")
    nbformat.write(notebook, grading.HERE / f"{TINY}.ipynb")
    for student, source in {"ada": RIGHT, "eve": "double = lambda x: 0"}.items():
        own = f"abs = lambda x: 0\nnear = lambda a, b: True\n{source}"
        notebook.cells[1].source = own
        submissions = hand_in(student, nbformat.writes(notebook))
    assert said(grading.grade(course, submissions)) == {"ada": "", "eve": "twice 2 is 4"}


@pytest.mark.slow
def test_the_sandbox_shows_nothing_of_this_computer(grading, course, contained, hand_in, tmp_path):
    """No network, no hidden tests, no other submission, and a folder that is one's own."""
    paths = [str(grading.HERE), str(tmp_path / "submissions"), str(FOLDER), "/etc/ssl"]
    look = f"""
import os, socket
seen = [path for path in {paths} if os.path.exists(path) and os.listdir(path)]
open("mine.txt", "w").write("fine")
try:
    socket.create_connection(("127.0.0.1", 80), 1)
except OSError as error:
    seen.append(type(error).__name__)
def double(x):
    return 2 * x if seen == ["ConnectionRefusedError"] else seen
"""
    assert said(grading.grade(course, hand_in("spy", released(grading, look)))) == {"spy": ""}


def test_without_a_sandbox_the_command_refuses(grading, course, hand_in, monkeypatch):
    monkeypatch.setattr(grading.running, "has_sandbox", lambda: False)
    submissions = hand_in("ada", released(grading, RIGHT))
    with pytest.raises(grading.InputError, match=r"install bubblewrap .* or add .*--trust"):
        grading.grade(grading.Course(course.root), submissions)


def copies(grading, *sources, tests=1, before=()):
    """The tiny assignment whose answer was copied or split into cells with these sources."""
    notebook = nbformat.reads(released(grading, ""), as_version=4)
    answers = [nbgrader_cell(source, "double", solution=True) for source in sources]
    tested = [copy.deepcopy(notebook.cells[1]) for _ in range(tests)]
    notebook.cells = [*map(new_code_cell, before), *answers, *tested]
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    return nbformat.writes(notebook)


STUB = "def double(x):\n    raise NotImplementedError()"


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
def test_a_doubled_answer_becomes_one(grading, sources, kept):
    notebook = nbformat.reads(copies(grading, *sources, tests=2), as_version=4)
    whole, found = grading.assemble(notebook, read(grading.HERE / f"{TINY}.ipynb"))
    assert found == ["Doubled cells were merged: double, test_twice_as_much"]
    assert [cell.source for cell in whole.cells] == [kept, TESTED]


@pytest.mark.slow
def test_what_happens_to_notebooks_on_their_way(grading, course, hand_in):
    """Folders and files as Moodle, Windows and older programs make them."""
    right = released(grading, RIGHT)
    names = ["Lovelace, Ada_123_assignsubmission_file", "O'Brien", "Zoë", "Zoe\u0308", "[2] Li"]
    for i, name in enumerate(names):
        hand_in(name, right, flat=i % 2 == 0)
    files = {"bom": "utf-8-sig", "utf 16": "utf-16", "no ids": "utf-8"}
    for name, encoding in files.items():
        text = right if name != "no ids" else re.sub(r'"id": "[^"]*",', "", right)
        submissions = hand_in(name, text.encode(encoding))
    grades = grading.grade(course, submissions)
    assert said(grades) == dict.fromkeys([*sorted(names), *files], "") and not notes(grades)
    assert grading.grade(course, submissions) == grades


@pytest.mark.slow
def test_the_time_limit_is_for_the_answers(grading, course, hand_in, monkeypatch):
    """Imports take long on a loaded machine; what prepares the exercise may never cost points."""
    slow = "import time\ntime.sleep(8)"
    hand_in("imports", copies(grading, RIGHT, before=[slow]))
    submissions = hand_in("answers", copies(grading, f"{slow}\n{RIGHT}"))
    short = grading.Course(course.root, seconds=4, trust=course.trust)
    grades = grading.grade(short, submissions)
    assert said(grades)["imports"] == ""
    assert "Cells stopped after 4 s: 1" in notes(grades)["answers"] and len(notes(grades)) == 1

    notebook = read(grading.HERE / f"{TINY}.ipynb")
    notebook.cells.insert(0, nbgrader_cell(slow, "setup", locked=True))
    nbformat.write(notebook, grading.HERE / f"{TINY}.ipynb")
    monkeypatch.setattr(grading.running, "FIRST", 2)
    hand_in("imports", nbformat.writes(notebook))
    busy = next(g for g in grading.grade(short, submissions) if g.student == "imports")
    assert busy.tests is None and "too busy; run the same command again" in busy.notes[0]


@pytest.mark.slow
def test_only_what_is_new_is_graded_again(grading, course, hand_in, monkeypatch):
    right, wrong = released(grading, "double = lambda x: 2 * x"), released(grading, "double = abs")
    hand_in("ada", right)
    submissions = hand_in("bob", wrong)
    assert [text == "" for text in said(grading.grade(course, submissions)).values()] == [1, 0]

    started, run_notebook = [], grading.running.run

    def note(*arguments):
        started.append(arguments)
        return run_notebook(*arguments)

    monkeypatch.setattr(grading.running, "run", note)
    assert [text == "" for text in said(grading.grade(course, submissions)).values()] == [1, 0]
    assert started == []
    hand_in("bob", right)
    assert [text == "" for text in said(grading.grade(course, submissions)).values()] == [1, 1]
    assert len(started) == 1

    # new tests: everybody is graded again
    path = grading.HERE / f"{TINY}.ipynb"
    path.write_text(path.read_text().replace("double(3) == 6", "double(3) == 7"))
    assert [text == "" for text in said(grading.grade(course, submissions)).values()] == [0, 0]


def test_what_cannot_be_graded_gets_a_sentence(grading, course, hand_in, monkeypatch):
    hand_in("absent", "", file="notes.txt")
    hand_in("copy", "{}", file=f"{TINY}-Copy1.ipynb")
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

    grades = grading.grade(course, submissions)
    assert all(grade.tests is None for grade in grades)
    damaged = f"{TINY}.ipynb is damaged: it is not a Jupyter notebook"
    another = f"{TINY}.ipynb holds no cell of this assignment: is it another one?"
    missing, found = f"There is no {TINY}/{TINY}.ipynb", "rename it if that is meant"
    assert notes(grades) == {
        "copy": f"{missing}; found {TINY}/{TINY}-Copy1.ipynb: {found}",
        "big": f"{TINY}.ipynb is larger than 20 MB: ask for it without outputs",
        **dict.fromkeys(no_notebooks, damaged),
        **dict.fromkeys(["other", "marks"], another),
    }
    assert [grade.student for grade in grades if grade.missing] == ["absent"]
    grading.tables.save(grades, course.sources(), submissions, course.root)
    wide = pd.read_csv(course.root / "grades.csv", keep_default_na=False).set_index("student")
    assert wide.loc["absent", TINY] == "0" and "not handed in" in wide.loc["absent", "note"]
    assert wide.loc["big", TINY] == "" and "20 MB" in wide.loc["big", "note"]


def test_only_what_is_due_is_graded(grading, course, hand_in):
    submissions = hand_in("ada", "{}")
    shutil.copy(grading.HERE / f"{TINY}.ipynb", grading.HERE / "02_more.ipynb")
    assert {g.assignment for g in grading.grade(course, submissions)} == {TINY}
    due = grading.grade(course, submissions, ["02"])
    assert [(g.assignment, g.missing) for g in due] == [("02_more", True)]
    with pytest.raises(grading.InputError, match=f"77 is due: name one of {TINY}, 02_more"):
        grading.grade(course, submissions, ["77"])


@pytest.mark.parametrize("layout", [None, "", "ada", f"ada/{TINY}.ipynb"])
def test_a_folder_without_submissions_is_refused(grading, course, tmp_path, layout):
    submissions = tmp_path / "somewhere"
    if layout is not None:
        (submissions / layout).mkdir(parents=True)
    wrong = "no folder" if layout is None else f"STUDENT/ASSIGNMENT.*one of {TINY}"
    with pytest.raises(grading.InputError, match=wrong):
        grading.grade(course, submissions)
    assert not course.root.exists()


@pytest.mark.parametrize("option", ["--timeout", "--jobs"])
def test_a_limit_that_is_none_is_refused(grading, capsys, option):
    with pytest.raises(SystemExit):
        grading.main(["grade", "submissions", option, "0"])
    assert "a second or more" in capsys.readouterr().err


# --- points by hand, and what comes back from a learning platform -----------------------


@pytest.mark.slow
def test_points_by_hand_are_asked_for_added_and_checked(grading, course, hand_in):
    notebook = read(grading.HERE / f"{TINY}.ipynb")
    rubric = "### BEGIN MARK SCHEME\n1 point for a reason\n### END MARK SCHEME"
    why = nbgrader_cell(f"Why?\n{rubric}", "why", grade=True, solution=True, points=4)
    why = new_markdown_cell(why.source, metadata=why.metadata)
    notebook.cells.append(why)
    nbformat.write(notebook, grading.HERE / f"{TINY}.ipynb")
    notebook.cells[2].source = "Because of this."
    submissions = hand_in("ada", nbformat.writes(notebook))

    def graded():
        grades = grading.grade(course, submissions)
        grading.tables.save(grades, course.sources(), submissions, course.root)
        return pd.read_csv(course.root / "grades.csv")

    assert graded()[["total", "maximum"]].values.tolist() == [[3, 7]]
    page = (course.root / "by_hand" / f"{TINY}.md").read_text()
    assert "1 point for a reason" in page and "Because of this." in page
    path = course.root / "by_hand.csv"
    path.write_text(path.read_text().replace("why,4,", "why,4,2.5"))
    assert graded()["total"].tolist() == [5.5]
    path.write_text(path.read_text().replace("why,4,2.5", "why,4,9"))
    with pytest.raises(grading.InputError, match="gives ada 9 points for why: 0 to 4"):
        graded()


@pytest.mark.parametrize("packed", [True, False])
def test_a_download_is_sorted_and_keeps_its_ids(grading, tmp_path, packed):
    names = {
        f"Ada Lovelace_1234_assignsubmission_file_/{TINY}.ipynb": ("Ada Lovelace", "1234"),
        f"turingalan_LATE_77_5678_{TINY}-1.ipynb": ("turingalan", "77"),
        f"grace_{TINY}.ipynb": ("grace", ""),
        f"emmy/{TINY}/{TINY}.ipynb": ("emmy", ""),
        f"../../{TINY}/outside.ipynb": ("..", ""),
        "bob/notes.ipynb": None,
    }
    if packed:
        download = tmp_path / "all.zip"
        with zipfile.ZipFile(download, "w") as archive:
            for name in names:
                archive.writestr(name, "{}")
    else:
        download = tmp_path / "all"
        for name in (name for name in names if not name.startswith("..")):
            (download / name).parent.mkdir(parents=True, exist_ok=True)
            (download / name).write_text("{}")
    to = tmp_path / "deep" / "submissions"
    said = grading.collect(download, to, [TINY])
    assert said[-1] == f"4 notebooks of 4 students in {to}"
    assert any("bob/notes.ipynb: left out" in line for line in said)
    students = pd.read_csv(to / "students.csv", dtype=str, keep_default_na=False)
    expected = {owner for owner in names.values() if owner and owner[0] != ".."}
    assert set(zip(students["student"], students["id"], strict=True)) == expected
    assert all((to / student / TINY / f"{TINY}.ipynb").is_file() for student, _ in expected)
    assert sorted(path.name for path in to.parent.iterdir()) == ["submissions"]


def test_a_download_without_notebooks_is_refused(grading, tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(grading.InputError, match=r"text.zip is no ZIP file and no folder"):
        grading.collect(tmp_path / "text.zip", tmp_path / "to", [TINY])
    with pytest.raises(grading.InputError, match=f"has no notebook of {TINY}"):
        grading.collect(FOLDER.parent / "app", tmp_path / "to", [TINY])
