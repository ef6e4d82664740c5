"""Results of runs: a file for each, and one tidy table of all."""

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from derm_hash.errors import InputError, one_line
from derm_hash.files import read_json, write_atomically
from derm_hash.metrics.scores import SCORES
from derm_hash.settings import TrainConfig

AGAIN = "delete it and run the experiment again"
FEW_LESIONS = 20  # a note below a table names classes with fewer query lesions


class Scoring(NamedTuple):
    """One way to score a trained run: how its codes are read out, and on which part."""

    readout: str
    """ "plain" or "orbit-mean"."""
    scored_on: str
    """The part of the data that stands for the queries: "query" or "val"."""
    database: str = "full"
    """What is searched: a name in ``scoring.DATABASES``."""

    @property
    def name(self) -> str:
        """The scoring in the names of files."""
        usual = {"query", "full"}
        return "-".join([self.readout, *(part for part in self[1:] if part not in usual)])


def run_name(changes: Mapping) -> str:
    """Name a run after its special settings: "attention=se,seed=1"."""
    return ",".join(f"{key}={value}" for key, value in sorted(changes.items()))


def table_value(value):
    """Return a setting as the table shows it: None and () are "none", and (1, 2) is "1,2"."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else value


def write_queries(path: Path, table: pd.DataFrame) -> None:
    """Write the scores of every query, compressed; equal scores give equal bytes."""
    text = table.to_csv(index=False, float_format="%.6g")
    packed = gzip.compress(text.encode(), mtime=0)
    write_atomically(path, lambda part: part.write_bytes(packed))


def collect(out: Path) -> None:
    """Write ``results.csv`` from the results of all runs, if any; InputError if one is damaged."""
    table = pd.DataFrame([read_json(path, AGAIN) for path in sorted(out.glob("*/result-*.json"))])
    if len(table):
        write_atomically(out / "results.csv", lambda part: table.to_csv(part, index=False))


def read_results(out: str | Path) -> pd.DataFrame:
    """Read the table that :func:`run_grid` or ``derm-hash reproduce`` has written into a folder.

    It has a row for each run and scoring: settings, conditions and scores. A setting that is newer
    than the table gets its default. `InputError` if there is no table, or it is damaged.
    """
    path = Path(out) / "results.csv"
    if not path.is_file():
        raise InputError(f"There is no {path}: run the experiment first")
    # Texts that look like numbers stay texts: milestones "1", a checksum of digits.
    texts = [name for name, kind in setting_kinds().items() if kind not in (bool, int, float)]
    kinds = dict.fromkeys(("run", "data", "torch", "python", "commit", *texts), str)
    try:
        table = read_csv(path, dtype=kinds | dict.fromkeys(SCORES, float))
        if table.empty or "run" not in table or not isinstance(table.index, pd.RangeIndex):
            raise ValueError("it has no rows of runs below the names of their columns")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a table of results ({one_line(error)}): {AGAIN}"
        ) from error
    fields = [field for field in dataclasses.fields(TrainConfig) if field.name != "name"]
    younger = {f.name: table_value(f.default) for f in fields if f.name not in table}
    # A copy is one block of memory, to which adding a column is fast.
    return table.copy().assign(**younger)


def read_csv(path: Path, **options) -> pd.DataFrame:
    """Read a CSV in which "none", and a lesion called "NA", are texts."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], **options)


def mean_and_spread(
    results: pd.DataFrame, by: Sequence[str], scores: Sequence[str] = SCORES
) -> pd.DataFrame:
    """Summarise the runs of each setting: "mean ± standard deviation", or the mean of one run.

    Returns
    -------
    DataFrame of str
        Indexed by ``by``, with a column for each of ``scores``. Where the results hold a score's
        value for a database in random order, the column chance_SCORE follows.
    """
    columns = [name for score in scores for name in (score, f"chance_{score}") if name in results]
    return results.groupby(list(by), sort=False)[columns].agg(with_spread)


def with_spread(values: pd.Series, digits: int = 3) -> str:
    """ "mean ± standard deviation"; the mean alone for a single value or a score of chance."""
    several = values.count() > 1 and not values.name.startswith("chance_")
    spread = f" ± {values.std():.{digits}f}" if several else ""
    return f"{values.mean():.{digits}f}{spread}"


def table_notes(
    results: pd.DataFrame, by: Sequence[str], planned_seeds: int | None = None
) -> list[str]:
    """Return what a reader must know about a table of results, as a list of lines.

    They say which classes have fewer than ``FEW_LESIONS`` query lesions, and whether the settings,
    told apart by the columns ``by``, have the number of seeds that was planned before the first
    run. A plan that was extended after a look at the scores makes p-values too small.
    """
    lesions = results.filter(regex="^lesions_").min().dropna().astype(int)
    few, notes = lesions[lesions < FEW_LESIONS], []
    if len(few):
        counts = ", ".join(f"{name.removeprefix('lesions_')} {n}" for name, n in few.items())
        notes.append(
            f"warning: few query lesions ({counts}; fewer than {FEW_LESIONS} in a class): the "
            "scores of these classes, and class means, may change much with other queries"
        )
    if planned_seeds is not None:
        seeds = results.groupby(list(by), dropna=False)["seed"].nunique()
        notes.append(_seed_note(seeds, planned_seeds))
    return notes


def _seed_note(seeds: pd.Series, planned: int) -> str:
    """Say whether all settings have the planned number of seeds, given that of each setting."""
    changes = {"extended": seeds[seeds > planned], "short of the plan": seeds[seeds < planned]}
    parts = []
    for word, part in changes.items():
        if len(part):
            counts = " to ".join(map(str, sorted({part.min(), part.max()})))
            parts.append(f"{word}: {len(part)} of {len(seeds)} settings, with {counts} seeds")
    return f"seeds planned: {planned}; {'; '.join(parts) or 'every setting has as many'}"


def setting_kinds() -> dict[str, object]:
    """Names and types of everything that a grid may vary, in the order of the table."""
    fields = {field.name: field.type for field in dataclasses.fields(TrainConfig)}
    fields.pop("name")
    of_run = {"preset": str, "split": str, "split_seed": int, "system": str}
    return of_run | fields | dict.fromkeys(Scoring._fields, str)


def settings_that_differ(results: pd.DataFrame) -> list[str]:
    """Name the settings, except the seed, that differ between the runs of a table.

    ``preset`` stands for the many settings in which presets differ: beside it, only settings that
    differ between runs of one preset are named.
    """
    names = [name for name in setting_kinds() if name != "seed"]
    counts = results.groupby("preset")[names].nunique(dropna=False)
    several_presets = {"preset"} if len(counts) > 1 else set()
    return [name for name in names if counts[name].max() > 1 or name in several_presets]
