"""From submissions to tables of grades."""

import shutil

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_markdown_cell

from tests.exercises.notebooks import EXERCISES, points, read
from tests.exercises.tiny import TINY, nbgrader_cell, released, run, said


@pytest.mark.slow
def test_a_class_from_the_release_to_the_tables(script, tmp_path, hand_in):
    """As the command does it: the solution has all points, the empty version none."""
    path = next(path for path in EXERCISES if path.stem.startswith("03"))
    course, name = tmp_path / "course", path.stem
    assert script.main(["--course", str(course), "release"]) == 0
    hand_in("ada", path, name)
    submissions = hand_in("bob", course / "release" / name / path.name, name)
    (submissions / "students.csv").write_text("student,id,name\nada,17,Ada Lovelace\n")

    trust = [] if script.running.has_sandbox() else ["--trust"]
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
