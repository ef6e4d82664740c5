"""The data set in memory: decoded images, labels, and the manifest's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil
import torch

from derm_hash.data.classes import class_order
from derm_hash.data.images import read_mask, square, square_pixels, to_input
from derm_hash.data.manifest import (
    SPLITS,
    picture_reader,
    read_manifest,
    stored_pixels,
    with_all_columns,
)
from derm_hash.data.splits import split_as_given, split_by_lesion
from derm_hash.errors import InputError, shown
from derm_hash.files import thread_map

if TYPE_CHECKING:
    from derm_hash.atlas.atlas import Atlas

AT_ONCE = 8  # images that a thread reads in one go
Indices = Sequence[int] | np.ndarray | torch.Tensor


class LesionDataset:
    """Labelled lesion images, decoded, squared and held in memory.

    One uint8 tensor of N * 3 * S * S bytes holds them all: 0.12 GB for the 9,431 four-class images
    of HAM10000 at 64 px, 3.8 GB for the 25,331 of ISIC 2019 at 224 px. Training thus decodes
    nothing. A split or selection copies its images. See also `from_folder` and `from_atlas`.

    Parameters
    ----------
    images : uint8 tensor (N, 3, S, S), RGB
    table : DataFrame
        N manifest rows with at least image and label; the attribute has all columns.
    classes : sequence of str, optional
        Class names, in the order of the class indices; by default see `class_order`.
    root : path of the folder of the mask files, optional
    masks : bool array (N, S, S), optional
        Masks in memory, instead of files.

    Attributes
    ----------
    images, table, classes : as above
    labels : int64 tensor (N,), positions in `classes`
    size : S, in pixels

    Raises
    ------
    InputError
        If the images have another shape or type, there are not N rows, or a label is unknown.
    """

    def __init__(
        self,
        images: torch.Tensor,
        table: pd.DataFrame,
        classes: Sequence[str] | None = None,
        root: str | Path | None = None,
        masks: np.ndarray | None = None,
    ) -> None:
        square_rgb = (
            images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
        )
        if images.dtype != torch.uint8 or not square_rgb or len(images) != len(table):
            raise InputError(
                f"images of type {images.dtype} and shape {tuple(images.shape)} with {len(table)} "
                "table rows are not a data set: give a uint8 tensor (N, 3, S, S) and N rows"
            )
        self.images = images
        self.table = with_all_columns(table)
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
        progress: bool = True,
        split: Mapping[str, str | Path] | None = None,
    ) -> LesionDataset:
        """Read a data folder; its own splits are used, unless others are given.

        `InputError` if the manifest or an image cannot be used, or the images do not fit in memory.

        Parameters
        ----------
        root : path of a folder with ``manifest.csv``; see `read_manifest`
        size : int, side of the images in pixels; see `square`
        progress : bool
        split : mapping from a part to the CSV of its images, optional; see `split_as_given`
        """
        root = Path(root).expanduser()
        table = read_manifest(root)
        if split is not None:
            table = split_as_given(table, split)
        check_memory(len(table), size)
        images = torch.empty((len(table), 3, size, size), dtype=torch.uint8)
        names, pixels = table["image"], images.numpy()
        stored = stored_pixels(root, names)
        picture = picture_reader(root, names, stored)

        def load(part: range) -> None:
            if stored is not None:  # as `square` does, without copies as Pillow's images
                squares = square_pixels(stored[part.start : part.stop], size)
            else:
                squares = np.stack([square(picture(i), size) for i in part])
            pixels[part.start : part.stop] = squares.transpose(0, 3, 1, 2)

        every = range(len(table))
        parts = [every[first : first + AT_ONCE] for first in every[::AT_ONCE]]
        for _ in thread_map(load, parts, f"reading {root.name}", progress, images=AT_ONCE):
            pass
        return cls(images, table, root=root)

    @classmethod
    def from_atlas(cls, atlas: Atlas, query: float = 0.15, val: float = 0.1) -> LesionDataset:
        """The built-in atlas as a data set, split by lesion; see `split_by_lesion`."""
        table = split_by_lesion(atlas_table(atlas), query, val)
        images = torch.from_numpy(atlas.images).permute(0, 3, 1, 2).contiguous()
        return cls(images, table, masks=atlas.masks)

    def split(self, name: str) -> LesionDataset:
        """The images of a part, such as ``query``; `InputError` if there are none.

        If there is no part ``train``, ``database`` stands in, since the network is trained on it.
        """
        return self.select(self.positions(name))

    def positions(self, name: str) -> np.ndarray:
        """Positions (n,) of the images of a part; errors and ``train`` as in `split`."""
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: use {', '.join(SPLITS)}")
        split = self.table["split"]
        if (split == "").all():
            raise InputError(
                "the images have not been split yet: fill the manifest's split column with "
                "derm_hash.data.split_by_lesion(table) and save it with write_manifest"
            )
        if name == "train" and not (split == "train").any():
            name = "database"
        chosen = np.flatnonzero(split == name)
        if not len(chosen):
            raise InputError(
                f"the split {name!r} has no images: split again with a larger share, or use another"
            )
        return chosen

    def select(self, indices: Indices) -> LesionDataset:
        """The images at `indices` (integers, or N booleans) as a data set of their own."""
        chosen = self._positions(indices)
        return LesionDataset(
            self.images[chosen],
            self.table.iloc[chosen.numpy()],
            self.classes,
            root=self._root,
            masks=None if self._masks is None else self._masks[chosen.numpy()],
        )

    def batch(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Images as network input (B, 3, S, S) float32 in [-1, 1], and labels (B,) int64."""
        chosen = self._positions(indices)
        return to_input(self.images[chosen]), self.labels[chosen]

    def picture(self, i: int) -> np.ndarray:
        """Image i for display: uint8 (S, S, 3)."""
        return self.images[i].permute(1, 2, 0).numpy().copy()

    def mask(self, i: int) -> np.ndarray | None:
        """Lesion mask of image i, bool (S, S), cropped like the image; None if it has none."""
        if self._masks is not None:
            return np.asarray(self._masks[i], dtype=bool)
        name = self.table["mask"].iat[i]
        if not name or self._root is None:
            return None
        return np.asarray(square(read_mask(self._root / name), self.size, nearest=True)) > 0

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        classes = ", ".join(f"{n} {c}" for c, n in zip(self.classes, counts, strict=True))
        return f"LesionDataset({len(self)} images of {self.size} px: {classes})"

    def _positions(self, indices: Indices) -> torch.Tensor:
        chosen = torch.as_tensor(np.asarray(indices))
        return chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen.long()


def atlas_table(atlas: Atlas) -> pd.DataFrame:
    """Manifest rows of the built-in atlas, not split; files are named after their positions."""
    hard = f", difficulty {atlas.difficulty}" if atlas.difficulty else ""
    names = [f"ATLAS_{i:07d}" for i in range(len(atlas.labels))]
    table = {
        "image": [f"images/{name}.png" for name in names],
        "label": [str(label) for label in atlas.labels],
        "lesion_id": [str(lesion) for lesion in atlas.lesion_ids],
        "mask": [f"masks/{name}.png" for name in names],
        "source": f"atlas, seed {atlas.seed}{hard}",
    }
    return with_all_columns(pd.DataFrame(table))


def check_memory(count: int, size: int) -> None:
    """`InputError` for more uint8 images (3, size, size) than fit in the free memory."""
    if size < 1:
        raise InputError(f"an image size of {size} pixels is not possible: use 32 or more")
    need, free = 3 * count * size**2, psutil.virtual_memory().available
    if need > free:
        raise InputError(
            f"{count} images of {size} px take {need / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free: choose a smaller size or fewer images"
        )
