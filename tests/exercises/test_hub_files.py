"""What a student finds in the home when a server of docs/teaching/hub starts."""

import sys

import pytest

from tests.exercises.notebooks import FOLDER

HUB = FOLDER.parents[1] / "docs" / "teaching" / "hub"


@pytest.fixture
def start(monkeypatch):
    monkeypatch.syspath_prepend(HUB)
    yield __import__("start")
    del sys.modules["start"]


@pytest.fixture
def shared(tmp_path):
    files = ["notebooks/00_a.ipynb", "notebooks/exercises/02_b.ipynb", "benchmarks/results/r.csv"]
    files += ["notebooks/figures/gate.svg"]
    files += ["cache/runs/1/.lock", "cache/runs/1/metrics.csv", "hand-in/ada/x"]
    for name in files:
        (tmp_path / "srv" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "srv" / name).write_text("as handed out")
    return tmp_path / "srv"


def test_the_course_is_copied_and_what_all_share_is_linked(start, shared, tmp_path):
    home = tmp_path / "ada"
    assert start.hand_out(shared, home, "ada") == []
    copies = ("course/00_a.ipynb", "course/exercises/02_b.ipynb", "course/figures/gate.svg")
    for name in (*copies, "benchmarks/results/r.csv"):
        assert (home / "derm-hash" / name).read_text() == "as handed out"
    (home / "derm-hash" / "hand-in" / "02_b.ipynb").write_text("mine")
    assert (shared / "hand-in" / "ada" / "02_b.ipynb").read_text() == "mine"
    run = home / ".cache" / "derm-hash" / "runs" / "1"
    assert [path.name for path in run.iterdir()] == ["metrics.csv"], "locks are one's own"
    (run / "new.csv").write_text("mine")
    assert not (shared / "cache" / "runs" / "1" / "new.csv").exists()


def test_a_new_edition_overwrites_no_work(start, shared, tmp_path):
    home = tmp_path / "ada"
    start.hand_out(shared, home, "ada")
    (home / "derm-hash" / "course" / "exercises" / "02_b.ipynb").write_text("my answer")
    own = home / ".cache" / "derm-hash" / "runs" / "1" / "metrics.csv"
    own.unlink()
    own.write_text("my run")
    for path in (shared / "notebooks").rglob("*.ipynb"):
        path.write_text("the second edition")
    (note,) = start.hand_out(shared, home, "ada")
    assert "course/exercises/02_b.ipynb stays as you have changed it" in note
    course = home / "derm-hash" / "course"
    assert (course / "exercises" / "02_b.ipynb").read_text() == "my answer"
    assert (course / "00_a.ipynb").read_text() == "the second edition"
    assert own.read_text() == "my run"
