"""Every reader of files, on thousands of damaged ones: it reads them, or refuses in one sentence.

``make test`` damages 100 files for each reader, ``make test-full`` 2,000.
"""

import random
import re
import signal

import loaders
import psutil
import pytest

from derm_hash.errors import InputError

SECONDS = 20  # for one file, on a busy machine
MEMORY = 600_000_000  # bytes that reading may add
WORDS = [
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"null", b"true", b"\0"),
    *(b"../..", b"/etc/passwd", b"[" * 5000, b'"', b",", b"\n", b"{}", b"\xff\xfe", b"4294967295"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch, little_memory):
    loaders.use_pocket(monkeypatch)


@pytest.fixture
def alarm():
    """Ends a reader that hangs."""

    def ring(*_):
        raise AssertionError(f"a file took more than {SECONDS} s")

    old = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", loaders.LOADERS)
def test_damaged_files_are_read_or_refused_in_one_sentence(name, tmp_path, alarm, full):
    path, load = loaders.prepared(tmp_path / "folder", name)
    load(path)  # it is sound
    content, rng = path.read_bytes(), random.Random(name)
    before = psutil.Process().memory_info().rss
    refused = 0
    for number in range(2000 if full else 100):
        spoiled = damaged(content, rng)
        path.write_bytes(spoiled)
        alarm(SECONDS)
        try:
            load(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error), f"file {number}: {error}"
        except Exception as error:
            kept = tmp_path / "spoiled"
            kept.write_bytes(spoiled)
            raise AssertionError(f"file {number} of {name}, {kept}: {error!r}") from error
        finally:
            alarm(0)
    print(f"{name}: {number + 1} files, {refused} refused")
    assert refused > 5
    assert psutil.Process().memory_info().rss - before < MEMORY
