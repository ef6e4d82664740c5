"""``make bench``: time what the kit does against a named alternative, in the same run.

A ratio of 10 means that the kit's way is ten times as fast as the alternative. With
``--record`` the table also goes to ``benchmarks/results/bench.csv``.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks import seconds
from benchmarks.explorer import explorers
from benchmarks.loading import loading
from derm_hash.experiments import conditions
from derm_hash.model import DermHash
from derm_hash.retrieval import HashIndex, soft_distance
from derm_hash.rotations import rotation_orbit
from derm_hash.synthetic import make_atlas
from derm_hash.training import TrainConfig, step_losses

RESULTS = Path(__file__).parent / "results" / "bench.csv"


def search() -> tuple[str, str, float, float]:
    """Coarse-to-fine search of 100 queries in 10,000 codes of 16 bits."""
    rng = np.random.default_rng(0)
    codes, queries = rng.random((10_000, 16), np.float32), rng.random((100, 16), np.float32)
    index = HashIndex.build(codes, np.zeros(len(codes)), map(str, range(len(codes))))

    def loop():
        for query in queries:
            near = [i for i, c in enumerate(codes) if ((c > 0.5) != (query > 0.5)).sum() <= 4]
            pairs = np.broadcast_to(query, (len(near), 16))
            np.argsort(soft_distance(pairs, codes[near], "cosine"), kind="stable")[:10]

    return (
        "search 100 queries in 10,000 codes: HashIndex",
        "a Python loop over the database",
        seconds(lambda: index.search(queries)),
        seconds(loop, repeats=1),
    )


def orbit_step() -> tuple[str, str, float, float]:
    """The passes of a training step: the orbit in one batch, or the released five passes."""
    model = DermHash("resnet10").to(memory_format=torch.channels_last)
    config = TrainConfig.preset("released")
    x, y = torch.randn(16, 3, 48, 48), torch.arange(16) % 4

    def released():
        passes = [model(x), *(model(turned) for turned in rotation_orbit(x))]
        sum(out.code.mean() + out.logits.mean() for out in passes).backward()

    return (
        "training step, 16 images of 48 px: the orbit in one batch of 64",
        "five passes one after another, as released",
        seconds(lambda: step_losses(model, x, y, config)["loss"].backward()),
        seconds(released),
    )


def drawing() -> tuple[str, str, float, float]:
    """Drawing 64 atlas images of 96 px on one core, against the promised 100 images/s."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    taken = seconds(lambda: make_atlas(64, 96, progress=False), repeats=3)
    cv2.setNumThreads(threads)
    return "draw 64 atlas images of 96 px, one core", "100 images/s", taken, 0.64


def main() -> None:
    """Run every benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"also write {RESULTS.name}")
    record = parser.parse_args().record
    single = [run() for run in tqdm((search, orbit_step, loading, drawing), "benchmarks")]
    rows = []
    for what, other, ours, theirs in [*single, *explorers()]:
        rows.append({"what": what, "seconds": ours, "against": other, "its seconds": theirs})
        rows[-1]["ratio"] = theirs / ours
    table = pd.DataFrame(rows)
    for row in rows:
        print(f"{row['ratio']:8.1f}x  {row['what']}\n{'':11}against {row['against']}")
    print(", ".join(f"{key}: {value}" for key, value in conditions().items()))
    if record:
        table.assign(**conditions()).to_csv(RESULTS, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
