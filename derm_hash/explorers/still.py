"""What all explorers have in common: the front end, a still picture, and their end."""

import anywidget
import traitlets as t
from IPython import get_ipython
from matplotlib.figure import Figure

from derm_hash.explorers.frontend import STYLE, module
from derm_hash.plots import describe, figure_png

OPEN: dict[str, tuple[str, list["Still"]]] = {}  # cell -> its last run, and what that made
NOTE = "A still picture: run the cell to use the explorer"


class Still(anywidget.AnyWidget):
    """A widget with a still picture for pages without a kernel, closed when its cell runs again."""

    _esm, _css = module(), STYLE
    kind = t.Unicode().tag(sync=True)  # which view of the front end it has
    about = t.Dict().tag(sync=True)  # what the page is told once

    def __init__(self, **traits):
        super().__init__(**traits)
        self._close_earlier_ones()

    def figures(self) -> list[Figure]:
        """The present view as figures, which the still picture shows one below the other."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        figures = self.figures()
        figures[-1].supxlabel(NOTE, fontsize=9, x=0.99, ha="right", style="italic")
        data["image/png"] = figure_png(*figures)
        data["text/plain"] = f"{type(self).__name__} (run the cell to use it)"
        alt = [data["text/plain"], *map(describe, figures)]
        metadata["image/png"] = {"alt": ". ".join(alt).strip(". ")}
        return data, metadata

    def _close_earlier_ones(self) -> None:
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
