"""The built-in atlas as a data folder: drawn dermoscopic images with exact lesion masks."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from data_setup.common import SPLITTERS, add_common_arguments, build, check_space, positive, put
from derm_hash.data import atlas_table, check_memory, thread_map
from derm_hash.synthetic import make_atlas

HELP = "draw the built-in atlas: no download, no account"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    parser.add_argument(
        "--images", type=positive, default=2000, help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=positive, default=128, help="side in pixels (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Draw the atlas into ``args.root``."""
    check_memory(args.images, args.size)
    options = {"images": args.images, "size": args.size, "split": args.split, "seed": args.seed}
    build(
        args.root,
        "synthetic",
        options,
        sources={},
        make=lambda root: write_atlas(root, args),
        force=args.force,
        about={"title": "derm-hash atlas", "licence": "MIT"},
    )


def write_atlas(root: Path, args: argparse.Namespace) -> pd.DataFrame:
    """Draw, write images and masks as PNG, and return the manifest's rows."""
    # A drawn image hardly compresses: at most its raw bytes, plus the mask.
    check_space(root, 4 * args.images * args.size**2)
    atlas = make_atlas(images=args.images, size=args.size, seed=args.seed)
    frame = SPLITTERS[args.split](atlas_table(atlas), seed=args.seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(exist_ok=True)

    def write(i: int) -> None:
        put(root / frame["image"].iat[i], png(atlas.images[i]))
        put(root / frame["mask"].iat[i], png(atlas.masks[i].astype(np.uint8) * 255))

    for _ in thread_map(write, range(len(frame)), "writing", True, args.workers):
        pass
    return frame


def png(pixels: np.ndarray) -> bytes:
    """An image (H, W, 3) or mask (H, W) of uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
