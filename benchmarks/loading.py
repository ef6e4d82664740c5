"""Loading prepared images, in each format that `data_setup.prepare` could store.

``python -m benchmarks.loading [--archive ZIP]`` compares the formats with what the released code
does: it decodes and resizes JPEGs of 1024 px each time. The images are drawn, or come from the zip
file, and are enlarged to 1024 px in both cases. Each format loads in one process and one thread,
and the formats take turns.
"""

import argparse
import contextlib
import io
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks import Row, machine, released, side_by_side
from data_setup.__main__ import main as prepare
from data_setup.prepare import QUALITY
from data_setup.sources import files_in
from derm_hash.atlas.atlas import draw_lesion
from derm_hash.atlas.lesion import CLASSES
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import open_image, square

COUNT, ROUNDS = 48, 7
SIZE, SMALLER = 256, 224  # px: what data_setup prepares by default, and what the others train on
FORMATS = {
    f"JPEG, quality {QUALITY}": (".jpg", {"quality": QUALITY}),
    f"JPEG, quality {QUALITY}, full colour": (".444.jpg", {"quality": QUALITY, "subsampling": 0}),
    "PNG": (".png", {}),
}
RELEASED, ARRAY = "1024-px JPEG, resized", "memory-mapped array"


def pictures(archive: Path | None) -> Iterator[Image.Image]:
    """Images of any size: those of a zip file, or drawn."""
    if archive is None:
        for i in range(COUNT):
            yield Image.fromarray(draw_lesion(CLASSES[i % len(CLASSES)], i, i, size=512)[0])
    else:
        for name, member in list(files_in(archive).items())[:COUNT]:
            yield open_image(io.BytesIO(member.read_bytes()), name)


def write(folder: Path, archive: Path | None) -> list[np.ndarray]:
    """Write each image as a 1024-px JPEG and in each format; return the pixels (S, S, 3)."""
    prepared = []
    for i, picture in enumerate(pictures(archive)):
        scale = 1024 / max(picture.size)
        big = folder / f"{i}.1024.jpg"
        picture.resize([round(n * scale) for n in picture.size]).save(big, quality=90)
        small = square(open_image(big), SIZE)
        for suffix, options in FORMATS.values():
            small.save(folder / f"{i}{suffix}", **options)
        prepared.append(np.asarray(small))
    np.save(folder / "pixels.npy", np.stack(prepared))
    return prepared


def loader(folder: Path, suffix: str, count: int) -> Callable[[], None]:
    """A function that loads the images one by one into an array, as the kit does."""
    pixels = np.empty((count, 3, SIZE, SIZE), np.uint8)

    def load():
        for i in range(count):
            picture = np.asarray(square(open_image(folder / f"{i}{suffix}"), SIZE))
            pixels[i] = picture.transpose(2, 0, 1)

    return load


def array_loader(folder: Path, count: int) -> Callable[[], None]:
    """A function that loads the images from a memory-mapped array."""
    pixels = np.empty((count, 3, SIZE, SIZE), np.uint8)

    def load():
        stored = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        for i in range(count):
            picture = np.asarray(square(Image.fromarray(stored[i]), SIZE))
            pixels[i] = picture.transpose(2, 0, 1)

    return load


def released_loader(folder: Path, count: int, size: int = SIZE) -> Callable[[], None]:
    """A function that loads the 1024-px originals one by one, and resizes them."""
    return lambda: [released.load(folder / f"{i}.1024.jpg", size) for i in range(count)]


def loading() -> list[Row]:
    """A folder that data_setup prepared against its originals: at its own size, and smaller."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name) / "originals", Path(name) / "prepared"
        (folder / "class").mkdir(parents=True)
        count = len(write(folder, None))
        for i in range(count):
            shutil.copy(folder / f"{i}.1024.jpg", folder / "class" / f"{i}.jpg")
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(io.StringIO()):
            options = ["--size", str(SIZE), "--classes", "class"]
            prepare(["folder", "--source", str(folder), "--root", str(root), *options])
        return [loading_row(folder, root, count, size) for size in (SIZE, SMALLER)]


def loading_row(folder: Path, root: Path, count: int, size: int) -> Row:
    """A prepared folder read in one size against its originals: opened, and also resized."""
    ways = {
        "kit": lambda: LesionDataset.from_folder(root, size, progress=False),
        "opened": lambda: [released.opened(folder / f"{i}.1024.jpg") for i in range(count)],
        "opened and resized": released_loader(folder, count, size),
    }
    times = side_by_side(ways, ROUNDS)
    resized = times["opened and resized"] / times["kit"]
    return Row(
        f"loading {count} images that were prepared at {SIZE} px, as {size} px",
        "opening 1024-px JPEGs and converting them to RGB, one by one",
        target=10,
        measured=times["opened"] / times["kit"],
        note=f"{resized:.3g} x if those are resized to {size} px, too; the kit reads in threads",
        details={"ms_per_image": {name: 1e3 * taken / count for name, taken in times.items()}},
    )


def psnr(folder: Path, suffix: str, prepared: list[np.ndarray]) -> float:
    """Mean peak signal-to-noise ratio in dB; infinite where nothing is lost."""
    losses = []
    for i, pixels in enumerate(prepared):
        found = np.asarray(open_image(folder / f"{i}{suffix}"), np.float64)
        error = ((found - pixels) ** 2).mean()
        losses.append(10 * np.log10(255**2 / error) if error else np.inf)
    return statistics.mean(losses)


def measure(archive: Path | None) -> pd.DataFrame:
    """Images/s, ratio to the released way, kB per image and PSNR of each format."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = write(folder, archive)
        count = len(prepared)
        loaders = {RELEASED: released_loader(folder, count)}
        loaders |= {kind: loader(folder, suffix, count) for kind, (suffix, _) in FORMATS.items()}
        loaders[ARRAY] = array_loader(folder, count)
        table = pd.DataFrame({"images/s": count / pd.Series(side_by_side(loaders, ROUNDS))})
        for kind, (suffix, _) in FORMATS.items():
            sizes = [(folder / f"{i}{suffix}").stat().st_size for i in range(count)]
            table.loc[kind, "kB"] = statistics.mean(sizes) / 1e3
            table.loc[kind, "PSNR"] = psnr(folder, suffix, prepared)
    table.loc[ARRAY, ["kB", "PSNR"]] = prepared[0].nbytes / 1e3, np.inf
    table.insert(1, "ratio", table["images/s"] / table["images/s"][RELEASED])
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.replace("``", "`"))
    parser.add_argument("--archive", type=Path, metavar="ZIP", help="take the images of a zip file")
    print(measure(parser.parse_args().archive).to_string(float_format="%.1f"))
    print(", ".join(f"{key}: {value}" for key, value in machine().items()))


if __name__ == "__main__":
    main()
