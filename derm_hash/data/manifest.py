"""The manifest of a data folder, and the decoded pixels that may be stored beside it.

A data folder holds ``manifest.csv`` and the files that it names. The manifest has one row per
image and these columns:

=========  =====================================================================
image      path of the image, relative to the folder; ``/`` between its parts
label      class name
lesion_id  which physical lesion it shows; empty where that is not known
split      ``train``, ``database``, ``val`` or ``query`` (see `splits`); empty: not split yet
mask       path of the lesion mask, relative to the folder; empty means none
source     where the image comes from
=========  =====================================================================

Further columns are kept. One of them has a meaning: images with the same non-empty
``duplicate_group`` are near-duplicates, and `split_by_lesion` keeps them together. Only ``image``
and ``label`` are required, so a spreadsheet with two columns is enough for images of one's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from derm_hash.data.images import image_size, open_image
from derm_hash.data.tables import read_table
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, shown
from derm_hash.files import leaves_folder, thread_map, write_atomically

MANIFEST = "manifest.csv"
REQUIRED = ("image", "label")
COLUMNS = (*REQUIRED, "lesion_id", "split", "mask", "source")
SPLITS = ("train", "database", "val", "query")


def with_all_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the manifest's columns first, "" where one is missing, and number the rows 0..N-1."""
    extra = [column for column in frame.columns if column not in COLUMNS]
    return frame.reindex(columns=[*COLUMNS, *extra], fill_value="").reset_index(drop=True)


# --- the manifest -----------------------------------------------------------------------


def read_manifest(root: str | Path) -> pd.DataFrame:
    """Read and check ``manifest.csv`` of a data folder.

    All columns are strings, "" where nothing is known; those of the module's table come first and
    are all there. The rows are in file order, with the index 0..N-1.

    Raises
    ------
    InputError
        If there is no manifest, it cannot be read, lacks a required column or has no rows; if a
        label is empty, a split is unknown, a name cannot be displayed, an image is listed twice, or
        a path leaves the folder or names no file.
    """
    root = Path(root).expanduser()
    path = root / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{root} has no {MANIFEST}: prepare the folder with `python -m data_setup` (see its "
            "--help), or write a CSV file with the columns image and label"
        )
    remedy = (
        f"name the columns {', '.join(REQUIRED)} in the first line, with commas between, and give "
        "each image a line"
    )
    table = read_table(path, REQUIRED, remedy, optional=COLUMNS)
    frame = with_all_columns(table).set_axis(table.index)  # tells the line
    for column in ("image", "mask"):  # without detours: a//b.png and a/./b.png are a/b.png
        frame[column] = frame[column].map(lambda name: name and str(PurePosixPath(name)))
    check_values(frame, path)
    for column in ("image", "mask"):
        _check_paths(frame[column], root)
    return frame.reset_index(drop=True)


def check_values(frame: pd.DataFrame, path: Path) -> None:
    """Check labels, names, splits, and that no image is listed twice.

    The frame has all columns, and the index that `read_table` gave; `InputError` names the line.
    """

    def refuse(bad: pd.Series, column: str, problem: str) -> None:
        if bad.any():
            rows = bad[bad].index
            more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            where = f"in line {rows[0] + 2}{more} of {path}"  # line 1 is the header
            value = shown(frame.at[rows[0], column])
            name = f"{column} '{value}'" if value else column
            raise InputError(f"the {name} {where} {problem}")

    for column in REQUIRED:
        refuse(frame[column] == "", column, "is empty: fill it in or remove the row")
    for column in ("image", "label", "lesion_id", "mask"):
        long = f"has a control character or more than {LONGEST_NAME} characters: rename it"
        refuse(frame[column].map(cannot_be_shown), column, long)
    unknown = f"is unknown: use {', '.join(SPLITS)} or leave it empty"
    refuse(~frame["split"].isin(["", *SPLITS]), "split", unknown)
    refuse(frame["image"].duplicated(), "image", "is listed again: keep one of its rows")


def _check_paths(names: pd.Series, root: Path) -> None:
    """Check that every image, or every mask, lies inside the folder and exists."""
    where = f"in {root / MANIFEST}"
    for name in names:
        if leaves_folder(name):
            raise InputError(
                f"the {names.name} path {name!r} {where} leaves the folder: use paths relative to "
                "the folder, without '..'"
            )
    # Path.is_file raises an error where a name is too long.
    missing = [name for name in names if name and not os.path.isfile(root / name)]  # noqa: PTH113
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"the {names.name} {missing[0]}{more} is listed {where} but missing: copy it there or "
            "remove its row"
        )


def write_manifest(frame: pd.DataFrame, root: str | Path) -> Path:
    """Write ``manifest.csv`` into a data folder, made if missing, and return its path.

    The file is written whole or not at all. The frame has one row per image with at least image and
    label (else `InputError`); missing columns are written empty, further ones are kept.
    """
    content = manifest_bytes(frame)
    root = Path(root).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    path = root / MANIFEST
    write_atomically(path, lambda part: part.write_bytes(content))
    return path


def manifest_bytes(frame: pd.DataFrame) -> bytes:
    """The bytes that `write_manifest` writes, the same on every system; raises the same errors."""
    for column in REQUIRED:
        if column not in frame:
            raise InputError(f"the table to write as {MANIFEST} has no column {column!r}: add it")
    text = with_all_columns(frame).fillna("").to_csv(index=False, lineterminator="\n")
    return text.encode()


# --- decoded pixels -----------------------------------------------------------------------


def picture_reader(
    root: Path, names: Sequence[str], stored: np.ndarray | None
) -> Callable[[int], Image.Image]:
    """A function from the position of an image in `names` to the image as RGB.

    It reads the array of `stored_pixels` if there is one, else the image files.
    """
    if stored is not None:
        return lambda i: Image.fromarray(stored[i])
    names = list(names)
    return lambda i: open_image(root / names[i])


def pixels_path(root: Path, names: Sequence[str]) -> Path:
    """Path of the array with the decoded images of a folder, whether or not it exists.

    The file's name depends on the images' names, order and sizes in bytes, so an array is no longer
    found after one of these has changed.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{(root / name).stat().st_size}\n".encode())
    return root / f"pixels-{digest.hexdigest()[:16]}.npy"


def stored_pixels(root: Path, names: Sequence[str]) -> np.ndarray | None:
    """The decoded images of a folder: uint8 (N, S, S, 3), memory-mapped; None if not stored."""
    path = pixels_path(root, names)
    if not path.is_file():
        return None
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # cannot unpickle anything
    except Exception as error:  # numpy parses the header as Python, with any error of the parser
        raise InputError(
            f"{path} is damaged: delete it, and the image files are read instead"
        ) from error
    square_rgb = array.ndim == 4 and array.shape[1] == array.shape[2] and array.shape[3] == 3
    if array.dtype != np.uint8 or not square_rgb or len(array) != len(names):
        raise InputError(f"{path} holds other data: delete it, and the image files are read")
    return array


def store_pixels(root: Path, names: Sequence[str], workers: int | None = None) -> Path | None:
    """Store the decoded images of a folder beside them, 3 bytes per pixel, for `picture_reader`.

    Returns the file, or None if the images are not squares of one size.
    """
    sizes = {image_size(root / name) for name in names}
    if len(sizes) != 1 or len(side := set(sizes.pop())) != 1:
        return None
    shape = (len(names), *2 * tuple(side), 3)
    path = pixels_path(root, names)

    def write(part: Path) -> None:
        array = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        reserve(part)

        def decode(i: int) -> None:
            array[i] = np.asarray(open_image(root / names[i]))

        for _ in thread_map(decode, range(len(names)), "decoding", True, workers):
            pass
        array.flush()

    write_atomically(path, write)
    return path


def reserve(path: Path) -> None:
    """Give a file all the disk space that its size needs; OSError if the disk has less.

    Otherwise the system ends the process without a message when the disk of a memory map is full.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
