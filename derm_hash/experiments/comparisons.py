"""Comparisons of settings: differences, intervals, tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from derm_hash.errors import InputError, one_line
from derm_hash.experiments.results import Scoring, mean_and_spread, read_csv, run_name, table_value
from derm_hash.metrics.intervals import PairedTest, paired_test
from derm_hash.metrics.scores import SCORES


def compare(
    results: pd.DataFrame, by: Sequence[str], score: str, baseline: Mapping, out: str | Path
) -> pd.DataFrame:
    """Compare settings with a baseline: how large is a difference, and could it be chance?

    Runs are paired by seed, and a query's difference is the mean over the seeds that both
    settings have; :func:`derm_hash.paired_test` then resamples whole lesions. So the interval and
    the p-value are about other queries for these trained models, not about other seeds.

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

    Returns
    -------
    DataFrame
        One row for each setting that is not a baseline: by, mean, baseline (its mean), difference,
        low, high (95 %), p_value, seeds (that both have), seed_std (standard deviation of the
        difference over seeds; empty for a single one).

    Raises
    ------
    InputError
        If there is no such score, column or baseline, a setting has several runs of one seed,
        or a setting and its baseline have no seed in common or were scored on other queries.
    """
    baseline = {key: table_value(value) for key, value in baseline.items()}
    for name in (*by, *baseline, score):
        if name not in results:
            raise InputError(f"The results have no column {name!r}: see results.csv")
    if wrong := set(baseline) - set(by):
        raise InputError(f"The baseline's {min(wrong)!r} must be among the columns to compare by")
    settings = runs_by_setting(results, by)
    rows = []
    for values, runs in settings.items():
        own = dict(zip(by, values, strict=True))
        rival = tuple((own | baseline).values())
        if rival == values:
            continue
        if rival not in settings:
            raise InputError(f"There is no run of the baseline {run_name(own | baseline)}")
        test, by_seed = paired_runs(runs, settings[rival], score, Path(out))
        means = {"mean": runs[score].mean(), "baseline": settings[rival][score].mean()}
        seeds = {"seeds": len(by_seed), "seed_std": by_seed.std()}
        rows.append(own | means | test._asdict() | seeds)
    return pd.DataFrame(rows)


def differences(
    results: pd.DataFrame, by: Sequence[str], baseline: Mapping, out: str | Path
) -> pd.DataFrame:
    """:func:`compare` for each of ``SCORES``, one below the other, with a first column score."""
    tables = {score: compare(results, by, score, baseline, out) for score in SCORES}
    return pd.concat(tables, names=["score", "row"]).reset_index("score").reset_index(drop=True)


def score_table(results: pd.DataFrame, by: Sequence[str], out: str | Path) -> pd.DataFrame:
    """Return a table to print: mean ± standard deviation over seeds, with "*" for a clear best.

    The parameters are those of :func:`compare`; :func:`best_settings` says what is clear.
    """
    table = mean_and_spread(results, by)
    for score in SCORES:
        best = best_settings(results, by, score, out)
        settings = [values if isinstance(values, tuple) else (values,) for values in table.index]
        table[score] += [" *" if setting in best else "  " for setting in settings]
    return table


def best_settings(results: pd.DataFrame, by: Sequence[str], score: str, out: str | Path) -> set:
    """Return the values of ``by`` that beat all others on their data, each with p < 0.05.

    There is at most one for each data set, split and part. All paired tests must agree, so no
    correction for their number is needed.
    """
    sign = -1 if lower_is_better(score) else 1
    winners = set()
    for _, part in results.groupby(["data", "scored_on"], sort=False):
        settings = runs_by_setting(part, by)
        best = max(settings, key=lambda values: sign * settings[values][score].mean())
        rivals = [runs for values, runs in settings.items() if values != best]
        if rivals and all(beats(settings[best], rival, score, Path(out), sign) for rival in rivals):
            winners.add(best)
    return winners


def beats(a: pd.DataFrame, b: pd.DataFrame, score: str, out: Path, sign: int) -> bool:
    """Return whether runs ``a`` are better than ``b`` on the seeds of both, with p < 0.05."""
    if not set(a.index) & set(b.index):
        return False
    test, _ = paired_runs(a, b, score, out)
    return sign * test.difference > 0 and test.p_value < 0.05


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


def paired_runs(
    a: pd.DataFrame, b: pd.DataFrame, score: str, out: Path
) -> tuple[PairedTest, pd.Series]:
    """Test two settings on the same queries; return also the difference for each seed."""
    seeds = [seed for seed in a.index if seed in b.index]
    if not seeds:
        raise InputError("Two settings without a common seed cannot be paired: run more seeds")
    if len(pd.concat([a, b])[["data", "scored_on"]].drop_duplicates()) > 1:
        raise InputError(
            "Runs on different data, splits or parts have different queries, which cannot be "
            "paired: compare the settings of each split and part with a baseline of the same"
        )
    column, balanced = query_column(score)
    tables = [
        [read_queries(out, run, column) for _, run in x.loc[seeds].iterrows()] for x in (a, b)
    ]
    scores = [sum(table[column] for table in side) / len(side) for side in tables]
    queries = tables[0][0]
    labels = queries["label"].to_numpy() if balanced else None
    test = paired_test(*map(pd.Series.to_numpy, scores), queries["lesion_id"], labels)
    return test, a.loc[seeds, score] - b.loc[seeds, score]


def query_column(score: str) -> tuple[str, bool]:
    """Return the column of which a score is the mean, and whether it is a mean of class means."""
    name = score.removeprefix("class_mean_")
    column = "_".join("ap" if part == "map" else part for part in name.split("_"))
    return column, name != score or score.startswith("paper_")


def read_queries(out: Path, run: pd.Series, column: str) -> pd.DataFrame:
    """Read one score of every query of a run: image, lesion_id, label and the column."""
    path = out / run["run"] / f"queries-{Scoring(run['readout'], run['scored_on']).name}.csv"
    if not path.is_file():
        raise InputError(f"There is no {path}: give the folder that the results come from")
    texts = dict.fromkeys(("image", "lesion_id", "label"), str)
    try:
        table = read_csv(path, dtype=texts | {column: float})
        if lost := set(texts) - set(table):
            raise ValueError(f"it has no {min(lost)}")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a table of queries ({one_line(error)}): "
            f"delete {path.parent} and run the experiment again"
        ) from error
    if column not in table:
        raise InputError(f"{column!r} is not a score of single queries: it cannot be paired")
    return table[[*texts, column]]
