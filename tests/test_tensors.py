"""Files of tensors: who may read them, and what a full disk leaves."""

import errno
import multiprocessing
import os
import signal

import pytest
import torch

from derm_hash.files import remove_parts, write_text
from derm_hash.tensors import load_tensors, save_tensors


def test_files_can_be_read_by_others_as_the_umask_says(tmp_path):
    """A class shares a cache."""
    before = os.umask(0o022)
    try:
        path = save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"n": "1"})
        assert path.stat().st_mode & 0o777 == 0o644
        os.umask(0o077)
        write_text(tmp_path / "own.txt", "mine")
        assert (tmp_path / "own.txt").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.fixture
def resource():
    """The module with the limits of a process, which hold until the test ends."""
    module = pytest.importorskip("resource", reason="no limits on this system")
    before = module.getrlimit(module.RLIMIT_FSIZE)
    yield module
    module.setrlimit(module.RLIMIT_FSIZE, before)


def limit_files(resource):
    """No file of this process may have more than 1,000 bytes, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, resource):
    path = save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"n": "1"})
    limit_files(resource)
    with pytest.raises(OSError) as caught:
        save_tensors(path, {"x": torch.zeros(1000)}, {"n": "2"})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert load_tensors(path, "n", "a file")[1] == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_leaves_is_removed_by_the_next_one(tmp_path, resource):
    """The limit on the size of a file kills the writer in the middle."""

    def write():
        limit_files(resource)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(1000)}, {})

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGXFSZ
    assert list(tmp_path.iterdir()) != []
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == []
