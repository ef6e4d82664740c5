"""Published data sets as people have them on their disks: the same manifest from every layout."""

import errno
import shutil
import struct
import zipfile

import pytest
from publishers import Ham, Isic2019, write_zip

from data_setup.__main__ import main
from derm_hash.data.manifest import read_manifest

PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MASKS = "HAM10000_segmentations_lesion_tschandl"


@pytest.fixture
def prepare(filled):
    """Prepare HAM10000; its manifest, or the error."""
    return lambda archives: filled("ham10000", "--archives", archives)[0]


@pytest.fixture
def published(tmp_path):
    """HAM10000 as its publisher's zip files."""
    (folder := tmp_path / "published").mkdir()
    ham = Ham(folder)
    ham.write_metadata()
    ham.write_images(f"{PARTS[0]}.zip", ham.ids[:10])
    ham.write_images(f"{PARTS[1]}.zip", ham.ids[10:])
    ham.write_masks(f"{MASKS}.zip", prefix=f"{MASKS}/", extra={f"__MACOSX/{MASKS}/._x.png": b"x"})
    return folder


def unpacked(published, place):
    for archive in published.glob("*.zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(place / archive.stem)
    shutil.copy(published / "HAM10000_metadata.csv", place)
    return place


def zipped(folder, path, inside=""):
    files = [file for file in folder.rglob("*") if file.is_file()]
    return write_zip(
        path, {inside + file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    )


def twice(published, place):
    """As on Kaggle, where the folders are there again in small letters."""
    for part in PARTS:
        shutil.copytree(unpacked(published, place) / part, place / part.lower())
    return place


def plain_names(published, place):
    folder = unpacked(published, place / "x")
    (folder / PARTS[0]).rename(folder / "images")
    for file in (folder / PARTS[1]).iterdir():
        file.rename(folder / "images" / file.name)
    (folder / MASKS).rename(folder / "masks")
    return folder


def metadata(name, separator, encoding="utf-8"):
    def change(published, place):
        text = (published / "HAM10000_metadata.csv").read_text().replace(",", separator)
        (published / "HAM10000_metadata.csv").unlink()
        (published / name).write_bytes(text.encode(encoding))
        return published

    return change


LAYOUTS = {
    "folders": unpacked,
    "folders twice": twice,
    "folders of other names": plain_names,
    "zip of zips": lambda published, place: zipped(published, place / "dataverse_files.zip"),
    "zip of folders": lambda published, place: zipped(
        unpacked(published, place / "x"), place / "archive.zip", "ham/"
    ),
    "folder with zip of zips": lambda published, place: (
        zipped(published, place / "archive.zip").parent
    ),
    "metadata with semicolons": metadata("HAM10000_metadata.csv", ";", "utf-16"),
    "metadata with tabs": metadata("HAM10000_metadata.tab", "\t"),
    "metadata without a suffix": metadata("HAM10000_metadata", ","),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ham10000_has_the_same_manifest_from_every_layout(published, prepare, tmp_path, layout):
    expected = prepare(published)
    assert (expected["mask"] != "").all()
    (place := tmp_path / "theirs").mkdir()
    found = prepare(LAYOUTS[layout](published, place))
    assert found.to_csv() == expected.to_csv()


def test_isic2019_may_be_in_one_zip_file(tmp_path):
    (folder := tmp_path / "isic").mkdir()
    Isic2019(folder).write()
    found = []
    for place in (folder, zipped(folder, tmp_path / "all.zip", "isic/")):
        root = tmp_path / f"data {place.name}"
        assert main(["isic2019", "--archives", str(place), "--root", str(root)]) == 0
        found.append(read_manifest(root).to_csv())
    assert found[0] == found[1]


def test_a_full_disk_is_not_a_damaged_archive(published, prepare, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data_setup.sources.shutil.copyfileobj", full)
    error = prepare(zipped(published, tmp_path / "all.zip"))
    assert "No space left on device: make room" in error and "damaged" not in error


def test_backslashes_in_an_archive_are_folders(published, prepare, tmp_path):
    expected = prepare(published)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in unpacked(published, tmp_path / "x").rglob("*.*"):
            if file.is_file():
                info = zipfile.ZipInfo("x")
                info.filename = str(file.relative_to(tmp_path / "x")).replace("/", "\\")
                archive.writestr(info, file.read_bytes())
    assert prepare(tmp_path / "all.zip").to_csv() == expected.to_csv()


def changed(path, local, central, value):
    """Change two bytes in each header of a zip file."""
    data = bytearray(path.read_bytes())
    for begin, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = -1
        while (start := data.find(begin, start + 1)) >= 0:
            data[start + offset : start + offset + 2] = struct.pack("<H", value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ((8, 10), 9, "compressed by the method deflate64, which Python cannot unpack"),
        ((8, 10), 97, "compressed by the method wavpack, which Python cannot unpack"),
        ((6, 8), 1, "has a password"),
    ],
)
def test_an_archive_that_python_cannot_unpack_is_named(published, prepare, where, value, named):
    changed(published / f"{PARTS[0]}.zip", *where, value)
    error = prepare(published)
    assert named in error and "unpack the archive with another program" in error
    assert "download it again" not in error


@pytest.mark.parametrize("content", [b"Rar!\x1a\x07", b"7z\xbc\xaf'\x1c"])
def test_an_archive_of_another_kind_is_to_be_unpacked(prepare, tmp_path, content):
    (tmp_path / "all.zip").write_bytes(content + bytes(300))
    error = prepare(tmp_path / "all.zip")
    assert "all.zip is damaged or not a zip file" in error
    assert "unpack an archive of another kind (RAR, 7-Zip, tar) and name the folder" in error
