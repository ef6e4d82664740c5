"""Files of tensors: who may read them, and what a full disk leaves."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from derm_hash import tensors
from derm_hash.files import write_text
from derm_hash.tensors import load_tensors, save_tensors


def test_files_can_be_read_by_others_as_the_umask_says(tmp_path):
    """safetensors makes files that only their owner may read; a class shares a cache."""
    before = os.umask(0o022)
    try:
        path = save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"n": "1"})
        assert path.stat().st_mode & 0o777 == 0o644
        os.umask(0o077)
        write_text(tmp_path / "own.txt", "mine")
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

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError) as caught:
        save_tensors(path, {"x": torch.zeros(2)}, {"n": "2"})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert load_tensors(path, "n", "a file")[1] == {"n": 1}
