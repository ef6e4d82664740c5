"""Results of runs: files in, one tidy table out."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from derm_hash.errors import InputError, one_line
from derm_hash.files import Lock, parse_json, remove_parts, write_atomically
from derm_hash.metrics.scores import SCORES
from derm_hash.settings import TrainConfig


class Reading(NamedTuple):
    """How a trained run is scored: how its codes are read out, for the images of what part."""

    readout: str
    scored_on: str

    @property
    def name(self) -> str:
        """For the names of files."""
        return self.readout if self.scored_on == "query" else f"{self.readout}-{self.scored_on}"


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


def run_name(changes: Mapping) -> str:
    """A name for a run that says what is special about it: "attention=se,seed=1"."""
    return ",".join(f"{key}={value}" for key, value in sorted(changes.items()))


def collect(out: Path) -> None:
    """Put ``results.csv`` together from the results of all runs; InputError if one is damaged."""
    out.mkdir(parents=True, exist_ok=True)
    with Lock(out / ".lock"):  # or a process that read earlier might write later
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
