"""`make page`: the retrieval explorer as one HTML file that needs no kernel and no network.

Forty queries of the built-in atlas under two networks, encoded at every 5 degrees; the page
searches by itself. It opens from the disk, from any static host, and on a phone.
"""

import argparse
import json
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from derm_hash.course import course_data, course_pair
from derm_hash.errors import exit_code
from derm_hash.explorers.asking import ORIENTATIONS, QUARTERS
from derm_hash.explorers.frontend import STATIC, STYLE, module
from derm_hash.explorers.retrieval import RetrievalExplorer
from derm_hash.files import write_text
from derm_hash.model import encode
from derm_hash.plots.style import jpeg
from derm_hash.retrieval import build_index

OUT = Path("build/page/index.html")
QUERIES = 40
# Turned by 90 degrees, it keeps its bits with the loss, and loses 5 without.
FIRST = "ATLAS_0000617"
LARGE, SMALL = 144, 80  # pixels of a query and of a database image
VIEW = {"k": 10, "radius": 4, "rank": "cosine", "angle": 90, "mirrored": False}
NAMES = ("trained to ignore turning", "trained without")


def choose(flips: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Positions of ``count`` queries: the classes take turns, each with its most telling first.

    flips: (N,) number of bits that a quarter turn flips in the second network.
    """
    table = pd.DataFrame({"flips": flips, "label": labels})
    ranked = table.sort_values("flips", ascending=False, kind="stable")
    turns = ranked.groupby("label").cumcount()
    return turns.sort_values(kind="stable").index[:count].tolist()


def page_data(
    dataset, models, indexes, larger=None, names=NAMES, queries=QUERIES, first=None
) -> dict:
    """What the page holds: the traits of an explorer, and its answers to all that can be asked.

    ``first``: id of the query that the page begins with.
    """
    pair, other = zip(models, indexes, strict=True)
    explorer = RetrievalExplorer(*pair, dataset, other=other, names=names, larger=larger)
    library = explorer.library
    upright, turned = (encode(models[-1], library.queries.images.rot90(k, (2, 3))) for k in (0, 1))
    flips = ((upright > 0.5) != (turned > 0.5)).sum(axis=1)
    chosen = choose(flips, library.queries.labels.numpy(), queries)
    if first:
        chosen = list(dict.fromkeys([library.find(first).position, *chosen]))[:queries]
    about = explorer.about | {"query": [explorer.about["query"][i] for i in chosen]}
    del about["most_bytes"]  # without a kernel nothing is uploaded

    def stored(origin: str, positions, orientations: list[int], pixels: int) -> list[dict]:
        asked = [library.get(origin, i) for i in positions]
        familiar = library.familiarity.about(torch.stack([query.image for query in asked]))
        return [
            {
                "picture": jpeg(query.shown, pixels),
                "codes": explorer.codes_of(query, orientations),
                "familiar": each,
            }
            for query, each in zip(asked, familiar, strict=True)
        ]

    return {
        "traits": {"about": about, "codes": explorer.codes, **VIEW},
        "known": {"query": ORIENTATIONS, "database": QUARTERS},
        "query": stored("query", chosen, ORIENTATIONS, LARGE),
        "database": stored("database", range(len(library.database)), QUARTERS, SMALL),
    }


def write_page(path: Path, data: dict) -> Path:
    """Write the page as one file; pictures and codes stand in it as base64."""
    content = json.dumps(data, separators=(",", ":"), default=lambda b: b64encode(b).decode())
    content = content.replace("<", "\\u003c")
    template = (STATIC / "page.html").read_text("utf-8")
    page = template.format(style=STYLE, module=module(), data=content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def run(argv: list[str] | None = None) -> int:
    """Make the page of the two networks that come with the package."""
    parser = argparse.ArgumentParser(prog="python -m derm_hash.explorers.page", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the file (%(default)s)")
    options = parser.parse_args(argv)
    dataset, larger = course_data(), course_data(size=LARGE)
    models = course_pair(dataset)
    indexes = [build_index(model, dataset.split("database")) for model in models]
    path = write_page(options.out, page_data(dataset, models, indexes, larger, first=FIRST))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("make page", run, "stopped"))
