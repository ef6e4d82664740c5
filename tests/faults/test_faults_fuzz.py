"""Thousands of damaged files from strangers: each is read, or refused in one sentence.

``make test`` damages 100 files for each reader, ``make test-full`` 2,000.
"""

import random
import re
import signal
from contextlib import contextmanager
from pathlib import Path

import loaders
import pytest

from derm_hash.errors import InputError

pytestmark = pytest.mark.usefixtures("little_memory")

WORDS = [
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"null", b"true", b"\0"),
    *(b"../..", b"/etc/passwd", b"[" * 5000, b'"', b",", b"\n", b"{}", b"\xff\xfe", b"4294967295"),
]


class TooSlow(BaseException):
    """A reader hangs. No Exception: readers take those for the errors of a damaged file."""


@contextmanager
def time_limit(seconds: float):
    """Raise TooSlow in a reader that takes longer."""

    def ring(*_):
        raise TooSlow(f"a file took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error came of a claim on more memory than there is."""
    while error is not None:
        # torch and pandas say it in words.
        if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


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
        injure(data, at, length, rng)
    return bytes(data)


def injure(data: bytearray, at: int, length: int, rng: random.Random) -> None:
    """One injury of a random kind at a place in a file."""
    end, numbers = at + length, list(re.finditer(rb"\d+", bytes(data)))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at:end] = rng.randbytes(length)
        case 2:
            data[at:end] = bytes([rng.choice([0, 255, 32, 127])]) * length
        case 3:
            del data[at:]
        case 4:
            del data[at:end]
        case 5:
            data[at:at] = data[at : at + length * 4]  # once more
        case 6:
            data[at : at + rng.choice([0, length])] = rng.choice(WORDS)
        case 7 if numbers:
            chosen = rng.choice(numbers)
            data[chosen.start() : chosen.end()] = rng.choice(WORDS)


def fuzz(load, path: Path, kept: Path, rng: random.Random, files: int, seconds=20) -> int:
    """Read damaged copies of a file, and keep the first that its reader cannot bear.

    Returns how many were refused. AssertionError if one is neither read nor refused in one
    sentence, takes too long or too much memory.
    """
    content, refused = path.read_bytes(), 0
    for number in range(files):
        spoiled = damaged(content, rng)
        path.write_bytes(spoiled)
        try:
            with time_limit(seconds):
                refused += was_refused(load, path)
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
def test_damaged_files_are_read_or_refused_in_one_sentence(name, tmp_path, full):
    path, load = loaders.prepared(tmp_path / "folder", name)
    load(path)  # it is sound
    files = 2000 if full else 100
    refused = fuzz(load, path, tmp_path / "spoiled", random.Random(name), files)
    print(f"{name}: {files} files, {refused} refused")
    assert refused > 5
