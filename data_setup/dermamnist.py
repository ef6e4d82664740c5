"""DermaMNIST: the 10,015 images of HAM10000 as small squares, the quickest real data.

J. Yang, R. Shi, D. Wei, Z. Liu, L. Zhao, B. Ke, H. Pfister, B. Ni: MedMNIST v2 - A large-scale
lightweight benchmark for 2D and 3D biomedical image classification. Scientific Data 10, 41 (2023).

It comes without lesion ids, so that the publisher's parts (by image) are the default split:
train is the database, val is val, test are the queries. Images of one lesion are on both sides.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pooch

from data_setup.build import build
from data_setup.download import publisher_files
from data_setup.info import INFO, print_terms
from data_setup.options import add_common_arguments, add_publisher_arguments
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
    """Options of the command."""
    add_common_arguments(parser, own_split="medmnist")
    parser.set_defaults(size=64)
    add_publisher_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root``."""
    if args.size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise InputError(f"DermaMNIST comes in the sizes {sizes}: give --size one of them")
    name = "dermamnist.npz" if args.size == 28 else f"dermamnist_{args.size}.npz"
    path = publisher_files(args, NAME, [name]) / name
    if not path.is_file():
        raise InputError(f"{path} does not exist: download it from {HOME}, or check --archives")
    build(
        args,
        NAME,
        {},
        sources={name: f"MD5 {pooch.file_hash(str(path), alg='md5')}"},
        rows=lambda: rows(path, args.size),
        about=INFO[NAME].record,
    )
    print_terms(NAME)


def rows(path: Path, size: int) -> pd.DataFrame:
    """The manifest's rows, split as published."""
    images, labels = load(path, size)
    parts = []
    for part, split in PARTS.items():
        stems = [f"{part}_{i:05d}" for i in range(len(images[part]))]
        parts.append(
            pd.DataFrame(
                {
                    "image": [f"images/{stem}.png" for stem in stems],
                    "label": [LABELS[k] for k in labels[part]],
                    "lesion_id": "",
                    "split": split,
                    "mask": "",
                    "source": INFO[NAME].title,
                    "image_from": [
                        Drawn(pixels, f"image {stem} of {path}")
                        for pixels, stem in zip(images[part], stems, strict=True)
                    ],
                    "mask_from": None,
                }
            )
        )
    return pd.concat(parts).sort_values("image", ignore_index=True)


def load(path: Path, size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images (N, S, S, 3) and class numbers (N,) of each part of an npz file; nothing is unpickled.

    Raises
    ------
    InputError
        If the file is damaged or holds something else.
    """
    images, labels = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            for part in PARTS:
                images[part] = read_array(archive, f"{part}_images", (size, size, 3))
                labels[part] = read_array(archive, f"{part}_labels", (1,)).ravel()
                if len(images[part]) != len(labels[part]):
                    raise ValueError(f"the part {part} does not have as many labels as images")
                if labels[part].max(initial=0) >= len(LABELS):
                    raise ValueError(f"the part {part} has labels above {len(LABELS) - 1}")
    except InputError:
        raise
    except Exception as error:  # damaged bytes raise almost anything in zipfile and numpy
        raise InputError(
            f"{path} is not the npz file of this size ({one_line(error)}): download it again from "
            f"{HOME}"
        ) from error
    return images, labels


def read_array(archive: zipfile.ZipFile, name: str, shape: tuple) -> np.ndarray:
    """One array (N, *shape) of uint8, checked by its header before its contents are unpacked."""
    with archive.open(f"{name}.npy") as file:
        np.lib.format.read_magic(file)
        found, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.uint8 or found[1:] != shape or len(found) != 1 + len(shape):
        raise ValueError(f"{name} has the type {dtype} and the shape {found}")
    if len(shape) == 3:
        check_memory(found[0], shape[0])
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
