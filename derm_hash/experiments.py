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
import json
import platform
import time
import tomllib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from tqdm.auto import tqdm

from derm_hash import __version__
from derm_hash.course import course_data
from derm_hash.data import (
    SPLITS,
    LesionDataset,
    remove_parts,
    split_by_image,
    split_by_lesion,
    write_atomically,
)
from derm_hash.errors import InputError
from derm_hash.images import to_input
from derm_hash.metrics import code_quality, mean_scores, query_scores
from derm_hash.model import DermHash, OrbitMean, encode
from derm_hash.retrieval import build_index
from derm_hash.settings import KINDS, TrainConfig, is_of_kind
from derm_hash.stability import rotation_scores
from derm_hash.storage import one_line, parse_json
from derm_hash.training import Run, fingerprint, make_fabric, train
from derm_hash.uncertainty import PairedTest, paired_test

SCORES = ("class_mean_map", "class_mean_precision_at_10", "flipped_bits", "overlap_at_10")
SPLITTERS = {"given": None, "lesion": split_by_lesion, "paper": split_by_image}
READOUTS = {"plain": lambda model: model, "orbit-mean": OrbitMean}
SCORED_ON = ("query", "val")
SECONDS_BETWEEN_LOOKS = 1.0  # at the runs that other processes do


# --- one run ------------------------------------------------------------------------------


def evaluate_run(run: Run, data: LesionDataset, progress: bool = False) -> dict[str, float]:
    """Score a run on the queries of its data.

    Returns
    -------
    dict: the scores of :func:`derm_hash.metrics.evaluate_retrieval`, and how still codes
    and hits hold under a quarter, half or three-quarter turn (means of the three):
    ``flipped_bits``, the share of bits that differ, and ``overlap_at_10``, the share of the
    ten nearest images of the whole database that stay among them.
    """
    return score_model(run.model, data, progress)[0]


def score_model(
    model: torch.nn.Module, data: LesionDataset, progress: bool = False, scored_on: str = "query"
) -> tuple[dict[str, float], pd.DataFrame]:
    """The scores of :func:`evaluate_run`, and what they are means of.

    Parameters
    ----------
    scored_on : str
        The part of the data that stands for the queries.

    Returns
    -------
    scores : dict
    table : DataFrame with a row for each query: image, lesion_id, label (the class's name),
        every other column of :func:`derm_hash.metrics.query_scores`, flipped_bits, overlap_at_10.
    """
    queries = data.split(scored_on)
    index = build_index(model, data.split("database"), progress=progress)
    codes, labels = encode(model, queries, progress=progress), queries.labels.numpy()
    found = query_scores(index, codes, labels)
    scores = mean_scores(found, data.classes) | code_quality(index.codes)
    turned = rotation_scores(model, to_input(queries.images), index=index).groupby("image").mean()
    still = {"flipped_bits": turned["flipped_bits"], "overlap_at_10": turned["topk_overlap"]}
    who = queries.table[["image", "lesion_id", "label"]].reset_index(drop=True)
    scores |= {name: float(values.mean()) for name, values in still.items()}
    found = found.drop(columns="label")
    return scores, pd.concat([who, found, pd.DataFrame(still).reset_index(drop=True)], axis=1)


class Reading(NamedTuple):
    """How a trained run is scored: how its codes are read out, for the images of what part."""

    readout: str
    scored_on: str

    @property
    def name(self) -> str:
        """For the names of files."""
        return self.readout if self.scored_on == "query" else f"{self.readout}-{self.scored_on}"


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


def read_facts(path: Path) -> dict:
    """What was noted when a run was trained; InputError if the note is damaged."""
    try:
        facts = parse_json(path.read_bytes())
        if not isinstance(facts, dict):
            raise ValueError("no names and values")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is damaged ({one_line(error)}): "
            f"delete {path.parent} and run the experiment again."
        ) from error
    return facts


def write_json(path: Path, value: dict) -> None:
    """All or nothing."""
    write_atomically(path, lambda part: part.write_text(json.dumps(value, indent=1)))


def word(value):
    """A setting as it stands in a table: None and () are "none", and (1, 2) is "1,2"."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else value


# --- a grid of runs -----------------------------------------------------------------------


def run_name(changes: Mapping) -> str:
    """A name for a run that says what is special about it: "attention=se,seed=1"."""
    return ",".join(f"{key}={value}" for key, value in sorted(changes.items()))


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


def claim_one(plans: Sequence[PlannedRun], out: Path) -> tuple[int, int | None, FileLock | None]:
    """How many runs are left, and the position and lock of one of them that is free."""
    left = [i for i, planned in enumerate(plans) if planned.missing(out)]
    for i in left:
        claims = out / ".claims"
        claims.mkdir(parents=True, exist_ok=True)
        lock = FileLock(claims / plans[i].config.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        if plans[i].missing(out):
            return len(left), i, lock
        lock.release()  # done since we looked
    return len(left), None, None


def collect(out: Path) -> None:
    """Put ``results.csv`` together from the results of all runs; InputError if one is damaged."""
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):  # or a process that read earlier might write later
        remove_parts(out)
        table = pd.DataFrame([read_row(path) for path in sorted(out.glob("*/result-*.json"))])
        write_atomically(out / "results.csv", lambda part: table.to_csv(part, index=False))


def read_row(path: Path) -> dict:
    """The row of the table that a run's result is; InputError if it is none."""
    try:
        row = parse_json(path.read_bytes())
        if not isinstance(row, dict):
            raise ValueError("no row of a table")
        # Runs from before there was a choice were scored on the queries.
        row = {"scored_on": "query"} | row
        if wrong := [key for key in ("run", *Reading._fields) if not isinstance(row.get(key), str)]:
            raise ValueError(f"it has no {wrong[0]}")
        if wrong := [key for key, value in row.items() if isinstance(value, dict | list)]:
            raise ValueError(f"{wrong[0]} has several values")
        if wrong := [score for score in SCORES if type(row.get(score, 0)) not in (int, float)]:
            raise ValueError(f"{wrong[0]} is no number")
        # JSON can hold half a character, a table cannot.
        json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is not the result of a run ({one_line(error)}): "
            "delete it and run the experiment again."
        ) from error
    return row


def read_results(out: str | Path) -> pd.DataFrame:
    """The table of a folder of experiments; InputError if there is none, or it is damaged."""
    path = Path(out) / "results.csv"
    if not path.is_file():
        raise InputError(f"There is no {path}: run the experiment first.")
    # A checksum of digits alone is no number, nor are the milestones "1" or the precision "32".
    texts = [name for name, kind in setting_kinds().items() if kind not in (bool, int, float)]
    words = dict.fromkeys(("run", "data", "torch", "python", *texts), str)
    try:
        table = read_csv(path, dtype=words)
        if table.empty or "run" not in table or not isinstance(table.index, pd.RangeIndex):
            raise ValueError("no rows of runs below the names of their columns")
        for score in set(SCORES) & set(table):
            pd.to_numeric(table[score])
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a table of results ({one_line(error)}): "
            "delete it and run the experiment again."
        ) from error
    return table.copy()  # in one piece: pandas warns of a column added else


def read_csv(path: Path, **options) -> pd.DataFrame:
    """A table as it was written: "none" and a lesion called "NA" are words."""
    empty = {"keep_default_na": False, "na_values": [""]}
    return pd.read_csv(path, **empty, **options)


# --- what came out ------------------------------------------------------------------------


def summary(
    results: pd.DataFrame, by: Sequence[str], scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Mean, standard deviation over seeds, and number of runs for each setting.

    Returns
    -------
    DataFrame indexed by ``by``, columns (score, "mean" | "std" | "count").
    """
    return results.groupby(list(by), sort=False)[list(scores)].agg(["mean", "std", "count"])


def mean_and_spread(
    results: pd.DataFrame, by: Sequence[str], scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """The :func:`summary` to read: "mean ± standard deviation", and the mean alone of one run."""
    numbers = summary(results, by, scores)

    def cell(row):
        return f"{row['mean']:.3f}" + (f" ± {row['std']:.3f}" if row["count"] > 1 else "")

    return pd.DataFrame({score: numbers[score].apply(cell, axis=1) for score in scores})


def setting_names() -> list[str]:
    """The names of what a grid may vary, the seed apart."""
    return [name for name in setting_kinds() if name not in ("name", "seed")]


def setting_kinds() -> dict[str, object]:
    """What kind of value each setting of a grid has, in the order in which they are told."""
    fields = {field.name: field.type for field in dataclasses.fields(TrainConfig)}
    of_run = {"preset": str, "split": str, "split_seed": int}
    return of_run | fields | {"readout": str, "scored_on": str}


def varied(results: pd.DataFrame) -> list[str]:
    """The settings, the seed apart, in which the runs of a table differ.

    Where they differ in their preset, that stands for all that it decides: only what varies
    among runs of one preset is named beside it.
    """
    counts = results.groupby("preset")[setting_names()].nunique(dropna=False)
    return [
        name
        for name in setting_names()
        if counts[name].max() > 1 or (name == "preset" and len(counts) > 1)
    ]


def compare(
    results: pd.DataFrame,
    by: Sequence[str],
    score: str,
    baseline: Mapping,
    out: str | Path,
) -> pd.DataFrame:
    """Differences to a baseline: how large, and could they be chance?

    Runs are paired by seed, and a query's difference is the mean over the seeds that both
    settings have; :func:`derm_hash.uncertainty.paired_test` then resamples whole lesions. So the
    interval and p-value speak of other queries for these trained models. What another seed
    would change shows ``seed_std``.

    Parameters
    ----------
    results : DataFrame of :func:`run_grid` or :func:`read_results`
    by : columns that tell the settings apart
    score : str
        A column of the table that is a mean over queries, or over classes of queries.
    baseline : mapping from some of ``by`` to the baseline's values
        A setting is compared with the baseline that has the same values in the rest of ``by``.
    out : folder that the results come from, with the scores of every query

    Returns
    -------
    DataFrame with a row for each setting but the baselines: by, mean, baseline (its mean),
    difference, low, high (95 %), p_value, seeds (that both have), seed_std (standard deviation
    of the difference over seeds; empty for a single one).

    Raises
    ------
    InputError
        If there is no such score, column or baseline, a setting has several runs of one seed,
        or a setting and its baseline have no seed in common or were scored on other queries.
    """
    baseline = {key: word(value) for key, value in baseline.items()}
    for name in (*by, *baseline, score):
        if name not in results:
            raise InputError(f"The results have no column {name!r}: see results.csv.")
    if wrong := set(baseline) - set(by):
        raise InputError(f"The baseline's {min(wrong)!r} must be among the columns to compare by.")
    settings = settings_of(results, by)
    rows = []
    for values, runs in settings.items():
        own = dict(zip(by, values, strict=True))
        rival = tuple((own | baseline).values())
        if rival == values:
            continue
        if rival not in settings:
            raise InputError(f"There is no run of the baseline {run_name(own | baseline)}.")
        test, differences = paired_runs(runs, settings[rival], score, Path(out))
        means = {"mean": runs[score].mean(), "baseline": settings[rival][score].mean()}
        seeds = {"seeds": len(differences), "seed_std": differences.std()}
        rows.append(own | means | test._asdict() | seeds)
    return pd.DataFrame(rows)


def differences(
    results: pd.DataFrame,
    by: Sequence[str],
    baseline: Mapping,
    out: str | Path,
    scores: Sequence[str] = SCORES,
) -> pd.DataFrame:
    """:func:`compare` for several scores, one below the other; the first column is the score."""
    tables = {score: compare(results, by, score, baseline, out) for score in scores}
    return pd.concat(tables, names=["score", "row"]).reset_index("score").reset_index(drop=True)


def settings_of(results: pd.DataFrame, by: Sequence[str]) -> dict[tuple, pd.DataFrame]:
    """The runs of each setting, by seed; InputError if a seed occurs twice."""
    settings = {}
    for values, runs in results.groupby(list(by), sort=False, dropna=False):
        if runs["seed"].duplicated().any():
            name = run_name(dict(zip(by, values, strict=True)))
            raise InputError(f"{name} has several runs of one seed: add a column that differs.")
        settings[values] = runs.set_index("seed", drop=False)
    return settings


def paired_runs(
    a: pd.DataFrame, b: pd.DataFrame, score: str, out: Path
) -> tuple[PairedTest, pd.Series]:
    """Test of two settings on the same queries, and the difference for each seed."""
    seeds = [seed for seed in a.index if seed in b.index]
    if not seeds:
        raise InputError("Two settings without a common seed cannot be paired: run more seeds.")
    if len(pd.concat([a, b])[["data", "scored_on"]].drop_duplicates()) > 1:
        raise InputError(
            "Runs on different data, splits or parts have different queries, which cannot be "
            "paired: compare the settings of each split and part with a baseline of the same."
        )
    column, balanced = query_column(score)
    tables = [
        [read_queries(out, run, column) for _, run in x.loc[seeds].iterrows()] for x in (a, b)
    ]
    scores = [sum(table[column] for table in side) / len(side) for side in tables]
    who = tables[0][0]
    # A photograph of an unknown lesion stands for itself.
    lesions = who["lesion_id"].where(who["lesion_id"].notna(), "image " + who["image"])
    labels = who["label"].to_numpy() if balanced else None
    test = paired_test(*map(pd.Series.to_numpy, scores), lesions.to_numpy(), labels)
    return test, a.loc[seeds, score] - b.loc[seeds, score]


def query_column(score: str) -> tuple[str, bool]:
    """Of what column a score is the mean, and whether it is the mean of class means."""
    name = score.removeprefix("class_mean_")
    column = "_".join("ap" if part == "map" else part for part in name.split("_"))
    return column, name != score or score.startswith("paper_")


def read_queries(out: Path, run: pd.Series, column: str) -> pd.DataFrame:
    """A score of every query of a run: image, lesion_id, label and the column."""
    path = out / run["run"] / f"queries-{Reading(run['readout'], run['scored_on']).name}.csv"
    if not path.is_file():
        raise InputError(f"There is no {path}: give the folder that the results come from.")
    who = dict.fromkeys(("image", "lesion_id", "label"), str)
    try:
        table = read_csv(path, dtype=who)
        if lost := set(who) - set(table):
            raise ValueError(f"it has no {min(lost)}")
        if column in table:
            pd.to_numeric(table[column])
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a table of queries ({one_line(error)}): "
            f"delete {path.parent} and run the experiment again."
        ) from error
    if column not in table:
        raise InputError(f"{column!r} is not a score of single queries: it cannot be paired.")
    return table[[*who, column]]


def best_settings(results: pd.DataFrame, by: Sequence[str], score: str, out: str | Path) -> set:
    """The settings that beat every other one of their data, p < 0.05 in each paired test.

    All the tests have to agree, so that there is nothing to correct for their number.

    Returns
    -------
    set of the settings' values, one for each data set (split, and part) with a clear winner.
    """
    sign = -1 if lower_is_better(score) else 1
    winners = set()
    for _, part in results.groupby(["data", "scored_on"], sort=False):
        settings = settings_of(part, by)
        best = max(settings, key=lambda values: sign * settings[values][score].mean())
        rivals = [runs for values, runs in settings.items() if values != best]
        if rivals and all(beats(settings[best], rival, score, Path(out), sign) for rival in rivals):
            winners.add(best)
    return winners


def beats(a: pd.DataFrame, b: pd.DataFrame, score: str, out: Path, sign: int) -> bool:
    """Whether a setting is better than another on the seeds that both have, and not by chance."""
    if not set(a.index) & set(b.index):
        return False
    test, _ = paired_runs(a, b, score, out)
    return sign * test.difference > 0 and test.p_value < 0.05


def lower_is_better(score: str) -> bool:
    """Whether a score counts what should not happen."""
    return score.removeprefix("class_mean_").startswith(("flipped_", "nothing_within_"))


def score_table(
    results: pd.DataFrame, by: Sequence[str], out: str | Path, scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """A table to print: mean ± standard deviation over seeds, "*" behind a clear best.

    Parameters are those of :func:`compare`; the mark is that of :func:`best_settings`.
    """
    table = mean_and_spread(results, by, scores)
    for score in scores:
        winners = best_settings(results, by, score, out)
        settings = [values if isinstance(values, tuple) else (values,) for values in table.index]
        table[score] += [" *" if setting in winners else "  " for setting in settings]
    return table


# --- experiments in files -----------------------------------------------------------------


class Experiment(NamedTuple):
    """What an experiment's file says.

    data: arguments of :func:`derm_hash.course.course_data`; grid: that of :func:`run_grid`;
    train: what all runs share; baseline: that of :func:`compare`, or empty.
    """

    data: dict
    grid: dict | list[dict]
    train: dict
    baseline: dict


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment's TOML file: tables [data], [grid] and, optionally, [train], [baseline].

    [grid] holds lists of values for the settings of :func:`run_grid`. Several tables [[grid]]
    are several grids, one after the other. TOML has no None: the word "none" stands for it where
    a field may be None.
    """
    path = Path(path)
    experiment = _read_toml(path)
    data, grid = experiment.get("data"), experiment.get("grid")
    shared, baseline = experiment.get("train", {}), experiment.get("baseline", {})
    grids = grid if isinstance(grid, list) else [grid]
    for table, found in (
        ("data", [data]),
        ("grid", grids or [None]),
        ("train", [shared]),
        ("baseline", [baseline]),
    ):
        if not all(isinstance(each, dict) for each in found):
            raise InputError(f"{path} has no [{table}] table: see benchmarks/configs.")
    arguments = {name: each.annotation for name, each in signature(course_data).parameters.items()}
    if wrong := set(data) - set(arguments):
        raise InputError(
            f"{min(wrong)} in the [data] of {path} is none of source, size, images, seed."
        )
    if wrong := set(baseline) - set(setting_names()):
        raise InputError(f"{min(wrong)} in the [baseline] of {path} is no setting of a run.")
    for key, values in (item for each in grids for item in each.items()):
        if not isinstance(values, list) or not values:
            raise InputError(f"{key} in the [grid] of {path} must be a list of values.")
    values = [(key, value) for each in grids for key, of in each.items() for value in of]
    kinds = setting_kinds()
    _check_kinds(data.items(), arguments, f"the [data] of {path}")
    _check_kinds(values, kinds, f"the [grid] of {path}")
    _check_kinds(shared.items(), kinds, f"the [train] of {path}")
    _check_kinds(baseline.items(), kinds, f"the [baseline] of {path}")
    grids = [{k: [_setting(k, v) for v in values] for k, values in g.items()} for g in grids]
    shared = {key: _setting(key, value) for key, value in shared.items()}
    return Experiment(data, grids if isinstance(grid, list) else grids[0], shared, baseline)


def _read_toml(path: Path) -> dict:
    """The tables of a TOML file; InputError if it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no experiment file {path}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it as such.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {one_line(error)}.") from error


def _check_kinds(items: Iterable[tuple[str, object]], kinds: Mapping, where: str) -> None:
    """InputError if a value is not of the kind that its name has, or a name has none."""
    for key, value in items:
        if key not in kinds:
            raise InputError(f"{key} in {where} is no setting of a run.")
        if not is_of_kind(value, kinds[key]):
            raise InputError(f"{key} in {where} must be {KINDS[kinds[key]]}, not {value!r}.")


def _setting(key: str, value):
    optional = key in ("attention", "invariance", "weights")
    return None if optional and value == "none" else value
