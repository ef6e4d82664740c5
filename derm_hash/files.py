"""Tensors on disk: safetensors files that say in JSON what they hold, read with distrust.

A safetensors file cannot run code and cannot claim more than it holds: its reader compares every
offset with the file's size before anything is allocated. What is in it is checked here and by
those who ask for it.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.errors import InputError, one_line, shown

KINDS = ("F32", "I64")
"""What numbers the kit writes: weights and codes, counts and labels."""


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], name: str, about: str
) -> Path:
    """Write tensors and a JSON text about them, all or nothing.

    Raises
    ------
    OSError
        If the disk is full or refuses for another reason; what was there is left as it was.
    """
    path = Path(path)
    tensors = {key: torch.as_tensor(value).contiguous() for key, value in tensors.items()}

    def write(part: Path) -> None:
        try:
            save_file(tensors, part, {name: about})
        except SafetensorError as error:  # its text ends in "(os error 28)" on a full disk
            number = re.search(r"os error (\d+)", str(error))
            number = int(number[1]) if number else errno.EIO
            raise OSError(number, os.strerror(number), str(path)) from error

    write_atomically(path, write)
    return path


def load_tensors(path: Path, name: str, what: str) -> tuple[dict[str, Tensor], object]:
    """What :func:`save_tensors` wrote under this name: the tensors, and the JSON value.

    Parameters
    ----------
    path : Path of a file that exists
    name : str
    what : str
        What the file should be, for the message.

    Raises
    ------
    InputError
        If it is no such file, is damaged, or a number in it is infinite, not a number, or of a
        kind that the kit does not write.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = parse_json((file.metadata() or {})[name])
            tensors = {key: read_tensor(file, key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{path} is not {what}: {one_line(error)}.") from error
    if name := not_finite(tensors):
        raise InputError(f"{path} has numbers in {shown(name)} that are not finite: make it anew.")
    return tensors, about


def read_tensor(file: safe_open, name: str) -> Tensor:
    """A tensor of an open file; ValueError if its numbers are of a kind that is never written."""
    # Before it is read: torch can hold kinds of numbers with which it can do next to nothing.
    kind = file.get_slice(name).get_dtype()
    if kind not in KINDS:
        raise ValueError(f"{name} has numbers of the kind {kind}")
    return file.get_tensor(name)


def parse_json(text: str | bytes) -> object:
    """A JSON text from outside; ValueError if it is none, however deep it is nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with a number that is infinite or NaN, if there is one."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            return name
    return None


def misfit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Of tensors that should have the names, shapes and types of others: one that does not."""
    for name in sorted(found.keys() ^ expected.keys()):
        return name
    for name, value in found.items():
        if (value.shape, value.dtype) != (expected[name].shape, expected[name].dtype):
            return name
    return None


def leaves_folder(name: str) -> bool:
    """Whether a relative path could point outside its folder, on any system."""
    windows = PureWindowsPath(name)
    return bool(
        PurePosixPath(name).is_absolute()
        or windows.drive
        or windows.root
        or ".." in windows.parts
        or "\0" in name
    )


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place in one step.

    Raises:
        OSError: the disk is full or refuses for another reason; it names the file, and what
            was there is left as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say which file it was
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when its process was killed.

    Only for the one who holds the folder's lock: nobody else may be writing there.
    """
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def thread_map(
    function: Callable,
    items: Sequence,
    description: str,
    progress: bool,
    workers: int | None = None,
) -> Iterator:
    """Apply `function` to the items in threads, in order, with a progress bar.

    Pillow's decoders and file access release the interpreter lock, so threads use
    every core. After an error, an interrupt or a `break` nothing further is started.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(function, items)
        yield from tqdm(
            results, desc=description, total=len(items), unit="img", disable=not progress
        )
    finally:
        pool.shutdown(cancel_futures=True)
