"""Downloads from a server that cuts, stalls and refuses."""

import dataclasses
import random
import socket
from hashlib import md5
from types import SimpleNamespace

import pytest
from filelock import FileLock
from publishers import Ham
from servers import Faults, Server

from data_setup import download, info
from data_setup.__main__ import main
from data_setup.download import NotOffered, fetch
from data_setup.info import File
from derm_hash.errors import InputError

DATA = random.Random(1).randbytes(50_001)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (10, 10))
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(download, "RETRY", download.RETRY.new(backoff_factor=0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    server.files["/a.zip"] = DATA
    yield server
    server.close()


def checked(server, size=True, checksum=True, data=DATA):
    return File(
        "a.zip",
        server.url + "a.zip",
        len(data) if size else None,
        f"md5:{md5(data).hexdigest()}" if checksum else None,
    )


def get(file, folder):
    fetch([file], folder)
    return (folder / file.name).read_bytes()


def names(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


def failed(file, folder, error=InputError):
    """The one sentence of a download that must fail, with nothing under the file's name."""
    with pytest.raises(error) as raised:
        get(file, folder)
    text = str(raised.value)
    assert "\n" not in text
    assert not (folder / file.name).exists()
    return text


# --- what goes well ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_arrives_once(server, tmp_path, size, checksum, chunked):
    server.faults.chunked = chunked
    file = checked(server, size, checksum)
    assert get(file, tmp_path / "new" / "folder") == DATA
    assert get(file, tmp_path / "new" / "folder") == DATA
    assert len(server.requests) == 1
    assert names(tmp_path / "new" / "folder") == {"a.zip"}


def test_the_bar_counts_bytes_from_where_it_goes_on(server, tmp_path, capsys):
    server.faults.cuts = [20_000]
    fetch([checked(server)], tmp_path)
    error = capsys.readouterr().err
    assert "a.zip" in error
    assert "50.0k/50.0k" in error


# --- cuts and stalls -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_cuts_at_random_bytes(server, tmp_path, seed):
    chance = random.Random(seed)
    server.faults.cuts = [chance.randrange(len(DATA)) for _ in range(chance.randrange(1, 12))]
    assert get(checked(server, seed % 2, seed % 4 < 2), tmp_path) == DATA
    assert names(tmp_path) == {"a.zip"}
    assert server.sent == len(DATA)  # no byte came twice


def test_a_server_that_cannot_resume_sends_the_whole_file(server, tmp_path):
    server.faults = Faults(cuts=[20_000, 30_000], ignore_range=True)
    assert get(checked(server), tmp_path) == DATA


@pytest.mark.parametrize("at", [0, 1, 25_000, len(DATA) - 1, len(DATA)])
def test_a_new_process_goes_on_where_the_last_one_ended(server, tmp_path, monkeypatch, at):
    server.faults.cuts = [at] if at < len(DATA) else []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stop(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(download.time, "sleep", stop)  # between two attempts
        patch.setattr(download.pooch, "file_hash", stop)  # when the part is complete
        get(checked(server), tmp_path)
    assert names(tmp_path) == {"a.zip.part"}
    assert (tmp_path / "a.zip.part").read_bytes() == DATA[:at]
    assert get(checked(server), tmp_path) == DATA
    assert server.requests[-1][1] == (f"bytes={at}-" if 0 < at < len(DATA) else None)
    assert server.sent == len(DATA)


def test_stalls_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (10, 0.5))
    server.faults.stalls = [0, 10_000]
    assert get(checked(server), tmp_path) == DATA
    assert server.requests[-1] == ("/a.zip", "bytes=10000-")


def test_a_server_that_never_gets_further_is_left_with_one_sentence(server, tmp_path):
    server.faults.cuts = [1000] + [0] * 100
    text = failed(checked(server), tmp_path)
    assert server.url in text
    assert "at 1,000 bytes" in text
    assert len(server.requests) == 1 + download.TRIES
    assert names(tmp_path) == {"a.zip.part"}


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.faults.statuses = [503, 429, 500]
    assert get(checked(server), tmp_path) == DATA
    server.faults.statuses = [503] * 100
    assert "503" in failed(dataclasses.replace(checked(server), name="b.zip"), tmp_path)


@pytest.mark.parametrize("part", [DATA[:100], DATA, DATA + b"x", b"x" * 60_000])
def test_a_part_of_any_length_is_completed_or_replaced(server, tmp_path, part):
    (tmp_path / "a.zip.part").write_bytes(part)
    assert get(checked(server, size=False), tmp_path) == DATA


# --- what is wrong is refused -------------------------------------------------------------------


def test_a_wrong_checksum_names_both_and_removes_the_file(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(b"x" * 100)  # of another version
    text = failed(checked(server), tmp_path)
    assert md5(b"x" * 100 + DATA[100:]).hexdigest() in text
    assert md5(DATA).hexdigest() in text
    assert names(tmp_path) == set()
    assert get(checked(server), tmp_path) == DATA


@pytest.mark.parametrize("chunked", [True, False])
def test_a_wrong_size_is_refused(server, tmp_path, chunked):
    server.files["/a.zip"] = DATA + b"<html>"
    server.faults.chunked = chunked
    assert "50,007 bytes instead of 50,001" in failed(checked(server), tmp_path)
    assert names(tmp_path) == set()
    if not chunked:
        assert server.requests == [("/a.zip", None)]


@pytest.mark.parametrize("status", [204, 403, 404])
def test_what_is_not_offered_is_one_sentence_at_once(server, tmp_path, status):
    server.faults.statuses = [status]
    assert str(status) in failed(checked(server), tmp_path, NotOffered)
    assert len(server.requests) == 1


def test_a_server_out_of_reach(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
        text = failed(File("a.zip", url), tmp_path, NotOffered)
    assert f"{url} cannot be downloaded" in text
    assert "refused" in text
    assert "HTTPConnection" not in text


@pytest.mark.parametrize("url", ["nonsense", "circle"])
def test_a_malformed_url_or_a_circle_of_redirects(server, tmp_path, url):
    server.redirects["/circle"] = "/circle"
    url = server.url + url if url == "circle" else url
    assert "cannot be downloaded" in failed(File("a.zip", url), tmp_path, NotOffered)


def test_a_full_disk_is_known_before(server, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=30_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "room" in failed(checked(server), tmp_path)
    assert server.requests == []
    assert "room" in failed(checked(server, size=False), tmp_path)  # as the server states it
    assert names(tmp_path) == set()
    usage.free = 50_001
    server.faults.cuts = [25_000] + [0] * 100
    failed(checked(server), tmp_path)
    usage.free = 25_001  # what is in the part is not needed again
    server.faults.cuts = []
    assert get(checked(server), tmp_path) == DATA


def test_a_file_put_there_by_hand_is_taken_if_it_is_right(server, tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(DATA)
    assert get(checked(server), tmp_path) == DATA
    assert server.requests == []
    (tmp_path / "a.zip").write_bytes(b"x" * len(DATA))
    assert get(checked(server), tmp_path) == DATA
    assert "it is downloaded again" in capsys.readouterr().out


def test_a_second_downloader_is_refused(server, tmp_path):
    with FileLock(tmp_path / ".lock"):
        assert "another data_setup is downloading" in failed(checked(server), tmp_path)
    assert get(checked(server), tmp_path) == DATA


# --- the commands -----------------------------------------------------------------------------


@pytest.fixture
def publish(server, tmp_path, monkeypatch):
    """Let the table of data sets point to the server, which serves what is in a folder."""

    def serve(name, data):
        files = []
        for path in sorted(data.folder.iterdir()):
            server.files[f"/{path.name}"] = content = path.read_bytes()
            checksum = f"md5:{md5(content).hexdigest()}" if name == "ham10000" else None
            files.append(File(path.name, server.url + path.name, len(content), checksum))
        changed = dataclasses.replace(info.INFO[name], files=tuple(files))
        monkeypatch.setitem(info.INFO, name, changed)

    return serve


@pytest.fixture
def ham_server(publish, archives):
    ham = Ham(archives)
    ham.write_metadata()
    ham.write_images("HAM10000_images_part_1.zip", ham.ids[:10])
    ham.write_images("HAM10000_images_part_2.zip", ham.ids[10:])
    ham.write_masks("HAM10000_segmentations_lesion_tschandl.zip")
    publish("ham10000", ham)
    return ham


def test_ham10000_is_downloaded(server, ham_server, prepare, tmp_path, capsys):
    server.faults.cuts = [100, 2000, 3000]
    frame = prepare("ham10000", "--accept-licence")
    folder = tmp_path / "downloads" / "ham10000"
    assert f"Downloads: {folder}" in capsys.readouterr().out
    assert names(folder) == {path.name for path in ham_server.folder.iterdir()}
    assert len(frame) == sum(r["dx"] in ("mel", "nv", "bcc", "bkl") for r in ham_server.records)
    assert (frame["mask"] != "").all()


@pytest.mark.parametrize("name", ["ham10000", "isic2019"])
def test_without_the_licence_nothing_is_fetched(server, tmp_path, refused, name):
    error = refused(name)
    assert "CC BY-NC 4.0" in error
    assert "--accept-licence" in error
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_archives_never_touch_the_network(server, ham_server, tmp_path, prepare, refused):
    (tmp_path / "empty").mkdir()
    refused("ham10000", "--accept-licence", "--archives", tmp_path / "empty")
    prepare("ham10000", "--archives", ham_server.folder)
    assert server.requests == []


def test_the_dry_run_fetches_the_tables_alone(server, isic, publish, tmp_path, root, capsys):
    publish("isic2019", isic)
    assert main(["isic2019", "--root", str(root), "--dry-run", "--accept-licence"]) == 0
    assert "Split 'paper'" in capsys.readouterr().out
    assert names(tmp_path / "downloads" / "isic2019") == {isic.TRUTH, isic.METADATA}
    assert not root.exists()


@pytest.mark.parametrize("status", [403, 404])
def test_when_the_bucket_has_moved_the_way_out_is_told(server, isic, publish, refused, status):
    publish("isic2019", isic)
    server.faults.statuses = [status]
    error = refused("isic2019", "--accept-licence")
    assert str(status) in error
    assert "isic image download --collections 65" in error
    assert "--archives DIR" in error
