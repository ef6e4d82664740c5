"""Experiments: a grid of settings and seeds in, one tidy table out.

The table is the only result; a run that is in it is never done again, and a run that
was stopped goes on from its last checkpoint.
"""

import itertools
import platform
import time
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from derm_hash.data import LesionDataset, to_input, write_atomically
from derm_hash.errors import InputError
from derm_hash.metrics import evaluate_retrieval, rotation_report
from derm_hash.model import encode
from derm_hash.retrieval import build_index
from derm_hash.training import Run, TrainConfig, fingerprint, train

SCORES = ("class_mean_precision_at_10", "class_mean_map", "paper_precision", "flipped_bits")


def evaluate_run(run: Run, data: LesionDataset, progress: bool = False) -> dict[str, float]:
    """Score a run on the queries of its data.

    Returns
    -------
    dict: the scores of :func:`derm_hash.metrics.evaluate_retrieval`, and how still codes
    and hits hold under a quarter, half or three-quarter turn (means of the three):
    ``flipped_bits``, the share of bits that differ, and ``overlap_at_10``, the share of the
    ten nearest images of the whole database that stay among them.
    """
    queries = data.split("query")
    index = build_index(run.model, data.split("database"), progress=progress)
    codes = encode(run.model, queries, progress=progress)
    scores = evaluate_retrieval(index, codes, queries.labels.numpy(), class_names=data.classes)
    turned = rotation_report(run.model, to_input(queries.images), index=index).mean()
    return scores | {
        "flipped_bits": float(turned["flipped_bits"]),
        "overlap_at_10": float(turned["topk_overlap"]),
    }


def run_name(changes: Mapping) -> str:
    """A name for a run that says what is special about it: "attention=se,seed=1"."""
    return ",".join(f"{key}={value}" for key, value in sorted(changes.items()))


def run_grid(
    grid: Mapping[str, Sequence],
    data: LesionDataset,
    out: str | Path,
    preset: str = "recommended",
    progress: bool = True,
    **settings,
) -> pd.DataFrame:
    """Train and score every combination of settings.

    Parameters
    ----------
    grid : mapping from a field of TrainConfig to the values it takes
    data : LesionDataset with splits
    out : folder for ``results.csv`` and the runs
    preset, **settings
        What all runs share.

    Returns
    -------
    DataFrame, one row for each run of the grid: its fields, every score, seconds, device,
    versions. The file ``results.csv`` keeps the runs of earlier grids as well.
    """
    out = Path(out)
    table = out / "results.csv"
    # What all runs share, the data included, is told apart by a checksum: names of folders and
    # the descriptions of progress bars have to be short.
    shared = run_name(settings | {"preset": preset, "data": fingerprint(data)})
    suffix = f",{zlib.crc32(shared.encode()):08x}"
    rows = pd.read_csv(table, keep_default_na=False).to_dict("records") if table.exists() else []
    done = {row["run"] for row in rows}
    runs = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    names = [run_name(changes) + suffix for changes in runs]
    for name, changes in zip(tqdm(names, "runs", disable=not progress), runs, strict=True):
        if name in done:
            continue
        start = time.perf_counter()
        config = TrainConfig.preset(preset, **(settings | changes | {"name": name}))
        run = train(config, data, out, progress=progress)
        seconds = time.perf_counter() - start
        row = {"run": name, **{key: str(value).lower() for key, value in changes.items()}}
        rows.append(row | evaluate_run(run, data) | conditions() | {"seconds": round(seconds, 1)})
        write_atomically(table, lambda part: pd.DataFrame(rows).to_csv(part, index=False))
    return pd.DataFrame(rows).set_index("run", drop=False).loc[names].reset_index(drop=True)


def conditions() -> dict[str, str]:
    """Where a number was measured: device, torch and Python versions."""
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    return {"device": device, "torch": torch.__version__, "python": platform.python_version()}


def summary(
    results: pd.DataFrame, by: Sequence[str], scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Mean, standard deviation over seeds, and number of runs for each setting.

    Returns
    -------
    DataFrame indexed by ``by``, columns (score, "mean" | "std" | "count").
    """
    return results.groupby(list(by), sort=False)[list(scores)].agg(["mean", "std", "count"])


def read_experiment(path: str | Path) -> tuple[dict, dict, dict]:
    """Read an experiment's TOML file: its tables [data], [grid] and, optionally, [train].

    [grid] holds lists of values for fields of TrainConfig, [train] what all runs share,
    [data] the arguments of :func:`derm_hash.course.course_data`. TOML has no None: the
    word "none" stands for it where a field may be None.
    """
    path = Path(path)
    try:
        experiment = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"There is no experiment file {path}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    for table in ("data", "grid"):
        if not isinstance(experiment.get(table), dict):
            raise InputError(f"{path} has no [{table}] table: see benchmarks/configs.")
    grid, shared = experiment["grid"], experiment.get("train", {})
    if wrong := [key for key, values in grid.items() if not isinstance(values, list)]:
        raise InputError(f"{wrong[0]} in the [grid] of {path} must be a list of values.")
    grid = {key: [_setting(key, value) for value in values] for key, values in grid.items()}
    shared = {key: _setting(key, value) for key, value in shared.items()}
    return experiment["data"], grid, shared


def _setting(key: str, value):
    optional = key in ("attention", "invariance", "weights")
    return None if optional and value == "none" else value
