"""``make bench``: the targets, what this machine measures, and which targets it misses.

Each ratio compares two functions in one run. ``--only`` measures some rows; ``python -m benchmarks
scaling`` measures how cost grows, and draws it. Each row is written, with a description of the
machine, to a JSON file in ``build/bench/``, or with ``--record`` in ``benchmarks/results/``.
"""

import argparse
import dataclasses
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
from tqdm.auto import tqdm

from benchmarks import LATEST, RESULTS, Row, gpu, machine, side_by_side
from benchmarks.encoding import encoding
from benchmarks.explorer import explorers
from benchmarks.loading import loading
from benchmarks.scaling import scaling
from benchmarks.searching import build, evaluation, scan
from benchmarks.training import step_memory, step_time
from derm_hash.atlas.atlas import make_atlas
from derm_hash.errors import print_on_any_console
from derm_hash.files import write_json


def drawing() -> Row:
    """Drawing the atlas on one core."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    times = side_by_side({"draw": lambda: make_atlas(64, 96, progress=False)}, repeats=3)
    cv2.setNumThreads(threads)
    return Row("drawing atlas images of 96 px on one core", "", 100, 64 / times["draw"], "images/s")


ROWS: dict[str, Callable[[], Row | list[Row]]] = {
    "step": step_time,
    "memory": step_memory,
    "evaluation": evaluation,
    "scan": scan,
    "build": build,
    "encoding": encoding,
    "loading": loading,
    "drawing": drawing,
    "explorers": explorers,
} | gpu.ROWS


def measure(names: Iterable[str], folder: Path) -> list[Row]:
    """Run these benchmarks; write each one's rows to a file in ``folder`` when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in tqdm(names, "benchmarks"):
        about, start = machine(), time.perf_counter()
        rows = rows_of(name)
        about["seconds"] = round(time.perf_counter() - start, 1)
        about["rows"] = [dataclasses.asdict(row) | {"met": row.met} for row in rows]
        write_json(folder / f"{name}.json", about)
        found += rows
    return found


def rows_of(name: str) -> list[Row]:
    """The rows of one benchmark, or a row that says why it failed, so that the others go on."""
    try:
        rows = ROWS[name]()
    except Exception as error:  # noqa: BLE001, no failure may cost the other rows
        traceback.print_exc()
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        rows = Row(name, "", None, None, note=reason)
    return rows if isinstance(rows, list) else [rows]


def table(rows: list[Row]) -> str:
    """The rows as text: what | target | measured | met?, and which were missed."""
    cells = [("what", "target", "measured", "met?")]
    for row in rows:
        bound = "at most" if row.at_most else "at least"
        target = "-" if row.target is None else f"{bound} {row.target:g} {row.unit}"
        value = "-" if row.measured is None else f"{row.measured:.3g} {row.unit}"
        met = {True: "yes", False: "MISSED", None: "not measured"}[row.met]
        note = f" ({row.note})" if row.note else ""
        against = f", over {row.against}" if row.against else ""
        cells.append((row.what + against, target, value, met + note))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    missed = [row.what for row in rows if row.met is False]
    lines.append(f"\nmissed: {'; '.join(missed)}" if missed else "\nno target was missed")
    return "\n".join(lines)


def main() -> None:
    """Measure, write and print."""
    about = __doc__.replace("``", "`")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=about)
    parser.add_argument("what", nargs="?", choices=("table", "scaling"), default="table")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/results/")
    print_on_any_console()
    options = parser.parse_args()
    folder = RESULTS if options.record else LATEST
    if options.what == "scaling":
        print(f"figure: {scaling(folder)}")
        return
    start = time.perf_counter()
    print(table(measure(options.only, folder)))
    about = machine()
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    print(f"measured in {time.perf_counter() - start:.0f} s; written to {folder}")


if __name__ == "__main__":
    main()
