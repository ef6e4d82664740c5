"""What the notebooks share: the lesson's data and its two trained networks.

A lesson runs on a small atlas and a small network, so that it takes a minute on a laptop. The same
calls with a data folder and larger numbers run at full scale.
"""

import io
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from derm_hash.atlas.atlas import Atlas, make_atlases
from derm_hash.data.dataset import LesionDataset
from derm_hash.files import home, write_atomically
from derm_hash.model import DermHash, encode
from derm_hash.runs import Run, fingerprint, load_model, save_model
from derm_hash.settings import TrainConfig
from derm_hash.training import train

SIZE = 48  # pixels
TOGETHER = (SIZE, 96)  # pixels, drawn at once: networks see the first, people the second
IMAGES = 900
# A step has all four copies, since this is the loss that the lessons derive.
LESSON = {"backbone": "resnet8", "epochs": 5, "batch_size": 24, "learning_rate": 2e-3}
LESSON |= {"orbit_sample": 0}
# What a lesson computes by hand must agree to the last digits, on every processor.
LESSON |= {"precision": "32-true"}
THREAD = "MEL-1739572757"  # the lesion that the course follows, see `course_query`
# The two networks that come with the package: changes of the lesson's recipe, by file name.
SHIPPED = Path(__file__).with_name("networks")
PAIR = {"with_loss": {}, "without_loss": {"invariance": None, "classify": "upright"}}
# The modules that decide how an image is drawn, and how a network is trained.
DRAWN_BY = ["atlas/atlas", "atlas/criteria", "atlas/lesion", "atlas/photograph"]
LEARNT_BY = ["attention", "data/dataset", "data/images", "data/views", "longtail", "losses"]
LEARNT_BY += ["model", "objectives", "optimizers", "rivals", "rotations", "settings", "training"]


def course_data(
    source: str = "atlas",
    size: int = SIZE,
    images: int = IMAGES,
    seed: int = 0,
    *,
    difficulty: float = 0.0,
) -> LesionDataset:
    """The data set of a lesson, split into database, val and query.

    Parameters
    ----------
    source : str
        "atlas" for the built-in one, or a folder with ``manifest.csv``.
    size : int, side of the images in pixels
    images, seed, difficulty : int, int, float
        Arguments of :func:`derm_hash.make_atlas`; a folder ignores them.
    """
    if source != "atlas":
        return LesionDataset.from_folder(source, size)
    return LesionDataset.from_atlas(cached_atlas(images, size, seed, difficulty))


def course_query(queries: LesionDataset, follow: int | None = None) -> int:
    """Position in the queries of the lesion that the course follows.

    ``follow`` is returned if it is given. Otherwise the lesion is ``THREAD``, or the first query
    where that is not among the queries, as in a data folder. It was chosen by a rule, with the
    networks of `course_pair`: take the MEL and BKL queries of `course_data` that have 3 to 7 hits
    of their own class among the ten nearest in both networks, and no bit that a quarter turn flips
    in the network with the loss; of these, take the one with the most flipped bits in the other.
    """
    thread = np.flatnonzero(queries.table["lesion_id"] == THREAD)
    return follow if follow is not None else int(thread[0]) if len(thread) else 0


def cached_atlas(images: int, size: int, seed: int, difficulty: float) -> Atlas:
    """The built-in atlas, drawn once for each set of arguments and version of its code.

    If it has one of the sizes ``TOGETHER``, it is drawn and kept in both.
    """

    def path(size: int) -> Path:
        numbers = f"{images}-{size}px-seed{seed}-difficulty{difficulty}"
        return home() / f"atlas-{numbers}-{checksum(*DRAWN_BY):08x}.npz"

    try:
        with np.load(path(size)) as arrays:
            return Atlas(**{**arrays, "seed": seed, "difficulty": difficulty})
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):  # missing or damaged: draw it
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home()):
            pass  # if nothing can be written, fail before the work
    sizes = TOGETHER if size in TOGETHER else (size,)
    drawn = make_atlases(images, sizes, seed, difficulty=difficulty)
    for each, atlas in zip(sizes, drawn, strict=True):
        content = io.BytesIO()
        np.savez(content, **vars(atlas))
        write_atomically(path(each), lambda part, it=content: part.write_bytes(it.getvalue()))
    return drawn[sizes.index(size)]


def checksum(*modules: str) -> int:
    """A number of 32 bits that changes with the source of some modules of the package."""
    package = Path(__file__).parent
    return zlib.crc32(b"".join((package / f"{name}.py").read_bytes() for name in modules))


def course_run(data: LesionDataset, progress: bool = True, **changes) -> Run:
    """The lesson's model for this data: trained once for each version of the code, then cached.

    A finished run is only read, without a lock, so that a class can share a cache that nobody but
    the lecturer can write.

    Parameters
    ----------
    data : LesionDataset with splits
    progress : bool
    **changes
        Fields of TrainConfig that differ from the lesson's (``LESSON``).
    """
    config = TrainConfig.preset("recommended", **(LESSON | changes))
    key = zlib.crc32(repr(config).encode() + fingerprint(data).encode(), checksum(*LEARNT_BY))
    config = TrainConfig.preset("recommended", **(LESSON | changes | {"name": f"{key:08x}"}))
    path = home() / "runs" / config.name
    done = (path / "metrics.csv").is_file() and len(pd.read_csv(path / "metrics.csv"))
    with torch.random.fork_rng():  # the caller's random numbers do not depend on what is cached
        if done == config.epochs:
            return Run.load(path)
        return train(config, data, path.parent, progress=progress)


def course_pair(data: LesionDataset, progress: bool = True) -> tuple[DermHash, ...]:
    """The course's two networks for this data: trained with the loss, and without it.

    The pair for the atlas of `course_data` comes with the package: it was trained by the lesson's
    recipe, and is stored in half precision. `make_pair` makes it again. For other data,
    `course_run` trains the pair.
    """
    if len(data) == IMAGES and fingerprint(data) == fingerprint(course_data()):
        return tuple(load_model(SHIPPED / f"{name}.safetensors") for name in PAIR)
    return tuple(course_run(data, progress, **changes).model for changes in PAIR.values())


def make_pair() -> None:
    """Train the two networks of `course_pair` and store them; print what the rounding changes."""
    data = course_data()
    queries = data.split("query")
    for name, changes in PAIR.items():
        model = course_run(data, **changes).model
        before = encode(model, queries) > 0.5
        path = save_model(model.half(), SHIPPED / f"{name}.safetensors")
        after = encode(load_model(path), queries) > 0.5
        size, flipped = path.stat().st_size / 1e6, (before != after).sum()
        print(f"{path.name}: {size:.1f} MB; {flipped} of {before.size} bits differ")


if __name__ == "__main__":
    make_pair()
