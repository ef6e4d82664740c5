"""Experiments: a grid of settings and seeds in, one tidy table out.

A folder of experiments holds a folder for each run, and a table ``results.csv``. A run's
folder is complete at any moment::

    RUN/trained.json          how long training took, and where; once it is there, training is over
    RUN/queries-READING.csv   every score of every query
    RUN/result-READING.json   the row of the table; once it is there, the run is scored

So a run is never done again, one that was stopped goes on from its last checkpoint, and
several processes, on machines that share the disk, may work in one folder: each claims a run
by a lock, which ends with the process, and the table is put together from all results.
"""

import dataclasses
import itertools
import platform
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from filelock import Timeout
from lightning_fabric import Fabric
from tqdm.auto import tqdm

from derm_hash import __version__
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import SPLITS
from derm_hash.data.splits import split_by_image, split_by_lesion
from derm_hash.devices import make_fabric
from derm_hash.errors import InputError
from derm_hash.experiments.results import (
    Reading,
    collect,
    read_facts,
    read_results,
    run_name,
    word,
    write_json,
)
from derm_hash.experiments.scoring import score_model
from derm_hash.files import Lock, remove_parts, write_atomically
from derm_hash.model import DermHash, OrbitMean
from derm_hash.runs import Run, fingerprint
from derm_hash.settings import TrainConfig
from derm_hash.training import train

SPLITTERS = {"given": None, "lesion": split_by_lesion, "paper": split_by_image}
READOUTS = {"plain": lambda model: model, "orbit-mean": OrbitMean}
SCORED_ON = ("query", "val")
SECONDS_BETWEEN_LOOKS = 1.0  # at the runs that other processes do


@dataclass
class PlannedRun:
    """A point of a grid: what to train on what, and how to score it."""

    config: TrainConfig
    data: LesionDataset
    facts: dict
    """Columns of the table that are not in the config: preset, split, split_seed, data."""
    readings: list[Reading] = field(default_factory=list)

    def missing(self, out: Path) -> list[Reading]:
        """The readings that are still to be scored."""
        return [reading for reading in self.readings if not self.result(out, reading).exists()]

    def result(self, out: Path, reading: Reading) -> Path:
        """The file with the row of the table."""
        return out / self.config.name / f"result-{reading.name}.json"


def carry_out(planned: PlannedRun, out: Path, fabric: Fabric, progress: bool) -> None:
    """Train and score a run, as far as it has not been done; all processes of a launcher call it.

    Only the process that holds the run's claim, the first one, writes results.
    """
    path = out / planned.config.name
    trained = path / "trained.json"
    if not trained.exists():
        resumed, start = (path / "last.ckpt").exists(), time.perf_counter()
        train(planned.config, planned.data, out, progress, fabric=fabric)
        # Nobody has counted the seconds of a process that was killed.
        seconds = None if resumed else round(time.perf_counter() - start, 3)
        if fabric.global_rank == 0:
            facts = conditions() | {"processes": fabric.world_size, "seconds": seconds}
            write_json(trained, facts)
    if fabric.global_rank > 0:
        return
    remove_parts(path)
    run = Run.load(path)
    model = run.model.to(fabric.device)
    config = {key: word(value) for key, value in dataclasses.asdict(run.config).items()}
    config.pop("name")
    for reading in planned.missing(out):
        read = READOUTS[reading.readout](model)
        scores, table = score_model(read, planned.data, scored_on=reading.scored_on)
        queries = path / f"queries-{reading.name}.csv"
        write_atomically(queries, lambda p, t=table: t.to_csv(p, index=False, float_format="%.8g"))
        row = {"run": path.name, **reading._asdict(), **planned.facts, **config}
        row |= read_facts(trained) | scores
        write_json(planned.result(out, reading), row)


def conditions() -> dict[str, str]:
    """Where a number was measured: device, and versions of the kit, torch and Python."""
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    versions = {"derm_hash": __version__, "torch": torch.__version__}
    return {"device": device, **versions, "python": platform.python_version()}


def run_grid(
    grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]],
    data: LesionDataset,
    out: str | Path,
    preset: str = "recommended",
    progress: bool = True,
    **settings,
) -> pd.DataFrame:
    """Train and score every combination of settings.

    Start it several times, on one or more machines, and the processes share the runs out; start
    it with a launcher (torchrun, fabric run), and its processes train each run together.

    Parameters
    ----------
    grid : mapping from the name of a setting to the values it takes, or a list of such mappings
        A setting is a field of TrainConfig or one of

        preset
            What the other settings change.
        split, split_seed
            "given", the split that the data has (default), or the same images split again:
            "lesion" or "paper" (by image, as the paper's protocol does), with the shares that
            :func:`derm_hash.data.split_by_lesion` has by default and the seed 0, or that given.
        readout
            "plain" (default) or "orbit-mean", which scores the trained model as an
            :class:`derm_hash.model.OrbitMean`. It needs no training of its own.
        scored_on
            "query" (default), or "val" to choose settings by: once settings have been chosen by
            the queries, their scores are too good to be true.
    data : LesionDataset with splits
    out : folder for ``results.csv`` and the runs
    preset, **settings
        What all runs share.

    Returns
    -------
    DataFrame, one row for each run and way to score it: its settings, every score, seconds of
    training (empty where it was stopped and went on), device, versions. The file ``results.csv``
    keeps the runs of earlier grids as well.

    Raises
    ------
    InputError
        Before anything is trained, if a setting or its value does not exist.
    """
    out = Path(out)
    points, axes = points_of(grid, settings)
    plans, wanted = plan(points, axes, data, out, preset)
    fabric = make_fabric()
    work_off(plans, out, fabric, progress)
    if fabric.global_rank == 0:
        collect(out)
    fabric.barrier()
    table = read_results(out).set_index(["run", *Reading._fields], drop=False)
    return table.loc[wanted].reset_index(drop=True)


def points_of(
    grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]], settings: Mapping
) -> tuple[list[dict], set[str]]:
    """All combinations of a grid, or of several, and the names of the axes."""
    grids = [grid] if isinstance(grid, Mapping) else list(grid)
    points = [
        {**settings, **dict(zip(axes, values, strict=True))}
        for axes in grids
        for values in itertools.product(*axes.values())
    ]
    return points, {axis for axes in grids for axis in axes}


def plan(
    points: Sequence[Mapping], axes: set[str], data: LesionDataset, out: Path, preset: str
) -> tuple[list[PlannedRun], list[tuple[str, str, str]]]:
    """The runs that score all points of a grid, and each point's (run, readout, scored_on)."""
    variants, plans, wanted = {}, {}, []
    for point in points:
        changes = {"preset": preset, "split": "given", "split_seed": 0} | point
        facts = {key: changes.pop(key) for key in ("preset", "split", "split_seed")}
        reading = Reading(changes.pop("readout", "plain"), changes.pop("scored_on", "query"))
        for key, value, choices in (
            ("split", facts["split"], SPLITTERS),
            ("readout", reading.readout, READOUTS),
            ("scored_on", reading.scored_on, SCORED_ON),
        ):
            if value not in choices:
                raise InputError(f"{key} must be one of {', '.join(choices)}, not {value!r}.")
        config = TrainConfig.preset(facts["preset"], **(changes | {"name": "unnamed"}))
        split = facts["split"], facts["split_seed"]
        if split not in variants:
            variants[split] = split_again(data, *split)
        part, facts["data"] = variants[split]
        # The name says what is special in this grid. The checksum tells apart all the rest, so
        # that another grid with another name for the same run finds it.
        key = f"{zlib.crc32(repr((config, sorted(facts.items()))).encode()):08x}"
        if key not in plans:
            check_model(config, len(data.classes))
            of_run = axes - set(Reading._fields)
            special = {axis: point[axis] for axis in of_run if axis in point}
            there = sorted(path.name for path in out.glob(f"*{key}") if path.is_dir())
            name = there[0] if there else f"{run_name(special)},{key}".lstrip(",")
            plans[key] = PlannedRun(dataclasses.replace(config, name=name), part, facts)
        if reading not in plans[key].readings:
            plans[key].readings.append(reading)
            wanted.append((plans[key].config.name, *reading))
    return list(plans.values()), wanted


def split_again(data: LesionDataset, split: str, seed: int) -> tuple[LesionDataset, str]:
    """The same images in another split, and their fingerprint; InputError if a part is empty."""
    if SPLITTERS[split]:
        table = SPLITTERS[split](data.table, seed=seed)
        data = LesionDataset(data.images, table, data.classes)  # the pixels are not copied
    for empty in set(SPLITS) - set(data.table["split"]):
        data.split(empty)  # says so
    return data, fingerprint(data)


def check_model(config: TrainConfig, classes: int) -> None:
    """InputError if there is no such network: not after the hours that other runs take."""
    with torch.device("meta"):  # no memory, no numbers
        DermHash(config.backbone, config.bits, classes, config.attention)


def work_off(plans: Sequence[PlannedRun], out: Path, fabric: Fabric, progress: bool) -> None:
    """Do every run that no other process does, until all are done.

    The first process of a launcher chooses and claims; a claim ends with its process, so that
    the run of one that was killed is taken over.
    """
    first, told = fabric.global_rank == 0, False
    with tqdm(total=len(plans), desc="runs", disable=not progress or not first) as bar:
        while True:
            left, chosen, claim = 0, None, None
            if first:
                left, chosen, claim = claim_one(plans, out)
                bar.n = len(plans) - left
                bar.refresh()
            left, chosen = fabric.broadcast((left, chosen))
            if not left:
                return
            if chosen is None:
                if first and not told:
                    print(f"{left} runs are being done by other processes: waiting for their end.")
                told = True
                time.sleep(SECONDS_BETWEEN_LOOKS)
                continue
            try:
                planned = plans[chosen]
                carry_out(planned, out, make_fabric(planned.config.precision), progress)
                if first:
                    collect(out)
            finally:
                if claim:
                    claim.release()


def claim_one(plans: Sequence[PlannedRun], out: Path) -> tuple[int, int | None, Lock | None]:
    """How many runs are left, and the position and lock of one of them that is free."""
    left = [i for i, planned in enumerate(plans) if planned.missing(out)]
    for i in left:
        claims = out / ".claims"
        claims.mkdir(parents=True, exist_ok=True)
        lock = Lock(claims / plans[i].config.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        if plans[i].missing(out):
            return len(left), i, lock
        lock.release()  # done since we looked
    return len(left), None, None
