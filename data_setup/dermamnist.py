"""DermaMNIST: the 10,015 images of HAM10000 as small squares, the quickest real data.

It has no lesion ids, so the publisher's parts (by image) are the default split: train becomes the
database, val stays val, and test becomes the queries. One lesion may be in several parts.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pooch

from data_setup import publisher
from data_setup.info import INFO
from data_setup.info import images as count
from data_setup.options import add_common_arguments
from data_setup.sources import Drawn
from derm_hash.data.dataset import check_memory
from derm_hash.errors import InputError, one_line

HELP = "DermaMNIST: 10,015 images of 28 to 224 px, 7 classes"
NAME = "dermamnist"
HOME = INFO[NAME].home

SIZES = (28, 64, 128, 224)
LABELS = tuple(label for _, label in sorted(INFO[NAME].labels.items()))
PARTS = {"train": "database", "val": "val", "test": "query"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(
        parser, size=64, own_splits={"medmnist": "the publisher's"}, default_split="medmnist"
    )
    publisher.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    if args.size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise InputError(f"DermaMNIST comes in the sizes {sizes}: give --size one of them")
    name = "dermamnist.npz" if args.size == 28 else f"dermamnist_{args.size}.npz"
    path = publisher.files(args, NAME, [name]) / name
    if not path.is_file():
        raise InputError(f"{path} does not exist: download it from {HOME}, or check --archives")
    sources = {name: f"MD5 {pooch.file_hash(str(path), alg='md5')}"}
    publisher.run(args, NAME, {}, sources, lambda: rows(path, args.size))


def rows(path: Path, size: int) -> pd.DataFrame:
    """The manifest's rows, split as published."""
    images, labels = load(path, size)
    lines = [
        (f"images/{part}_{i:05d}.png", LABELS[label], split, Drawn(pixels, f"{part} {i} of {path}"))
        for part, split in PARTS.items()
        for i, (pixels, label) in enumerate(zip(images[part], labels[part], strict=True))
    ]
    table = pd.DataFrame(lines, columns=["image", "label", "split", "image_from"])
    table = table.assign(lesion_id="", mask="", source=INFO[NAME].title, mask_from=None)
    return table.sort_values("image", ignore_index=True)


def load(path: Path, size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images (N, S, S, 3) and class numbers (N,) of each part of an npz file, without pickle."""
    check_memory(count(INFO[NAME].classes), size)
    images, labels = {}, {}
    try:
        with np.load(path) as arrays:
            for part in PARTS:
                pixels, numbers = arrays[f"{part}_images"], arrays[f"{part}_labels"].ravel()
                shape = len(numbers), size, size, 3
                other = pixels.shape != shape or numbers.max(initial=0) >= len(LABELS)
                if other or {pixels.dtype, numbers.dtype} != {np.dtype(np.uint8)}:
                    raise ValueError(f"the part {part} has other images or labels")
                images[part], labels[part] = pixels, numbers
    except Exception as error:  # damaged bytes raise almost anything in zipfile and numpy
        raise InputError(
            f"{path} is not the npz file of this size ({one_line(error)}): download it again from "
            f"{HOME}"
        ) from error
    return images, labels
