"""Lesion images with their labels: the manifest, the splits, the data set in memory.

A data folder holds ``manifest.csv`` and the files that it names. The manifest
has one row per image and the columns

=========  =====================================================================
image      path of the image, relative to the folder; ``/`` between its parts
label      class name
lesion_id  which physical lesion it shows; empty where that is not known
split      ``database``, ``val`` or ``query``; empty means not split yet
mask       path of the lesion mask, relative to the folder; empty means none
source     where the image comes from
=========  =====================================================================

Further columns are kept. One of them has a meaning: images with the same non-empty
``duplicate_group`` are near-duplicates, which `split_by_lesion` keeps together.
Only ``image`` and ``label`` are required, so a spreadsheet with two columns is
enough to bring one's own images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from derm_hash.data.images import IMAGE_FORMATS, open_image
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, shown

if TYPE_CHECKING:
    pass
from derm_hash.files import leaves_folder, thread_map, write_atomically

MANIFEST = "manifest.csv"
REQUIRED = ("image", "label")
COLUMNS = (*REQUIRED, "lesion_id", "split", "mask", "source")
SPLITS = ("database", "val", "query")
ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")


def read_manifest(root: str | Path, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Read and check ``manifest.csv`` of a data folder.

    Args:
        root: the data folder.
        classes: the labels that may occur; None allows any.

    Returns:
        One row per image, in file order, index 0..N-1. All columns are strings, ""
        where nothing is known; the columns of the module's table come first and are
        all there.

    Raises:
        InputError: there is no manifest, it cannot be read, lacks a required column,
            has no rows, an empty or unknown label, an unknown split, a name that cannot
            be shown, the same image twice, or a path that leaves the folder or names no
            file.
    """
    root = Path(root).expanduser()
    path = root / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{root} has no {MANIFEST}: prepare the folder with `python -m data_setup` (see its "
            "--help), or write a CSV file with the columns image and label"
        )
    frame = read_table(path)
    for column in REQUIRED:
        if column not in frame:
            columns = shown(", ".join(frame.columns))
            raise InputError(
                f"{path} has no column {column!r} (its columns: {columns}): "
                f"name the columns {', '.join(REQUIRED)} in the first line, with commas between"
            )
    if frame.empty:
        raise InputError(f"{path} has no rows: add one line for each image, or prepare it again")
    frame = _with_all_columns(frame)
    for column in ("image", "mask"):
        frame[column] = frame[column].map(plain_path)
    _check_values(frame, path, classes)
    _check_paths(frame, root)
    return frame


def read_table(path: str | Path, separator: str = ",") -> pd.DataFrame:
    """Read a table with one header line; every value is a string without outer blanks.

    Raises:
        InputError: the file is missing, is empty, is no UTF-8 text, has rows of different
            lengths, or two columns of one name.
    """
    options = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        frame = pd.read_csv(path, **options)
        header = pd.read_csv(path, **options, header=None, nrows=1).iloc[0].str.strip()
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty: replace it, or prepare the folder again") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} cannot be read as a table in UTF-8 text ({reason}): save it as CSV again"
        ) from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(
            f"{path} has rows with more values than its first line names: save it as CSV again"
        )
    # As the file has them: pandas renames columns that come again, before their blanks are gone.
    names = pd.Index([name or f"Unnamed: {i}" for i, name in enumerate(header)])
    if not names.is_unique:
        again = shown(names[names.duplicated()][0])
        raise InputError(f"{path} has two columns '{again}': rename or remove one of them")
    frame.columns = names
    return frame.fillna("").apply(lambda column: column.str.strip())


def plain_path(name: str) -> str:
    """A relative path without detours: ``a//b.png`` and ``a/./b.png`` are ``a/b.png``."""
    return PurePosixPath(name).as_posix() if name else ""


def _with_all_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The manifest's columns first, "" where one is missing; index 0..N-1."""
    extra = [column for column in frame.columns if column not in COLUMNS]
    return frame.reindex(columns=[*COLUMNS, *extra], fill_value="").reset_index(drop=True)


def _check_values(frame: pd.DataFrame, path: Path, classes: Sequence[str] | None) -> None:
    """Labels, splits and duplicate images."""

    def where(bad: pd.Series) -> str:
        # Line 1 of the file is the header.
        rows = bad[bad].index
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return f"in line {rows[0] + 2}{more} of {path}"

    for column in REQUIRED:
        if (bad := frame[column] == "").any():
            raise InputError(f"the {column} is empty {where(bad)}: fill it in or remove the row")
    for column in ("image", "label", "lesion_id", "mask"):
        if (bad := frame[column].map(cannot_be_shown)).any():
            value = frame.loc[bad, column].iloc[0]
            raise InputError(
                f"the {column} '{shown(value)}' {where(bad)} has a control character or more than "
                f"{LONGEST_NAME} characters: rename it"
            )
    if (bad := ~frame["split"].isin(["", *SPLITS])).any():
        value = frame.loc[bad, "split"].iloc[0]
        raise InputError(
            f"the split '{shown(value)}' {where(bad)} is unknown: use {', '.join(SPLITS)} "
            "or leave it empty"
        )
    if classes is not None and (bad := ~frame["label"].isin(classes)).any():
        value = frame.loc[bad, "label"].iloc[0]
        raise InputError(
            f"the label {value!r} {where(bad)} is none of the classes {shown(', '.join(classes))}: "
            "correct it, remove the row, or add the class"
        )
    if (bad := frame["image"].duplicated()).any():
        value = frame.loc[bad, "image"].iloc[0]
        raise InputError(f"the image {value} is listed again {where(bad)}: keep one of its rows")


def _check_paths(frame: pd.DataFrame, root: Path) -> None:
    """Every image and mask lies inside the folder and exists."""
    for column in ("image", "mask"):
        names = [name for name in frame[column] if name]
        for name in names:
            if leaves_folder(name):
                raise InputError(
                    f"the {column} path {name!r} in {root / MANIFEST} leaves the folder: "
                    "use paths relative to the folder, without '..'"
                )
        # Path.is_file raises an error where a name is too long.
        missing = [name for name in names if not os.path.isfile(root / name)]  # noqa: PTH113
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"the {column} {missing[0]}{more} is listed in {root / MANIFEST} but missing: "
                "copy it there or remove its row"
            )


def write_manifest(frame: pd.DataFrame, root: str | Path) -> Path:
    """Write ``manifest.csv`` into a data folder, whole or not at all.

    Args:
        frame: one row per image with at least image and label; missing columns are
            written empty, further ones are kept.
        root: the data folder; made if missing.

    Returns:
        Path of the manifest.

    Raises:
        InputError: the frame lacks a required column.
    """
    content = manifest_bytes(frame)
    root = Path(root).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    path = root / MANIFEST
    write_atomically(path, lambda part: part.write_bytes(content))
    return path


def manifest_bytes(frame: pd.DataFrame) -> bytes:
    """What `write_manifest` writes, on every system the same; raises as it does."""
    for column in REQUIRED:
        if column not in frame:
            raise InputError(f"the table to write as {MANIFEST} has no column {column!r}: add it")
    text = _with_all_columns(frame).fillna("").to_csv(index=False, lineterminator="\n")
    return text.encode()


def pixels_path(root: Path, names: Sequence[str]) -> Path:
    """Where the decoded images of a folder are, if they are stored.

    The file's name depends on the images' names, their order and their sizes on disk, so
    that it is not found any more when the manifest or an image is changed.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{(root / name).stat().st_size}\n".encode())
    return root / f"pixels-{digest.hexdigest()[:16]}.npy"


def stored_pixels(root: Path, names: Sequence[str]) -> np.ndarray | None:
    """The decoded images of a folder: uint8 (N, S, S, 3), memory-mapped; None if not stored.

    Raises:
        InputError: the file is damaged.
    """
    path = pixels_path(root, names)
    if not path.is_file():
        return None
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # no pickle, no archive
    except (OSError, EOFError, ValueError, OverflowError, SyntaxError, TokenError) as error:
        raise InputError(
            f"{path} is damaged: delete it, and the image files are read instead"
        ) from error
    square_rgb = array.ndim == 4 and array.shape[1] == array.shape[2] and array.shape[3] == 3
    if array.dtype != np.uint8 or not square_rgb or len(array) != len(names):
        raise InputError(f"{path} holds other data: delete it, and the image files are read")
    return array


def store_pixels(root: Path, names: Sequence[str], workers: int | None = None) -> Path | None:
    """Store the decoded images of a folder beside them, for `stored_pixels`.

    Args:
        root: the data folder.
        names: paths of N images relative to it, in the manifest's order.
        workers: threads.

    Returns:
        The file, of 3 bytes per pixel; None if the images are not squares of one size.

    Raises:
        InputError: an image cannot be read.
    """
    sizes = set()
    for name in names:
        with Image.open(root / name, formats=IMAGE_FORMATS) as image:
            sizes.add(image.size)
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
    """Give a file all the disk space that its size needs.

    A memory-mapped file takes its space when it is written to, and a disk that is full by then
    ends the process without a word.

    Raises:
        OSError: the disk has less.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def class_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: in the order of `ISIC_CLASSES` if they are all there, else sorted."""
    present = set(labels)
    if present <= set(ISIC_CLASSES):
        return tuple(name for name in ISIC_CLASSES if name in present)
    return tuple(sorted(present))
