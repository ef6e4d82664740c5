"""DermaMNIST from a file in its publisher's layout."""

import shutil
import zipfile

import medmnist
import numpy as np
import pytest
from PIL import Image
from publishers import dermamnist_arrays

from data_setup import dermamnist, publisher
from data_setup.info import files_of
from derm_hash.data.dataset import LesionDataset


@pytest.fixture
def npz(archives):
    np.savez_compressed(archives / "dermamnist.npz", **dermamnist_arrays())
    return archives / "dermamnist.npz"


@pytest.fixture
def command(npz):
    return ["dermamnist", "--archives", npz.parent, "--size", "28"]


def test_pixels_labels_and_parts_arrive_exactly(command, root, prepare, record, capsys):
    frame, arrays = prepare(*command), dermamnist_arrays()
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
    assert record()["options"]["split"] == "medmnist"


def test_labels_are_in_the_packages_order():
    words = ["actinic", "basal", "benign", "dermatofibroma", "melanoma", "nevi", "vascular"]
    for number, word in enumerate(words):
        assert word in medmnist.INFO["dermamnist"]["label"][str(number)]
    assert dermamnist.LABELS == ("AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC")
    for file, size in zip(files_of("dermamnist"), dermamnist.SIZES, strict=True):
        checksum = medmnist.INFO["dermamnist"]["MD5" if size == 28 else f"MD5_{size}"]
        assert file.checksum == f"md5:{checksum}"
        assert file.name == ("dermamnist.npz" if size == 28 else f"dermamnist_{size}.npz")


def test_other_splits_can_be_asked_for(command, prepare):
    assert (prepare(*command, "--split", "paper")["split"] == "query").sum() != 8


def test_each_size_has_its_file(npz, prepare, refused, root):
    command = ["dermamnist", "--archives", npz.parent]
    assert "dermamnist_64.npz does not exist" in refused(*command)
    for size in ("100", "original"):
        assert "28, 64, 128, 224" in refused(*command, "--size", size)
    assert not root.exists()
    np.savez_compressed(npz.parent / "dermamnist_64.npz", **dermamnist_arrays(64))
    prepare(*command)
    with Image.open(root / "images" / "train_00000.png") as image:
        assert image.size == (64, 64)


WRONG = {
    "labels": lambda a: a | {"val_labels": a["val_labels"] + 5},
    "fewer labels": lambda a: a | {"val_labels": a["val_labels"][1:]},
    "size": lambda a: dermamnist_arrays(32),
    "grey": lambda a: a | {"train_images": a["train_images"][..., 0]},
    "floats": lambda a: a | {"train_images": a["train_images"] / 255},
    "missing": lambda a: {k: v for k, v in a.items() if k != "test_images"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_one_sentence(npz, command, refused, change):
    np.savez_compressed(npz, **change(dermamnist_arrays()))
    assert f"{npz} is not the npz file of this size" in refused(*command)


@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_file_that_is_not_an_npz_is_one_sentence(npz, command, refused, content):
    npz.write_bytes(content)
    assert f"{npz} is not the npz file of this size" in refused(*command)


@pytest.mark.parametrize("shape", ["(10000000000, 28, 28, 3)", "(-5, 28, 28, 3)", "(20, 28, 28, 3"])
def test_a_header_that_lies_is_noticed_before_memory_is_taken(npz, command, refused, root, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(npz, "w") as archive:
        lying = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        archive.writestr("train_images.npy", lying + bytes(100))
    refused(*command)
    assert not root.exists()


def test_the_file_is_fetched_from_where_the_package_says(npz, refused, prepare, monkeypatch):
    asked = []

    def fetch(files, folder):
        asked.extend(files)
        folder.mkdir(parents=True)
        shutil.copy(npz, folder)

    monkeypatch.setattr(publisher, "fetch", fetch)
    assert "--accept-licence" in refused("dermamnist", "--size", "28")
    assert len(prepare("dermamnist", "--size", "28", "--accept-licence")) == 33
    assert [file.url for file in asked] == [medmnist.INFO["dermamnist"]["url"]]
