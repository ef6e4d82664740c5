"""`make page`: the retrieval explorer as one HTML file that needs no kernel and no network.

Forty queries of the built-in atlas under two networks, encoded at every 5 degrees; the page
searches by itself. It opens from the disk, from any static host, and on a phone.
"""

import argparse
import base64
import html
import json
import sys
from pathlib import Path

import numpy as np
import torch

from derm_hash.course import course_data, course_pair
from derm_hash.errors import exit_code
from derm_hash.explorers.asking import ORIENTATIONS, QUARTERS, Library, jpeg, orbit
from derm_hash.explorers.frontend import module, style
from derm_hash.explorers.retrieval import about
from derm_hash.files import write_text
from derm_hash.model import encode
from derm_hash.retrieval import build_index

OUT = Path("build/page/index.html")
QUERIES = 40
# Turned by 90 degrees, it keeps its bits with the loss, and loses 5 without.
FIRST = "ATLAS_0000617"
LARGE, SMALL = 144, 80  # pixels of a query and of a database image
VIEW = {"k": 10, "radius": 4, "rank": "cosine", "angle": 90, "mirrored": False}
NAMES = ("trained to ignore turning", "trained without")
TITLE = "Turn a lesion: does its code hold?"
PAGE = """<!doctype html>
<html lang="en" class="dh-page">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
<header><h1>{title}</h1> <span>{text}</span></header>
<div id="explorer"></div>
</main>
<script type="application/json" id="data">{data}</script>
<script type="module">{module}
page(document.getElementById("explorer"), JSON.parse(document.getElementById("data").textContent));
</script></body></html>
"""
TEXT = (
    "Two networks turn a picture of skin into 16 bits and look up similar ones. Only one of them "
    "learnt that a lesion has no “up”."
)


def texts(arrays) -> list[str]:
    """Arrays or bytes as base64."""
    return [base64.b64encode(bytes(each)).decode() for each in arrays]


def choose(turned: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Positions of ``count`` queries, the telling ones first within each class.

    turned: (N,) bits that a quarter turn flips in the second network. The first position is the
    most telling one; the classes take turns.
    """
    ranked = np.argsort(-turned, kind="stable")
    queues = [[i for i in ranked if labels[i] == c] for c in dict.fromkeys(labels[ranked])]
    spread = [
        [q[j] for j in np.linspace(0, len(q) - 1, min(len(q), count)).astype(int)] for q in queues
    ]
    taken = [q[r] for r in range(count) for q in spread if r < len(q)]
    return [int(i) for i in dict.fromkeys(taken)][:count]


def page_data(
    dataset, models, indexes, larger=None, names=NAMES, queries=QUERIES, first=None
) -> dict:
    """What the page holds: codes, the orbits of the queries, pictures; ``first``: id of a query."""
    library = Library(dataset, larger=larger)
    both = [encode(models[-1], library.queries.images.rot90(k, (2, 3))) > 0.5 for k in (0, 1)]
    chosen = choose((both[0] != both[1]).sum(axis=1), library.queries.labels.numpy(), queries)
    if first:
        chosen = list(dict.fromkeys([library.find(first).position, *chosen]))[:queries]
    told = about(library, indexes, names)
    told["query"] = [told["query"][i] for i in chosen]

    def stored(origin: str, positions, orientations: list[int], pixels: int) -> list[dict]:
        queries = [library.get(origin, int(i)) for i in positions]
        x = torch.cat([orbit(query.image, orientations) for query in queries])
        codes = [encode(model, x).reshape(len(queries), -1) for model in models]
        familiar = library.familiarity.about(torch.stack([query.image for query in queries]))
        return [
            {
                "picture": texts([jpeg(query.shown, pixels)])[0],
                "codes": texts(each[i].tobytes() for each in codes),
                "familiar": familiar[i],
            }
            for i, query in enumerate(queries)
        ]

    return {
        "traits": VIEW
        | {"about": told, "codes": texts(index.codes.tobytes() for index in indexes)},
        "known": {"query": ORIENTATIONS, "database": QUARTERS},
        "query": stored("query", chosen, ORIENTATIONS, LARGE),
        "database": stored("database", range(len(library.database)), QUARTERS, SMALL),
    }


def write_page(path: Path, data: dict, title: str = TITLE, text: str = TEXT) -> Path:
    """Write the page as one file."""
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = PAGE.format(
        title=html.escape(title),
        text=html.escape(text),
        style=style(),
        module=module(),
        data=content,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def run(argv: list[str] | None = None) -> int:
    """Make the page of the two networks that come with the package."""
    parser = argparse.ArgumentParser(prog="python -m derm_hash.explorers.page", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the file (%(default)s)")
    options = parser.parse_args(argv)
    dataset, larger = course_data(), course_data(size=LARGE)
    models = course_pair()
    indexes = [build_index(model, dataset.split("database")) for model in models]
    path = write_page(options.out, page_data(dataset, models, indexes, larger, first=FIRST))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("make page", lambda: run(None), "stopped"))
