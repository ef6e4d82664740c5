"""What is asked: a query, from the data set or uploaded, in every orientation."""

import io
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from derm_hash.data.images import open_image, square, to_input
from derm_hash.errors import InputError
from derm_hash.metrics.familiarity import Familiarity
from derm_hash.model import DermHash
from derm_hash.retrieval import HashIndex
from derm_hash.rotations import rotate, rotate_view
from derm_hash.runs import Run

STEP, TURNS = 5, 72  # degrees between the orientations that are encoded, and how many there are
DISC = 2 * TURNS  # the unturned image, cut to the disc that is seen between quarter turns
QUARTERS = [side + t for side in (0, TURNS) for t in range(0, TURNS, 90 // STEP)]
ORIENTATIONS = [*QUARTERS, DISC, *(o for o in range(DISC) if o not in QUARTERS)]
"""Of a query: o = angle / 5 degrees, and 72 more where mirrored. Quarter turns come first."""
MOST_BYTES = 10_000_000
"""Of an uploaded file. Jupyter's servers close a connection at a message above 10.4 MB, so the page
refuses a larger file before it is sent; the kernel refuses it, too, whoever sends it."""


@dataclass(frozen=True, eq=False)
class Query:
    """An image that is asked about.

    image: (3, S, S) uint8 tensor; shown: (S', S', 3) uint8, the picture to show; about: what the
    page is told of it: id, name (its path), label (None where it is not known), lesion, origin
    ("query", "database" or "upload"), and position there (None for an upload).
    """

    image: Tensor
    shown: np.ndarray
    about: dict

    label = property(lambda self: self.about["label"])
    origin = property(lambda self: self.about["origin"])
    position = property(lambda self: self.about["position"])


def turned(x: Tensor, angle: float, mirrored: bool) -> Tensor:
    """Images or maps (B, C, S, S), mirrored left to right or not, and then turned."""
    return rotate_view(x.flip(-1) if mirrored else x, angle)


def orbit(image: Tensor, orientations: list[int]) -> Tensor:
    """One image (3, S, S) uint8 as network input in several `ORIENTATIONS`: (n, 3, S, S)."""
    x, o = to_input(image)[None], torch.tensor(orientations)
    both = torch.cat([x, x.flip(-1)])
    views = rotate(both[o // TURNS % 2], o % TURNS * STEP)
    for i, each in enumerate(orientations):
        if each in QUARTERS:  # exactly, without a disc
            views[i] = turned(x, each % TURNS * STEP, each >= TURNS)
    return views


def as_file(image: Image.Image, kind: str, **options) -> bytes:
    """A picture as the content of a file, such as "PNG"."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(picture: np.ndarray, most: int = 1000) -> bytes:
    """A picture as JPEG, with its colours at full resolution; at ``most`` pixels wide."""
    image = Image.fromarray(picture)
    image.thumbnail((most, most), Image.Resampling.BOX)
    return as_file(image, "JPEG", quality=85, subsampling=0)


class Library:
    """The images that can be asked about, and those that are found.

    Parameters
    ----------
    dataset : LesionDataset with the splits ``query`` and ``database``, or the queries alone
    database : LesionDataset, if it is not a split of ``dataset``
    larger : LesionDataset, optional
        The images of ``dataset`` with more pixels, to be shown in their place.

    Attributes
    ----------
    parts, shown : dict of the LesionDatasets "query" and "database", and of those to be shown
    rows : dict of what the page is told of each image of a part: id, name (its path), label, lesion
    others : LesionDataset of images that are not in the database, and are like it

    Raises
    ------
    InputError
        If ``larger`` has other images.
    """

    def __init__(self, dataset, database=None, larger=None):
        names, whole = ("query", "database"), database is None
        given = map(dataset.split, names) if whole else (dataset, database)
        self.parts = dict(zip(names, given, strict=True))
        self.queries, self.database = self.parts.values()
        self.classes = self.queries.classes
        with_val = whole and "val" in set(dataset.table["split"])
        self.others = dataset.split("val") if with_val else self.queries
        self.shown = {name: larger.split(name) for name in names} if larger else self.parts
        for name, part in self.shown.items():
            if part.table["image"].tolist() != self.parts[name].table["image"].tolist():
                raise InputError(f"The larger {name} images are other images: give the same ones")
        self.rows = self._rows()

    def _rows(self) -> dict[str, list[dict]]:
        tables = {name: part.table for name, part in self.parts.items()}
        paths = {path for table in tables.values() for path in table["image"]}
        same = Counter(Path(path).stem for path in paths)  # such as MEL/001 and NV/001
        return {
            name: [
                {"id": path if same[Path(path).stem] > 1 else Path(path).stem}
                | {"name": path, "label": label, "lesion": lesion}
                for path, label, lesion in zip(
                    table["image"], table["label"], table["lesion_id"], strict=True
                )
            ]
            for name, table in tables.items()
        }

    def get(self, origin: str, position: int) -> Query:
        """Image ``position`` of the queries or of the database ("query", "database")."""
        part = self.parts[origin]
        if not 0 <= position < len(part):
            raise InputError(f"There are {len(part)} {origin} images, from 0 on: no {position}")
        about = self.rows[origin][position] | {"origin": origin, "position": position}
        return Query(part.images[position], self.shown[origin].picture(position), about)

    def find(self, name: str) -> Query:
        """The image with this id or path; an image that is in both parts is a query."""
        name = name.strip()
        places = {
            row["name"]: (origin, position)
            for origin in ("database", "query")
            for position, row in enumerate(self.rows[origin])
        }
        paths = [name] if name in places else [path for path in places if Path(path).stem == name]
        if not paths:
            raise InputError(
                f"There is no image {name!r} among the {len(self.queries)} queries and "
                f"{len(self.database)} database images: write an id as it stands with a picture"
            )
        if len(paths) > 1:
            raise InputError(
                f"{len(paths)} images have the id {name!r}: write the path of one, such as "
                f"{paths[0]} or {paths[1]}"
            )
        return self.get(*places[paths[0]])

    def upload(self, content: bytes, name: str) -> Query:
        """An uploaded file as a query; nothing is written to disk."""
        if len(content) > MOST_BYTES:
            raise InputError(
                f"{name} has more than the {MOST_BYTES // 10**6} MB that are taken: "
                "make it smaller first"
            )
        picture = open_image(io.BytesIO(content), name)
        pixels = np.array(square(picture, self.queries.size))
        shown = np.array(square(picture, max(self.queries.size, 256)))
        about = {"id": Path(name).stem, "name": name, "label": None, "lesion": ""}
        about |= {"origin": "upload", "position": None}
        return Query(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), shown, about)

    @cached_property
    def familiarity(self) -> Familiarity:
        """How familiar a picture is."""
        return Familiarity(self.database, self.others)


def network(model: DermHash | Run, index: HashIndex, library: Library) -> DermHash:
    """The model itself; InputError if the index was not made with it, of this database."""
    model, database = model.model if isinstance(model, Run) else model, library.database
    if not np.array_equal(index.labels, database.labels.numpy()):
        raise InputError(
            f"The index of {len(index)} images was not made from this database of "
            f"{len(database)}: make it with build_index(model, dataset.split('database'))"
        )
    if index.bits != model.bits:
        raise InputError(
            f"The index holds codes of {index.bits} bits and the model makes "
            f"{model.bits}: make the index with this model"
        )
    return model
