"""Downloads that survive a bad line: resumed, verified, whole or absent.

A file grows as ``NAME.part`` and gets its name when its size and checksum are right.
``downloads.json`` beside the files holds what is known of them: of a complete file size,
time and hash, so that it is not read again each time, and is compared with a later download
where the publisher states no checksum; of a part the server's mark of the version, so that
parts of two versions are never joined.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm.auto import tqdm

from data_setup.common import check_space, locked, tool_version
from data_setup.info import INFO, File, files_of
from derm_hash.errors import InputError
from derm_hash.files import parse_json, write_atomically

LEDGER = "downloads.json"
TIMEOUT = (20, 60)
"""Seconds to wait for a connection, and for the next bytes of one that stalls."""

TRIES = 6
"""Attempts in a row that bring nothing new before a download gives up."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between attempts: doubled each time that one brings nothing new."""

BLOCK = 1024**2
SLOW_TO_HASH = 300 * 1024**2

_BUSY = {408, 425, 429, 500, 502, 503, 504}
_CUT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)


class NotOffered(InputError):
    """The server cannot be reached or does not give the file: it may have moved."""


class _Interrupted(Exception):
    """The transfer ended early and may be tried again; `reached`: the server was there."""

    def __init__(self, reason: str, reached: bool = True) -> None:
        super().__init__(reason)
        self.reached = reached


@dataclass(frozen=True)
class _Version:
    """Which version of a file a server offers.

    Attributes:
        mark: its strong ETag, else the time of its last change; None: it gives neither.
        length: in bytes; None where the server does not say.
    """

    mark: str | None = None
    length: int | None = None

    @classmethod
    def of(cls, answer: requests.Response) -> _Version:
        etag = answer.headers.get("ETag")
        mark = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        return cls(mark, _whole_number(answer.headers.get("Content-Length")))


# --- what the commands call -----------------------------------------------------------


def publisher_files(
    args: argparse.Namespace, name: str, wanted: Sequence[str] | None = None
) -> Path:
    """The folder with a publisher's files: ``args.archives``, or a download.

    Args:
        args: the options archives, accept_licence and root (None: the current folder
            takes the place of its parent).
        name: the data set, a key of `INFO`.
        wanted: names of the files to download; all by default.

    Raises:
        InputError: the licence was not accepted, or as `fetch`; where the server does not
            give the files, the message says how else to get them.
    """
    if args.archives is not None:
        return args.archives.expanduser()
    data = INFO[name]
    if not args.accept_licence:
        raise InputError(
            f"{name} needs the files of {data.home}, which are licensed {data.licence} "
            f"({data.restrictions}): add --accept-licence to download them under these terms, "
            "or name a folder that has them with --archives DIR"
        )
    beside = args.root.expanduser().absolute().parent if args.root else Path()
    folder = beside / "downloads" / name
    print(f"Downloads: {folder}")
    try:
        fetch([f for f in files_of(name) if wanted is None or f.name in wanted], folder)
    except NotOffered as error:
        raise InputError(f"{error}; {data.elsewhere}") from error
    return folder


def fetch(files: Sequence[File], folder: Path, progress: bool = True) -> list[Path]:
    """Have these files in a folder, complete and verified.

    Files that are there and verified are left alone; the others are downloaded, starting
    where an earlier download ended. An interrupt keeps what has arrived.

    Args:
        files: what to fetch.
        folder: where to; made if need be.
        progress: show a progress bar for each file.

    Returns:
        Paths of the files, in their order.

    Raises:
        NotOffered: a server cannot be reached, or refuses.
        InputError: the disk is too small, another process downloads into the folder, a
            transfer keeps breaking off, or size or checksum of a file are wrong: then it
            is removed.
    """
    busy = f"another data_setup is downloading into {folder}: wait until it has ended"
    with locked(folder, busy):
        ledger = _Ledger(folder)
        missing = [file for file in files if not _is_here(file, folder, ledger)]
        check_space(folder, sum((f.size or 0) - _length(_part(folder, f)) for f in missing))
        for file in missing:
            _download(file, folder, ledger, progress)
    return [folder / file.name for file in files]


# --- what is known of the files -----------------------------------------------------------


class _Ledger:
    """``downloads.json``: file name -> what is known of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        try:
            self.entries = parse_json(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.entries = {}
        except ValueError:
            self.entries = None
        if not _is_ledger(self.entries):
            raise InputError(f"{self.path} is damaged: delete it, and the files are checked anew")

    def of(self, name: str) -> dict:
        return self.entries.get(name, {})

    def note(self, name: str, **facts: object) -> None:
        """Add to what is known of a file; None forgets."""
        entry = self.of(name) | facts
        self.entries[name] = {key: fact for key, fact in entry.items() if fact is not None}
        text = json.dumps(self.entries, indent=2, sort_keys=True) + "\n"
        write_atomically(self.path, lambda part: part.write_text(text, encoding="utf-8"))


def _is_ledger(entries: object) -> bool:
    """Whether what was read has the form that `_Ledger.note` writes."""
    return isinstance(entries, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("hash", ""), str)
        and isinstance(entry.get("part", {}), dict)
        for entry in entries.values()
    )


def _is_here(file: File, folder: Path, ledger: _Ledger) -> bool:
    """Whether a file is there and right; hashed unless size and time are those noted."""
    path = folder / file.name
    if not path.is_file():
        return False
    stat, entry = path.stat(), ledger.of(file.name)
    noted = (entry.get("size"), entry.get("mtime_ns"), entry.get("hash"))
    agrees = file.checksum is None or file.checksum == noted[2]
    if noted[:2] == (stat.st_size, stat.st_mtime_ns) and noted[2] and agrees:
        return True
    try:
        _verify(file, path, ledger)
    except InputError as error:
        print(f"{error}; it is downloaded again.")
        return False
    return True


def _verify(file: File, path: Path, ledger: _Ledger) -> None:
    """Compare size and hash with what is stated or noted, and note them.

    Raises:
        InputError: one differs.
    """
    stat = path.stat()
    if file.size is not None and stat.st_size != file.size:
        raise InputError(f"{file.name} has {stat.st_size:,} bytes instead of {file.size:,}")
    noted = ledger.of(file.name).get("hash")
    algorithm, _, expected = (file.checksum or noted or "sha256:").partition(":")
    if stat.st_size > SLOW_TO_HASH:
        print(f"Checking {file.name} ...")
    found = pooch.file_hash(str(path), alg=algorithm)
    if expected and found != expected.lower():
        whose = "its publisher states" if file.checksum else f"{LEDGER} has from the first download"
        raise InputError(
            f"{file.name} has the {algorithm} checksum {found}, and {whose} {expected}"
        )
    if not expected:
        print(
            f"{file.name}: no checksum is published; its SHA-256, {found}, is recorded in "
            f"{LEDGER} and compared from now on."
        )
    ledger.note(
        file.name,
        hash=f"{algorithm}:{found}",
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        url=file.url,
    )


# --- one file ----------------------------------------------------------------------------


def _download(file: File, folder: Path, ledger: _Ledger, progress: bool) -> None:
    """Fetch a file, verify it, and only then give it its name."""
    part = _part(folder, file)
    with tqdm(
        desc=file.name, total=file.size, unit="B", unit_scale=True, disable=not progress
    ) as bar:
        _complete(file, part, ledger, bar)
    try:
        _verify(file, part, ledger)
    except InputError as error:
        part.unlink()
        ledger.note(file.name, part=None)
        accept = "" if file.checksum else f" (delete {ledger.path} to accept that)"
        raise InputError(
            f"{error}: what came from {file.url} was removed; try again, and if it stays so the "
            f"publisher has changed the file{accept}"
        ) from error
    part.replace(folder / file.name)
    ledger.note(file.name, part=None)


def _complete(file: File, part: Path, ledger: _Ledger, bar: tqdm) -> None:
    """Bring the part to its full length, in as many attempts as bring something new."""
    failures, most = 0, _length(part)
    while True:
        try:
            return _attempt(file, part, ledger, bar)
        except _Interrupted as error:
            failures = 0 if _length(part) > most else failures + 1
            most = max(most, _length(part))
            if failures >= TRIES and not error.reached:
                raise NotOffered(f"{file.url} is out of reach ({error})") from error
            if failures >= TRIES:
                raise InputError(
                    f"the download of {file.url} breaks off again and again, the last time at "
                    f"{_length(part):,} bytes ({error}): the same command goes on from there later"
                ) from error
            bar.set_postfix_str(f"trying again: {error}"[:50])
            time.sleep(min(FIRST_PAUSE * 2 ** max(failures - 1, 0), LONGEST_PAUSE))
            bar.set_postfix_str("")


def _attempt(file: File, part: Path, ledger: _Ledger, bar: tqdm) -> None:
    """Bring the part to its full length, in one attempt.

    Raises:
        _Interrupted: it broke off, or must start anew.
        NotOffered: the server refuses.
        InputError: the server's file has another size than stated, or the disk is full.
    """
    noted = ledger.of(file.name).get("part", {})
    version = _Version(noted.get("mark"), noted.get("length"))
    if version.mark is None:
        # Nothing tells whether what is there began another version.
        part.unlink(missing_ok=True)
    start = _length(part)
    if start and start == version.length:
        return
    try:
        with _ask(file.url, start, version.mark) as answer:
            _check_status(file, answer, start)
            if start and not _goes_on(answer, start, version):
                part.unlink()
                start = 0
                if answer.status_code != 200:
                    raise _Interrupted("the server has another version of the file by now")
            if not start:
                version = _Version.of(answer)
                _begin(file, part, ledger, version)
            bar.total, bar.n = version.length or file.size, start
            _append(answer, part, bar)
    except _CUT as error:
        raise _Interrupted(*_reason(error)) from error
    except requests.RequestException as error:
        raise NotOffered(f"{file.url} cannot be downloaded ({_reason(error)[0]})") from error
    end, length = version.length or file.size or 0, _length(part)
    if version.length is not None and length > end:
        part.unlink()
        raise _Interrupted(f"{length:,} bytes came instead of {end:,}")
    if length < end:
        raise _Interrupted(f"{length:,} of {end:,} bytes came")


def _ask(url: str, start: int, mark: str | None) -> requests.Response:
    """The server's answer, its contents not read yet; from byte `start` if still that version."""
    headers = {"Accept-Encoding": "identity", "User-Agent": f"derm-hash {tool_version()}"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": mark}
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)


def _check_status(file: File, answer: requests.Response, start: int) -> None:
    """Accept an answer with contents, or one that says that the part must start anew (416)."""
    status = answer.status_code
    if status == 200 or (start and status in (206, 416)):
        return
    text = f"{status} {answer.reason or ''}".strip()
    if status in _BUSY:
        raise _Interrupted(f"the server answers {text}")
    raise NotOffered(f"{file.url} is not to be had (the server answers {text})")


def _goes_on(answer: requests.Response, start: int, version: _Version) -> bool:
    """Whether the contents are those after byte `start` of the same version."""
    if answer.status_code != 206:
        return False
    found = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    mark = _Version.of(answer).mark
    return (
        found is not None
        and int(found[1]) == start
        and (version.length is None or found[2] in ("*", str(version.length)))
        # A server may heed Range and not know If-Range.
        and (mark is None or mark == version.mark)
    )


def _begin(file: File, part: Path, ledger: _Ledger, version: _Version) -> None:
    """Make ready for the first byte of a version."""
    if file.size is not None and version.length not in (None, file.size):
        raise InputError(
            f"{file.url} has {version.length:,} bytes instead of {file.size:,}: "
            "the publisher has changed the file, or something answers in its place; look at it in "
            "a browser, and if it is right, save it and use --archives DIR"
        )
    check_space(part.parent, version.length or 0)
    # Before the first byte, so that no part is ever taken for one of another version.
    ledger.note(file.name, part=asdict(version))


def _append(answer: requests.Response, part: Path, bar: tqdm) -> None:
    """Write what comes as it comes, so that a cut loses nothing that has come."""
    with part.open("ab") as output:
        while block := answer.raw.read1(BLOCK, decode_content=False):
            output.write(block)
            bar.update(len(block))
        output.flush()
        os.fsync(output.fileno())


def _reason(error: Exception) -> tuple[str, bool]:
    """Why a request failed, in few words, and whether the server was reached."""
    inner = error
    while inner.args and isinstance(inner.args[-1], Exception):
        inner = inner.args[-1]
    inner = getattr(inner, "reason", None) or inner
    unreached = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    text = " ".join(str(inner).split()).rsplit("): ", 1)[-1]
    return text[:120] or type(error).__name__, not isinstance(inner, unreached)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None


def _part(folder: Path, file: File) -> Path:
    return folder / f"{file.name}.part"


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
