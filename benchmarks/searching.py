"""Search against the released loops and against faiss called directly; building an index.

``python -m benchmarks.searching`` prints the seconds and the MB that building an index takes.
"""

import json
import time

import faiss
import numpy as np

from benchmarks import Row, child, released, side_by_side
from benchmarks.memory import UNKNOWN, peak_added
from derm_hash.metrics.scores import class_means, paper_scores
from derm_hash.retrieval import HashIndex, pack_bits

# The paper's split of ISIC 2019: images of MEL, NV, BCC, BKL.
DATABASE, QUERIES = (4070, 11588, 2991, 2362), (452, 1287, 332, 262)
AIM = 1000  # times as fast, beyond the target of the evaluation
SAMPLE = 40  # queries that the released loops are timed on
MANY, LONG = 1_000_000, 64


def trained_codes(counts: tuple[int, ...], seed: int, bits: int = 16):
    """Draw soft codes (N, bits) float32 like those of a trained network, and labels (N,).

    Each image lies between the centres of the classes, mostly near its own. The codes resemble
    those of a network that was trained on HAM10000 for a few epochs: 900 images share about 70 hash
    codes, a third of the database lies within radius 4 of a query, and most bits are nearly 0 or 1
    (the network: 76 codes, 29 %, mean distance to 0 or 1 of 0.06).
    """
    rng, base = np.random.default_rng(seed), np.random.default_rng(7)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = base.permuted(np.tile([1.0, -1.0], (len(counts), bits // 2)), axis=1)
    share = 0.75 * rng.dirichlet([0.3] * len(counts), len(labels))
    share[np.arange(len(labels)), labels] += 0.25
    logits = 13 * share @ centres + rng.normal(0, 0.7, (len(labels), bits))
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


def evaluation() -> Row:
    """The paper protocol: each query's top 10 within radius 4, and their scores."""
    (codes, labels), (queries, asked) = trained_codes(DATABASE, 0), trained_codes(QUERIES, 1)
    index = HashIndex.build(codes, labels, range(len(codes)))
    table = released.hash_table(codes)
    sample = np.random.default_rng(0).permutation(len(queries))[:SAMPLE]

    def kit():
        scores = paper_scores(index, queries, asked)
        return {name: class_means(values, asked) for name, values in scores.items()}

    def loops():
        return [released.paper_scores(table, codes, labels, queries[q], asked[q]) for q in sample]

    times = side_by_side({"kit": kit, "released": loops})
    per_query = {"kit": times["kit"] / len(queries), "released": times["released"] / SAMPLE}
    return Row(
        f"paper-protocol evaluation, {len(queries):,} queries, {len(codes):,} codes of 16 bits",
        "loops over a dict of codes",
        target=500,
        measured=per_query["released"] / per_query["kit"],
        note=f"aim: {AIM:,} x; loops timed on {SAMPLE} queries",
        details={
            "ms_per_query": {name: 1e3 * taken for name, taken in per_query.items()},
            "aim": AIM,
            "sample": SAMPLE,
            "hash_codes": len(table),
            "share_within_radius": float(index.within(queries).mean() / len(codes)),
        },
    )


def random_codes(count: int, bits: int) -> np.ndarray:
    """Soft codes (N, bits) float32, uniform in [0, 1)."""
    return np.random.default_rng(0).random((count, bits), np.float32)


def scan() -> Row:
    """One query's top 10 of a million codes by Hamming distance."""
    codes = random_codes(MANY, LONG)
    index = HashIndex.build(codes, np.zeros(MANY, int), range(MANY))
    flat = faiss.IndexBinaryFlat(LONG)
    flat.add(pack_bits(codes))
    query, packed = codes[:1], pack_bits(codes[:1])
    times = side_by_side(
        {
            "kit": lambda: index.search(query, 10, None, "hamming"),
            "faiss": lambda: flat.search(packed, 10),
        },
        repeats=100,
    )
    return Row(
        f"top 10 of {MANY:,} codes of {LONG} bits, one query",
        "faiss's flat binary index called directly",
        target=1.2,
        measured=times["kit"] / times["faiss"],
        at_most=True,
        details={"ms": {name: 1e3 * taken for name, taken in times.items()}},
    )


def build() -> list[Row]:
    """Building an index of a million codes: seconds, and memory beyond the codes."""
    found = json.loads(child("benchmarks.searching"))
    what = f"building an index of {MANY:,} codes of {LONG} bits"
    memory = Row(f"{what}: memory beyond the soft codes", "", 200, found["mb"], "MB", True)
    memory.note = UNKNOWN if memory.measured is None else ""
    return [Row(what, "", 2, found["seconds"], "s", True), memory]


def main() -> None:
    """Print the cost of building an index, as JSON."""
    codes, labels = random_codes(MANY, LONG), np.arange(MANY) % 4
    names = [f"images/ISIC_{i:07d}.jpg" for i in range(MANY)]
    HashIndex.build(codes[:100], labels[:100], names[:100])  # imports what is imported on first use
    mb, seconds = peak_added(lambda: HashIndex.build(codes, labels, names)), []
    for _ in range(5):
        start = time.perf_counter()
        HashIndex.build(codes, labels, names)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"mb": mb, "seconds": float(np.median(seconds))}))


if __name__ == "__main__":
    main()
