"""How prepared images load: the formats that `data_setup.prepare` could have stored, measured.

``python -m benchmarks.loading [--archive ZIP]`` compares them with what the released code does,
decoding and resizing JPEGs of 1024 px each time. The images are drawn, or those of the zip file,
enlarged to 1024 px in both cases. All loading runs in one process and one thread.
"""

import argparse
import io
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks import seconds
from data_setup.archives import Archive
from data_setup.prepare import QUALITY
from derm_hash.data import open_image, square
from derm_hash.experiments import conditions
from derm_hash.synthetic import CLASSES, draw_lesion

COUNT, SIZE = 32, 256
FORMATS = {
    f"JPEG, quality {QUALITY}": (".jpg", {"quality": QUALITY}),
    f"JPEG, quality {QUALITY}, full colour": (".444.jpg", {"quality": QUALITY, "subsampling": 0}),
    "PNG": (".png", {}),
}
ARRAY = "memory-mapped array"


def pictures(archive: Path | None) -> Iterator[Image.Image]:
    """Images of any size: those of a zip file, or drawn."""
    if archive is None:
        for i in range(COUNT):
            yield Image.fromarray(draw_lesion(CLASSES[i % len(CLASSES)], i, i, size=512)[0])
    else:
        with Archive(archive) as content:
            for name in list(content.members)[:COUNT]:
                yield open_image(io.BytesIO(content.read(name)), name)


def write(folder: Path, archive: Path | None) -> list[np.ndarray]:
    """Write every image as a 1024-px JPEG and in each format; return their pixels (S, S, 3)."""
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
    """Loads the images one by one into an array, as `LesionDataset.from_folder` does."""
    pixels = np.empty((count, 3, SIZE, SIZE), np.uint8)

    def load():
        for i in range(count):
            picture = np.asarray(square(open_image(folder / f"{i}{suffix}"), SIZE))
            pixels[i] = picture.transpose(2, 0, 1)

    return load


def array_loader(folder: Path, count: int) -> Callable[[], None]:
    """Loads the images out of a memory-mapped array."""
    pixels = np.empty((count, 3, SIZE, SIZE), np.uint8)

    def load():
        stored = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        for i in range(count):
            pixels[i] = stored[i].transpose(2, 0, 1)

    return load


def released_loader(folder: Path, count: int) -> Callable[[], None]:
    """Opens, converts and resizes 1024-px JPEGs with Pillow."""

    def load():
        for i in range(count):
            with Image.open(folder / f"{i}.1024.jpg") as image:
                np.asarray(square(image.convert("RGB"), SIZE)).transpose(2, 0, 1)

    return load


def loading() -> tuple[str, str, float, float]:
    """Prepared images of 256 px against 1024-px JPEGs: a row of `benchmarks.__main__`."""
    with tempfile.TemporaryDirectory() as name:
        count = len(write(Path(name), None))
        ours = seconds(loader(Path(name), ".jpg", count))
        theirs = seconds(released_loader(Path(name), count), repeats=3)
    return (
        f"load {count} prepared images of {SIZE} px, one thread",
        "decoding and resizing 1024-px JPEGs",
        ours,
        theirs,
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
        base = count / seconds(released_loader(folder, count))
        rows = [{"format": "1024-px JPEG, resized", "images/s": base}]
        for kind, (suffix, _) in FORMATS.items():
            size = statistics.mean((folder / f"{i}{suffix}").stat().st_size for i in range(count))
            speed = count / seconds(loader(folder, suffix, count))
            loss = psnr(folder, suffix, prepared)
            rows.append({"format": kind, "images/s": speed, "kB": size / 1e3, "PSNR": loss})
        speed = count / seconds(array_loader(folder, count))
        size = prepared[0].nbytes / 1e3
        rows.append({"format": ARRAY, "images/s": speed, "kB": size, "PSNR": np.inf})
    table = pd.DataFrame(rows)
    table.insert(2, "ratio", table["images/s"] / base)
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, metavar="ZIP", help="take the images of a zip file")
    print(measure(parser.parse_args().archive).to_string(index=False, float_format="%.1f"))
    print(", ".join(f"{key}: {value}" for key, value in conditions().items()))


if __name__ == "__main__":
    main()
