"""The kit on a GPU: the training step and its memory, encoding, a grid, two processes on one GPU.

``make bench-gpu`` measures it. Without a GPU it does the same work in a tiny form on the CPU, which
shows that it works and measures nothing; docs/gpu.md says how to bring it to a GPU.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from benchmarks import Row, side_by_side
from benchmarks.encoding import encoding
from benchmarks.training import BATCH, RELEASED, SIZE, WHAT, kit_step, memory_row, released_step
from derm_hash.data.dataset import LesionDataset
from derm_hash.experiments.grid import run_grid


class Scale(NamedTuple):
    """How much work the benchmarks do."""

    device: str
    batch: int
    size: int  # of an image, in pixels
    repeats: int
    backbone: str
    images: int  # in a training
    epochs: int
    jobs: int  # runs at a time
    options: str = ""  # of derm-hash train


SMALL = "--size 32 --attention none --invariance none --classify upright"
FULL = Scale("cuda", BATCH, SIZE, 20, "resnet18", 1280, 6, 8)
TINY = Scale("cpu", 2, 32, 1, "resnet8", 60, 1, 2, SMALL)
ON_CPU = "no GPU here: the tiny form of this benchmark ran on the CPU"


def scale() -> Scale:
    """The full work on a GPU, the tiny form without one."""
    return FULL if torch.cuda.is_available() else TINY


def told(row: Row, measured: float, details: dict) -> Row:
    """Put what was found on a GPU into a row; of the tiny form only the details."""
    row.details, gpu = details, torch.cuda.is_available()
    row.measured = measured if gpu else None
    row.note = f"on {torch.cuda.get_device_name()}" if gpu else ON_CPU
    return row


# --- the step -----------------------------------------------------------------------------


def steps(at: Scale) -> dict[str, Callable[[], None]]:
    """The released step, and the kit's in several forms, as functions that wait for the GPU."""
    given = at.device, at.batch, at.size
    ways = {"released": released_step(*given), "float32": kit_step(*given, "32-true")}
    ways["bfloat16"] = kit_step(*given, "bf16-mixed")
    if at.device == "cuda":
        ways["compiled"] = kit_step(*given, "bf16-mixed", "default")
        ways["CUDA graphs"] = kit_step(*given, "bf16-mixed", "reduce-overhead")
    return {name: waited(way) for name, way in ways.items()}


def waited(work: Callable[[], object]) -> Callable[[], None]:
    """The same work, which ends when the GPU has finished."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def step() -> list[Row]:
    """Images per second of a training step, and its memory: ``train(compiled=True)`` counts."""
    at, row = scale(), Row(f"training step, {WHAT}, GPU", RELEASED, 6, None)
    ways = steps(at)
    times = side_by_side(ways, at.repeats)
    best = "compiled" if "compiled" in ways else "bfloat16"
    speeds = {"images_per_s": {name: at.batch / taken for name, taken in times.items()}}
    rows = [told(row, times["released"] / times[best], speeds)]
    if at.device == "cuda":
        added = {name: added_mb(ways[name]) for name in ("released", best)}
        details = {"peak_added_mb": added}
        rows.append(told(memory_row("GPU"), added[best] / added["released"], details))
    return rows


def added_mb(work: Callable[[], None]) -> float:
    """MB that a step adds, at most, to the GPU's memory."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def encoded() -> Row:
    """Encoding images for an index."""
    at = scale()
    row = encoding(at.device, 2 * at.batch, at.size)
    return told(row, row.measured, row.details)


# --- whole trainings ----------------------------------------------------------------------


def noise(at: Scale) -> LesionDataset:
    """Images of noise in the parts that a training needs: the work does not depend on pixels."""
    rng = torch.Generator().manual_seed(0)
    shape = at.images, 3, at.size, at.size
    images = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
    rows = pd.Series(range(at.images))
    split = (rows % 10).map({0: "val", 1: "query"}).fillna("database")
    table = {"image": rows.astype(str), "lesion_id": rows.astype(str), "split": split}
    return LesionDataset(images, pd.DataFrame(table | {"label": (rows % 4).astype(str)}))


def grid() -> Row:
    """A grid whose runs share the GPU, against one run after another."""
    at, data, seconds = scale(), noise(scale()), {}
    what = (
        f"a grid of {at.jobs} trainings, {at.backbone} + HDC-SA, {at.size} px, {at.jobs} at a time"
    )
    choices = {"backbone": at.backbone, "epochs": at.epochs, "batch_size": min(64, at.images // 4)}
    for jobs in (1, at.jobs):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            table = run_grid(
                {"seed": range(at.jobs)}, data, out, progress=False, jobs=jobs, **choices
            )
            seconds[f"{jobs} at a time"] = time.perf_counter() - start
            seconds[f"a training, {jobs} at a time"] = table["seconds"].mean()
    one, many = seconds["1 at a time"], seconds[f"{at.jobs} at a time"]
    return told(Row(what, "one at a time", 2, None), one / many, {"seconds": seconds})


def processes() -> Row:
    """The losses of two processes of torchrun on one GPU, against those of one process."""
    at = scale()
    row = Row("two processes on one GPU: a loss differs by", "one process", 0.05, None, "", True)
    train = f"train --data atlas --backbone {at.backbone} --epochs {at.epochs} --name run"
    ways = {"one process": ["-m", "derm_hash"]}
    ways["two"] = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "derm_hash"]
    losses, seconds = {}, {}
    for name, way in ways.items():
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            call = [sys.executable, *way, *train.split(), *at.options.split(), "--runs", out]
            subprocess.run(call, check=True, capture_output=True, cwd=Path(__file__).parents[1])
            seconds[name] = time.perf_counter() - start
            losses[name] = pd.read_csv(Path(out) / "run" / "metrics.csv")["loss"]
    apart = ((losses["two"] - losses["one process"]).abs() / losses["one process"]).max()
    details = {"losses": {name: list(each) for name, each in losses.items()}, "seconds": seconds}
    return told(row, apart, details)


ROWS = {
    "gpu": step,
    "gpu-encoding": encoded,
    "gpu-grid": grid,
    "gpu-processes": processes,
}
