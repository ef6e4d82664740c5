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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, shown
from derm_hash.images import IMAGE_FORMATS, open_image, read_mask, square, to_input

if TYPE_CHECKING:
    from derm_hash.synthetic import Atlas

MANIFEST = "manifest.csv"
REQUIRED = ("image", "label")
COLUMNS = (*REQUIRED, "lesion_id", "split", "mask", "source")
SPLITS = ("database", "val", "query")
ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")

# --- the manifest ---------------------------------------------------------------


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


# --- decoded images -------------------------------------------------------------------


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


# --- splits -----------------------------------------------------------------------


def split_by_lesion(
    frame: pd.DataFrame, query: float = 0.1, val: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Fill the split column so that no lesion, and no near-duplicate, is in two parts.

    In each class the lesions are shuffled; the first ones become queries, the next
    ones val, the rest database. A part ends at the lesion whose end comes closest to
    its share of the class's images. A class with three lesions or more has at least
    one in every part; smaller ones may lie in the database alone. The result depends
    on neither the order of the rows nor the other classes, so that four and seven
    classes of one data set are split alike.

    Lesions that are connected by near-duplicate images count as one: the largest of
    them (of several the first by name) stands for all, its place in the shuffled order
    and its class included, and the others leave the order without changing it. So a
    group found later moves few images. Only a group over several classes can make
    the split of one class depend on another.

    Args:
        frame: manifest; a row without lesion_id is a lesion of its own. A lesion with
            several labels counts for its most frequent one. Rows with the same non-empty
            value in the column duplicate_group, where there is one, are near-duplicates.
        query: share of each class's images to be queries, 0 <= query < 1.
        val: share of the other images to be val, 0 <= val < 1.
        seed: of the shuffling.

    Returns:
        Copy of the frame with the split column filled.

    Raises:
        InputError: a share is outside [0, 1).
    """
    _check_shares(query, val)
    frame = _with_all_columns(frame)
    lesion = _lesion_keys(frame)
    leader_of = _leaders(lesion, frame)
    leader = lesion.map(leader_of)
    images = leader.value_counts()
    label_of = _most_frequent_label(lesion, frame["label"])
    part_of = {}
    for _, members in label_of.groupby(label_of):
        keys = [key for key in _shuffled(members.index, seed) if leader_of[key] == key]
        part_of |= _cut(keys, images.loc[keys].to_numpy(), query, val)
    return frame.assign(split=leader.map(part_of))


def split_by_image(
    frame: pd.DataFrame, query: float = 0.1, val: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Fill the split column image by image, as the paper's protocol does.

    Of each class the share `query` of the images, rounded down, become queries and the
    share `val` of the rest, rounded down, val. Images of one lesion can land on both
    sides, so retrieval partly finds the same lesion again: use `split_by_lesion` for
    an honest measure, and this one to compare with published numbers.

    Args, returns and raises as `split_by_lesion`.
    """
    _check_shares(query, val)
    frame = _with_all_columns(frame)
    part_of = {}
    for _, images in frame["image"].groupby(frame["label"]):
        names = _shuffled(images, seed)
        queries = _floor(query * len(names))
        held_out = queries + _floor(val * (len(names) - queries))
        parts = np.repeat(["query", "val", "database"], np.diff([0, queries, held_out, len(names)]))
        part_of |= dict(zip(names, parts.tolist(), strict=True))
    return frame.assign(split=frame["image"].map(part_of))


def _lesion_keys(frame: pd.DataFrame) -> pd.Series:
    """One key per lesion; an image without lesion_id is its own."""
    # The prefixes keep an image from meeting a lesion of the same name.
    alone = "image " + frame["image"]
    return ("lesion " + frame["lesion_id"]).where(frame["lesion_id"] != "", alone)


def _leaders(lesion: pd.Series, frame: pd.DataFrame) -> dict[str, str]:
    """Lesion -> the largest one, of several the first by name, of those it is connected to."""
    lesions = lesion.value_counts().rename_axis("lesion").reset_index()
    lesions = lesions.sort_values(["count", "lesion"], ascending=[False, True], ignore_index=True)
    names = lesions["lesion"]
    group = frame.get("duplicate_group", pd.Series("", frame.index)).fillna("")
    known = group != ""
    # A graph of lesions and, numbered after them, groups: an edge for each image in a group.
    ends = pd.Index(names).get_indexer(lesion[known])
    groups, group_names = pd.factorize(group[known])
    nodes = len(names) + len(group_names)
    edges = (np.ones(len(ends)), (ends, len(names) + groups))
    component = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)[1]
    leaders = names.groupby(component[: len(names)]).transform("first")
    return dict(zip(names, leaders, strict=True))


def _most_frequent_label(lesion: pd.Series, label: pd.Series) -> pd.Series:
    """Label of each lesion: the most frequent one, of several the first in the alphabet."""
    counts = pd.DataFrame({"lesion": lesion, "label": label}).value_counts().reset_index()
    counts = counts.sort_values(["lesion", "count", "label"], ascending=[True, False, True])
    return counts.drop_duplicates("lesion").set_index("lesion")["label"]


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    """The names in an order that depends on the set of names and the seed alone."""
    return np.random.default_rng(seed).permutation(sorted(names)).tolist()


def _cut(keys: list[str], images: np.ndarray, query: float, val: float) -> dict[str, str]:
    """Lesion -> part, for one class: `keys` in shuffled order with their numbers of images."""
    ends = np.concatenate([[0], np.cumsum(images)])
    total = ends[-1]

    def closest(target: float) -> int:
        return int(np.abs(ends - target).argmin())

    first, second = closest(query * total), closest((query + val * (1 - query)) * total)
    if len(keys) >= 3:
        first = int(np.clip(first, query > 0, len(keys) - 1 - (val > 0)))
        second = int(np.clip(second, first + (val > 0), len(keys) - 1))
    return {
        key: "query" if i < first else "val" if i < second else "database"
        for i, key in enumerate(keys)
    }


def _floor(x: float) -> int:
    # 0.29 * 100 is 28.999999999999996 in binary; it means 29.
    return int(x + 1e-9)


def _check_shares(query: float, val: float) -> None:
    for name, share in (("query", query), ("val", val)):
        if not 0 <= share < 1:
            raise InputError(f"the {name} share {share} is not possible: use 0 <= {name} < 1")


# --- the data set -------------------------------------------------------------------


class LesionDataset(torch.utils.data.Dataset):
    """Labelled lesion images, decoded, squared and held in memory.

    One uint8 tensor of N * 3 * S * S bytes holds them all: 0.12 GB for the 9,431
    four-class images of HAM10000 at 64 px, 3.8 GB for the 25,331 of ISIC 2019 at
    224 px. Training thus decodes nothing. A split or selection copies its part.

    Attributes:
        images: uint8 tensor (N, 3, S, S), RGB.
        labels: int64 tensor (N,), positions in `classes`.
        table: the manifest's rows, index 0..N-1.
        classes: class names.
        size: S, the side of the images in pixels.
    """

    def __init__(
        self,
        images: torch.Tensor,
        table: pd.DataFrame,
        classes: Sequence[str] | None = None,
        root: str | Path | None = None,
        masks: np.ndarray | None = None,
    ) -> None:
        """Put a data set together from its parts; see also `from_folder` and `from_atlas`.

        Args:
            images: uint8 tensor (N, 3, S, S).
            table: N manifest rows with at least image and label.
            classes: class names, in the order that labels count; by default the labels
                that occur, in ISIC's order where they are ISIC's, else sorted.
            root: folder of the mask files, which are read when asked for.
            masks: bool (N, S, S), instead of files.

        Raises:
            InputError: the images have another shape or type, or there are not as many
                as rows, or a label is not in `classes`.
        """
        square_rgb = (
            images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
        )
        if images.dtype != torch.uint8 or not square_rgb or len(images) != len(table):
            raise InputError(
                f"images of type {images.dtype} and shape {tuple(images.shape)} with {len(table)} "
                "table rows are no data set: give a uint8 tensor (N, 3, S, S) and N rows"
            )
        self.images = images
        self.table = _with_all_columns(table)
        self.classes = tuple(classes) if classes is not None else class_order(self.table["label"])
        self.size = int(images.shape[-1])
        self._root = None if root is None else Path(root)
        self._masks = masks
        unknown = set(self.table["label"]) - set(self.classes)
        if unknown:
            raise InputError(
                f"the label '{shown(min(unknown))}' is none of the classes "
                f"{shown(', '.join(self.classes))}: remove its images or add the class"
            )
        codes = [self.classes.index(label) for label in self.table["label"]]
        self.labels = torch.tensor(codes, dtype=torch.int64)

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        size: int = 64,
        classes: Sequence[str] | None = None,
        progress: bool = True,
    ) -> LesionDataset:
        """Read a data folder; its splits are used as they stand.

        Args:
            root: folder with ``manifest.csv``; see `read_manifest`.
            size: side in pixels; see `square`.
            classes: class names in the wanted order; see `class_order` for the default.
            progress: show a progress bar.

        Raises:
            InputError: the manifest or an image cannot be used, or the images do not fit
                in memory.
        """
        root = Path(root).expanduser()
        table = read_manifest(root, classes)
        check_memory(len(table), size)
        images = torch.empty((len(table), 3, size, size), dtype=torch.uint8)
        pixels, stored = images.numpy(), stored_pixels(root, table["image"])

        def load(i: int) -> None:
            if stored is not None and stored.shape[1] == size:
                picture = stored[i]  # as `square` would leave it, without two more copies
            elif stored is not None:
                picture = square(Image.fromarray(stored[i]), size)
            else:
                picture = square(open_image(root / table["image"].iat[i]), size)
            pixels[i] = np.asarray(picture).transpose(2, 0, 1)

        for _ in thread_map(load, range(len(table)), f"reading {root.name}", progress):
            pass
        return cls(images, table, classes, root=root)

    @classmethod
    def from_atlas(
        cls, atlas: Atlas, query: float = 0.15, val: float = 0.1, seed: int = 0
    ) -> LesionDataset:
        """The built-in atlas as a data set, split by lesion; see `split_by_lesion`."""
        table = split_by_lesion(atlas_table(atlas), query, val, seed)
        images = torch.from_numpy(atlas.images).permute(0, 3, 1, 2).contiguous()
        return cls(images, table, masks=atlas.masks)

    def split(self, name: str) -> LesionDataset:
        """The images of one part: ``database``, ``val`` or ``query``.

        Raises:
            InputError: the name is unknown, the data has not been split, or the part is
                empty.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: use {', '.join(SPLITS)}")
        split = self.table["split"]
        if (split == "").all():
            raise InputError(
                "the images have not been split yet: fill the manifest's split column with "
                "derm_hash.data.split_by_lesion(table) and save it with write_manifest"
            )
        chosen = np.flatnonzero(split == name)
        if not len(chosen):
            raise InputError(
                f"the split {name!r} has no images: split again with a larger share, or use another"
            )
        return self.select(chosen)

    def select(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> LesionDataset:
        """The images at `indices` (integers, or N booleans) as a data set of their own."""
        chosen = self._positions(indices)
        return LesionDataset(
            self.images[chosen],
            self.table.iloc[chosen.numpy()],
            self.classes,
            root=self._root,
            masks=None if self._masks is None else self._masks[chosen.numpy()],
        )

    def batch(
        self, indices: Sequence[int] | np.ndarray | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images as network input (B, 3, S, S) float32 in [-1, 1], and labels (B,) int64."""
        chosen = self._positions(indices)
        return to_input(self.images[chosen]), self.labels[chosen]

    def picture(self, i: int) -> np.ndarray:
        """Image i for display: uint8 (S, S, 3)."""
        return self.images[i].permute(1, 2, 0).numpy().copy()

    def mask(self, i: int) -> np.ndarray | None:
        """Lesion mask of image i, bool (S, S), cut as the image; None where there is none.

        Raises:
            InputError: the mask file cannot be read.
        """
        if self._masks is not None:
            return np.asarray(self._masks[i], dtype=bool)
        name = self.table["mask"].iat[i]
        if not name or self._root is None:
            return None
        return np.asarray(square(read_mask(self._root / name), self.size, nearest=True)) > 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        """Image i as network input (3, S, S) float32 in [-1, 1], and its label."""
        return to_input(self.images[i]), int(self.labels[i])

    def __repr__(self) -> str:
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        classes = ", ".join(f"{n} {c}" for c, n in zip(self.classes, counts, strict=True))
        return f"LesionDataset({len(self)} images of {self.size} px: {classes})"

    def _positions(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        chosen = torch.as_tensor(np.asarray(indices))
        return chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen.long()


def class_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: in the order of `ISIC_CLASSES` if they are all there, else sorted."""
    present = set(labels)
    if present <= set(ISIC_CLASSES):
        return tuple(name for name in ISIC_CLASSES if name in present)
    return tuple(sorted(present))


def atlas_table(atlas: Atlas) -> pd.DataFrame:
    """Manifest rows of the built-in atlas, not split; its files are named after their positions."""
    names = [f"ATLAS_{i:07d}" for i in range(len(atlas.labels))]
    return _with_all_columns(
        pd.DataFrame(
            {
                "image": [f"images/{name}.png" for name in names],
                "label": [str(label) for label in atlas.labels],
                "lesion_id": [str(lesion) for lesion in atlas.lesion_ids],
                "mask": [f"masks/{name}.png" for name in names],
                "source": f"atlas, seed {atlas.seed}",
            }
        )
    )


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


def check_memory(count: int, size: int) -> None:
    """Refuse more images (3, size, size) of uint8 than fit, before the system starts to swap.

    Raises:
        InputError: they take more than the free memory, or `size` is below 1.
    """
    if size < 1:
        raise InputError(f"an image size of {size} pixels is not possible: use 32 or more")
    need, free = 3 * count * size**2, psutil.virtual_memory().available
    if need > free:
        raise InputError(
            f"{count} images of {size} px take {need / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free: choose a smaller size or fewer images"
        )
