"""What all explorers have in common: the front end, a still picture, messages, and their end."""

import io
import threading

import anywidget
from IPython import get_ipython
from matplotlib.figure import Figure
from PIL import Image

from derm_hash.errors import InputError
from derm_hash.explorers.asking import THUMB, Library, Query, jpeg
from derm_hash.explorers.frontend import module, style
from derm_hash.plots import describe, figure_png

OPEN: dict[str, list[tuple[str, "Still"]]] = {}  # cell -> (run of it, explorer)
NOTE = "A still picture: run the cell to use the explorer"


class Still(anywidget.AnyWidget):
    """A widget that leaves a picture where there is no kernel, and goes when its cell runs again.

    `figures` gives that picture.
    """

    _esm, _css = module(), style()

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
        run, same = parent["header"]["msg_id"], []
        for earlier, explorer in OPEN.get(cell, []):
            if earlier == run:
                same.append((earlier, explorer))
            else:
                explorer.close()
        OPEN[cell] = [*same, (run, self)]


class Asked(Still):
    """An explorer of a library: the page sends questions, and each gets an answer.

    A subclass has `library` and `query`, and a method `_show(query)` that makes a query the one
    that is asked about and sends what the page needs.
    """

    def __init__(self, **traits):
        # JupyterLab may handle messages from the page in several threads of the kernel.
        self._turn = threading.Lock()
        super().__init__(**traits)
        self.on_msg(self._answer)

    def answers(self) -> dict:
        """Kind of question -> method of (content, buffers)."""
        return {"ask": self._ask, "thumbs": self._thumbs}

    def _answer(self, _, content: dict, buffers: list) -> None:
        """Do what the page asks for; if it cannot be done, say why in a sentence."""
        try:
            with self._turn:
                self.answers()[content["kind"]](content, buffers)
        except (InputError, RuntimeError, MemoryError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            self.send({"kind": "error", "text": text})

    def _ask(self, content: dict, _) -> None:
        """Make an image the query: of a part by its position, by its id, or the one from before."""
        if content["origin"] == "start":
            self._show(self.query)
        elif content["origin"] == "id":
            self._show(self.library.find(content["id"]))
        else:
            self._show(self.library.get(content["origin"], content["position"]))

    def _thumbs(self, content: dict, _) -> None:
        positions, origin = content["positions"], content["origin"]
        pictures = [jpeg(self.library.picture(origin, p), THUMB) for p in positions]
        self.send({"kind": "thumbs", "origin": origin, "positions": positions}, pictures)


def told(library: Library, query: Query) -> dict:
    """What the page is told of a query."""
    name = library.id_of(query.name)
    result = {"id": name, "name": query.name, "label": query.label, "lesion": query.lesion_id}
    return result | {"origin": query.origin, "position": query.position}


def stacked(pictures: list[bytes]) -> bytes:
    """PNG files one below the other, as one PNG file."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    size = max(image.width for image in images), sum(image.height for image in images)
    result, buffer = Image.new("RGB", size, "white"), io.BytesIO()
    top = 0
    for image in images:
        result.paste(image, (0, top))
        top += image.height
    result.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
