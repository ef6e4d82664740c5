"""What the notebooks share: the lesson's data and a trained model, made once and cached.

A lesson runs on a small atlas and a small network, so that it takes a minute on a
laptop; the same calls with a data folder and larger numbers are the real thing.
"""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from derm_hash.atlas.atlas import Atlas, make_atlas
from derm_hash.data.dataset import LesionDataset
from derm_hash.files import write_atomically
from derm_hash.runs import Run, fingerprint
from derm_hash.settings import TrainConfig
from derm_hash.training import train

SIZE = 48
IMAGES = 900
# So short a training has no time for a loss that pulls hard.
LESSON = {"backbone": "resnet10", "epochs": 5, "batch_size": 24, "learning_rate": 2e-3}
LESSON |= {"invariance_weight": 0.5}
# The modules that decide how an image is drawn, and how a network is trained.
DRAWN_BY = ["atlas/atlas", "atlas/criteria", "atlas/lesion", "atlas/photograph"]
LEARNT_BY = ["attention", "data/dataset", "data/images", "data/views", "losses"]
LEARNT_BY += ["model", "objectives", "rotations", "settings", "training"]

# The arrays of an atlas, and what they hold.
ATLAS_ARRAYS = {"images": np.uint8, "masks": np.bool_, "labels": np.str_, "lesion_ids": np.str_}
# What reading a damaged file of arrays runs into.
_UNREADABLE = (OSError, EOFError, ValueError, LookupError, RuntimeError, ArithmeticError)
_UNREADABLE += (SyntaxError, TokenError, zipfile.BadZipFile, zlib.error, struct.error)


def home() -> Path:
    """Folder of the cache: ``DERM_HASH_HOME``, or ``~/.cache/derm-hash``."""
    return Path(os.environ.get("DERM_HASH_HOME") or "~/.cache/derm-hash").expanduser()


def course_data(
    source: str = "atlas", size: int = SIZE, images: int = IMAGES, seed: int = 0
) -> LesionDataset:
    """The data set of a lesson, split into database, val and query.

    Parameters
    ----------
    source : str
        "atlas" for the built-in one, or a folder with ``manifest.csv``.
    size : int
        Side of the images in pixels.
    images, seed : int
        Of the atlas; a folder has its own.
    """
    if source != "atlas":
        return LesionDataset.from_folder(source, size)
    return LesionDataset.from_atlas(cached_atlas(images, size, seed))


def cached_atlas(images: int, size: int, seed: int) -> Atlas:
    """The built-in atlas, drawn once for each set of arguments and version of its code.

    A file that cannot be read is drawn again.
    """
    path = home() / f"atlas-{images}-{size}px-seed{seed}-{checksum(*DRAWN_BY):08x}.npz"
    atlas = stored_atlas(path, images, size, seed)
    if atlas is None:
        atlas = make_atlas(images, size, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {name: getattr(atlas, name) for name in ATLAS_ARRAYS}
        write_atomically(path, lambda part: _savez(part, fields))
    return atlas


def stored_atlas(path: Path, images: int, size: int, seed: int) -> Atlas | None:
    """The atlas that a file holds; None if there is no such file, or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # before numpy believes what a damaged array says of its size
                return None
        with np.load(path, allow_pickle=False) as file:
            fields = {name: file[name] for name in ATLAS_ARRAYS}
    except _UNREADABLE:
        return None
    sides = {"images": (size, size, 3), "masks": (size, size), "labels": (), "lesion_ids": ()}
    fits = all(
        np.issubdtype(fields[name].dtype, kind) and fields[name].shape == (images, *sides[name])
        for name, kind in ATLAS_ARRAYS.items()
    )
    return Atlas(**fields, seed=seed) if fits else None


def checksum(*modules: str) -> int:
    """A number of 32 bits that changes with the source of modules of the package."""
    here = Path(__file__)
    return zlib.crc32(b"".join(here.with_name(f"{name}.py").read_bytes() for name in modules))


def _savez(path: Path, fields: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a name, numpy would add .npz to it
        np.savez(file, **fields)


def course_run(data: LesionDataset, progress: bool = True, **changes) -> Run:
    """The lesson's model for this data: trained the first time, then read from the cache.

    The next version of the package trains it again, lest notebooks show networks of two.

    Parameters
    ----------
    data : LesionDataset with splits
    **changes
        Fields of TrainConfig that differ from the lesson's (``LESSON``).
    """
    config = TrainConfig.preset("recommended", **(LESSON | changes))
    key = zlib.crc32(repr(config).encode() + fingerprint(data).encode(), checksum(*LEARNT_BY))
    config = TrainConfig.preset("recommended", **(LESSON | changes | {"name": f"{key:08x}"}))
    return train(config, data, home() / "runs", progress=progress)
