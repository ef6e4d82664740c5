"""Comparisons of settings: differences, intervals, tests over lesions and over seeds."""

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from derm_hash.errors import InputError, one_line
from derm_hash.experiments.results import Scoring, mean_and_spread, read_csv, run_name, table_value
from derm_hash.metrics.intervals import LEVEL, Comparison, compare_runs, holm
from derm_hash.metrics.scores import SCORES

SAME_QUERIES = ["data", "scored_on"]  # columns in which runs must agree to be compared
PATTERNS = 10_000  # of signs in the test over lesions
PATTERNS_PER_ROW = 100  # or more, so that Holm's correction for many rows leaves p-values of 1 %
QUERY = ["image", "lesion_id", "label"]  # columns of a table of queries, beside their scores


def compare(
    results: pd.DataFrame,
    by: Sequence[str],
    score: str,
    baseline: Mapping,
    out: str | Path,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compare settings with a baseline: how large is a difference, and is it clear?

    Another training of one recipe gives another model, whose scores differ by more than other
    queries would explain. So a difference is called clear only where two tests agree: over lesions,
    for these trained models, and over seeds, for these queries (:func:`.compare_runs`, which says
    why seeds are paired). A single seed never makes a difference clear.

    Parameters
    ----------
    results : DataFrame of :func:`run_grid` or :func:`read_results`
    by : sequence of str
        The columns that tell the settings apart.
    score : str
        A column that is a mean over queries, or over classes of queries.
    baseline : mapping
        The baseline's values of some of ``by``. The rest are those of the compared setting.
    out : str or Path
        The folder that the results come from, with the scores of every query.
    classes : sequence of str, optional
        Compare only on the queries of these classes.

    Returns
    -------
    DataFrame
        A row for each setting but the baselines: ``by``, the fields of :class:`.Comparison`, and

        p_holm
            ``p_value``, corrected by Holm's method for the number of rows of this table.
        clear
            Whether both intervals exclude zero and ``p_holm`` is below 0.05.
        chance
            What the database in random order would score; only for scores that have such a value.

    Raises
    ------
    InputError
        If there is no such score, column or baseline, a setting has several runs of one seed,
        or a setting and its baseline have no seed in common or were scored on other queries.
    """
    return with_holm(_against_baseline(results, by, score, baseline, Path(out), classes))


def differences(
    results: pd.DataFrame, by: Sequence[str], baseline: Mapping, out: str | Path
) -> pd.DataFrame:
    """:func:`compare` for each of ``SCORES``, one below the other, with a first column score.

    ``p_holm`` corrects for the number of all rows.
    """
    tables = [_against_baseline(results, by, score, baseline, Path(out)) for score in SCORES]
    table = pd.concat(tables, keys=SCORES, names=["score", "row"])
    return with_holm(table.reset_index("score").reset_index(drop=True))


def _against_baseline(results, by, score, baseline, out: Path, classes=None) -> pd.DataFrame:
    """The table of :func:`compare` without ``p_holm`` and ``clear``."""
    baseline = {key: table_value(value) for key, value in baseline.items()}
    for name in (*by, *baseline, score):
        if name not in results:
            raise InputError(f"The results have no column {name!r}: see results.csv")
    if wrong := set(baseline) - set(by):
        raise InputError(f"The baseline's {min(wrong)!r} must be among the columns to compare by")
    settings = runs_by_setting(results, by)
    patterns = max(PATTERNS, PATTERNS_PER_ROW * len(settings) * len(SCORES))
    rows = []
    for values, runs in settings.items():
        own = dict(zip(by, values, strict=True))
        rival = tuple((own | baseline).values())
        if rival == values:
            continue
        if rival not in settings:
            raise InputError(f"There is no run of the baseline {run_name(own | baseline)}: run it")
        compared = compare_settings(runs, settings[rival], score, out, patterns, classes)
        row = own | compared._asdict()
        if f"chance_{score}" in runs and classes is None:
            row["chance"] = runs[f"chance_{score}"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``p_holm`` and ``clear`` to rows of :class:`.Comparison`, after ``p_value``."""
    if table.empty:
        return table
    table = table.copy()
    place = table.columns.get_loc("p_value") + 1
    table.insert(place, "p_holm", holm(table["p_value"]))
    # The interval over seeds excludes zero wherever p_seeds, and so p_holm, is below 0.05.
    apart = table["low"] * table["high"] > 0
    table.insert(place + 1, "clear", apart & (table["p_holm"] < 1 - LEVEL))
    return table


def score_table(results: pd.DataFrame, by: Sequence[str], out: str | Path) -> pd.DataFrame:
    """Return a table to print: mean ± standard deviation over seeds, with "*" for a clear best.

    The parameters are those of :func:`compare`; :func:`best_settings` says what is clear.
    :func:`.table_notes` has the lines to print beneath it.
    """
    table = mean_and_spread(results, by)
    for score in SCORES:
        best = best_settings(results, by, score, out)
        settings = [values if isinstance(values, tuple) else (values,) for values in table.index]
        table[score] += [" *" if setting in best else "  " for setting in settings]
    return table


def best_settings(results: pd.DataFrame, by: Sequence[str], score: str, out: str | Path) -> set:
    """Return the values of ``by`` that are clearly better than every other setting.

    Clear is what :func:`compare` calls so, with Holm's correction for the number of the other
    settings. There is at most one such setting for each data set, split and part, and none where
    the best setting and another have fewer than two seeds in common.
    """
    sign = -1 if lower_is_better(score) else 1
    winners = set()
    for _, part in results.groupby([*SAME_QUERIES, "database"], sort=False):
        settings = runs_by_setting(part, by)
        best = max(settings, key=lambda values: sign * settings[values][score].mean())
        rivals = [runs for values, runs in settings.items() if values != best]
        if rivals and beats_all(settings[best], rivals, score, Path(out), sign):
            winners.add(best)
    return winners


def beats_all(best: pd.DataFrame, rivals: list, score: str, out: Path, sign: int) -> bool:
    """Return whether runs are clearly better than those of each rival, after Holm's correction."""
    rows = []
    for rival in rivals:
        if not set(best.index) & set(rival.index):
            return False
        rows.append(compare_settings(best, rival, score, out))
        if not rows[-1].p_value < 1 - LEVEL:  # which a correction only makes larger
            return False
    table = with_holm(pd.DataFrame(rows))
    return bool((table["clear"] & (sign * table["difference"] > 0)).all())


def lower_is_better(score: str) -> bool:
    """Return whether a score counts what should not happen."""
    return score.removeprefix("class_mean_").startswith(("flipped_", "nothing_within_"))


def runs_by_setting(results: pd.DataFrame, by: Sequence[str]) -> dict[tuple, pd.DataFrame]:
    """Return the runs of each setting, indexed by seed; InputError if a seed occurs twice."""
    settings = {}
    for values, runs in results.groupby(list(by), sort=False, dropna=False):
        if runs["seed"].duplicated().any():
            name = run_name(dict(zip(by, values, strict=True)))
            raise InputError(f"{name} has several runs of one seed: add a column that differs")
        settings[values] = runs.set_index("seed", drop=False)
    return settings


def compare_settings(
    a: pd.DataFrame,
    b: pd.DataFrame,
    score: str,
    out: Path,
    patterns: int = PATTERNS,
    classes: Sequence[str] | None = None,
) -> Comparison:
    """Compare the runs of two settings on the same queries, paired by the seeds that both have."""
    seeds = [seed for seed in a.index if seed in b.index]
    if not seeds:
        raise InputError("Two settings without a common seed cannot be paired: run more seeds")
    if len(pd.concat([a, b])[SAME_QUERIES].drop_duplicates()) > 1:
        raise InputError(
            "Runs on different data, splits or parts have different queries, which cannot be "
            "paired: compare the settings of each split and part with a baseline of the same"
        )
    column, balanced = query_column(score)
    tables = [
        [read_queries(out, run, column) for _, run in x.loc[seeds].iterrows()] for x in (a, b)
    ]
    own, rival = (np.stack([table[column] for table in side]) for side in tables)
    queries = tables[0][0]
    if classes is not None:
        chosen = queries["label"].isin(classes).to_numpy()
        own, rival, queries = own[:, chosen], rival[:, chosen], queries[chosen]
    labels = queries["label"] if balanced else None
    return compare_runs(own, rival, queries["lesion_id"], labels, patterns)


def query_column(score: str) -> tuple[str, bool]:
    """Return the column of which a score is the mean, and whether it is a mean of class means."""
    name = score.removeprefix("class_mean_")
    column = "_".join("ap" if part == "map" else part for part in name.split("_"))
    return column, name != score or score.startswith("paper_")


def read_queries(out: Path, run: pd.Series, column: str) -> pd.DataFrame:
    """Read one score of every query of a run: image, lesion_id, label and the column."""
    scoring = Scoring(*(run[field] for field in Scoring._fields))
    path = out / run["run"] / f"queries-{scoring.name}.csv.gz"
    if not path.is_file():
        raise InputError(f"There is no {path}: give the folder that the results come from")
    table = _read_queries(path, path.stat().st_mtime_ns)
    if column not in table:
        raise InputError(f"{column!r} is not a score of single queries: it cannot be paired")
    return table[[*QUERY, column]]


@lru_cache(maxsize=64)  # the runs of a baseline are read for every comparison with it
def _read_queries(path: Path, _changed: int) -> pd.DataFrame:
    try:
        table = read_csv(path, dtype=dict.fromkeys(QUERY, str))
        if lost := set(QUERY) - set(table):
            raise ValueError(f"it has no {min(lost)}")
        return table.astype(dict.fromkeys(set(table) - set(QUERY), float))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is not a table of queries ({one_line(error)}): "
            f"delete {path.parent} and run the experiment again"
        ) from error
