"""Keep what the tables need of a folder of experiments: ``python -m benchmarks.store RUNS NAME``.

Writes ``results.csv`` with the columns that the README and notebook 08 read, and of the runs that
they compare the scores of every query, to ``benchmarks/results/NAME``.
"""

import argparse
import re
import shutil
from pathlib import Path

import pandas as pd

from benchmarks import RESULTS
from derm_hash.experiments.comparisons import QUERY
from derm_hash.experiments.headline import BINARY, SYSTEMS, runs_of
from derm_hash.experiments.results import (
    Scoring,
    read_csv,
    read_results,
    setting_kinds,
    write_queries,
)

SCORES = re.compile(
    "(chance_)?(class_mean_)?(tie_aware_)?(map|(precision|recall)_at_10|correct)|(tie_aware_)?ap_[^_]*|"
    "flipped_bits|(tied|overlap)_at_10|distinct_codes|code_entropy|(database_)?accuracy|(lesions|queries)_.*|"
    "balanced_accuracy|macro_.*|calibration_error|(sensitivity|specificity|f1|auc|recall_at_10)_[^_]*"
)
CONDITIONS = ["run", "data", "device", "derm_hash", "torch", "python", "commit", "seconds"]
OF_QUERIES = [
    *QUERY,
    "ap",
    "tie_aware_ap",
    "precision_at_10",
    "recall_at_10",
    "correct",
    "flipped_bits",
    "overlap_at_10",
]


def compared(results: pd.DataFrame) -> pd.DataFrame:
    """The runs whose queries are kept: those of the README's table, or all of other experiments."""
    kept = results[(results["scored_on"] == "query") & (results["database"] != "trained")]
    if kept["system"].nunique() == 1:
        return kept
    return pd.concat([runs_of(kept, settings) for settings in SYSTEMS.values()])


def store(runs: Path, out: Path) -> None:
    """Replace what was stored by what is in a folder of experiments."""
    results = read_results(runs)
    wanted = {*CONDITIONS, *setting_kinds()}
    results = results[[name for name in results if name in wanted or SCORES.fullmatch(name)]]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    results.to_csv(out / "results.csv", index=False, float_format="%.6g", lineterminator="\n")
    for _, run in compared(results).iterrows():
        name = Scoring(*(run[field] for field in Scoring._fields)).name
        queries = read_csv(runs / run["run"] / f"queries-{name}.csv.gz")
        unused = "ap" if run["system"] in BINARY else "tie_aware_ap"
        (out / run["run"]).mkdir(exist_ok=True)
        columns = [column for column in OF_QUERIES if column != unused and column in queries]
        write_queries(out / run["run"] / f"queries-{name}.csv.gz", queries[columns])


def main() -> None:
    """Store a folder of experiments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0].replace("``", "`"))
    parser.add_argument("runs", type=Path, help="the folder that derm-hash reproduce has filled")
    parser.add_argument("name", help="of the folder in benchmarks/results")
    choices = parser.parse_args()
    store(choices.runs, RESULTS / choices.name)


if __name__ == "__main__":
    main()
