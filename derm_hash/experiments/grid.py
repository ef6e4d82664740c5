"""Run a grid of settings and seeds, on this machine or on a cluster, and return one tidy table.

A folder of experiments holds a folder for each run, and a table ``results.csv``. Every file is
written whole or not at all, so a finished run is never repeated, and a stopped one continues from
its last checkpoint::

    RUN/trained.json             how long training took, and on what; the training is finished
    RUN/queries-SCORING.csv.gz   every score of every query
    RUN/result-SCORING.json      the row of the table; this scoring is finished

joblib hands out the calls of :func:`do_run`, one for each run: to this process, to several
processes, or to a Dask cluster whose workers see the same folder.
"""

import math
import platform
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from derm_hash import __version__
from derm_hash.data.dataset import LesionDataset
from derm_hash.devices import make_fabric
from derm_hash.errors import InputError
from derm_hash.experiments.baselines import baseline_codes
from derm_hash.experiments.plan import READOUTS, PlannedRun, plan
from derm_hash.experiments.results import (
    AGAIN,
    Scoring,
    collect,
    read_results,
    table_value,
    write_queries,
)
from derm_hash.experiments.scoring import Coded, encode_data, encode_orbit, score_codes
from derm_hash.files import locked, read_json, remove_parts, write_json
from derm_hash.frozen import frozen_features, head_codes, train_head
from derm_hash.runs import CHECKPOINT, Run, settled
from derm_hash.training import train

DEATHS_ALLOWED = 3  # of worker processes, in one call
SECONDS_BETWEEN_TABLES = 30  # a table is written from the files of all runs
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
            The preset that the other settings change.
        split, split_seed
            "given" (the data's own; default), or the same images split again: "lesion" or "paper"
            (by image, as in the paper's protocol), with the default shares of
            :func:`derm_hash.split_by_lesion` and the seed 0, or the one given.
        readout
            "plain" (default), or "orbit-mean": the trained model as a :class:`derm_hash.OrbitMean`.
        scored_on
            "query" (default), or "val" to choose settings by. Settings that were chosen by the
            queries have query scores that are too good.
        system
            "trained" (default), or a name in ``baselines.BASELINES``, fitted on frozen features.
        database
            "full" (default): all images that the network was trained on. "trained" and "unseen":
            equally many images of each class that it was trained on, or that it has never seen;
            see :mod:`derm_hash.experiments.scoring`.
    data : LesionDataset with splits
    out : str or Path
        Folder for ``results.csv`` and the runs.
    preset, **settings
        The preset and the settings that all runs share.
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
        Before anything is trained, if a setting or its value does not exist; later, if worker
        processes are killed again and again.
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


def finish(runs: Sequence[PlannedRun], out: Path, jobs: int, progress: bool) -> None:
    """Train and score what is not finished yet, and write the table now and then, and at the end.

    A worker process that was killed is replaced, and its run continues from its checkpoint.
    """
    for deaths_left in range(DEATHS_ALLOWED, -1, -1):
        try:
            left = [run for run in runs if run.missing(out)]
            left.sort(key=lambda run: run.config.seed)  # a stopped grid has every setting
            hand_out(left, len(runs), out, jobs, progress)
            return
        except BrokenProcessPool as error:
            if not deaths_left:
                raise InputError(
                    "Worker processes were killed again and again, perhaps because memory ran out: "
                    "run the same command with fewer jobs to continue from the checkpoints"
                ) from error
            print("A worker process was killed: its run continues from its checkpoint")


def hand_out(left: Sequence[PlannedRun], total: int, out: Path, jobs: int, progress: bool) -> None:
    """Let joblib hand out the runs that are left of a total, with a progress bar."""
    for folder in out.glob("*/"):
        remove_parts(folder)
    calls = [delayed(do_run)(run, out, progress and jobs == 1) for run in left]
    parallel = Parallel(jobs, return_as="generator_unordered", pre_dispatch="all", batch_size=1)
    try:
        written = -math.inf
        with tqdm(desc="runs", total=total, initial=total - len(left), disable=not progress) as bar:
            for _ in parallel(calls):
                if time.monotonic() - written > SECONDS_BETWEEN_TABLES:
                    collect(out)
                    written = time.monotonic()
                bar.update()
    finally:
        for images in out.glob(".images-*"):
            with suppress(PermissionError):  # Windows, while a worker has it open
                images.unlink()
        collect(out)


def network_coder(run: PlannedRun, out: Path, progress: bool):
    """Train a network; return a function that encodes the data, and what trained.json holds."""
    path, trained = out / run.config.name, out / run.config.name / "trained.json"
    config = settled(run.config, run.data.dataset.size, path)
    fabric = make_fabric(config.precision)
    if not trained.exists():
        resumed, start = (path / CHECKPOINT).exists(), time.perf_counter()
        train(config, run.data.dataset, out, progress, fabric=fabric)
        # The seconds before a stop are not known.
        seconds = None if resumed else round(time.perf_counter() - start, 3)
        write_json(trained, conditions() | {"seconds": seconds})
    model = Run.load(path).model.to(fabric.device)

    coded: dict[str, Coded] = {}

    def code(scoring: Scoring) -> Coded:
        network, given = READOUTS[scoring.readout](model), (run.data.dataset, scoring.scored_on)
        if known := coded.get(scoring.readout):  # only the queries differ
            return known._replace(orbit=encode_orbit(network, *given))
        return coded.setdefault(scoring.readout, encode_data(network, *given))

    return code, read_json(trained, AGAIN)


def head_coder(run: PlannedRun, progress: bool):
    """Train a head on frozen features, and return the same as :func:`network_coder`."""
    config, data, system = run.config, run.data.dataset, run.facts["system"]
    features = frozen_features(config.backbone, config.weights, data, progress)
    if system != "trained":
        choices = data, features, config.bits, config.seed
        return lambda scoring: baseline_codes(system, *choices, scoring.scored_on), conditions()
    start = time.perf_counter()
    hash_layer, classifier, _ = train_head(config, data, features)
    seconds = round(time.perf_counter() - start, 3)

    def code(scoring: Scoring) -> Coded:
        codes = head_codes(hash_layer, features, scoring.readout == "orbit-mean")
        with torch.no_grad():
            probabilities = classifier(torch.from_numpy(codes[0])).softmax(dim=1).numpy()
        return Coded(codes[0], probabilities, codes[:, data.positions(scoring.scored_on)])

    return code, conditions() | {"seconds": seconds}


def do_run(run: PlannedRun, out: Path, progress: bool) -> None:
    """Train a run and score it, except for what is finished already."""
    path = out / run.config.name
    with ONE_RUN_AT_A_TIME:
        path.mkdir(parents=True, exist_ok=True)
        frozen = run.config.frozen
        code, trained = head_coder(run, progress) if frozen else network_coder(run, out, progress)
        config = {name: table_value(value) for name, value in vars(run.config).items()}
        config.pop("name")
        coded = {}
        for scoring in run.missing(out):
            what = scoring.readout, scoring.scored_on
            coded[what] = coded.get(what) or code(scoring)
            scores, table = score_codes(coded[what], run.data.dataset, *scoring[1:])
            write_queries(path / f"queries-{scoring.name}.csv.gz", table)
            row = {"run": path.name, **scoring._asdict(), **run.facts, **config}
            write_json(run.result(out, scoring), row | trained | scores)


def conditions() -> dict[str, str]:
    """Return what a number was measured with: device, and versions of the kit, torch, Python.

    ``commit`` is that of the checkout that the kit runs from, if there is one.
    """
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    versions = {"derm_hash": __version__, "torch": torch.__version__}
    versions |= {"python": platform.python_version(), "commit": commit()}
    return {"device": device, **versions}


@cache
def commit() -> str:
    """The commit of the kit's checkout, with "+" where files have changed since; "" without one."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # installed, perhaps inside somebody else's checkout
        return ""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+"]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    return ""
