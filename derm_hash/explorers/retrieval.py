"""The retrieval explorer: choose a lesion, turn it with your hand, watch its bits and hits."""

import json
import threading

import anywidget
import numpy as np
import traitlets as t

from derm_hash.errors import InputError
from derm_hash.explorers.asking import (
    MOST_BYTES,
    ORIENTATIONS,
    QUARTERS,
    Library,
    Query,
    jpeg,
    network,
    orbit,
)
from derm_hash.explorers.familiar import Familiarity
from derm_hash.explorers.frontend import module, style
from derm_hash.explorers.still import Still
from derm_hash.model import encode
from derm_hash.plots.style import class_color
from derm_hash.retrieval import METRICS, HashIndex

AT_ONCE = 24  # orientations that are encoded before the page may ask something else
THUMB = 160  # pixels


def about(library: Library, indexes: list[HashIndex], names: list[str]) -> dict:
    """What the page has to know of the data and the models."""
    return {
        "classes": [{"name": c, "color": class_color(c)} for c in library.classes],
        "models": [
            {"name": name, "bits": index.bits, "map": principal_axes(index.codes)}
            for name, index in zip(names, indexes, strict=True)
        ],
        "query": library.rows("query"),
        "database": library.rows("database"),
        "most_bytes": MOST_BYTES,
    }


def principal_axes(codes: np.ndarray) -> dict:
    """Mean and first two principal axes of soft codes (N, bits), which make a map of them."""
    mean = codes.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(np.cov(codes, rowvar=False, dtype=np.float64).reshape(len(mean), -1))
    axes = np.resize(axes[:, ::-1][:, :2].T, (2, len(mean)))  # a single bit has one axis
    return {"mean": mean.round(5).tolist(), "axes": axes.round(5).tolist()}


class RetrievalExplorer(Still, anywidget.AnyWidget):
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

    _esm, _css = module(), style()
    kind = t.Unicode("retrieval").tag(sync=True)
    about = t.Unicode().tag(sync=True)
    codes = t.List(t.Bytes()).tag(sync=True)
    k = t.Int(10, min=1, max=20).tag(sync=True)
    radius = t.Int(4, min=0, allow_none=True).tag(sync=True)
    rank = t.Enum(METRICS, METRICS[0]).tag(sync=True)
    angle = t.Float(0).tag(sync=True)
    mirrored = t.Bool(False).tag(sync=True)

    def __init__(
        self, model, index, dataset, database=None, other=None, names=("first", "second"),
        larger=None, query=None, **view,
    ):  # fmt: skip
        pairs = [(model, index)] if other is None else [(model, index), other]
        self.library = Library(dataset, database, larger)
        self.indexes = [each for _, each in pairs]
        self.models = [network(*pair, self.library) for pair in pairs]
        self.names = list(names) if other is not None else [""]
        self.query = self.library.find(query) if query else self.library.get("query", 0)
        self._serial, self._familiarity = 0, None
        # JupyterLab may handle messages from the page in several threads of the kernel.
        self._turn = threading.Lock()
        told = about(self.library, self.indexes, self.names)
        codes = [each.codes.tobytes() for each in self.indexes]
        super().__init__(about=json.dumps(told), codes=codes, **view)
        self.on_msg(self._answer)

    def _answer(self, _, content: dict, buffers: list) -> None:
        """Do what the page asks for; if it cannot be done, say why in a sentence."""
        answers = {"ask": self._ask, "upload": self._upload, "more": self._more}
        answers |= {"thumbs": self._thumbs, "familiar": self._familiar}
        try:
            with self._turn:
                answers[content["kind"]](content, buffers)
        except (InputError, RuntimeError, MemoryError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            self.send({"kind": "error", "text": text})

    def _ask(self, content: dict, _) -> None:
        """Make an image the query: of a part by its position, by its id, or the one from before."""
        if content["origin"] == "id" or content.get("position") is None:
            found = self.query if content["origin"] == "start" else self.library.find(content["id"])
        else:
            found = self.library.get(content["origin"], content["position"])
        self._show(found)

    def _upload(self, content: dict, buffers: list) -> None:
        self._show(self.library.upload(bytes(buffers[0]), content["name"]))

    def _show(self, query: Query) -> None:
        """Send the query with its quarter turns; the page then asks for the other orientations."""
        codes = self._codes(query, QUARTERS)
        self.query = query
        self._serial += 1
        told = {"id": self.library.id_of(query.name), "name": query.name, "label": query.label}
        told |= {"lesion": query.lesion_id, "origin": query.origin, "position": query.position}
        rest = [o for o in ORIENTATIONS if o not in QUARTERS]
        message = {"kind": "query", "about": told | {"serial": self._serial}}
        seen = query.image.permute(1, 2, 0).numpy()
        self.send(
            message | {"known": QUARTERS, "rest": rest}, [jpeg(query.shown), jpeg(seen), *codes]
        )

    def _more(self, content: dict, _) -> None:
        if content["serial"] != self._serial:  # another query has come in between
            return
        now, rest = content["rest"][:AT_ONCE], content["rest"][AT_ONCE:]
        message = {"kind": "codes", "serial": self._serial, "known": now, "rest": rest}
        self.send(message, self._codes(self.query, now))

    def _codes(self, query: Query, orientations: list[int]) -> list[bytes]:
        """Soft codes (n, bits) float32 of a query in some orientations, for each model."""
        x = orbit(query.image, orientations)
        return [encode(model, x).tobytes() for model in self.models]

    def _thumbs(self, content: dict, _) -> None:
        positions, origin = content["positions"], content["origin"]
        pictures = [jpeg(self.library.picture(origin, p), THUMB) for p in positions]
        self.send({"kind": "thumbs", "origin": origin, "positions": positions}, pictures)

    def _familiar(self, content: dict, _) -> None:
        if self._familiarity is None:
            self._familiarity = Familiarity(self.library.database, self.library.others)
        found = self._familiarity
        distance = float(found.distance(self.query.image[None])[0])
        told = {"distance": distance, "limit": found.limit}
        self.send({"kind": "familiar", "serial": content["serial"], "familiar": told})
