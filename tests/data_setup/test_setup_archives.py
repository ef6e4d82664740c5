"""Zip archives that somebody made to do harm, or that broke on the way."""

import stat
import zipfile

import pytest

from data_setup.archives import Archive
from derm_hash.errors import InputError


def archive(path, *entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def test_members_are_read_by_their_path(tmp_path):
    path = archive(tmp_path / "a.zip", ("x/", b""), ("x/1.jpg", b"one"), ("2.jpg", b"two"))
    with Archive(path) as content:
        assert list(content.members) == ["x/1.jpg", "2.jpg"]
        assert content.read("x/1.jpg") == b"one"


@pytest.mark.parametrize(
    "name", ["../up.jpg", "a/../../up.jpg", "/etc/passwd", "C:/x.jpg", "..\\up.jpg", "\\\\host\\x"]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, name):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"one"), (name, b"two"))
    with pytest.raises(InputError, match=r"a\.zip is not safe .* points outside"):
        Archive(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, kind):
    info = zipfile.ZipInfo("1.jpg")
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    path = archive(tmp_path / "a.zip", (info, b"/etc/passwd"))
    with pytest.raises(InputError, match=r"'1\.jpg' is a link"):
        Archive(path)


def test_zip_bombs_are_refused_unread(tmp_path):
    bomb = bytes(20 * 1024**2)
    path = archive(tmp_path / "a.zip", ("1.jpg", bomb), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 50_000
    with pytest.raises(InputError, match=r"'1\.jpg' expands \d+-fold"):
        Archive(path)
    small = archive(tmp_path / "b.zip", ("1.txt", b" " * 10**5), compression=zipfile.ZIP_DEFLATED)
    with Archive(small) as content:
        assert content.read("1.txt") == b" " * 10**5


def test_a_directory_that_lies_about_sizes_is_noticed(tmp_path):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"x" * 1000), compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with Archive(path) as opened, pytest.raises(InputError, match=r"1\.jpg in the archive"):
        opened.read("1.jpg")
    content[directory + 24 : directory + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="unpacks to 2147 MB"):
        Archive(path)


def test_encrypted_archives_are_refused(tmp_path):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"one"))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        Archive(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_one_path_twice_is_refused(tmp_path):
    path = archive(tmp_path / "a.zip", ("1.jpg", b"one"), ("1.jpg", b"two"))
    with pytest.raises(InputError, match=r"holds 1\.jpg twice"):
        Archive(path)


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
                for name in opened.members:
                    assert opened.read(name) in (b"one" * 50, b"two" * 50)
        except InputError as error:
            assert str(path) in str(error)


def test_what_is_no_archive_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.zip does not exist"):
        Archive(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match="damaged or no zip file"):
        Archive(tmp_path)
