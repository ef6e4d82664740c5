"""What `make app` serves; tests/browser/test_voila.py has the page itself in a browser."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from derm_hash import app
from derm_hash.course import course_data
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import HashIndex
from derm_hash.runs import load_model, save_model


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    """The process keeps its environment and its signals."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)


@pytest.mark.parametrize("size", [32, 48], ids=["a run", "the lesson's, until Ctrl-C"])
def test_what_is_served_is_the_run_with_its_index(tmp_path, monkeypatch, size):
    class Server:
        """Stands for Voilà: copies what it is given to serve."""

        def __init__(self, command):
            page = Path(command[-1]).parent
            shutil.copytree(page, tmp_path / "page")
            shutil.copy(Path(os.environ["JUPYTER_CONFIG_DIR"], "voila.json"), tmp_path)
            self.folder, self.running = page.parent, size == 48

        def wait(self):
            assert self.folder.exists()
            if self.running:
                raise KeyboardInterrupt
            return 0

        def terminate(self):
            self.running = False

    monkeypatch.setattr(course_data, "__defaults__", ("atlas", 48, 60, 0))  # 60 images
    monkeypatch.setattr(app.subprocess, "Popen", Server)
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    model = DermHash("resnet8", image_size=size)
    save_model(model, tmp_path / "model.safetensors")
    monkeypatch.setattr("derm_hash.course.course_pair", lambda data: (model, None))
    options = ["--run", str(tmp_path)] if size == 32 else []
    assert app.main([*options, "--port", "1234", "--no-browser"]) == 0

    page = tmp_path / "page"
    assert (page / "retrieval.ipynb").is_file()
    assert json.loads((page / "served.json").read_text()) == {"data": "atlas", "size": size}
    index = HashIndex.load(page / "index.safetensors")
    database = course_data("atlas", size).split("database")
    codes = encode(load_model(page / "model.safetensors"), database)
    np.testing.assert_allclose(index.codes, codes, rtol=1e-5, atol=1e-5)
    settings = json.loads((tmp_path / "voila.json").read_text())
    assert settings["Voila"]["ip"] == "127.0.0.1" and settings["Voila"]["port"] == 1234
    assert settings["VoilaConfiguration"]["show_tracebacks"] is False


def test_without_voila_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.main([]) == 2
    assert "Voilà is not installed: run `make setup`" in capsys.readouterr().err


def test_own_folders_exist_and_lie_in_the_folder(tmp_path):
    folders = app.own_folders(tmp_path)
    inside = [name for name, value in folders.items() if value.startswith(str(tmp_path))]
    assert set(inside) == {path.name.upper() for path in tmp_path.iterdir()}
