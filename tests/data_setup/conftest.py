"""Small archives and folders to prepare, and where the real ones are."""

import pytest
from helpers import encoded, noise
from publishers import Ham
from real_data import SHARED


@pytest.fixture
def shared_ham10000():
    folder = SHARED / "ham10000"
    if not folder.is_dir():
        pytest.skip(f"HAM10000 is not in {folder}")
    return folder


@pytest.fixture
def shared_isic2019():
    folder = SHARED / "isic2019"
    if not folder.is_dir():
        pytest.skip(f"ISIC 2019 is not in {folder}")
    return folder


@pytest.fixture
def ham(tmp_path):
    """The files as the reduced copies name them."""
    folder = tmp_path / "archives"
    folder.mkdir()
    data = Ham(folder)
    data.write_metadata()
    data.write_images()
    data.write_masks()
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
