"""What all explorers have in common: a still picture for pages without a kernel, and their end."""

import io

from IPython import get_ipython
from matplotlib.figure import Figure
from PIL import Image

from derm_hash.plots import figure_png

OPEN: dict[str, list[tuple[str, "Still"]]] = {}  # cell -> (run of it, explorer)


class Still:
    """A widget that leaves a picture where there is no kernel, and goes when its cell runs again.

    Before it is shown, `figures` gives that picture.
    """

    def __init__(self, **traits):
        super().__init__(**traits)
        self._take_the_place_of_earlier_ones()

    def figures(self) -> list[Figure]:
        """The present view as figures, one below the other."""
        raise NotImplementedError

    def picture_png(self) -> bytes:
        """The present view as a PNG file."""
        return stacked([figure_png(figure) for figure in self.figures()])

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["image/png"] = self.picture_png()
        data["text/plain"] = f"{type(self).__name__} (run the cell to use it)"
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
