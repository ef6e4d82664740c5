"""How cost grows with database, bits, image size and batch, beside what the machine can do.

Two limits are measured in the same run: memory bandwidth (copying more than any cache holds) and
peak arithmetic (a large matrix product, in the number format of the network). A scan of the hash
codes takes at least the time of reading them once, unless a cache holds them; a network takes at
least the time of its multiplications. The fastest of a few calls counts, since other work can only
add time.
"""

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import psutil
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from benchmarks import HERE, RESULTS, has_bf16, machine, side_by_side
from benchmarks.searching import random_codes
from benchmarks.training import kit_step
from derm_hash.files import write_json
from derm_hash.model import DermHash, encode
from derm_hash.retrieval import HashIndex

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
BITS = (16, 32, 64, 128, 256)
PIXELS = (64, 96, 128, 160, 224, 288)
BATCHES = (1, 2, 4, 8, 16, 32)


def fastest(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of a few calls."""
    return side_by_side({"": function}, repeats, min)[""]


def limits() -> dict[str, float]:
    """Bytes/s that one thread copies, and operations/s of all threads in a matrix product."""
    source = np.ones(2**27)  # 1 GiB
    target = np.empty_like(source)
    copied = 2 * source.nbytes / fastest(lambda: np.copyto(target, source), 10)
    kind = torch.bfloat16 if has_bf16() else torch.float32
    a = torch.ones(4096, 4096, dtype=kind)
    return {"bytes_per_s": copied, "operations_per_s": 2 * 4096**3 / fastest(lambda: a @ a, 10)}


def searches(count: int, bits: int) -> dict[str, float] | None:
    """Seconds of one query's top 10, by Hamming distance and coarse to fine; None: no memory."""
    if 1.5 * count * bits * 4 > psutil.virtual_memory().available:
        return None
    codes = random_codes(count, bits)
    index = HashIndex.build(codes, np.zeros(count, int), pd.DataFrame({"image": np.arange(count)}))
    query, radius = codes[:1], bits // 4
    return side_by_side(
        {
            "by Hamming distance": lambda: index.search(query, 10, None, "hamming"),
            "within a quarter of the bits, by cosine": lambda: index.search(query, 10, radius),
        },
        repeats=15,
        summary=min,
    )


def networks(count: int, size: int) -> dict[str, dict[str, float]]:
    """Seconds and operations of a training step and of encoding, for a batch of images."""
    model, step = DermHash().eval(), kit_step(count=count, size=size)
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    works = {"training step": step, "encoding": lambda: encode(model, images, bf16=has_bf16())}
    seconds, found = side_by_side(works, 3, min), {}
    for name, work in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        found[name] = {"seconds": seconds[name], "operations": counter.get_total_flops()}
    return found


def measure() -> dict:
    """Everything that the figure shows."""
    found = {"machine": machine(), "limits": limits()}
    bar = tqdm(total=len(SIZES) + len(BITS) + len(PIXELS) + len(BATCHES), desc="scaling")
    for name, values, call in (
        ("database size", SIZES, lambda n: searches(n, 64)),
        ("bits", BITS, lambda bits: searches(10**6, bits)),
        ("image size", PIXELS, lambda size: networks(16, size)),
        ("batch", BATCHES, lambda count: networks(count, 224)),
    ):
        found[name] = {}
        for value in values:
            found[name][str(value)] = call(value)
            bar.update()
    bar.close()
    return found


def draw(found: dict) -> Figure:
    """Four panels, each with its limit dashed."""
    limits, about = found["limits"], found["machine"]
    with matplotlib.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(10, 7.5), layout="constrained")
        (size, bits), (pixels, batch) = figure.subplots(2, 2)
        draw_search(size, found["database size"], limits["bytes_per_s"], lambda n: 8 * n)
        draw_search(bits, found["bits"], limits["bytes_per_s"], lambda n: 10**6 * n / 8)
        draw_network(pixels, found["image size"], limits["operations_per_s"], lambda _: 16)
        draw_network(batch, found["batch"], limits["operations_per_s"], lambda n: n)
        size.set(title="Search: size of the database", xlabel="codes of 64 bits")
        bits.set(title="Search: length of the codes", xlabel="bits, 1 million codes")
        pixels.set(title="Network: size of the images", xlabel="pixels on a side, batch of 16")
        batch.set(title="Network: size of the batch", xlabel="images of 224 px in a batch")
        for axis, values in (
            (bits, found["bits"]),
            (pixels, found["image size"]),
            (batch, found["batch"]),
        ):
            axis.set_xticks([int(x) for x in values], list(values))
            axis.minorticks_off()
        figure.suptitle(
            f"{about['cpu']}, {about['threads']['torch']} threads: copies "
            f"{limits['bytes_per_s'] / 1e9:.1f} GB/s on one thread, "
            f"computes {limits['operations_per_s'] / 1e12:.2f} TFLOP/s on all"
        )
    return figure


def draw_search(axis, found: dict, bandwidth: float, size: Callable[[int], float]) -> None:
    """Draw one query's time; ``size`` gives the bytes of all codes for a value on the x axis."""
    points = {int(x): row for x, row in found.items() if row}
    for series in next(iter(points.values())):
        axis.plot(list(points), [1e3 * row[series] for row in points.values()], "o-", label=series)
    read = [1e3 * size(x) / bandwidth for x in points]
    axis.plot(list(points), read, "k--", label="limit: reading the codes from memory")
    axis.set(xscale="log", yscale="log", ylabel="ms for one query")
    axis.legend(fontsize=8)


def draw_network(axis, found: dict, peak: float, images: Callable[[int], int]) -> None:
    """Draw an image's time in training and encoding; ``images`` gives the size of the batch."""
    points = {int(x): row for x, row in found.items()}
    for work, colour in (("training step", "C0"), ("encoding", "C1")):
        taken = [1e3 * row[work]["seconds"] / images(x) for x, row in points.items()]
        least = [1e3 * row[work]["operations"] / peak / images(x) for x, row in points.items()]
        axis.plot(list(points), taken, "o-", color=colour, label=work)
        axis.plot(list(points), least, "--", color=colour, label=f"{work}: limit")
    axis.set(xscale="log", yscale="log", ylabel="ms for an image")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
    axis.legend(fontsize=8, ncols=2, **below)  # every place inside has a curve on some machine


def scaling(folder: Path) -> Path:
    """Measure, write the numbers to a file in ``folder``, and draw them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "scaling.json", measure())
    return draw_file(folder)


def draw_file(folder: Path) -> Path:
    """Draw the numbers of a folder, in it; the recorded ones next to the README."""
    figure = (HERE if folder == RESULTS else folder) / "scaling.png"
    draw(json.loads((folder / "scaling.json").read_text())).savefig(figure, dpi=110)
    return figure


if __name__ == "__main__":  # draw the recorded numbers again
    draw_file(RESULTS)
