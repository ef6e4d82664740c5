"""The built-in atlas as a data folder: drawn dermoscopic images with exact lesion masks."""

import argparse

import numpy as np
import pandas as pd

from data_setup.build import build
from data_setup.options import add_common_arguments, at_least
from data_setup.record import check_space
from data_setup.sources import Drawn
from derm_hash.atlas.atlas import make_atlas
from derm_hash.data.dataset import atlas_table, check_memory
from derm_hash.errors import InputError

HELP = "draw the built-in atlas: no download, no account"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser, size=128)
    text = "number of images (default: %(default)s)"
    parser.add_argument("--images", type=at_least(1), default=2000, help=text)


def run(args: argparse.Namespace) -> None:
    if args.size is None:
        raise InputError("the drawn atlas has no original size: give --size a number of pixels")
    check_memory(args.images, args.size)
    about = {"title": "derm-hash atlas", "licence": "MIT"}
    build(args, "synthetic", {"images": args.images}, {}, lambda: rows(args), about)


def rows(args: argparse.Namespace) -> pd.DataFrame:
    """Draw the atlas, and return the manifest's rows, not split."""
    # A drawn image hardly compresses: its bytes count twice (file, decoded), the mask's once.
    check_space(args.root.expanduser(), 7 * args.images * args.size**2)
    atlas = make_atlas(images=args.images, size=args.size, seed=args.seed)
    table = atlas_table(atlas)
    masks = atlas.masks.astype(np.uint8) * 255
    return table.assign(
        image_from=[Drawn(*pair) for pair in zip(atlas.images, table["image"], strict=True)],
        mask_from=[Drawn(*pair) for pair in zip(masks, table["mask"], strict=True)],
    )
