"""What is asked: a query, from the data set or uploaded, in every orientation."""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import open_image, square, to_input
from derm_hash.errors import InputError
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
THUMB = 160  # pixels of a small picture


@dataclass(frozen=True, eq=False)
class Query:
    """An image that is asked about.

    image: (3, S, S) uint8 tensor; label: class name, None where it is not known; position: in the
    queries or the database, None for an upload; shown: (S', S', 3) uint8, the picture to show.
    """

    image: Tensor
    shown: np.ndarray
    name: str
    label: str | None = None
    lesion_id: str = ""
    origin: str = "upload"
    position: int | None = None


def turned(x: Tensor, angle: float, mirrored: bool) -> Tensor:
    """Images or maps (B, C, S, S), mirrored left to right or not, and then turned."""
    return rotate_view(x.flip(-1) if mirrored else x, angle)


def orbit(image: Tensor, orientations: list[int]) -> Tensor:
    """One image (3, S, S) uint8 as network input in several `ORIENTATIONS`: (n, 3, S, S)."""
    x = to_input(image)[None]
    views = [
        rotate(x, 0) if o == DISC else turned(x, o % TURNS * STEP, o >= TURNS) for o in orientations
    ]
    return torch.cat(views)


def jpeg(picture: np.ndarray, most: int | None = None) -> bytes:
    """A picture as JPEG, with its colours at full resolution; at ``most`` pixels wide."""
    buffer, image = io.BytesIO(), Image.fromarray(picture)
    if most is not None and image.width > most:
        image = image.resize((most, most), Image.Resampling.BOX, reducing_gap=2)
    image.save(buffer, format="JPEG", quality=85, subsampling=0)
    return buffer.getvalue()


def image_id(name: str) -> str:
    """The id of an image: its file name without folder and ending."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


class Library:
    """The images that can be asked about, and those that are found.

    Parameters
    ----------
    dataset : LesionDataset with the splits ``query`` and ``database``, or the queries alone
    database : LesionDataset, if it is not a split of ``dataset``
    larger : LesionDataset, optional
        The images of ``dataset`` with more pixels, to be shown in their place.

    Raises
    ------
    InputError
        If ``larger`` has other images.
    """

    def __init__(self, dataset, database=None, larger=None):
        whole = database is None
        self.parts = {
            "query": dataset.split("query") if whole else dataset,
            "database": dataset.split("database") if whole else database,
        }
        self.queries, self.database = self.parts.values()
        self.classes = self.queries.classes
        self._others = dataset.split("val") if whole and "val" in set(dataset.table.split) else None
        self._larger = larger and {name: larger.split(name) for name in self.parts}
        for name, part in (self._larger or {}).items():
            if part.table["image"].tolist() != self.parts[name].table["image"].tolist():
                raise InputError(f"The larger {name} images are other images: give the same ones")

    def picture(self, origin: str, position: int) -> np.ndarray:
        """A picture to show: (S, S, 3) uint8."""
        parts = self._larger or self.parts
        return parts[origin].picture(position)

    def get(self, origin: str, position: int) -> Query:
        """Image ``position`` of the queries or of the database ("query", "database")."""
        part = self.parts[origin]
        if not 0 <= position < len(part):
            raise InputError(f"There are {len(part)} {origin} images, from 0 on: no {position}")
        row, image = part.table.iloc[position], part.images[position]
        shown = self.picture(origin, position)
        return Query(image, shown, row["image"], row["label"], row["lesion_id"], origin, position)

    def find(self, name: str) -> Query:
        """The image with this id or path; an image that is in both parts is a query."""
        name = name.strip()
        paths = [name] if name in self._positions else self._paths.get(name, [])
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
        return self.get(*self._positions[paths[0]])

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
        return Query(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), shown, name)

    def id_of(self, path: str) -> str:
        """The id that `find` knows an image by: the path where others have the short one."""
        return path if len(self._paths.get(image_id(path), [])) > 1 else image_id(path)

    def rows(self, origin: str) -> list[dict]:
        """What the page is told of each image of a part."""
        table = self.parts[origin].table
        columns = zip(table["image"], table["label"], table["lesion_id"], strict=True)
        names = ("id", "name", "label", "lesion")
        return [dict(zip(names, (self.id_of(row[0]), *row), strict=True)) for row in columns]

    @cached_property
    def others(self) -> LesionDataset:
        """Images that are not in the database, and are like it: ``val``, or the queries."""
        return self.queries if self._others is None else self._others

    @cached_property
    def _positions(self) -> dict[str, tuple[str, int]]:
        """Path -> part and position."""
        return {
            path: (name, position)
            for name in ("database", "query")
            for position, path in enumerate(self.parts[name].table["image"])
        }

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        """Short id -> the paths of all images that have it, such as MEL/001 and NV/001."""
        result: dict[str, list[str]] = {}
        for path in self._positions:
            result.setdefault(image_id(path), []).append(path)
        return result


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
