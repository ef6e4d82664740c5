"""Zip archives and folders as sources of images."""

import zipfile

import pytest
from publishers import write_zip

from data_setup.sources import MAX_BYTES, files_in, images_by_id, read
from derm_hash.errors import InputError


def contents(place):
    """Path -> bytes of every file that the place gives."""
    return {name: read(source) for name, source in files_in(place).items()}


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_the_files_of_an_archive_or_folder_by_their_paths(tmp_path, kind):
    files = {"x/1.jpg": b"one", "2.jpg": b"two", "__MACOSX/._2.jpg": b"x", ".DS_Store": b"x"}
    place = write_zip(tmp_path / "a.zip", {"x/": b""} | files)
    if kind == "folder":
        with zipfile.ZipFile(place) as packed:
            packed.extractall(place := tmp_path / "a")
    found = contents(place)
    assert found == {"2.jpg": b"two", "x/1.jpg": b"one"}
    assert next(iter(found)) == "2.jpg"
    found = files_in(place)
    assert images_by_id(found, "(1)") == {"1": found["x/1.jpg"]}
    with pytest.raises(InputError, match=r"1\.jpg .*2\.jpg .*are both : remove one of them"):
        images_by_id(found, "(.*).")


def test_paths_of_members_are_never_paths_of_files(tmp_path):
    """The kit stores images under names of its own, wherever a member wants to lie."""
    files = {"../up.jpg": b"one", "/etc/passwd": b"two"}
    assert contents(write_zip(tmp_path / "a.zip", files)) == files
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("claimed", "named"),
    [(10, r"1\.jpg in the archive"), (MAX_BYTES + 1, "more than 537 MB")],
)
def test_members_that_claim_another_size_are_refused(tmp_path, claimed, named):
    path = write_zip(tmp_path / "a.zip", {"1.jpg": b"x" * 1000}, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size of the unpacked file
    content[at : at + 4] = claimed.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=named):
        contents(path)


def test_encrypted_members_are_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1.jpg": b"one"})
    content = bytearray(path.read_bytes())
    for at in (content.rindex(b"PK\x01\x02") + 8, 6):
        content[at] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="has a password"):
        contents(path)


def test_archives_in_archives_have_an_end(tmp_path):
    content = write_zip(tmp_path / "0.zip", {"x.jpg": b"x"}).read_bytes()
    for i in range(4):
        content = write_zip(tmp_path / "next.zip", {f"{i}.zip": content}).read_bytes()
    assert list(files_in(tmp_path / "next.zip")) == ["3.zip"]
    assert list(files_in(tmp_path / "next.zip", lambda name: True)) == ["3.zip/2.zip/1.zip"]


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
