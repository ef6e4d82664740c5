"""The hub of docs/teaching/hub with six students at once: `make hub-test`."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from benchmarks import machine
from derm_hash.course import course_data, course_run, home
from derm_hash.files import write_json
from tests.exercises.notebooks import EXERCISES, FOLDER, code_cells, mark, points, read

pytest.importorskip("jupyterhub", reason="`make hub-test` installs what a hub needs")
from tests.exercises.hub import Student, errors, hub, shows_picture, use_of, wait_for

ROOT = FOLDER.parents[1]
STUDENTS = [f"student{i}" for i in range(1, 7)]
COURSE = "derm-hash/course"
EXERCISE = EXERCISES[1]
IDLE = 90  # seconds
# Student -> what their answer to the first exercise is.
ANSWERS = dict.fromkeys(STUDENTS) | {"student6": "pack = None"}
IN_A_CELL = """
import os
try:
    open({file!r}, "w")
except OSError as error:
    print(type(error).__name__)
try:
    bytes(4 * 2**30)
except MemoryError:
    print("MemoryError")
""".strip()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The shared folder as `make hub` writes it, with this Python and the networks of 06."""
    sys.path.insert(0, str(ROOT / "docs" / "teaching" / "hub"))
    import prepare

    folder = tmp_path_factory.mktemp("srv") / "derm-hash"
    prepare.unpack_kit(folder)
    proxy = ROOT / "build" / "hub" / "node_modules"
    if proxy.is_dir():
        shutil.copytree(proxy, folder / "hub" / "node_modules", symlinks=True)
    else:
        prepare.install_proxy(folder)
    harder = course_data(difficulty=0.2)
    without = course_run(harder, invariance=None, classify="upright")
    for run in (course_run(harder, orbit_sample=2), without):
        shutil.copytree(run.path, folder / "cache" / "runs" / run.path.name)
    for path in home().glob("atlas-900-*"):
        shutil.copy(path, folder / "cache")
    return folder


def test_six_students_at_once(shared, tmp_path):
    """They log in, run 00 and 06 and hand in; nobody takes too much, and idle servers end."""
    before = times(shared)
    with hub(shared, tmp_path, IDLE=IDLE) as url, ThreadPoolExecutor(len(STUDENTS)) as pool:
        students = [Student(url, name) for name in STUDENTS]
        found = pd.DataFrame(pool.map(attend, students), STUDENTS)
        report(found.join(pd.DataFrame(map(use_of, STUDENTS), STUDENTS)))
        refused = ["OSError", "MemoryError"] if shutil.which("bwrap") else ["MemoryError"]
        _, run = students[0].open(f"{COURSE}/01_dermoscopy_data.ipynb")
        outputs = run(IN_A_CELL.format(file=str(shared / "notebooks" / "new.ipynb")))
        assert "".join(m["content"].get("text", "") for m in outputs).split() == refused
        for student in students:
            student.leave()
        wait_for(lambda: not any(use_of(name)["server MB"] for name in STUDENTS), 6 * IDLE)
    assert times(shared) == before
    assert grades(shared / "hand-in", tmp_path) == [points(read(EXERCISE))] * 5 + [
        points(read(EXERCISE), lost_without("pack"))
    ]


def times(shared):
    """When each file of the shared folder was changed, but for the letter boxes."""
    files = (path for path in shared.rglob("*") if "hand-in" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}


def attend(student):
    """What one student does, and the seconds that it took."""
    start = time.monotonic()
    student.log_in()
    took = {"login": time.monotonic() - start}
    for name in ("00_start_here", "06_retrieval_explorer"):
        opened = time.monotonic()
        cells, run = student.open(f"{COURSE}/{name}.ipynb")
        for cell in cells:
            outputs = run(cell)
            assert errors(outputs) == [], (name, cell)
            if shows_picture(outputs):
                took.setdefault("first picture", time.monotonic() - start)
        took[name[:2]] = time.monotonic() - opened
    hand_in(student)
    return took


def hand_in(student):
    """Answer an exercise, save it, and copy it to the letter box."""
    path = f"{COURSE}/exercises/{EXERCISE.name}"
    notebook = student.api("GET", f"contents/{path}")["content"]
    solved = {
        mark(cell)["grade_id"]: cell.source for cell in code_cells(read(EXERCISE), "solution")
    }
    solved["pack"] = ANSWERS[student.name] or solved["pack"]
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = solved.get(name, cell["source"])
    student.api("PUT", f"contents/{path}", {"type": "notebook", "content": notebook})
    student.api("POST", "contents/derm-hash/hand-in", {"copy_from": path})


def report(found):
    """Print what was measured, and write it to build/hub/measured.json."""
    about = machine() | {"students": len(found)}
    about |= {"median": found.median().round(1).to_dict(), "worst": found.max().round(1).to_dict()}
    path = ROOT / "build" / "hub" / "measured.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, about)
    print(f"\n{found.round(1).to_string()}\n{path}")


def grades(letter_boxes, folder):
    """The totals after collecting and grading, in the order of the students."""
    script, submissions = FOLDER / "grading.py", folder / "submissions"
    command = [sys.executable, script, "--course", folder / "course"]
    trust = [] if shutil.which("bwrap") else ["--trust"]
    for options in (
        ["collect", letter_boxes, "--to", submissions],
        ["grade", submissions, "--due", EXERCISE.stem[:2], "--jobs", "2", *trust],
    ):
        subprocess.run([str(word) for word in (*command, *options)], check=True, env=os.environ)
    return pd.read_csv(folder / "course" / "grades.csv")["total"].tolist()


def lost_without(name):
    """The tests of an exercise."""
    current, lost = None, set()
    for cell in code_cells(read(EXERCISE)):
        current = mark(cell)["grade_id"] if mark(cell).get("solution") else current
        if mark(cell).get("grade") and current == name:
            lost.add(mark(cell)["grade_id"])
    return lost
