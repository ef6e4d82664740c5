"""Questions and answers: queries, from the data set or uploaded, in every orientation."""

import io
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
import traitlets as t
from torch import Tensor

from derm_hash.data.images import open_image, square, to_input
from derm_hash.errors import InputError
from derm_hash.explorers.still import Still
from derm_hash.metrics.familiarity import Familiarity
from derm_hash.model import DermHash
from derm_hash.plots.style import jpeg
from derm_hash.retrieval import HashIndex
from derm_hash.rotations import rotate, rotate_view
from derm_hash.runs import Run

STEP, TURNS = 5, 72  # degrees between the orientations that are encoded, and how many there are
DISC = 2 * TURNS  # the unturned image, cut to the disc that is seen between quarter turns
QUARTERS = [side + t for side in (0, TURNS) for t in range(0, TURNS, 90 // STEP)]
ORIENTATIONS = [*QUARTERS, DISC, *(o for o in range(DISC) if o not in QUARTERS)]
"""The orientations of a query, quarter turns first: angle / 5 degrees, and 72 more if mirrored."""
MOST_BYTES = 10_000_000
"""The largest file that can be uploaded: Jupyter's servers close a connection at a message above
10.4 MB. The page refuses a larger file before it is sent; the kernel refuses it as well."""
THUMB = 160  # pixels of a small picture
Message = tuple[dict, list[bytes]]  # the content of a message to the page, and its buffers


@dataclass(frozen=True, eq=False)
class Query:
    """An image that is asked about.

    image: (3, S, S) uint8 tensor; shown: (S', S', 3) uint8, the picture to show; about: what the
    page is told of it: id, name (its path), label (None where it is not known), lesion, origin
    ("query", "database" or "upload"), and position there (None for an upload); serial: a number
    that no other query has.
    """

    image: Tensor
    shown: np.ndarray
    about: dict
    serial: int = field(default_factory=count(1).__next__)

    label = property(lambda self: self.about["label"])
    origin = property(lambda self: self.about["origin"])
    position = property(lambda self: self.about["position"])


def turned(x: Tensor, angle: float, mirrored: bool) -> Tensor:
    """Mirror images or maps (B, C, S, S) left to right if ``mirrored``, then turn them."""
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


class Library:
    """The images that can be asked about, and those that are found.

    ``dataset`` has the splits "query" and "database"; or it holds the queries alone, and
    ``database`` is given. ``larger`` has the same images with more pixels, to be shown.

    parts: dict of the LesionDatasets "query" and "database"; shown: dict of those to be shown;
    rows: dict of what the page is told of each image of a part: id, name (its path), label, lesion.
    """

    def __init__(self, dataset, database=None, larger=None):
        self.dataset, names = dataset, ("query", "database")
        given = map(dataset.split, names) if database is None else (dataset, database)
        self.parts = dict(zip(names, given, strict=True))
        self.queries, self.database = self.parts.values()
        self.shown = {name: larger.split(name) for name in names} if larger else self.parts
        for name, part in self.shown.items():
            if part.table["image"].tolist() != self.parts[name].table["image"].tolist():
                raise InputError(f"The larger {name} images are other images: give the same ones")
        paths = chain(self.queries.table["image"], self.database.table["image"])
        self._stems = {path: Path(path).stem for path in paths}
        same = Counter(self._stems.values())  # such as MEL/001 and NV/001
        ids = {path: path if same[stem] > 1 else stem for path, stem in self._stems.items()}
        self.rows = {
            name: [
                {"id": ids[path], "name": path, "label": label, "lesion": lesion}
                for path, label, lesion in part.table[["image", "label", "lesion_id"]].to_numpy()
            ]
            for name, part in self.parts.items()
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
        for origin, rows in self.rows.items():
            for position, row in enumerate(rows):
                if name in (row["id"], row["name"]):
                    return self.get(origin, position)
        paths = [path for path, stem in self._stems.items() if stem == name]
        if paths:
            raise InputError(
                f"{len(paths)} images have the id {name!r}: write the path of one, such as "
                f"{paths[0]} or {paths[1]}"
            )
        raise InputError(
            f"There is no image {name!r} among the {len(self.queries)} queries and "
            f"{len(self.database)} database images: write an id as it stands with a picture"
        )

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
        """How familiar a picture is. What is usual is measured on val, or else on the queries."""
        has_val = "val" in set(self.dataset.table["split"])
        return Familiarity(self.database, self.dataset.split("val") if has_val else self.queries)


def network(model: DermHash | Run, index: HashIndex, library: Library) -> DermHash:
    """The model itself; `InputError` if the index was not made with it, from this database."""
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


class Asked(Still):
    """An explorer of a library: the page sends questions, and each gets an answer.

    A question of kind "x" is answered by the method ``answer_x(content, buffers)``.
    """

    angle = t.Float(0).tag(sync=True)
    mirrored = t.Bool(False).tag(sync=True)
    # Messages that the page has without asking: while other cells run, no question is answered.
    start = t.List().tag(sync=True)

    def __init__(self, library: Library, query: str | None, **traits):
        # JupyterLab may handle messages from the page in several threads of the kernel.
        self._turn = threading.Lock()
        self.library = library
        self.query = library.find(query) if query else library.get("query", 0)
        super().__init__(**traits)
        self.on_msg(self._answer)

    def _answer(self, _, content: dict, buffers: list) -> None:
        """Do what the page asks for; if it cannot be done, say why in a sentence."""
        try:
            with self._turn:
                getattr(self, f"answer_{content['kind']}")(content, buffers)
        except (InputError, RuntimeError, MemoryError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            self.send({"kind": "error", "text": text})

    def answer_ask(self, content: dict, _) -> None:
        """Make an image the query: by its part and position, by its id, or once more."""
        if content["origin"] == "start":
            self._show(self.query)
        elif content["origin"] == "id":
            self._show(self.library.find(content["id"]))
        else:
            self._show(self.library.get(content["origin"], content["position"]))

    def answer_thumbs(self, content: dict, _) -> None:
        """Send small pictures of some images of a part."""
        self.send(*self._thumbs(content["origin"], content["positions"]))

    def _show(self, query: Query) -> None:
        """Make an image the query and send it; an error leaves the query as it was."""
        message = self._arrival(query)
        self.query = query
        self.start = []  # another view of the page asks what is shown then
        self.send(*message)

    def _arrival(self, query: Query) -> Message:
        """The message with a query and its pictures: the one to show, and what the network sees."""
        message = {"kind": "query", "about": query.about, "known": [], "rest": []}
        seen = query.image.permute(1, 2, 0).numpy()
        return message, [jpeg(query.shown), jpeg(seen)]

    def _thumbs(self, origin: str, positions: list[int]) -> Message:
        """The message with small pictures of some images of a part."""
        pictures = [jpeg(self.library.shown[origin].picture(each), THUMB) for each in positions]
        return {"kind": "thumbs", "origin": origin, "positions": positions}, pictures

    def _hits(self, index, code, k, radius=None, rank="cosine") -> list[np.ndarray]:
        """The k images nearest to a code (bits,): their ids, Hamming distances and distances.

        The query itself, which may be a database image, is none of them.
        """
        itself = self.query.position if self.query.origin == "database" else -1
        found = index.search(code[None], k + 1, radius, rank)
        others = ~np.isin(found.ids, (-1, itself))
        return [each[others][:k] for each in found]
