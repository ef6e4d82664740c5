"""Code that would stop or cheat a grader that trusts it."""

import json

import nbformat
import pytest

from tests.exercises.notebooks import FOLDER, read
from tests.exercises.tiny import (
    RIGHT,
    SOLVED,
    TESTED,
    TINY,
    answer,
    copies,
    nbgrader_cell,
    notes,
    released,
    said,
)


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


SHELL = "from IPython.core.interactiveshell import InteractiveShell as s\ns.instance()"
# What a student's cell does -> what the lecturer reads.
TRICKS = {
    "import math\nmath.sin = abs": "replaces math.sin: read it",
    "import builtins\nbuiltins.abs = len": "replaces builtins.abs: read it",
    f"{SHELL}.set_custom_exc((Exception,), lambda *a, **k: None)": "changes how tests are run",
    "import ast\nclass Blind(ast.NodeTransformer):\n"
    "    def visit_Assert(self, node):\n        return ast.Pass()\n"
    f"{SHELL}.ast_transformers.append(Blind())": "changes how tests are run",
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


@pytest.mark.parametrize(
    "trick",
    [
        "import sys\ndouble = lambda x: eval(sys._getframe(1).f_code.co_consts[0])",
        "from inspect import currentframe\ndouble = lambda x: currentframe().f_back.f_locals",
        "import gc\ndouble = lambda x: [f for f in gc.get_objects() if callable(f)][0](x)",
        "import linecache\ndouble = lambda x: linecache.cache",
        "double = lambda x: get_ipython().user_ns['In'][-1]",
    ],
)
def test_code_that_looks_at_the_tests_is_not_run(grading, course, hand_in, trick):
    (grade,) = grading.grade(course, hand_in("eve", released(grading, trick)))
    assert grade.tests is None and "may look at the tests" in grade.notes[0]


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


@pytest.mark.slow
def test_the_time_limit_is_for_the_answers(grading, course, hand_in, monkeypatch):
    """Imports take long on a loaded machine; what prepares the exercise may never cost points."""
    slow = "import time\ntime.sleep(6)"
    hand_in("imports", copies(grading, RIGHT, before=[slow]))
    submissions = hand_in("answers", copies(grading, f"{slow}\n{RIGHT}"))
    short = grading.Course(course.root, seconds=4, trust=course.trust, jobs=2)
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


@pytest.mark.parametrize("option", ["--timeout", "--jobs"])
def test_a_limit_that_is_none_is_refused(grading, capsys, option):
    with pytest.raises(SystemExit):
        grading.main(["grade", "submissions", option, "0"])
    assert "a second or more" in capsys.readouterr().err
