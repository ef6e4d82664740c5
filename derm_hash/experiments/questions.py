"""Summarises the tables that ``python -m benchmarks.questions`` writes."""

import pandas as pd
from scipy.stats import t as student

from derm_hash.metrics.intervals import LEVEL


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the seeds of each method, for every question and score.

    Parameters
    ----------
    table : DataFrame
        ``questions.csv`` or ``subgroups.csv``.

    Returns
    -------
    DataFrame
        Indexed by question (or kind and group), score and method, with the columns mean; seed_low
        and seed_high, its 95 % t-interval over the seeds (empty for one seed); low and high, the
        interval over lesions of one trained system (mean of the seeds' ends); chance, n, seeds.
    """
    what = [name for name in ("question", "kind", "group", "score", "method") if name in table]

    def row(runs: pd.DataFrame) -> pd.Series:
        mean, seeds = runs["value"].mean(), len(runs)
        half = student.ppf((1 + LEVEL) / 2, seeds - 1) * runs["value"].sem()
        ends = {"seed_low": mean - half, "seed_high": mean + half}
        others = runs[["low", "high", "chance", "n"]].mean()
        return pd.Series({"mean": mean, **ends, **others, "seeds": seeds})

    found = table.groupby(what, sort=False, dropna=False).apply(row, include_groups=False)
    return found.astype({"n": int, "seeds": int})
