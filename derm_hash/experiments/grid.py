"""Run a grid of settings and seeds, on this machine or on a cluster, and return one tidy table.

A folder of experiments holds a folder for each run, and a table ``results.csv``. Every file is
written all or nothing::

    RUN/trained.json          how long training took, and on what; the training is finished
    RUN/queries-SCORING.csv   every score of every query
    RUN/result-SCORING.json   the row of the table; this scoring is finished

So a finished run is never repeated, and a run that was stopped goes on from its last checkpoint.
Every run is one call of :func:`do_run`. joblib hands these calls out: to this process, to several
processes, or to a Dask cluster whose workers see the same folder.
"""

import dataclasses
import itertools
import platform
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from derm_hash import __version__
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.manifest import SPLITS
from derm_hash.data.splits import split_by_image, split_by_lesion
from derm_hash.devices import make_fabric
from derm_hash.errors import InputError
from derm_hash.experiments.results import (
    Scoring,
    collect,
    read_json,
    read_results,
    run_name,
    table_value,
    write_json,
)
from derm_hash.experiments.scoring import score_model
from derm_hash.files import locked, remove_parts, write_atomically
from derm_hash.model import DermHash, OrbitMean
from derm_hash.runs import Run, fingerprint
from derm_hash.settings import TrainConfig
from derm_hash.training import CHECKPOINT, train

SPLITTERS = {"given": None, "lesion": split_by_lesion, "paper": split_by_image}
READOUTS = {"plain": lambda model: model, "orbit-mean": OrbitMean}
CHOICES = {"split": SPLITTERS, "readout": READOUTS, "scored_on": ("query", "val")}
DEFAULTS = {"split": "given", "split_seed": 0, "readout": "plain", "scored_on": "query"}
ONE_RUN_AT_A_TIME = threading.Lock()  # in a process: the runs share torch's random numbers


def run_grid(
    grid: Mapping[str, Sequence] | Sequence[Mapping[str, Sequence]],
    data: LesionDataset,
    out: str | Path,
    preset: str = "recommended",
    progress: bool = True,
    jobs: int = 1,
    **settings,
) -> pd.DataFrame:
    """Train and score every combination of settings.

    Parameters
    ----------
    grid : mapping from the name of a setting to the values it takes, or a list of such mappings
        A setting is a field of TrainConfig or one of

        preset
            What the other settings change.
        split, split_seed
            "given", the split that the data has (default), or the same images split again:
            "lesion" or "paper" (by image, as in the paper's protocol), with the default shares of
            :func:`derm_hash.split_by_lesion` and the seed 0, or the one given.
        readout
            "plain" (default) or "orbit-mean", which scores the trained model as an
            :class:`derm_hash.OrbitMean`, without another training.
        scored_on
            "query" (default), or "val" to choose settings by. Settings that were chosen by the
            queries have query scores that are too good.
    data : LesionDataset
        With splits.
    out : str or Path
        Folder for ``results.csv`` and the runs.
    preset, **settings
        What all runs share.
    progress : bool
        Show a progress bar over the runs, and over the steps of a run in this process.
    jobs : int
        Processes on this machine, which share its cores. Inside
        ``joblib.parallel_config(backend="dask")`` the workers of the cluster run instead.

    Returns
    -------
    DataFrame
        One row for each run and scoring: its settings, every score, seconds of training (empty
        if it was stopped and went on), device, versions. The file ``results.csv`` keeps the runs
        of earlier grids as well.

    Raises
    ------
    InputError
        Before anything is trained, if a setting or its value does not exist; later, if a worker
        process was killed.
    """
    if torch.distributed.is_torchelastic_launched():
        raise InputError("torchrun is for a single training: run a grid with --jobs or --scheduler")
    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, not {jobs}")
    out = Path(out).resolve()  # workers may have another working directory
    runs, wanted = plan(grid, data, out, {"preset": preset} | settings)
    with locked(out, f"Another process runs experiments in {out}: waiting for it to end."):
        finish(runs, out, jobs, progress)
        table = read_results(out).set_index(["run", *Scoring._fields], drop=False)
    return table.loc[wanted].reset_index(drop=True)


# --- which runs a grid needs --------------------------------------------------------------------


class SharedData:
    """A data set whose images other processes read from one file.

    Sending it to another process writes the images to ``path``, once, and sends the rest. All
    processes of a machine then share the memory of that file.
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
) -> tuple[list[PlannedRun], list[tuple[str, str, str]]]:
    """Return the runs that a grid needs, and (run, readout, scored_on) of each of its points.

    The arguments are those of :func:`run_grid`.
    """
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
        scoring = Scoring(changes.pop("readout"), changes.pop("scored_on"))
        facts = {name: changes.pop(name) for name in ("preset", "split", "split_seed")}
        config = TrainConfig.preset(facts["preset"], **(changes | {"name": "unnamed"}))
        split = facts["split"], facts["split_seed"]
        if split not in variants:
            dataset = split_again(data, *split)
            variants[split] = SharedData(dataset, images), fingerprint(dataset)
        shared, facts["data"] = variants[split]
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
    for empty in set(SPLITS) - set(data.table["split"]):
        data.split(empty)  # raises the InputError
    return data


def check_model(config: TrainConfig, classes: int) -> None:
    """Raise InputError if there is no such network: now, not after hours of other runs."""
    with torch.device("meta"):  # needs no memory and no random numbers
        DermHash(config.backbone, config.bits, classes, config.attention)


# --- the runs -----------------------------------------------------------------------------------


def finish(runs: Sequence[PlannedRun], out: Path, jobs: int, progress: bool) -> None:
    """Train and score what is not finished yet, and write the table after every run."""
    for folder in out.glob("*/"):
        remove_parts(folder)
    left = [run for run in runs if run.missing(out)]
    calls = [delayed(do_run)(run, out, progress and jobs == 1) for run in left]
    parallel = Parallel(jobs, return_as="generator_unordered", pre_dispatch="all", batch_size=1)
    bar = tqdm(desc="runs", total=len(runs), initial=len(runs) - len(left), disable=not progress)
    try:
        with bar:
            for _ in parallel(calls):
                collect(out)
                bar.update()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process was killed, perhaps because memory ran out: the same command goes on "
            "from the checkpoints; give it fewer jobs if this happens again"
        ) from error
    finally:
        for images in out.glob(".images-*"):
            with suppress(PermissionError):  # Windows, while a worker has it open
                images.unlink()
    collect(out)


def do_run(run: PlannedRun, out: Path, progress: bool) -> None:
    """Train a run and score it, except for what is finished already."""
    path, trained = out / run.config.name, out / run.config.name / "trained.json"
    with ONE_RUN_AT_A_TIME:
        fabric = make_fabric(run.config.precision)
        if not trained.exists():
            resumed, start = (path / CHECKPOINT).exists(), time.perf_counter()
            train(run.config, run.data.dataset, out, progress, fabric=fabric)
            # The seconds before a stop are not known.
            seconds = None if resumed else round(time.perf_counter() - start, 3)
            write_json(trained, conditions() | {"seconds": seconds})
        model = Run.load(path).model.to(fabric.device)
        config = {name: table_value(value) for name, value in vars(run.config).items()}
        config.pop("name")
        for scoring in run.missing(out):
            readout = READOUTS[scoring.readout](model)
            scores, table = score_model(readout, run.data.dataset, scored_on=scoring.scored_on)
            write_atomically(
                path / f"queries-{scoring.name}.csv",
                lambda part, table=table: table.to_csv(part, index=False, float_format="%.8g"),
            )
            row = {"run": path.name, **scoring._asdict(), **run.facts, **config}
            write_json(run.result(out, scoring), row | read_json(trained) | scores)


def conditions() -> dict[str, str]:
    """Return what a number was measured with: device, and versions of the kit, torch, Python."""
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    versions = {"derm_hash": __version__, "torch": torch.__version__}
    return {"device": device, **versions, "python": platform.python_version()}
