"""What the notebooks share: the lesson's data and a trained model, made once and cached.

A lesson runs on a small atlas and a small network, so that it takes a minute on a
laptop; the same calls with a data folder and larger numbers are the real thing.
"""

import os
import zlib
from pathlib import Path

import numpy as np

from derm_hash.data import LesionDataset, write_atomically
from derm_hash.synthetic import Atlas, make_atlas
from derm_hash.training import Run, TrainConfig, fingerprint, train

SIZE = 48
IMAGES = 900
# So short a training has no time for a loss that pulls hard.
LESSON = {"backbone": "resnet10", "epochs": 5, "batch_size": 24, "learning_rate": 2e-3}
LESSON |= {"invariance_weight": 0.5}
# The modules that a trained network follows from, besides its settings and its data.
LEARNT_BY = ["attention", "data", "images", "losses"]
LEARNT_BY += ["model", "objectives", "rotations", "training"]


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
    """The built-in atlas, drawn once for each set of arguments and version of its code."""
    path = home() / f"atlas-{images}-{size}px-seed{seed}-{checksum('synthetic'):08x}.npz"
    if not path.exists():
        atlas = make_atlas(images, size, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {"images": atlas.images, "masks": atlas.masks}
        fields |= {"labels": atlas.labels, "lesion_ids": atlas.lesion_ids}
        write_atomically(path, lambda part: _savez(part, fields))
    with np.load(path, allow_pickle=False) as file:
        return Atlas(**{name: file[name] for name in file.files}, seed=seed)


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
