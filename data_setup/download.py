"""Downloads that survive a bad connection: resumed, verified, complete or absent.

A file is downloaded as ``NAME.part`` and renamed once its size and published checksum are right.
An interrupted download continues at the end of its part.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm

from data_setup.info import File
from data_setup.record import TOOL, check_space
from derm_hash.errors import InputError, one_line
from derm_hash.files import locked

BLOCK = 1024**2
SLOW_TO_HASH = 300 * 1024**2
TIMEOUT = (20, 60)  # seconds to wait for a connection, and for the next bytes of one that stalls
TRIES, PAUSE = 6, 2  # attempts in a row that bring nothing new, and seconds between them

# Asks again where a server is busy or cannot be reached, after pauses of 1, 2, 4 ... seconds.
RETRY = urllib3.Retry(
    total=TRIES,
    backoff_factor=0.5,
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),
    raise_on_status=False,
    respect_retry_after_header=False,
)


class NotOffered(InputError):
    """The server cannot be reached or does not give the file: it may have moved."""


def fetch(files: Sequence[File], folder: Path) -> None:
    """Download files into a folder, made if missing, unless they are there already; verify them.

    A download continues where it was stopped; an interrupt keeps what has arrived. `NotOffered`
    if a server cannot be reached, or refuses. `InputError` if the disk is too small, another
    process downloads into the folder, a transfer keeps breaking off, or the size or checksum of a
    file is wrong; then the file is removed.
    """
    busy = f"another data_setup is downloading into {folder}: wait until it has ended"
    with locked(folder, busy, wait=False), requests.Session() as http:
        for scheme in ("http://", "https://"):
            http.mount(scheme, HTTPAdapter(max_retries=RETRY))
        http.headers = {"User-Agent": TOOL, "Accept-Encoding": "identity"}
        missing = [file for file in files if not is_here(file, folder / file.name)]
        here = sum(length(part(folder / file.name)) for file in missing)
        check_space(folder, sum(file.size or 0 for file in missing) - here)
        for file in missing:
            path = folder / file.name
            with tqdm(desc=file.name, unit="B", unit_scale=True) as bar:
                download(http, file, part(path), bar)
            if problem := wrong(file, part(path)):
                part(path).unlink()
                raise InputError(
                    f"{problem}: the file from {file.url} was removed; download it again, and if "
                    "this happens again, the publisher has changed the file"
                )
            part(path).replace(path)


def part(path: Path) -> Path:
    """The path at which a file is stored until it is complete."""
    return path.with_name(f"{path.name}.part")


def length(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def is_here(file: File, path: Path) -> bool:
    """Whether a file exists with the right size and checksum; if they are wrong, print it."""
    if not path.is_file():
        return False
    if problem := wrong(file, path):
        print(f"{problem}; it is downloaded again.")
    return not problem


def wrong(file: File, path: Path) -> str:
    """How the size or checksum differs from what the publisher states; "" if neither does."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"{file.name} has {size:,} bytes instead of {file.size:,}"
    if file.checksum is None:
        return ""
    algorithm, _, expected = file.checksum.partition(":")
    if size > SLOW_TO_HASH:
        print(f"Checking {file.name} ...")
    digest = pooch.file_hash(str(path), alg=algorithm)
    if digest == expected.lower():
        return ""
    return f"{file.name} has the {algorithm} checksum {digest}, and its publisher states {expected}"


def download(http: requests.Session, file: File, path: Path, bar: tqdm) -> None:
    """Fetch the rest of a part; `InputError` if `TRIES` requests in a row bring nothing new."""
    failures, most = 0, length(path)
    while True:
        try:
            return receive(http, file, path, bar)
        except urllib3.exceptions.HTTPError as error:  # the transfer broke off
            arrived = length(path)
            failures = 0 if arrived > most else failures + 1
            most = max(most, arrived)
            if failures == TRIES:
                raise InputError(
                    f"the download of {file.url} breaks off again and again, the last time at "
                    f"{arrived:,} bytes ({one_line(error)}): run the same command later, and it "
                    "continues from there"
                ) from error
            time.sleep(PAUSE * failures)


def receive(http: requests.Session, file: File, path: Path, bar: tqdm) -> None:
    """Append what is missing to the part, in one request; urllib3's error if it breaks off."""
    start = length(path)
    if start and start == file.size:
        return
    rest = {"Range": f"bytes={start}-"} if start else {}
    try:
        answer = http.get(file.url, headers=rest, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        reason = getattr(error.args[0], "reason", error) if error.args else error
        reason = one_line(reason).rpartition("): ")[2]  # without urllib3's object
        raise NotOffered(f"{file.url} cannot be downloaded ({reason})") from error
    with answer:
        status, headers = answer.status_code, answer.headers
        if status == 416 and start:  # the server has no more than the part
            if headers.get("Content-Range") == f"bytes */{start}":
                return
            path.unlink()
            raise urllib3.exceptions.HTTPError("the server's file is shorter than the part")
        if status not in (200, 206):
            reason = f"the server answers {status} {answer.reason}"
            raise NotOffered(f"{file.url} cannot be downloaded ({reason})")
        if status == 200:  # all of it, from a server that cannot resume
            path.unlink(missing_ok=True)
            start = 0
        stated = headers.get("Content-Length", "")
        total = start + int(stated) if stated.isdigit() else file.size
        if file.size not in (None, total):
            raise InputError(
                f"{file.url} has {total:,} bytes instead of {file.size:,}, so the publisher has "
                "changed the file or something answers in its place: download it with a browser, "
                "and if it is right use --archives DIR"
            )
        check_space(path.parent, (total or start) - start)
        bar.total, bar.n = total, start
        with path.open("ab") as output:
            while block := answer.raw.read1(BLOCK):
                output.write(block)
                bar.update(len(block))
