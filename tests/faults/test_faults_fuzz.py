"""Thousands of damaged files from strangers: each is read, or refused in one sentence.

``make test`` damages 100 files for each reader, ``make test-full`` 2,000.
"""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import limits
import loaders
import numpy as np
import pytest
import torch
from limits import PeakMemory, TooSlow, ran_out_of_memory, time_limit

from derm_hash.errors import InputError

WORDS = [
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"null", b"true", b"\0"),
    *(b"../..", b"/etc/passwd", b"[" * 5000, b'"', b",", b"\n", b"{}", b"\xff\xfe", b"4294967295"),
]


@pytest.fixture(autouse=True)
def small(little_memory):
    pass


@pytest.fixture(scope="module")
def console(pytestconfig):
    """The error output that pytest does not catch, for what is said just before the end."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        copy = os.dup(sys.__stderr__.fileno())
    with open(copy, "w") as file:  # noqa: PTH123
        yield file


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy with one to three injuries."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(data) + 1)
        # Half of the injuries hit the start or the end, where headers and directories are.
        if rng.random() < 0.5:
            at = min(len(data), int(rng.expovariate(1 / 60)))
            at = at if rng.random() < 0.6 else len(data) - at
        length = min(len(data) - at, 1 + int(rng.expovariate(1 / 6)))
        rng.choice([flip, noise, same, cut, drop, again, word, number])(data, at, length, rng)
    return bytes(data)


def flip(data, at, length, rng):
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def noise(data, at, length, rng):
    data[at : at + length] = rng.randbytes(length)


def same(data, at, length, rng):
    data[at : at + length] = bytes([rng.choice([0, 255, 32, 127])]) * length


def cut(data, at, length, rng):
    del data[at:]


def drop(data, at, length, rng):
    del data[at : at + length]


def again(data, at, length, rng):
    data[at:at] = data[at : at + length * 4]


def word(data, at, length, rng):
    data[at : at + rng.choice([0, length])] = rng.choice(WORDS)


def number(data, at, length, rng):
    """Replace a number in the text that a file holds."""
    found = list(re.finditer(rb"\d+", bytes(data)))
    if found:
        chosen = rng.choice(found)
        data[chosen.start() : chosen.end()] = rng.choice(WORDS)


def fuzz(load, path: Path, kept: Path, rng: random.Random, files: int, console=None) -> int:
    """Read damaged copies of a file, and keep the first that its reader cannot bear.

    Returns how many were refused. AssertionError if one is neither read nor refused in one
    sentence, takes too long or too much memory.
    """
    content, memory, refused = path.read_bytes(), PeakMemory(), 0
    for number in range(files):
        spoiled = damaged(content, rng)
        path.write_bytes(spoiled)
        try:
            with time_limit(limits.SECONDS, console):
                refused += was_refused(load, path)
            added = memory.added()
            assert added < limits.MEMORY, f"{added / 1e6:.0f} MB of memory"
        except (Exception, TooSlow) as error:
            kept.write_bytes(spoiled)
            raise AssertionError(f"file {number}, {kept}: {error!r}") from error
    return refused


def was_refused(load, path: Path) -> bool:
    """Whether a file is refused, in one sentence and not for want of memory."""
    try:
        load(path)
    except InputError as error:
        assert "\n" not in str(error), str(error)
        assert not ran_out_of_memory(error), f"no memory: {error}"
        return True
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in loaders.LOADERS if name not in loaders.OWN])
def test_damaged_files_are_read_or_refused_in_one_sentence(name, tmp_path, console, full):
    path, load = loaders.prepared(tmp_path / "folder", name)
    load(path)  # it is sound
    files = 2000 if full else 100
    refused = fuzz(load, path, tmp_path / "spoiled", random.Random(name), files, console)
    print(f"{name}: {files} files, {refused} refused")
    assert refused > 5


# --- that a reader which hangs or takes too much is noticed -----------------------------------

knows_memory = pytest.mark.skipif(
    not PeakMemory().known, reason="the peak of a process cannot be read here"
)


def sleep(path):
    time.sleep(30)


def take_much(path):
    np.ones(200_000_000, np.uint8)


def claim_a_terabyte(path):
    np.ones(10**12, np.uint8)


def claim_a_terabyte_of_torch(path):
    torch.ones(10**12, dtype=torch.uint8)


def refusing(read):
    """A reader that takes whatever happens for a damaged file."""

    def load(path):
        try:
            read(path)
        except Exception as error:
            raise InputError("the file is damaged: replace it") from error

    return load


@pytest.mark.parametrize(
    ("read", "limit", "reason"),
    [
        (sleep, ("SECONDS", 1), "TooSlow"),
        pytest.param(
            take_much,
            ("MEMORY", 100_000_000),
            "[12][0-9]{2} MB of memory",
            marks=knows_memory,
        ),
        (claim_a_terabyte, ("MEMORY", 100_000_000), "no memory"),
        (claim_a_terabyte_of_torch, ("MEMORY", 100_000_000), "no memory"),
    ],
)
def test_a_reader_that_takes_too_much_is_noticed_whatever_it_catches(
    tmp_path, monkeypatch, read, limit, reason
):
    monkeypatch.setattr(limits, *limit)
    path, kept = tmp_path / "file", tmp_path / "kept"
    path.write_bytes(b"content")
    with pytest.raises(AssertionError, match=f"file 0, .*kept.*{reason}"):
        fuzz(refusing(read), path, kept, random.Random(0), 3)
    assert kept.read_bytes() == path.read_bytes()


@knows_memory
def test_memory_that_one_file_of_many_takes_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MEMORY", 100_000_000)
    path, seen = tmp_path / "file", []
    path.write_bytes(b"content")

    def load(path):
        seen.append(path)
        if len(seen) == 3:
            take_much(path)

    with pytest.raises(AssertionError, match=r"file 2, .* MB of memory"):
        fuzz(load, path, tmp_path / "kept", random.Random(0), 5)


def test_a_reader_that_hears_no_signal_ends_the_process():
    program = "import limits\nwith limits.time_limit(0.2): sum(range(10**18))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "Timeout" in done.stderr
