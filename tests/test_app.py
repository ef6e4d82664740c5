"""What `make app` prepares for Voilà; tests/browser/test_voila.py has the page itself."""

import json
import os

import numpy as np
import pytest

from derm_hash import app
from derm_hash.course import course_data
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import HashIndex
from derm_hash.runs import load_model, save_model


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A folder with an untrained model for images of 32 px; the lesson has 60 images."""
    monkeypatch.setattr(course_data, "__defaults__", ("atlas", 48, 60, 0))
    save_model(DermHash("resnet10", image_size=32), tmp_path / "model.safetensors")
    return tmp_path


def test_what_is_served_is_the_run_with_its_index(run, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    page = tmp_path / "page"
    app.prepare(page, "atlas", str(run))
    assert json.loads((page / "served.json").read_text()) == {"data": "atlas", "size": 32}
    index = HashIndex.load(page / "index.safetensors")
    database = course_data("atlas", 32).split("database")
    codes = encode(load_model(page / "model.safetensors"), database)
    np.testing.assert_allclose(index.codes, codes, rtol=1e-5, atol=1e-5)
    assert (page / "retrieval.ipynb").is_file()


def test_without_voila_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert app.main([]) == 2
    assert "Voilà is not installed: run `make setup`" in capsys.readouterr().err


def test_own_folders_exist_and_lie_in_the_folder(tmp_path):
    folders = app.own_folders(tmp_path)
    inside = [name for name, value in folders.items() if value.startswith(str(tmp_path))]
    assert set(inside) == {path.name.upper() for path in tmp_path.iterdir()}
