"""Files are written whole or not at all; threads stop when one fails."""

import errno
import os
import threading

import pytest
import torch
from safetensors import SafetensorError

from derm_hash import files
from derm_hash.errors import InputError
from derm_hash.files import load_tensors, save_tensors, thread_map, write_atomically


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_files_can_be_read_by_others_as_the_umask_says(tmp_path):
    """safetensors makes files that only their owner may read; a class shares a cache."""
    before = os.umask(0o022)
    try:
        path = save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"n": "1"})
        assert path.stat().st_mode & 0o777 == 0o644
        os.umask(0o077)
        files.write_text(tmp_path / "own.txt", "mine")
        assert (tmp_path / "own.txt").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), SafetensorError("I/O error (os error 28)")]
)
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, error):
    path = save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"n": "1"})

    def full(*args):
        raise error

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError) as caught:
        save_tensors(path, {"x": torch.zeros(2)}, {"n": "2"})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert load_tensors(path, "n", "a file")[1] == {"n": 1}


def test_threads_stop_at_the_first_error():
    started, gate = [], threading.Event()

    def work(i):
        started.append(i)
        if i == 0:
            raise InputError("broken")
        gate.wait(0.05)

    with pytest.raises(InputError, match="broken"):
        list(thread_map(work, range(500), "test", progress=False, workers=2))
    assert len(started) < 100


def test_threads_stop_when_nobody_takes_their_results_any_more():
    started = []

    def work(i):
        started.append(i)
        threading.Event().wait(0.01)

    results = thread_map(work, range(500), "test", progress=False, workers=2)
    next(results)
    results.close()  # as after a break, or an interrupt in the loop that takes them
    assert len(started) < 100
