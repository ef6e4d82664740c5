"""Zip archives and folders as sources of images."""

import zipfile
from contextlib import ExitStack

import pytest

from data_setup.archives import Archive
from data_setup.sources import MAX_BYTES, files_in, images_by_id, read
from derm_hash.errors import InputError


def archive(path, *entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_the_files_of_an_archive_or_folder_by_their_paths(tmp_path, kind):
    files = {"x/1.jpg": b"one", "2.jpg": b"two", "__MACOSX/._2.jpg": b"x", ".DS_Store": b"x"}
    place = archive(tmp_path / "a.zip", ("x/", b""), *files.items())
    if kind == "folder":
        place = tmp_path / "a"
        with zipfile.ZipFile(tmp_path / "a.zip") as packed:
            packed.extractall(place)
    with ExitStack() as stack:
        found = files_in(place, stack)
        assert {name: read(source) for name, source in found.items()} == {
            "2.jpg": b"two",
            "x/1.jpg": b"one",
        }
        assert next(iter(found)) == "2.jpg"
        ids = images_by_id(found, lambda name: name[-5] if name != "2.jpg" else None)
        assert ids == {"1": found["x/1.jpg"]}
        with pytest.raises(InputError, match=r"2\.jpg .*1\.jpg .*are both a: remove one of them"):
            images_by_id(dict(sorted(found.items(), reverse=True)), lambda name: "a")


def test_paths_of_members_are_never_paths_of_files(tmp_path):
    """The kit stores images under names of its own, wherever a member wants to lie."""
    path = archive(tmp_path / "a.zip", ("../up.jpg", b"one"), ("/etc/passwd", b"two"))
    with Archive(path) as content:
        assert [member.read_bytes() for member in content.members.values()] == [b"one", b"two"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_members_that_claim_to_be_huge_are_refused_unread(tmp_path):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"x" * 1000), compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size of the unpacked file
    content[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with Archive(path) as opened, pytest.raises(InputError, match=r"1\.jpg in the archive"):
        read(opened.members["1.jpg"])
    content[at : at + 4] = (MAX_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(content)
    with Archive(path) as opened, pytest.raises(InputError, match="more than 537 MB"):
        read(opened.members["1.jpg"])


def test_encrypted_members_are_named(tmp_path):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"one"))
    content = bytearray(path.read_bytes())
    for at in (content.rindex(b"PK\x01\x02") + 8, 6):
        content[at] |= 1
    path.write_bytes(content)
    with Archive(path) as opened, pytest.raises(InputError, match="encrypted"):
        read(opened.members["1.jpg"])


def test_every_truncation_and_many_flips_are_noticed_or_harmless(tmp_path):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"one" * 50), ("2.jpg", b"two" * 50))
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(0, len(whole), 7)]
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        try:
            with Archive(path) as opened:
                for member in opened.members.values():
                    assert read(member) in (b"one" * 50, b"two" * 50)
        except InputError as error:
            assert str(path) in str(error)


def test_what_is_not_an_archive_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.zip does not exist"):
        Archive(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match="damaged or not a zip file"):
        Archive(tmp_path)
