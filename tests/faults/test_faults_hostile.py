"""Hostile files: each is refused in one sentence, nothing in it runs, and it fills no memory."""

import io
import os
import pickle
import struct

import loaders
import numpy as np
import pytest
import torch

from derm_hash.data.manifest import read_manifest, stored_pixels
from derm_hash.errors import InputError
from derm_hash.files import leaves_folder
from derm_hash.settings import TrainConfig


@pytest.fixture(autouse=True)
def small(little_memory):
    pass


def assert_refused(load, path, *words):
    with pytest.raises(InputError) as error:
        load(path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# --- a pickle that runs a program ---------------------------------------------------------------


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def plain(payload):
    return pickle.dumps(payload)


def oldest(payload):
    return pickle.dumps(payload, protocol=0)


def as_torch_saves(payload):
    content = io.BytesIO()
    torch.save({"model": payload, "position": {}}, content)
    return content.getvalue()


def as_torch_saved_once(payload):
    content = io.BytesIO()
    torch.save({"model": payload}, content, _use_new_zipfile_serialization=False)
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


def behind_a_length(payload):
    """Where a safetensors file has its header."""
    program = pickle.dumps(payload)
    return struct.pack("<Q", len(program)) + program


PAYLOADS = {
    make.__name__: make
    for make in (
        *(plain, oldest, as_torch_saves, as_torch_saved_once),
        *(as_an_array, as_arrays, behind_a_length),
    )
}


def test_the_payload_works(tmp_path):
    pickle.loads(plain(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()
    torch.load(io.BytesIO(as_torch_saves(Payload(tmp_path / "also"))), weights_only=False)
    assert (tmp_path / "also").is_dir()


@pytest.mark.parametrize("form", PAYLOADS)
@pytest.mark.parametrize("name", loaders.LOADERS)
def test_no_reader_runs_a_pickle(name, form, tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_bytes(PAYLOADS[form](Payload(tmp_path / "ran")))
    if name == "archive" and form in ("as_torch_saves", "as_arrays"):
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
    return b"not a file of tensors"


def a_header_of_exabytes(content):
    return struct.pack("<Q", 2**62) + content[8:]


@pytest.mark.parametrize("damage", [half, without_header, nothing, text, a_header_of_exabytes])
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


def header(shape, kind="|u1"):
    content = io.BytesIO()
    about = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, about)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    "content",
    [
        header((3, 2**20, 2**20, 3)),
        header((3, 2**40, 2**40, 3)),
        header((3, 16, 16, 3), "|O"),
        header((3, 16, 16, 3), "<f8") + bytes(3 * 16 * 16 * 3 * 8),
        header((3, 16, 17, 3)) + bytes(3 * 16 * 17 * 3),
        header((4, 16, 16, 3)) + bytes(4 * 16 * 16 * 3),
        header((3, 16, 16, 3)) + bytes(5),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    ],
    ids=range(8),
)
def test_decoded_pixels_that_promise_too_much_are_refused(tmp_path, content):
    path, _ = loaders.prepared(tmp_path / "folder", "pixels")
    path.write_bytes(content)
    names = [f"{i}.png" for i in range(3)]
    with pytest.raises(InputError, match="delete it") as error:
        stored_pixels(path.parent, names)
    assert "\n" not in str(error.value)


# --- found by damaging thousands of files: test_faults_fuzz.py at full length ---------------------


def test_a_manifest_with_an_endless_name_is_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "manifest")
    path.write_text(path.read_text().replace("images/0.png", f"images/{'[' * 5000}.png"))
    assert_refused(load, path, str(path.parent))


def test_pixels_of_fewer_than_no_images_are_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "pixels")
    path.write_bytes(path.read_bytes().replace(b"(3, 16,", b"(-3,16,"))
    assert_refused(load, path, str(path))


def test_an_archive_with_a_nameless_member_is_refused(tmp_path):
    path, load = loaders.prepared(tmp_path / "folder", "archive")
    path.write_bytes(path.read_bytes().replace(b"metadata.csv", b"\0etadata.csv"))
    assert_refused(load, path, str(path))


@pytest.mark.parametrize("name", ["record", "ledger"])
def test_json_that_is_nested_too_deep_is_refused(tmp_path, name):
    path, load = loaders.prepared(tmp_path / "folder", name)
    path.write_text("[" * 100_000)
    assert_refused(load, path, str(path))
