"""`make lab` works on copies of the course, and never loses what a reader has written."""

import json
from pathlib import Path

import pytest

from derm_hash import doctor, lab
from derm_hash.lab import refresh

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND, EXERCISE = "00_start.ipynb", "01_data.ipynb", "exercises/02_gate.ipynb"
FIGURE = "figures/gate.svg"


@pytest.fixture
def folders(tmp_path):
    """The originals, and the copies that `make lab` has made of them."""
    originals, course = tmp_path / "notebooks", tmp_path / "course"
    for name in (FIRST, SECOND, EXERCISE, FIGURE):
        (originals / name).parent.mkdir(parents=True, exist_ok=True)
        (originals / name).write_text(f"first version of {name}")
    (originals / "build.py").write_text("no notebook")
    assert refresh(originals, course) == []
    return originals, course


def texts(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*.*")
        if path.suffix in (".ipynb", ".svg")
    }


def test_the_copies_are_those_of_the_notebooks_and_their_figures_alone(folders):
    originals, course = folders
    assert texts(course) == texts(originals)
    names = {FIRST, SECOND, "exercises", "figures", lab.RECORD}
    assert {path.name for path in course.iterdir()} == names


def test_a_newer_original_replaces_a_copy_that_nobody_has_changed(folders):
    originals, course = folders
    (originals / FIRST).write_text("second version")
    assert refresh(originals, course) == []
    assert texts(course) == texts(originals)
    (originals / FIRST).write_text("third version")
    assert refresh(originals, course) == []
    assert texts(course)[FIRST] == "third version"


def test_a_changed_copy_stays_and_a_newer_original_is_announced(folders):
    originals, course = folders
    (course / FIRST).write_text("my answer")
    assert refresh(originals, course) == []  # nothing newer: nothing to say
    (originals / FIRST).write_text("second version")
    for _ in range(2):
        (note,) = refresh(originals, course)
        assert f"course/{FIRST} stays as you have changed it" in note and "rename yours" in note
        assert (course / FIRST).read_text() == "my answer"
    (course / FIRST).rename(course / "mine.ipynb")
    assert refresh(originals, course) == []
    assert texts(course)[FIRST] == "second version"
    assert texts(course)["mine.ipynb"] == "my answer"


def test_a_notebook_that_the_course_gives_up_goes_unless_it_was_changed(folders):
    originals, course = folders
    (course / SECOND).write_text("my answer")
    for name in (SECOND, EXERCISE):
        (originals / name).unlink()
    assert refresh(originals, course) == []
    assert texts(course).keys() == {FIRST, SECOND, FIGURE}


@pytest.mark.parametrize("content", ["", "[1]", "{", None])
def test_without_its_record_every_changed_copy_stays(folders, content):
    originals, course = folders
    record = course / lab.RECORD
    record.unlink() if content is None else record.write_text(content)
    (course / FIRST).write_text("my answer")
    assert len(refresh(originals, course)) == 1
    assert (course / FIRST).read_text() == "my answer"
    assert json.loads(record.read_text()).keys() == {SECOND, EXERCISE, FIGURE}


def test_git_ignores_the_copies_and_the_paths_in_them_hold():
    assert "/course/" in (ROOT / ".gitignore").read_text().splitlines()
    text = (ROOT / "notebooks" / "08_reproduction.ipynb").read_text("utf-8")
    assert "../benchmarks/results" in text
    assert (ROOT / "course" / ".." / "benchmarks").resolve() == ROOT / "benchmarks"


@pytest.fixture
def started(tmp_path, monkeypatch, folders):
    """The options with which `make lab` starts JupyterLab, and its environment."""
    labapp = pytest.importorskip("jupyterlab.labapp")
    calls = []
    monkeypatch.setattr(labapp.LabApp, "launch_instance", calls.append)
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setattr(lab.os, "environ", {**lab.os.environ})
    return calls


@pytest.mark.parametrize("user", [0, 1000])
def test_root_is_let_in_and_told_so(started, user, monkeypatch, capsys):
    monkeypatch.setattr(lab.os, "geteuid", lambda: user, raising=False)
    assert lab.main(["--no-browser"]) == 0
    assert ("--allow-root" in started[0]) == (user == 0)
    assert ("You are root" in capsys.readouterr().out) == (user == 0)
    assert started[0][0].endswith(f"course/{FIRST}") and "--no-browser" in started[0]


def test_a_home_that_cannot_be_written_is_replaced(started, tmp_path, monkeypatch):
    broken = doctor.Check("home", "it cannot be written", "choose another")
    monkeypatch.setattr(doctor, "check_home", lambda: broken)
    assert lab.main([]) == 0
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        assert Path(lab.os.environ[name]).parent == tmp_path / "build" / "jupyter"
        assert Path(lab.os.environ[name]).is_dir()
