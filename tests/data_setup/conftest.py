"""Small archives and folders to prepare, where the real ones are, and commands to run."""

import json

import pytest
from helpers import encoded, noise
from publishers import Ham, Isic2019
from real_data import SHARED

from data_setup.__main__ import main
from derm_hash.data.manifest import read_manifest


def shared(name):
    """A fixture of a folder of real data."""

    @pytest.fixture(scope="session")
    def folder():
        if not (SHARED / name).is_dir():
            pytest.skip(f"{name} is not in {SHARED}")
        return SHARED / name

    return folder


shared_ham10000, shared_isic2019 = shared("ham10000"), shared("isic2019")


@pytest.fixture
def archives(tmp_path):
    (folder := tmp_path / "archives").mkdir()
    return folder


@pytest.fixture
def ham(archives):
    """The files as the reduced copies name them."""
    data = Ham(archives)
    data.write_metadata()
    data.write_images()
    data.write_masks()
    return data


@pytest.fixture
def isic(archives):
    data = Isic2019(archives)
    data.write()
    return data


@pytest.fixture
def class_folders(tmp_path):
    """Two folders of ten images each, in several formats and depths."""
    source = tmp_path / "own images"
    kinds = [("png", "PNG"), ("JPG", "JPEG"), ("tif", "TIFF"), ("bmp", "BMP")]
    for label in ("naevus", "other things"):
        for i in range(10):
            suffix, kind = kinds[i % 4]
            path = source / label / ("nested" if i > 6 else "") / f"{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(noise(i), kind))
    return source


@pytest.fixture
def root(tmp_path):
    """The data folder that the commands fill."""
    return tmp_path / "data"


@pytest.fixture
def prepare(root):
    """Run a command that must succeed; its manifest."""

    def run(*command, root=root):
        assert main([*map(str, command), "--root", str(root)]) == 0
        return read_manifest(root)

    return run


@pytest.fixture
def refused(root, capsys):
    """Run a command that must fail, and leave no data set; its one sentence."""

    def run(*command):
        assert main([*map(str, command), "--root", str(root)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("data_setup: ")
        assert not (root / "manifest.csv").exists()
        return error

    return run


@pytest.fixture
def record(root):
    """The data folder's dataset.json, read when asked for."""
    return lambda: json.loads((root / "dataset.json").read_text())
