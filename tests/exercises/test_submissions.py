"""What comes back: downloads, notebooks that have changed on their way, copied answers."""

import json
import os
import re
import zipfile

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.exercises.notebooks import FOLDER, read
from tests.exercises.tiny import RIGHT, TESTED, TINY, copies, nbgrader_cell, notes, released, said

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


def test_of_several_copies_the_newest_counts_and_links_are_left_out(grading, tmp_path):
    box = tmp_path / "hand-in" / "ada"
    box.mkdir(parents=True)
    for age, name in enumerate((f"{TINY}-Copy2.ipynb", f"{TINY}.ipynb", f"{TINY}-Copy1.ipynb")):
        (box / name).write_text(name)
        os.utime(box / name, (10**9 - age, 10**9 - age))
    (tmp_path / "hand-in" / "eve").mkdir()
    (tmp_path / "hand-in" / "eve" / f"{TINY}.ipynb").symlink_to(box / f"{TINY}.ipynb")
    (said,) = grading.collect(box.parent, tmp_path / "to", [TINY])
    assert said == f"3 notebooks of 1 students in {tmp_path / 'to'}"
    assert (tmp_path / "to" / "ada" / TINY / f"{TINY}.ipynb").read_text() == f"{TINY}-Copy2.ipynb"
