"""What notebooks share is made once and read afterwards."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from derm_hash import course, training
from derm_hash.course import course_data, course_pair, course_query, course_run, home


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path))


@pytest.mark.parametrize("value, folder", [("~/derm", "derm"), ("", ".cache/derm-hash")])
def test_the_cache_is_where_the_user_wants_it(tmp_path, monkeypatch, value, folder):
    assert home() == tmp_path
    monkeypatch.setenv("DERM_HASH_HOME", value)
    assert home() == Path.home() / folder


def test_the_atlas_is_drawn_once(monkeypatch):
    first = course_data(size=32, images=40)
    monkeypatch.setattr(course, "make_atlases", None)
    second = course_data(size=32, images=40)
    assert torch.equal(first.images, second.images)
    pd.testing.assert_frame_equal(first.table, second.table)
    np.testing.assert_array_equal(first.mask(3), second.mask(3))


def test_an_atlas_of_each_difficulty_is_kept(tmp_path):
    """With the same lesions in the same splits."""
    easy, hard = (course_data(size=32, images=40, difficulty=each) for each in (0.0, 0.5))
    assert not torch.equal(easy.images, hard.images)
    assert (easy.table.drop(columns="source") == hard.table.drop(columns="source")).all(axis=None)
    assert set(hard.table["source"]) == {"atlas, seed 0, difficulty 0.5"}
    assert len(list(tmp_path.glob("atlas-*.npz"))) == 2
    assert torch.equal(course_data(size=32, images=40).images, easy.images)
    again = course_data(size=32, images=40, difficulty=0.5)
    assert torch.equal(again.images, hard.images) and again.table.equals(hard.table)


def test_an_atlas_that_cannot_be_read_is_drawn_again(tmp_path):
    first = course_data(size=32, images=40)
    [path] = tmp_path.glob("atlas-*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(first.images, course_data(size=32, images=40).images)


def test_the_model_is_trained_once_for_its_settings(monkeypatch):
    data = course_data(size=32, images=60)
    first = course_run(data, progress=False, epochs=1)
    assert course_run(data, progress=False, epochs=1, bits=8).path != first.path
    monkeypatch.setattr(training, "train_epoch", None)
    second = course_run(data, progress=False, epochs=1)
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=False)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_run_of_a_shared_cache_is_read_without_writing(tmp_path, monkeypatch):
    """A class shares a cache in which only the lecturer can write, a lock included."""
    data = course_data(size=32, images=60)
    first = course_run(data, progress=False, epochs=1)
    (first.path / ".lock").unlink()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(training, "locked", refuse)
    second = course_run(data, progress=False, epochs=1)
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files

    table = pd.read_csv(first.path / "metrics.csv")
    table.iloc[:0].to_csv(first.path / "metrics.csv", index=False)  # as a stopped run leaves it
    with pytest.raises(PermissionError):
        course_run(data, progress=False, epochs=1)


def test_another_version_of_the_code_trains_another_model(tmp_path, monkeypatch):
    data = course_data(size=32, images=60)
    first = course_run(data, progress=False, epochs=1)
    package = shutil.copytree(Path(course.__file__).parent, tmp_path / "derm_hash")
    monkeypatch.setattr(course, "__file__", str(package / "course.py"))
    assert course_run(data, progress=False, epochs=1).path == first.path
    with (package / "training.py").open("a") as file:
        file.write("# a change\n")
    assert course_run(data, progress=False, epochs=1).path != first.path


def test_the_two_networks_are_trained_where_the_data_is_not_the_atlas_of_the_course(monkeypatch):
    atlas, other = course_data(size=48, images=60), course_data(size=48, images=60, seed=1)
    monkeypatch.setattr(course, "IMAGES", 60)
    monkeypatch.setattr(course, "course_data", lambda: atlas)
    trained = []

    def train(data, progress, **changes):
        trained.append(changes)
        return SimpleNamespace(model="a network")

    monkeypatch.setattr(course, "course_run", train)
    assert all(model.image_size == 48 for model in course_pair(atlas)) and not trained
    assert course_pair(other) == ("a network", "a network")
    assert trained == [{}, {"invariance": None, "classify": "upright"}]


def test_the_course_follows_its_lesion_the_number_that_it_is_told_or_the_first_query():
    data = course_data(size=32, images=60)
    queries = data.split("query")
    assert course_query(queries) == 0 and course_query(queries, 3) == 3
    queries.table["lesion_id"] = [*queries.table["lesion_id"][:-2], course.THREAD, course.THREAD]
    assert course_query(queries) == len(queries) - 2
