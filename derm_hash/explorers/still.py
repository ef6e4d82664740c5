"""What all explorers have in common: the front end, a still picture, messages, and their end."""

import io
import threading

import anywidget
import numpy as np
import traitlets as t
from IPython import get_ipython
from matplotlib.figure import Figure
from PIL import Image

from derm_hash.errors import InputError
from derm_hash.explorers.asking import Library, Query, as_file, jpeg
from derm_hash.explorers.frontend import module, style
from derm_hash.plots import describe, figure_png

THUMB = 160  # pixels of a small picture
OPEN: dict[str, tuple[str, list["Still"]]] = {}  # cell -> its last run, and the explorers of that
NOTE = "A still picture: run the cell to use the explorer"


class Still(anywidget.AnyWidget):
    """A widget that leaves a picture where there is no kernel, and goes when its cell runs again.

    `figures` gives that picture.
    """

    _esm, _css = module(), style()
    kind = t.Unicode().tag(sync=True)  # which view of the front end it has
    about = t.Dict().tag(sync=True)  # what the page is told once

    def __init__(self, **traits):
        super().__init__(**traits)
        self._take_the_place_of_earlier_ones()

    def figures(self) -> list[Figure]:
        """The present view as figures, one below the other."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        figures = self.figures()
        figures[-1].supxlabel(NOTE, fontsize=9, x=0.99, ha="right", style="italic")
        data["image/png"] = stacked([figure_png(figure) for figure in figures])
        data["text/plain"] = f"{type(self).__name__} (run the cell to use it)"
        alt = [data["text/plain"], *map(describe, figures)]
        metadata["image/png"] = {"alt": ". ".join(alt).strip(". ")}
        return data, metadata

    def _take_the_place_of_earlier_ones(self) -> None:
        """Close the explorers that an earlier run of the same cell has made."""
        shell = get_ipython()
        parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
        cell = parent.get("metadata", {}).get("cellId")
        if cell is None:
            return
        run, (earlier, explorers) = parent["header"]["msg_id"], OPEN.get(cell, ("", []))
        if run != earlier:
            for explorer in explorers:
                explorer.close()
            explorers = []
        OPEN[cell] = (run, [*explorers, self])


class Asked(Still):
    """An explorer of a library: the page sends questions, and each gets an answer.

    A question of kind "x" is answered by the method ``answer_x(content, buffers)``. A subclass has
    a method `_show(query)` that makes a query the one that is asked about, and sends it.
    """

    angle = t.Float(0).tag(sync=True)
    mirrored = t.Bool(False).tag(sync=True)
    # Messages, each with its buffers, that the page has without asking. While other cells run, no
    # question would be answered.
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
        """Make an image the query: of a part by its position, by its id, or the one from before."""
        if content["origin"] == "start":
            self._show(self.query)
        elif content["origin"] == "id":
            self._show(self.library.find(content["id"]))
        else:
            self._show(self.library.get(content["origin"], content["position"]))

    def answer_thumbs(self, content: dict, _) -> None:
        """Send small pictures of some images of a part."""
        self.send(*thumbs(self.library, content["origin"], content["positions"]))

    def _hits(self, index, code, k, radius=None, rank="cosine") -> list[tuple]:
        """The k images nearest to a code (bits,): id, Hamming distance and distance of each.

        The query itself, which may be a database image, is none of them.
        """
        itself = self.query.position if self.query.origin == "database" else -1
        found = index.search(code[None], k + 1, radius, rank)
        rows = zip(*(each[0].tolist() for each in found), strict=True)
        return [row for row in rows if row[0] not in (-1, itself)][:k]


def thumbs(library: Library, origin: str, positions: list[int]) -> tuple[dict, list[bytes]]:
    """The message with small pictures of some images of a part, and its buffers."""
    pictures = [jpeg(library.shown[origin].picture(position), THUMB) for position in positions]
    return {"kind": "thumbs", "origin": origin, "positions": positions}, pictures


def arrival(query: Query, codes=(), **more) -> tuple[dict, list[bytes]]:
    """The message with a query, its pictures, and codes of some orientations; and its buffers."""
    seen = query.image.permute(1, 2, 0).numpy()
    message = {"kind": "query", "about": query.about, "known": [], "rest": []} | more
    return message, [jpeg(query.shown), jpeg(seen), *codes]


def stacked(pictures: list[bytes]) -> bytes:
    """PNG files one below the other, as one PNG file."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    tops = np.cumsum([0, *(image.height for image in images)]).tolist()
    result = Image.new("RGB", (max(image.width for image in images), tops[-1]), "white")
    for image, top in zip(images, tops, strict=False):
        result.paste(image, (0, top))
    return as_file(result, "PNG", optimize=True)
