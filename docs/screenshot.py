"""Take the README's screenshot of the explorer, docs/explorer.png, in a real JupyterLab.

python -m docs.screenshot
"""

import io
from pathlib import Path

from PIL import Image

from derm_hash.plots.style import with_palette
from tests.browser.labpage import page_of

SETUP = """
from derm_hash import RetrievalExplorer, build_index, course_data, course_run, encode
from derm_hash.data.images import to_input

dataset = course_data()
database = dataset.split("database")
runs = course_run(dataset), course_run(dataset, invariance=None, classify="upright")
(first, index), other = ((run, build_index(run.model, database)) for run in runs)
"""
EXPLORER = """
names = "with the CRI loss", "without"
explorer = RetrievalExplorer(first, index, dataset, other=other, names=names)
explorer.k.value = 6
queries = dataset.split("query")
x = to_input(queries.images)
bits = [encode(other[0].model, each) > 0.5 for each in (x, x.rot90(1, (2, 3)))]
explorer.name.value = queries.table["image"][int((bits[0] != bits[1]).sum(1).argmax())]
explorer.radius.value = -1
explorer.angle.value = 90
explorer
"""


def main() -> None:
    """Two models on the query whose bits move most without the loss, turned by 90 degrees."""
    with page_of((SETUP, EXPLORER), 1560, 2000) as page:
        content = page.locator(".derm-hash-explorer").screenshot()
    picture = with_palette(Image.open(io.BytesIO(content)).convert("RGB"))
    picture.save(Path(__file__).with_name("explorer.png"), optimize=True)


if __name__ == "__main__":
    main()
