"""Plan a grid: which runs it needs, on which data, and how each is scored."""

import dataclasses
import itertools
import platform
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.splits import split_by_image, split_by_lesion
from derm_hash.errors import InputError
from derm_hash.experiments.baselines import BASELINES
from derm_hash.experiments.results import Scoring, run_name
from derm_hash.experiments.scoring import DATABASES
from derm_hash.files import write_atomically
from derm_hash.model import DermHash, OrbitMean
from derm_hash.runs import fingerprint
from derm_hash.settings import TrainConfig

SPLITTERS = {"given": None, "lesion": split_by_lesion, "paper": split_by_image}
READOUTS = {"plain": lambda model: model, "orbit-mean": OrbitMean}
CHOICES = {
    "split": SPLITTERS,
    "system": ("trained", *BASELINES),
    "readout": READOUTS,
    "scored_on": ("query", "val"),
    "database": DATABASES,
}
DEFAULTS = {name: next(iter(choices)) for name, choices in CHOICES.items()} | {"split_seed": 0}


class SharedData:
    """A data set that other processes receive with its images in one file, ``path``.

    The file is written when the data set is first sent; processes on a machine share its memory.
    """

    def __init__(self, dataset: LesionDataset, path: Path):
        self.dataset, self.path = dataset, path

    def __reduce__(self):
        images = self.dataset.images
        if not self.path.exists():
            write_atomically(self.path, images.contiguous().numpy().tofile)
        return open_shared, (self.path, images.shape, self.dataset.table, self.dataset.classes)


def open_shared(path: Path, shape, table: pd.DataFrame, classes: tuple[str, ...]) -> SharedData:
    """Return the data set in a process that has received it; InputError if it has no such file."""
    if not path.exists():
        raise InputError(
            f"{platform.node()} has no {path}: the folder of the runs must be on a disk that all "
            "workers share"
        )
    images = torch.from_file(str(path), size=shape.numel(), dtype=torch.uint8)
    return SharedData(LesionDataset(images.view(shape), table, classes), path)


@dataclass
class PlannedRun:
    """What to train, on which data, and how to score it."""

    config: TrainConfig
    data: SharedData
    facts: dict
    """Columns of the table that are not in the config: preset, split, split_seed, data."""
    scorings: list[Scoring] = field(default_factory=list)

    def missing(self, out: Path) -> list[Scoring]:
        """Return the scorings that are not finished yet."""
        return [scoring for scoring in self.scorings if not self.result(out, scoring).exists()]

    def result(self, out: Path, scoring: Scoring) -> Path:
        """Return the file with the row of the table."""
        return out / self.config.name / f"result-{scoring.name}.json"


def plan(
    grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]],
    data: LesionDataset,
    out: Path,
    settings: Mapping,
) -> tuple[list[PlannedRun], list[tuple[str, ...]]]:
    """Return the runs of :func:`run_grid`, and (run, readout, scored_on, database) of each."""
    grids = [grid] if isinstance(grid, Mapping) else list(grid)
    special = {axis for axes in grids for axis in axes} - set(Scoring._fields)
    images = out / f".images-{fingerprint(data)}"
    variants, runs, wanted = {}, {}, []
    for point in points_of(grids, settings):
        changes = DEFAULTS | point
        for name, choices in CHOICES.items():
            if changes[name] not in choices:
                names = ", ".join(choices)
                raise InputError(f"{name} must be one of {names}, not {changes[name]!r}")
        scoring = Scoring(*(changes.pop(name) for name in Scoring._fields))
        facts = {name: changes.pop(name) for name in ("preset", "split", "split_seed", "system")}
        if facts["system"] != "trained" and not changes.get("frozen"):
            raise InputError(f"the system {facts['system']!r} needs frozen features: set frozen")
        config = TrainConfig.preset(facts["preset"], **(changes | {"name": "unnamed"}))
        split = facts["split"], facts["split_seed"]
        if split not in variants:
            dataset = split_again(data, *split)
            variants[split] = SharedData(dataset, images), fingerprint(dataset)
        shared, facts["data"] = variants[split]
        parts = set(shared.dataset.table["split"])
        if scoring[1:] == ("val", "unseen") and "train" not in parts:
            raise InputError(
                "val is the unseen database of data in three parts and cannot be the queries too: "
                "prepare the data with --unseen"
            )
        # The checksum identifies a run, also in another grid that gives it another name.
        key = f"{zlib.crc32(repr((config, sorted(facts.items()))).encode()):08x}"
        if key not in runs:
            check_model(config, len(data.classes))
            earlier = sorted(path.name for path in out.glob(f"*{key}") if path.is_dir())
            title = run_name({axis: point[axis] for axis in special if axis in point})
            name = earlier[0] if earlier else f"{title},{key}".lstrip(",")
            runs[key] = PlannedRun(dataclasses.replace(config, name=name), shared, facts)
        if scoring not in runs[key].scorings:
            runs[key].scorings.append(scoring)
            wanted.append((runs[key].config.name, *scoring))
    return list(runs.values()), wanted


def points_of(grids: Sequence[Mapping[str, Sequence]], settings: Mapping) -> Iterator[dict]:
    """Yield every combination of the values of each grid, with the settings that all share."""
    for axes in grids:
        for values in itertools.product(*axes.values()):
            yield {**settings, **dict(zip(axes, values, strict=True))}


def split_again(data: LesionDataset, split: str, seed: int) -> LesionDataset:
    """Return the same images in another split; InputError if a part is empty."""
    if SPLITTERS[split]:
        table = SPLITTERS[split](data.table, seed=seed)
        data = LesionDataset(data.images, table, data.classes)  # the pixels are not copied
    for part in ("database", "val", "query"):
        data.split(part)  # raises an InputError if it is empty
    return data


def check_model(config: TrainConfig, classes: int) -> None:
    """Raise InputError now, not after hours of other runs, if the network cannot be made."""
    if config.weights not in (None, "imagenet") and not Path(config.weights).is_file():
        raise InputError(f"There is no file of weights at {config.weights}: correct its path")
    make_on_meta(config.backbone, config.bits, classes, config.attention)


@cache  # large grids have few different networks
def make_on_meta(*network) -> None:
    """Make a network without using memory or random numbers; InputError if it is unknown."""
    with torch.device("meta"):
        DermHash(*network)
