"""What `make app` puts before Voilà; tests/browser/test_voila.py has the page itself."""

import json

import pytest
import torch

from derm_hash import app
from derm_hash.course import course_data
from derm_hash.errors import InputError
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import HashIndex
from derm_hash.runs import load_model, save_model


@pytest.fixture
def lesson(monkeypatch, tmp_path):
    """A lesson of 60 small images, and a run that has not been trained."""
    monkeypatch.setattr(course_data, "__defaults__", ("atlas", 48, 60, 0))
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    model = DermHash("resnet10")
    model.image_size = 32
    save_model(model, tmp_path / "model.safetensors")
    return tmp_path


def test_what_is_served_is_the_run_with_its_index(lesson, tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    app.prepare(page, "atlas", str(lesson))
    assert json.loads((page / "served.json").read_text()) == {"data": "atlas", "size": 32}
    index = HashIndex.load(page / "index.safetensors")
    database = course_data("atlas", 32).split("database")
    codes = encode(load_model(page / "model.safetensors"), database)
    torch.testing.assert_close(torch.from_numpy(index.codes), torch.from_numpy(codes))
    assert (page / "retrieval.ipynb").is_file()


def test_without_voila_one_sentence_says_so(lesson, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="Voilà is not installed"):
        app.prepare(tmp_path, "atlas", str(lesson))


def test_own_folders_exist_and_lie_in_the_folder(tmp_path):
    folders = app.own_folders(tmp_path)
    inside = [name for name, value in folders.items() if value.startswith(str(tmp_path))]
    assert set(inside) == {p.name.upper() for p in tmp_path.iterdir()} - {"PAGE"}
    assert (tmp_path / "page").is_dir()
