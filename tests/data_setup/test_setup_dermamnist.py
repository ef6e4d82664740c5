"""DermaMNIST from a file in its publisher's layout."""

import json
import pickle
import shutil
import zipfile

import medmnist
import numpy as np
import pytest
from PIL import Image
from publishers import dermamnist_arrays

from data_setup import dermamnist, download
from data_setup.__main__ import main
from data_setup.info import files_of
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import read_manifest


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "archives" / "dermamnist.npz"
    path.parent.mkdir()
    np.savez_compressed(path, **dermamnist_arrays())
    return path


def run(npz, root, *options):
    options = options or ["--size", "28"]
    return main(["dermamnist", "--archives", str(npz.parent), "--root", str(root), *options])


def refused(capsys, npz, root, *options):
    assert run(npz, root, *options) == 2
    assert not root.exists()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("data_setup: ")
    return error


def test_pixels_labels_and_parts_arrive_exactly(npz, tmp_path, capsys):
    root = tmp_path / "data"
    assert run(npz, root) == 0
    frame, arrays = read_manifest(root), dermamnist_arrays()
    assert frame["split"].value_counts().to_dict() == {"database": 20, "val": 5, "query": 8}
    names = ["AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC"]
    for row in frame.itertuples():
        part, number = row.image.removeprefix("images/").removesuffix(".png").split("_")
        assert row.split == {"train": "database", "val": "val", "test": "query"}[part]
        assert row.label == names[arrays[f"{part}_labels"][int(number), 0]]
        stored = np.asarray(Image.open(root / row.image))
        assert np.array_equal(stored, arrays[f"{part}_images"][int(number)])
    assert LesionDataset.from_folder(root, size=28, progress=False).size == 28
    assert "MedMNIST" in capsys.readouterr().out
    assert json.loads((root / "dataset.json").read_text())["options"]["split"] == "medmnist"


def test_labels_are_in_the_packages_order():
    words = ["actinic", "basal", "benign", "dermatofibroma", "melanoma", "nevi", "vascular"]
    for number, word in enumerate(words):
        assert word in medmnist.INFO["dermamnist"]["label"][str(number)]
    assert dermamnist.LABELS == ("AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC")
    for file, size in zip(files_of("dermamnist"), dermamnist.SIZES, strict=True):
        checksum = medmnist.INFO["dermamnist"]["MD5" if size == 28 else f"MD5_{size}"]
        assert file.checksum == f"md5:{checksum}"


def test_other_splits_can_be_asked_for(npz, tmp_path):
    assert run(npz, tmp_path / "data", "--size", "28", "--split", "paper") == 0
    assert (read_manifest(tmp_path / "data")["split"] == "query").sum() != 8


def test_each_size_has_its_file(npz, tmp_path, capsys):
    assert "dermamnist_64.npz does not exist" in refused(
        capsys, npz, tmp_path / "data", "--seed", "0"
    )
    np.savez_compressed(npz.parent / "dermamnist_64.npz", **dermamnist_arrays(64))
    assert run(npz, tmp_path / "data", "--seed", "0") == 0
    with Image.open(tmp_path / "data" / "images" / "train_00000.png") as image:
        assert image.size == (64, 64)
    assert "28, 64, 128, 224" in refused(capsys, npz, tmp_path / "other", "--size", "100")
    assert "28, 64, 128, 224" in refused(capsys, npz, tmp_path / "other", "--size", "original")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


WRONG = {
    "labels": lambda a: a | {"val_labels": a["val_labels"] + 5},
    "fewer labels": lambda a: a | {"val_labels": a["val_labels"][1:]},
    "size": lambda a: dermamnist_arrays(32),
    "grey": lambda a: a | {"train_images": a["train_images"][..., 0]},
    "floats": lambda a: a | {"train_images": a["train_images"] / 255},
    "missing": lambda a: {k: v for k, v in a.items() if k != "test_images"},
    "objects": lambda a: a | {"train_images": np.array([Bomb()], dtype=object)},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_one_sentence(npz, tmp_path, capsys, change):
    np.savez_compressed(npz, **change(dermamnist_arrays()))
    assert f"{npz} is not the npz file of this size" in refused(capsys, npz, tmp_path / "data")


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Bomb())])
def test_a_file_that_is_not_an_npz_is_one_sentence(npz, tmp_path, capsys, content):
    npz.write_bytes(content)
    assert f"{npz} is not the npz file of this size" in refused(capsys, npz, tmp_path / "data")


@pytest.mark.parametrize("shape", ["(10000000000, 28, 28, 3)", "(-5, 28, 28, 3)", "(20, 28, 28, 3"])
def test_a_header_that_lies_is_noticed_before_memory_is_taken(npz, tmp_path, capsys, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(npz, "w") as archive:
        lying = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        archive.writestr("train_images.npy", lying + bytes(100))
    refused(capsys, npz, tmp_path / "data")


# --- the download -----------------------------------------------------------------------


def test_the_file_is_fetched_from_where_the_package_says(npz, tmp_path, monkeypatch, capsys):
    asked = []

    def fetch(files, folder):
        asked.extend(files)
        folder.mkdir(parents=True)
        shutil.copy(npz, folder)

    monkeypatch.setattr(download, "fetch", fetch)
    root = tmp_path / "data"
    command = ["dermamnist", "--root", str(root), "--size", "28"]
    assert main(command) == 2
    assert "--accept-licence" in capsys.readouterr().err
    assert main([*command, "--accept-licence"]) == 0
    assert len(read_manifest(root)) == 33
    [file] = asked
    table = medmnist.INFO["dermamnist"]
    assert (file.name, file.url) == ("dermamnist.npz", table["url"])
    assert file.checksum == f"md5:{table['MD5']}"
