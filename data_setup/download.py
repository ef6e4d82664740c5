"""Downloads that survive a bad connection: resumed, verified, complete or absent.

A file grows as ``NAME.part`` and gets its name when its size and checksum are right.
``downloads.json`` beside the files notes the size, time and checksum of each complete file, so that
it is not hashed each time and, where the publisher states no checksum, a later download is compared
with the first one. Of a part it notes the server's mark of the version: parts of two versions are
never joined.
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
from data_setup.record import TOOL, check_space, read_json, sole_writer, write_json
from derm_hash.errors import InputError, one_line

LEDGER = "downloads.json"
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


def fetch(files: Sequence[File], folder: Path, progress: bool = True) -> None:
    """Download files into a folder, made if missing, unless they are there already; verify them.

    A download goes on where an earlier one ended; an interrupt keeps what has arrived. `NotOffered`
    if a server cannot be reached, or refuses. `InputError` if the disk is too small, another
    process downloads into the folder, a transfer keeps breaking off, or the size or checksum of a
    file is wrong; then the file is removed.
    """
    busy = f"another data_setup is downloading into {folder}: wait until it has ended"
    with sole_writer(folder, busy), requests.Session() as http:
        for scheme in ("http://", "https://"):
            http.mount(scheme, HTTPAdapter(max_retries=RETRY))
        http.headers = {"User-Agent": TOOL, "Accept-Encoding": "identity"}
        notes = read_json(folder / LEDGER, "delete it, and the files are checked anew")
        missing = [file for file in files if not is_here(file, folder / file.name, notes)]
        here = sum(length(part(folder / file.name)) for file in missing)
        check_space(folder, sum(file.size or 0 for file in missing) - here)
        for file in missing:
            path = folder / file.name
            with tqdm(desc=file.name, unit="B", unit_scale=True, disable=not progress) as bar:
                download(http, file, path, notes, bar)
            if problem := wrong(file, part(path), notes):
                part(path).unlink()
                accept = "" if file.checksum else f" (delete {folder / LEDGER} to accept that)"
                raise InputError(
                    f"{problem}: what came from {file.url} was removed; try again, and if it stays "
                    f"so the publisher has changed the file{accept}"
                )
            part(path).replace(path)


def part(path: Path) -> Path:
    """What a file is called until it is complete."""
    return path.with_name(f"{path.name}.part")


def length(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def is_here(file: File, path: Path, notes: dict) -> bool:
    """Whether a file is there and right; it is hashed unless size and time are those noted."""
    if not path.is_file():
        return False
    noted, stat = notes.get(file.name, {}), path.stat()
    same = (noted.get("size"), noted.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
    if same and file.checksum in (None, noted["hash"]):
        return True
    if problem := wrong(file, path, notes):
        print(f"{problem}; it is downloaded again.")
    return not problem


def wrong(file: File, path: Path, notes: dict) -> str:
    """How size or checksum differ from those stated or noted; "" and a note if they do not."""
    stat, noted = path.stat(), notes.get(file.name, {}).get("hash")
    if file.size is not None and stat.st_size != file.size:
        return f"{file.name} has {stat.st_size:,} bytes instead of {file.size:,}"
    algorithm, _, expected = (file.checksum or noted or "sha256:").partition(":")
    if stat.st_size > SLOW_TO_HASH:
        print(f"Checking {file.name} ...")
    digest = pooch.file_hash(str(path), alg=algorithm)
    if not expected:
        print(
            f"{file.name}: no checksum is published; its SHA-256, {digest}, is recorded in "
            f"{LEDGER} and compared from now on."
        )
    elif digest != expected.lower():
        whose = "its publisher states" if file.checksum else f"{LEDGER} has from the first download"
        return f"{file.name} has the {algorithm} checksum {digest}, and {whose} {expected}"
    facts = {"hash": f"{algorithm}:{digest}", "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    notes[file.name] = facts | {"url": file.url}
    write_json(path.with_name(LEDGER), notes)
    return ""


def download(http: requests.Session, file: File, path: Path, notes: dict, bar: tqdm) -> None:
    """Fetch what is missing of a file's part, in as many requests as bring something new."""
    failures, most = 0, length(part(path))
    while True:
        try:
            return receive(http, file, path, notes, bar)
        except urllib3.exceptions.HTTPError as error:  # the transfer broke off
            arrived = length(part(path))
            failures = 0 if arrived > most else failures + 1
            most = max(most, arrived)
            if failures == TRIES:
                raise InputError(
                    f"the download of {file.url} breaks off again and again, the last time at "
                    f"{arrived:,} bytes ({one_line(error)}): the same command goes on from there "
                    "later"
                ) from error
            time.sleep(PAUSE * failures)


def receive(http: requests.Session, file: File, path: Path, notes: dict, bar: tqdm) -> None:
    """Append what is missing to the part, in one request; urllib3's error if it breaks off."""
    noted = notes.get(file.name, {})
    start = length(part(path)) if noted.get("mark") else 0
    if start and start == noted.get("length"):
        return
    # The server sends the rest if it still has this version, and else all of the new one.
    rest = {"Range": f"bytes={start}-", "If-Range": noted.get("mark")} if start else {}
    try:
        answer = http.get(file.url, headers=rest, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        reason = getattr(error.args[0], "reason", error) if error.args else error
        reason = one_line(reason).rpartition("): ")[2]  # without urllib3's object
        raise NotOffered(f"{file.url} cannot be downloaded ({reason})") from error
    with answer:
        status, headers = answer.status_code, answer.headers
        if status not in (200, 206) and not (status == 416 and start):
            reason = f"the server answers {status} {answer.reason}"
            raise NotOffered(f"{file.url} cannot be downloaded ({reason})")
        etag = headers.get("ETag", "W/")
        mark = headers.get("Last-Modified") if etag.startswith("W/") else etag
        another = status == 206 and mark not in (None, noted.get("mark"))
        if status != 206 or another:
            part(path).unlink(missing_ok=True)
            start = 0
        if status == 416 or another:  # the server knows Range and not If-Range
            raise urllib3.exceptions.HTTPError("the server has another version by now")
        stated = headers.get("Content-Length", "")
        total = start + int(stated) if stated.isdigit() else file.size
        if file.size not in (None, total):
            raise InputError(
                f"{file.url} has {total:,} bytes instead of {file.size:,}, so the publisher has "
                "changed the file or something answers in its place: download it with a browser, "
                "and if it is right use --archives DIR"
            )
        check_space(path.parent, (total or start) - start)
        # Before the first byte, so that no part is ever taken for one of another version.
        notes[file.name] = {"hash": noted.get("hash"), "mark": mark, "length": total}
        write_json(path.with_name(LEDGER), notes)
        bar.total, bar.n = total, start
        with part(path).open("ab") as output:
            while block := answer.raw.read1(BLOCK):
                output.write(block)
                bar.update(len(block))
