"""The retrieval explorer: choose a lesion, turn it with your hand, watch its bits and hits."""

import numpy as np
import traitlets as t
from matplotlib.figure import Figure

from derm_hash.data.images import to_input
from derm_hash.explorers.asking import (
    MOST_BYTES,
    ORIENTATIONS,
    QUARTERS,
    Asked,
    Library,
    Message,
    Query,
    network,
    orbit,
    turned,
)
from derm_hash.model import encode
from derm_hash.plots import plot_hits
from derm_hash.plots.style import class_color
from derm_hash.retrieval import METRICS

STRIP = 24  # pictures of queries that the page has from the beginning
AT_ONCE = 36  # orientations that are encoded before the page may ask something else


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
        self.models = [network(*pair, library) for pair in pairs]
        self.indexes = [each for _, each in pairs]
        self.names = list(names) if other is not None else [""]
        about = {
            "classes": [{"name": c, "color": class_color(c)} for c in dataset.classes],
            "models": [
                {"name": name, "bits": index.bits, "map": principal_axes(index.codes)}
                for name, index in zip(self.names, self.indexes, strict=True)
            ],
            "most_bytes": MOST_BYTES,
            **library.rows,
        }
        codes = [each.codes.tobytes() for each in self.indexes]
        super().__init__(library, query, about=about, codes=codes, **view)
        self.start = self._beginning()

    def _beginning(self) -> list[Message]:
        """The first messages: small pictures of queries and of the hits, and the first query."""
        message, buffers = self._arrival(self.query)
        hits = set()
        for index, each in zip(self.indexes, buffers[2:], strict=True):
            codes = np.frombuffer(each, np.float32).reshape(-1, index.bits)
            ids = index.search(codes, self.k + 1, self.radius, self.rank).ids
            hits.update(ids[ids >= 0].tolist())  # the query itself may be among them
        strip = [*range(min(STRIP, len(self.library.queries)))]
        pictures = [self._thumbs("query", strip), self._thumbs("database", sorted(hits))]
        return [*pictures, (message, buffers)]

    def _arrival(self, query: Query) -> Message:
        """The message with a query and its first codes; the page then asks for all others."""
        message, pictures = super()._arrival(query)
        known = QUARTERS if query is self.query else QUARTERS[:1]  # a new one is not turned
        rest = [o for o in ORIENTATIONS if o not in known]
        message |= {"serial": query.serial, "known": known, "rest": rest}
        return message, [*pictures, *self.codes_of(query, known)]

    def codes_of(self, query: Query, orientations: list[int]) -> list[bytes]:
        """Soft codes (n, bits) float32 of a query in some orientations, for each model."""
        x = orbit(query.image, orientations)
        return [encode(model, x).tobytes() for model in self.models]

    def answer_upload(self, content: dict, buffers: list) -> None:
        """Make an uploaded file the query."""
        self._show(self.library.upload(bytes(buffers[0]), content["name"]))

    def answer_more(self, content: dict, _) -> None:
        """Send the codes of more orientations, unless another query has come in between."""
        if content["serial"] == self.query.serial:
            now, rest = content["rest"][:AT_ONCE], content["rest"][AT_ONCE:]
            message = {"kind": "codes", "serial": content["serial"], "known": now, "rest": rest}
            self.send(message, self.codes_of(self.query, now))

    def answer_familiar(self, content: dict, _) -> None:
        """Send how familiar the query is."""
        [found] = self.library.familiarity.about(self.query.image[None])
        self.send(content | {"familiar": found})

    def figures(self) -> list[Figure]:
        """The query as it is turned, and its hits: a figure for each model."""
        library, label, made = self.library, self.query.label, []
        x = turned(to_input(self.query.image)[None], self.angle, self.mirrored)
        turn = f"turned by {self.angle:g}°" + ", mirrored" * self.mirrored
        turn = turn if self.angle or self.mirrored else ""
        for model, index, name in zip(self.models, self.indexes, self.names, strict=True):
            code = encode(model, x)[0]
            ids, *distances = self._hits(index, code, self.k, self.radius, self.rank)
            pictures = [library.shown["database"].picture(i) for i in ids]
            labels = library.database.table["label"].iloc[ids].tolist()
            codes = code, index.codes[ids]
            title = ", ".join(filter(None, [name, turn])) or None
            made.append(plot_hits(x[0], pictures, labels, label, *distances, *codes, title))
        return made


def principal_axes(codes: np.ndarray) -> dict:
    """Make a map of soft codes (N, bits), whose axes are the first two principal ones.

    ``axes @ code + offset`` lies in the unit square.
    """
    *_, axes = np.linalg.svd(codes - codes.mean(axis=0), full_matrices=False)
    axes = np.resize(axes[:2], (2, codes.shape[1]))  # a single bit has one axis
    axes /= np.ptp(codes @ axes.T, axis=0)[:, None] + 1e-9
    return {"axes": axes.tolist(), "offset": (-(codes @ axes.T).min(axis=0)).tolist()}
