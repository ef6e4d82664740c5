"""Hostile files: each is refused in one sentence, nothing in it runs, and it fills no memory."""

import io
import os
import pickle

import loaders
import numpy as np
import pytest
import torch
from helpers import one_sentence

from derm_hash.data.manifest import read_manifest
from derm_hash.errors import InputError
from derm_hash.files import leaves_folder
from derm_hash.settings import TrainConfig

pytestmark = pytest.mark.usefixtures("little_memory")


def assert_refused(load, path, *words):
    with one_sentence(*words):
        load(path)


# --- a pickle that runs a program ---------------------------------------------------------------


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def plain(payload):
    return pickle.dumps(payload)


def as_torch_saves(payload):
    content = io.BytesIO()
    torch.save({"model": payload, "position": {}}, content)
    return content.getvalue()


def as_an_array(payload):
    content = io.BytesIO()
    np.save(content, np.array([payload], dtype=object), allow_pickle=True)
    return content.getvalue()


def as_arrays(payload):
    content = io.BytesIO()
    names = [f"{part}_{kind}" for part in ("train", "val", "test") for kind in ("images", "labels")]
    np.savez(content, **dict.fromkeys(names, np.array([payload], dtype=object)))
    return content.getvalue()


@pytest.mark.parametrize("form", [plain, as_torch_saves, as_an_array, as_arrays])
@pytest.mark.parametrize("name", loaders.LOADERS)
def test_no_reader_runs_a_pickle(name, form, tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_bytes(form(Payload(tmp_path / "ran")))
    if name == "archive" and form in (as_torch_saves, as_arrays):
        load(path)  # a sound zip file; what is in it stays bytes
    else:
        assert_refused(load, path)
    assert not (tmp_path / "ran").exists()


# --- the kit's own files -------------------------------------------------------------------------


def half(content):
    return content[: len(content) // 2]


def without_header(content):
    return b"spoiled" + content[7:]


def nothing(content):
    return b""


def text(content):
    return b"not what it should be"


@pytest.mark.parametrize("damage", [half, without_header, nothing, text])
@pytest.mark.parametrize("name", loaders.OWN)
def test_a_damaged_file_of_the_kit_is_refused_in_one_sentence(name, damage, tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(load, path, str(path))


# --- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "/etc", "C:", "a\0b", 5, None]
)
def test_a_run_cannot_leave_its_folder(name):
    with pytest.raises(InputError, match=r"folder's name|name must be text"):
        TrainConfig(name=name)


# --- data folders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/passwd", "C:\\a.png", "..\\a.png", "a/../../b", "\\\\host\\a.png"]
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_manifest_cannot_leave_its_folder(tmp_path, name, column):
    path, _ = loaders.prepared(tmp_path / "folder", "manifest")
    frame = read_manifest(path.parent)
    frame.loc[1, column] = name
    frame.to_csv(path, index=False)
    assert leaves_folder(name)
    assert_refused(read_manifest, path.parent, "leaves the folder")


# --- found by damaging thousands of files: test_faults_fuzz.py at full length ---------------------


def test_a_manifest_with_an_endless_name_is_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "manifest")
    path.write_text(path.read_text().replace("images/0.png", f"images/{'[' * 5000}.png"))
    assert_refused(load, path, str(path.parent))


def test_an_archive_with_a_nameless_member_is_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "archive")
    path.write_bytes(path.read_bytes().replace(b"metadata.csv", b"\0etadata.csv"))
    assert_refused(load, path, str(path))
