"""Zip archives and folders as sources of images."""

import zipfile
from contextlib import ExitStack

import pytest

from data_setup.sources import MAX_BYTES, files_in, images_by_id, read
from derm_hash.errors import InputError


def archive(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def contents(place):
    """Path -> bytes of every file that the place gives."""
    with ExitStack() as stack:
        return {name: read(source) for name, source in files_in(place, stack).items()}


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_the_files_of_an_archive_or_folder_by_their_paths(tmp_path, kind):
    files = {"x/1.jpg": b"one", "2.jpg": b"two", "__MACOSX/._2.jpg": b"x", ".DS_Store": b"x"}
    place = archive(tmp_path / "a.zip", {"x/": b""} | files)
    if kind == "folder":
        with zipfile.ZipFile(place) as packed:
            packed.extractall(place := tmp_path / "a")
    found = contents(place)
    assert found == {"2.jpg": b"two", "x/1.jpg": b"one"}
    assert next(iter(found)) == "2.jpg"
    with ExitStack() as stack:
        found = files_in(place, stack)
        ids = images_by_id(found, lambda name: name[-5] if name != "2.jpg" else None)
        assert ids == {"1": found["x/1.jpg"]}
        with pytest.raises(InputError, match=r"1\.jpg .*2\.jpg .*are both a: remove one of them"):
            images_by_id(found, lambda name: "a")


def test_paths_of_members_are_never_paths_of_files(tmp_path):
    """The kit stores images under names of its own, wherever a member wants to lie."""
    files = {"../up.jpg": b"one", "/etc/passwd": b"two"}
    assert contents(archive(tmp_path / "a.zip", files)) == files
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("claimed", "named"),
    [(10, r"1\.jpg in the archive"), (MAX_BYTES + 1, "more than 537 MB")],
)
def test_members_that_claim_another_size_are_refused(tmp_path, claimed, named):
    path = archive(tmp_path / "a.zip", {"1.jpg": b"x" * 1000}, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size of the unpacked file
    content[at : at + 4] = claimed.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=named):
        contents(path)


def test_encrypted_members_are_named(tmp_path):
    path = archive(tmp_path / "a.zip", {"1.jpg": b"one"})
    content = bytearray(path.read_bytes())
    for at in (content.rindex(b"PK\x01\x02") + 8, 6):
        content[at] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="has a password"):
        contents(path)


def test_archives_in_archives_have_an_end(tmp_path):
    content = archive(tmp_path / "0.zip", {"x.jpg": b"x"}).read_bytes()
    for i in range(4):
        content = archive(tmp_path / "next.zip", {f"{i}.zip": content}).read_bytes()
    with ExitStack() as stack:
        assert list(files_in(tmp_path / "next.zip", stack)) == ["3.zip"]
        assert list(files_in(tmp_path / "next.zip", stack, lambda name: True)) == [
            "3.zip/2.zip/1.zip"
        ]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.zip does not exist"):
        contents(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read"):
        read(tmp_path / "gone.jpg")
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"large\.jpg has more than 537 MB"):
        read(large)
