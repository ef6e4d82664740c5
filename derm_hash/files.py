"""The kit's own files: written whole or not at all, by one writer at a time."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from derm_hash.errors import InputError, one_line

LOCK = ".lock"  # the file in a folder that its writer holds


def home() -> Path:
    """Folder of the cache: ``DERM_HASH_HOME``, or ``~/.cache/derm-hash``."""
    return Path(os.environ.get("DERM_HASH_HOME") or "~/.cache/derm-hash").expanduser()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then put it in place in one step.

    An OSError (such as a full disk) names the file, and leaves the previous one as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        if error.errno and str(error.filename) in ("None", str(part)):  # a full disk names no file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_atomically(path, lambda part: part.write_bytes(text.encode()))


def write_json(path: Path, value: Mapping) -> None:
    """Write a JSON object, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """Read a file of :func:`write_json`; `InputError` with the remedy if it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:  # another tool may have written it
        raise InputError(f"{path} is damaged ({one_line(error)}): {remedy}") from error
    return found


def remove_parts(folder: Path) -> None:
    """Remove what a killed :func:`write_atomically` left; the caller holds the folder's lock."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, busy: str, wait: bool = True) -> Iterator[None]:
    """Make a folder and hold its lock.

    If another process holds it, print ``busy`` and wait, or raise an `InputError` if not ``wait``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InputError(busy) from None
        print(busy)
        lock.acquire()
    except OSError as error:  # a disk without locks names no file
        error.filename = error.filename or lock.lock_file
        raise
    try:
        remove_parts(folder)
        yield
    finally:
        lock.release()


def leaves_folder(name: str) -> bool:
    """Whether a relative path could point outside its folder, on any system."""
    path = PureWindowsPath(name)  # its parts may be separated by both slashes
    return bool(path.anchor or ".." in path.parts or "\0" in name)


def thread_map(
    function: Callable,
    items: Sequence,
    description: str,
    progress: bool,
    workers: int | None = None,
    images: int = 1,
) -> Iterator:
    """Apply ``function`` to the items in threads, in order, with a progress bar.

    An item stands for this number of ``images``, which the bar counts.

    Pillow's decoders and file access release the interpreter lock, so threads use every core.
    After an error, an interrupt or a ``break`` nothing further is started.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(function, items)
        yield from tqdm(
            results,
            desc=description,
            total=len(items),
            unit="img",
            unit_scale=images if images > 1 else False,
            disable=not progress,
        )
    finally:
        pool.shutdown(cancel_futures=True)
