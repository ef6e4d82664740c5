"""Files are written whole or not at all; threads stop when one fails."""

import threading

import pytest

from derm_hash.errors import InputError
from derm_hash.files import thread_map, write_atomically


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
