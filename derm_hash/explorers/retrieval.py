"""The retrieval explorer: choose a lesion, turn it with your hand, watch its bits and hits."""

import numpy as np
import traitlets as t
from matplotlib.figure import Figure

from derm_hash.data.images import to_input
from derm_hash.explorers.asking import (
    MOST_BYTES,
    ORIENTATIONS,
    QUARTERS,
    Library,
    Query,
    network,
    orbit,
    turned,
)
from derm_hash.explorers.still import Asked, arrival, thumbs
from derm_hash.model import encode
from derm_hash.plots import plot_hits
from derm_hash.plots.style import class_color
from derm_hash.retrieval import METRICS, HashIndex

STRIP = 24  # pictures of queries that the page has from the beginning
AT_ONCE = 36  # orientations that are encoded before the page may ask something else


def about(library: Library, indexes: list[HashIndex], names: list[str]) -> dict:
    """What the page has to know of the data and the models."""
    return {
        "classes": [{"name": c, "color": class_color(c)} for c in library.classes],
        "models": [
            {"name": name, "bits": index.bits, "map": principal_axes(index.codes)}
            for name, index in zip(names, indexes, strict=True)
        ],
        **library.rows,
    }


def principal_axes(codes: np.ndarray) -> dict:
    """A map of soft codes (N, bits): ``axes @ code + offset`` lies in the unit square.

    The axes are the first two principal ones.
    """
    _, axes = np.linalg.eigh(np.atleast_2d(np.cov(codes.T, bias=True)))
    axes = np.resize(axes[:, ::-1][:, :2].T, (2, codes.shape[1]))  # a single bit has one axis
    places = codes @ axes.T
    axes /= np.ptp(places, axis=0)[:, None] + 1e-9
    return {"axes": axes.tolist(), "offset": (-(codes @ axes.T).min(axis=0)).tolist()}


class RetrievalExplorer(Asked):
    """Ask the index: choose or upload a query, turn it, and see its hits and its bits.

    ``RetrievalExplorer(run, index, dataset)`` as the last line of a cell. Drag the lesion, or use
    the arrow keys (1 degree; 15 with Shift), R (a quarter turn) and M (mirror).

    Parameters
    ----------
    model : DermHash or Run
    index : HashIndex
        Of the database images, in their order: ``build_index(model, dataset.split("database"))``.
    dataset : LesionDataset
        With the splits ``query`` and ``database``; or the queries alone, if ``database`` is given.
    database : LesionDataset, optional
        The images that the index was built from, if they are not a split of ``dataset``.
    other : (DermHash or Run, HashIndex), optional
        A second model and its index of the same database, to be asked the same beside the first.
    names : (str, str) of the two models
    larger : LesionDataset, optional
        The images of ``dataset`` with more pixels, to be shown in their place.
    query : str, optional
        Id of the image that is asked about at first.
    **view
        Any of the attributes below but ``query``.

    Attributes
    ----------
    query : Query that is asked about
    k, radius, rank, angle, mirrored
        What is set on the page, and can be set here: number of hits 1..20, Hamming radius or None,
        a name in ``METRICS``, degrees counter-clockwise, and bool.
    """

    kind = t.Unicode("retrieval").tag(sync=True)
    codes = t.List(t.Bytes()).tag(sync=True)
    k = t.Int(10, min=1, max=20).tag(sync=True)
    radius = t.Int(4, min=0, allow_none=True).tag(sync=True)
    rank = t.Enum(METRICS, METRICS[0]).tag(sync=True)

    def __init__(
        self, model, index, dataset, database=None, other=None, names=("first", "second"),
        larger=None, query=None, **view,
    ):  # fmt: skip
        pairs = [(model, index)] if other is None else [(model, index), other]
        library = Library(dataset, database, larger)
        self.indexes = [each for _, each in pairs]
        self.models = [network(*pair, library) for pair in pairs]
        self.names = list(names) if other is not None else [""]
        self._serial = 0
        content = about(library, self.indexes, self.names) | {"most_bytes": MOST_BYTES}
        codes = [each.codes.tobytes() for each in self.indexes]
        super().__init__(library, query, about=content, codes=codes, **view)
        self.start = self._beginning()

    def answer_upload(self, content: dict, buffers: list) -> None:
        """Make an uploaded file the query."""
        self._show(self.library.upload(bytes(buffers[0]), content["name"]))

    def _show(self, query: Query) -> None:
        """Send the query as it is first shown; the page then asks for the other orientations."""
        first = QUARTERS if query is self.query else QUARTERS[:1]  # a new one is not turned
        codes = self._codes(query, first)
        self.query = query
        self.start = []  # another view of the page asks what is shown then
        self._serial += 1
        self.send(*self._message(codes, first))

    def _message(self, codes: list[bytes], known: list[int]) -> tuple[dict, list[bytes]]:
        """What the page is first told of the query."""
        rest = [o for o in ORIENTATIONS if o not in known]
        return arrival(self.query, codes, known=known, rest=rest, serial=self._serial)

    def _beginning(self) -> list[tuple[dict, list[bytes]]]:
        """The first query, and the pictures that stand beside it: queries, and its hits."""
        codes, found = self._codes(self.query, QUARTERS), set()
        for index, each in zip(self.indexes, codes, strict=True):
            for code in np.frombuffer(each, np.float32).reshape(-1, index.bits):
                hits = self._hits(index, code, self.k, self.radius, self.rank)
                found |= {position for position, *_ in hits}
        shown = {"query": range(min(STRIP, len(self.library.queries))), "database": sorted(found)}
        pictures = [thumbs(self.library, part, list(those)) for part, those in shown.items()]
        return [*pictures, self._message(codes, QUARTERS)]

    def answer_more(self, content: dict, _) -> None:
        """Send the codes of more orientations, unless another query has come in between."""
        if content["serial"] == self._serial:
            now, rest = content["rest"][:AT_ONCE], content["rest"][AT_ONCE:]
            message = {"kind": "codes", "serial": self._serial, "known": now, "rest": rest}
            self.send(message, self._codes(self.query, now))

    def _codes(self, query: Query, orientations: list[int]) -> list[bytes]:
        """Soft codes (n, bits) float32 of a query in some orientations, for each model."""
        x = orbit(query.image, orientations)
        return [encode(model, x).tobytes() for model in self.models]

    def answer_familiar(self, content: dict, _) -> None:
        """Send how familiar the query is."""
        [found] = self.library.familiarity.about(self.query.image[None])
        self.send(content | {"familiar": found})

    def figures(self) -> list[Figure]:
        """Query as it is turned, and its hits; a figure for each model."""
        x = turned(to_input(self.query.image)[None], self.angle, self.mirrored)
        turn = f", turned by {self.angle:g}°" + ", mirrored" * self.mirrored
        return [
            self._figure(*each, x, f"{name}{turn}" if self.angle or self.mirrored else name)
            for *each, name in zip(self.models, self.indexes, self.names, strict=True)
        ]

    def _figure(self, model, index, x, title: str) -> Figure:
        code = encode(model, x)[0]
        hits = self._hits(index, code, self.k, self.radius, self.rank)
        ids, hamming, distance = ([row[i] for row in hits] for i in range(3))
        return plot_hits(
            x[0],
            [self.library.shown["database"].picture(i) for i in ids],
            self.library.database.table["label"].iloc[ids].tolist(),
            self.query.label,
            hamming,
            distance,
            code,
            index.codes[ids],
            title=title.strip(", ") or None,
        )
