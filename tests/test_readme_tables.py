"""The README's tables are those of the stored results."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import tables
from derm_hash.experiments.comparisons import read_queries
from derm_hash.experiments.headline import headline, named_layers
from derm_hash.experiments.results import read_results, write_queries


@pytest.fixture(scope="module")
def results():
    return read_results(tables.FROZEN)


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_readme_has_the_table_of_the_stored_results(name):
    assert tables.TABLES[name]() in tables.README.read_text("utf-8")


def test_a_stored_score_is_the_class_mean_of_its_stored_queries(results):
    for _, run in named_layers(results).groupby("name").head(1).iterrows():
        queries = read_queries(tables.FROZEN, run, "ap")
        mean = queries.groupby("label")["ap"].mean().mean()
        assert mean == pytest.approx(run["class_mean_map"], abs=1e-5)


def test_a_row_is_the_mean_over_the_seeds_of_its_runs(tmp_path):
    rows = [
        {"system": "LSH", "database": side, "seed": seed, "class_mean_tie_aware_map": value}
        | {"run": f"run {seed}", "scored_on": "query"}
        for side, values in {"trained": (0.2, 0.4), "unseen": (0.1, 0.1)}.items()
        for seed, value in enumerate(values)
    ]
    rest = {"class_mean_map": np.nan, "flipped_bits": 0.25, "overlap_at_10": 0.5}
    columns = ("invariance", "classify", "random_rotations", "orbit_sample", "objective")
    rest |= {"bits": 16, "readout": "plain"} | dict.fromkeys(columns, "")
    frame = pd.DataFrame(rows).assign(**rest)
    queries = pd.DataFrame({"image": list("abcd"), "lesion_id": list("abcd"), "label": "MEL"})
    for seed, values in enumerate([(0.0, 0.1, 0.1, 0.1), (0.2, 0.1, 0.1, 0.1)]):
        (tmp_path / f"run {seed}").mkdir()
        path = tmp_path / f"run {seed}" / "queries-plain-unseen.csv.gz"
        write_queries(path, queries.assign(tie_aware_ap=values))
    asked = {
        "method": "LSH",
        "seed": (0, 1),
        "score": "ndcg_at_10",
        "value": (0.5, 0.6),
        "chance": 0.4,
    }
    frame = frame.assign(chance_class_mean_map=0.25)
    table = headline(frame, tmp_path, pd.DataFrame(asked))
    assert list(table.loc["LSH"]) == [
        *(
            "0.300 ± 0.141",
            "0.100 ± 0.000",
            "0.100 to 0.100",  # every lesion's mean over the seeds is the same
            "0.550 ± 0.071",
            "25.0 ± 0.0 %",
            "0.50 ± 0.00",
            "16",
            "1",
            "2",
        )
    ]
